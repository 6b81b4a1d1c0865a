"""Does the Q-learner find a planted edge, and does its drift detector keep still where nothing drifts?

The agent itself is stepped, without a market: a hidden truth says what each strategy earns in each regime, rewards
carry Student-t noise (5 degrees of freedom, scaled to one standard deviation = 1 R), and regimes last 40 outcomes in
the mean. One regime's best strategy earns d, neutral earns 0. Gain is the share of the way from the uniform policy to
the oracle, on the true means.

    python -m benchmarks.q_edge_simulation --seeds 200 --jobs 2
    python -m benchmarks.q_edge_simulation --seeds 1000 --world d=.5                        false alarms
    python -m benchmarks.q_edge_simulation --seeds 200 --world "d=.5, swapped at 3000" --outcomes 6000
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from agents.algorithms.counter import choose
from agents.contract import Output
from agents.q_learning import QLearningAgent, QLearningConfig
from agents.q_learning.table import KEYS
from schemas.events import REGIME_SYMBOLS, STRATEGY_SYMBOLS, Experience, PolicyRecord, Tabular

BEST = (0, 0, 1, 2)
"""Best strategy of bull, bear, sideways and volatile: trend following twice, mean reversion, breakout."""
BEST_AFTER = (1, 1, 1, 2)
MEAN_DWELL = 40
DEGREES_OF_FREEDOM = 5
NEUTRAL = STRATEGY_SYMBOLS.index("neutral")
CURVE = 500  # outcomes between two points of a gain curve


@dataclass(frozen=True, kw_only=True)
class World:
    """A hidden truth.

    Attributes:
        edge: d, what a regime's best strategy earns, in standard deviations of a reward.
        other: what the two wrong strategies earn, as a multiple of d.
        drift_at: outcome from which mean reversion wins bull and bear, trend following no longer; None: never.
        swap_at: outcome from which every regime's best and worst strategy have changed places; None: never. Of equally
            bad ones the first counts as the worst.
        neutral_noise: whether neutral earns noise around 0 instead of exactly 0.
    """

    edge: float
    other: float = -0.5
    drift_at: int | None = None
    swap_at: int | None = None
    neutral_noise: bool = False

    def means(self, t: int) -> np.ndarray:
        """Mean reward at outcome t, [regime, strategy], R."""
        table = np.full((len(REGIME_SYMBOLS), len(STRATEGY_SYMBOLS)), self.other * self.edge)
        table[:, NEUTRAL] = 0.0
        for regime, best in enumerate(BEST_AFTER if self.drift_at is not None and t >= self.drift_at else BEST):
            table[regime, best] = self.edge
            if self.swap_at is not None and t >= self.swap_at:
                worst = int(np.argmin(table[regime]))
                table[regime, [best, worst]] = table[regime, [worst, best]]
        return table


@dataclass(frozen=True, kw_only=True)
class Result:
    """One run.

    Attributes:
        gain: of the greedy policy at the end.
        curve: gain after each `CURVE` outcomes.
        alarms: outcomes at which drift was reported.
        mean_reward: R.
        first_claim: outcome after which an edge was claimed first; None: never.
    """

    gain: float
    curve: tuple[float, ...]
    alarms: tuple[int, ...]
    mean_reward: float
    first_claim: int | None


def gain(table: Tabular, means: np.ndarray) -> float:
    """(V(greedy) - V(uniform)) / (V(oracle) - V(uniform)) on the true means, cells weighing the same."""
    rows = np.repeat(means, len(KEYS) // len(REGIME_SYMBOLS), axis=0)
    greedy = np.array([STRATEGY_SYMBOLS.index(c.greedy) for c in table.cells])  # type: ignore[arg-type]
    value, uniform, oracle = rows[np.arange(len(KEYS)), greedy].mean(), rows.mean(), rows.max(axis=1).mean()
    return float((value - uniform) / (oracle - uniform))


def simulate(seed: int, world: World, config: QLearningConfig | None = None, outcomes: int = 3000) -> Result:
    """Run the agent on one seed."""
    rng = np.random.default_rng(seed)
    agent = QLearningAgent(config)
    state, policy, t, regime = agent.new("SIM"), None, 0, int(rng.integers(4))
    alarms, total, curve, first_claim = [], 0.0, [], None
    for n in range(outcomes + agent.config.warmup_decisions):
        if rng.random() < 1 / MEAN_DWELL:
            regime = int((regime + rng.integers(1, 4)) % 4)
        volatility = float(0.01 * np.exp(0.4 * rng.normal()))
        action, key, noise = NEUTRAL, None, float(rng.standard_t(DEGREES_OF_FREEDOM)) * 0.6**0.5
        if policy is not None:
            assert policy.tabular is not None
            key = f"{REGIME_SYMBOLS[regime]}|vol:{sum(e <= volatility for e in policy.tabular.volatility_edges)}"
            action = choose(policy.tabular.cells[KEYS.index(key)].probabilities, float(rng.random()))
        reward = float(world.means(t)[regime, action])
        reward += noise if policy is not None and (action != NEUTRAL or world.neutral_noise) else 0.0
        state, outputs = agent.step(state, _experience(n, action, key, regime, volatility, reward, policy))
        if policy is not None:
            t, total = t + 1, total + reward
        policy = _policy(outputs) or policy
        if policy is not None and policy.edge_claim and first_claim is None:
            first_claim = t
        if t and t % CURVE == 0 and world.edge:
            assert policy is not None
            assert policy.tabular is not None
            curve.append(gain(policy.tabular, world.means(t - 1)))
        alarms += [t for o in outputs if o.topic == "learning.drift.detected"]
    assert policy is not None
    assert policy.tabular is not None
    return Result(gain=gain(policy.tabular, world.means(t - 1)) if world.edge else 0.0, curve=tuple(curve),
                  alarms=tuple(alarms), mean_reward=total / outcomes, first_claim=first_claim)


def _policy(outputs: tuple[Output, ...]) -> PolicyRecord | None:
    return next((o.event for o in outputs if isinstance(o.event, PolicyRecord)), None)


def _experience(n: int, action: int, key: str | None, regime: int, volatility: float, reward: float,
                policy: PolicyRecord | None) -> Experience:
    return Experience(
        decision_id=f"SIM/q_learning/{n}", symbol="SIM", book_id="q_learning", ts_ms=n + 1, decided_ms=n,
        status="NEUTRAL" if action == NEUTRAL else "TRADED", learnable=policy is not None, forced=policy is None,
        action=STRATEGY_SYMBOLS[action], propensity=1.0, policy_version=None if policy is None else policy.version,
        state_key=key, regime=REGIME_SYMBOLS[regime], volatility=volatility, reward_r=reward, pnl_usd=0.0,
        size_multiplier=1.0, source="synthetic:simulation", origin="SYNTHETIC",
    )


def summary(results: list[Result]) -> dict[str, Any]:
    """Figures over seeds."""
    gains = np.array([r.gain for r in results])
    return {
        "seeds": len(results), "gain_at_least_.8": int((gains >= 0.8).sum()), "gain_mean": float(gains.mean()),
        "gain_1_percent": float(np.quantile(gains, 0.01)), "runs_with_alarm": sum(bool(r.alarms) for r in results),
        "alarms": sum(len(r.alarms) for r in results), "mean_reward": float(np.mean([r.mean_reward for r in results])),
        "claims": sum(r.first_claim is not None for r in results),
        "gain_curve_mean": {(i + 1) * CURVE: round(float(np.mean([r.curve[i] for r in results])), 3)
                            for i in range(min(len(r.curve) for r in results))},
    }


PREDECESSOR = QLearningConfig(alpha=0.01, gamma=0.99, exploration="epsilon")
WORLDS: dict[str, tuple[World, QLearningConfig | None]] = {
    "d=.5": (World(edge=0.5), None),
    "d=.1": (World(edge=0.1), None),
    "d=.2": (World(edge=0.2), None),
    "d=.3": (World(edge=0.3), None),
    "d=1": (World(edge=1.0), None),
    "d=.5, swapped at 3000": (World(edge=0.5, swap_at=3000), None),
    "d=.5, wrong strategies earn 0, neutral noisy": (World(edge=0.5, other=0.0, neutral_noise=True), None),
    "d=.5, drift at 1500": (World(edge=0.5, drift_at=1500), None),
    "d=.5, alpha .01, gamma .99, epsilon": (World(edge=0.5), PREDECESSOR),
}


def main() -> None:
    """Print the figures of every world, one JSON object a line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--outcomes", type=int, default=3000)
    parser.add_argument("--world", choices=WORLDS, action="append")
    args = parser.parse_args()
    with ProcessPoolExecutor(args.jobs) as pool:
        for name in args.world or WORLDS:
            world, config = WORLDS[name]
            run = partial(simulate, world=world, config=config, outcomes=args.outcomes)
            results = list(pool.map(run, range(args.seeds)))
            print(json.dumps({"world": name, **asdict(world), **summary(results)}), flush=True)


if __name__ == "__main__":
    main()

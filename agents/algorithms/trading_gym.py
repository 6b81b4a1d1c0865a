"""The trading environment for gymnasium: one account on a tape, bar by bar, by the rules of `trading`.

    env = TradingEnv(tape, Rules())
    observation, info = env.reset(seed=1)
    observation, reward, terminated, truncated, info = env.step(Action.LONG)

`info` holds the valid actions and, after a step, the parts of the reward and what was paid. gymnasium is needed by
nobody else: training steps `trading_many`, which does the same for many accounts.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from agents.algorithms.trading import ACTIONS, Action, Bar, Rules, opened, step, valid
from agents.algorithms.trading_many import start_of
from agents.algorithms.trading_view import FEATURES, LIMIT, Tape, dropped, observation, seen

Observation = NDArray[np.float64]
ONLY_HOLD = np.array([a == Action.HOLD for a in Action])


class TradingEnv(gymnasium.Env[Observation, np.int64]):
    """One account on a tape.

    Args:
        tape: what is traded.
        rules: of the account.
        episode_bars: bars of an episode; the tape may be shorter.
        mask: columns that count as 0; None: those of `trading_view.dropped`.

    An episode begins on a row that seed and number of the episode name, or on `options={"start": row}`. It ends
    (terminated) where the account is ruined, or (truncated) after its last bar; what is open is closed.
    """

    metadata = {"render_modes": []}  # noqa: RUF012  gymnasium's own form

    def __init__(self, tape: Tape, rules: Rules | None = None, episode_bars: int = 1000,
                 mask: tuple[str, ...] | None = None) -> None:
        self.tape, self.rules = tape, Rules() if rules is None else rules
        self.mask = dropped(tape) if mask is None else mask
        self.observation_space = gymnasium.spaces.Box(-LIMIT, LIMIT, (FEATURES,), np.float64)
        self.action_space = gymnasium.spaces.Discrete(len(ACTIONS))
        self._bars = min(episode_bars, len(tape) - 1)
        self._columns, self._known = seen(tape.columns, self.mask)
        self._distances, self._follows = tape.distances(self.rules.stop_atr), tape.follows
        self._funding = tape.funding_points(self.rules.funding_interval_ms)
        self._seed: int | None = None
        self._episode, self._at, self._end = -1, 0, self._bars
        self.account = opened(self.rules)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None
              ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode."""
        super().reset(seed=seed)
        if seed is not None or self._seed is None:
            self._seed = int(self.np_random.integers(2**31)) if seed is None else seed
            self._episode = -1
        self._episode += 1
        drawn = start_of(self.tape, self._bars, self._seed, self._episode)
        self._at = int((options or {}).get("start", drawn))
        self._end = min(self._at + self._bars, len(self.tape) - 1)
        self.account = opened(self.rules)
        return self._observed(), {"action_mask": self._valid(), "row": self._at}

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Execute an action at the open of the next bar and live through it."""
        at = self._at + 1
        open_, high, low, close = self.tape.rows[at, 1:5].tolist()
        bar = Bar(open_, high, low, close, float(self._distances[self._at]), int(self._funding[at]),
                  bool(self._follows[at]))
        self.account, happened = step(self.rules, self.account, int(action), bar, at == self._end)
        self._at = at
        info = {"action_mask": self._valid(), "row": at, **happened._asdict()}
        return self._observed(), happened.reward, happened.ruined, at == self._end and not happened.ruined, info

    def _valid(self) -> NDArray[np.bool_]:
        return np.array(valid(self.account.side, self.account.cooldown)) if self._known[self._at] else ONLY_HOLD

    def _observed(self) -> Observation:
        a, row = self.account, self.tape.rows[self._at]
        return observation(self._columns[self._at], np.nan_to_num(row[6]), row[4], a.side, a.quantity, a.entry_price,
                           a.balance, a.equity, self.rules.max_leverage)

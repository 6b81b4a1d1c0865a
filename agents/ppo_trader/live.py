"""The live adapter: what the newest policy does at a close, and the account on paper that it does it for.

An action that was decided at one close is executed in the next bar, by the rules that the policy was trained under;
only risk, leverage and stop may be tighter, by the risk policy.
"""

from __future__ import annotations

from functools import lru_cache
from math import log
from typing import NamedTuple

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from agents.algorithms.fills import grid_points
from agents.algorithms.learner import Learner, from_bytes
from agents.algorithms.ppo import evaluate
from agents.algorithms.ppo_settings import PpoSettings
from agents.algorithms.trading import ACTIONS, Account, Action, Bar, Rules, opened, step, valid
from agents.algorithms.trading_view import PRICES, observation, seen
from agents.contract import Output
from agents.ppo_trader.config import HOUR_MS, PpoTraderConfig
from agents.ppo_trader.state import Limits, TraderState
from schemas.events import Features, Origin, TraderAction, TraderDecision

TOPIC = "rl_v3.decision"
RISK_POLICY = "risk_controller/global"
NAMES: tuple[TraderAction, ...] = ("HOLD", "LONG", "SHORT", "REDUCE", "CLOSE", "EMERGENCY_FLATTEN")
assert NAMES == ACTIONS
OPENING = (Action.LONG, Action.SHORT)


class Asked(NamedTuple):
    """What the policy said; of each action in the order of `Action`."""

    observation: tuple[float, ...]
    probabilities: tuple[float, ...]
    log_probabilities: tuple[float, ...]
    value: float
    entropy: float
    confidence: float
    recommended: int


@lru_cache(maxsize=64)  # a function of its arguments; a decision asks for it every bar
def _learner(data: bytes, settings: PpoSettings) -> Learner:
    return from_bytes(data, settings)


def asked(learner: bytes, settings: PpoSettings, seen_F: NDArray[np.float64], mask: tuple[bool, ...]) -> Asked:
    """Ask a policy what to do where these actions are valid.

    Raises:
        ValueError: the bytes are no such learner.
    """
    masks_1A = np.array([mask])
    policy = evaluate(settings, _learner(learner, settings).parameters, seen_F[None], masks_1A)
    log_p = [float(x) if ok else 0.0 for x, ok in zip(policy.log_probabilities[0].tolist(), mask, strict=True)]
    p = [float(np.exp(x)) if ok else 0.0 for x, ok in zip(log_p, mask, strict=True)]
    entropy = max(0.0, -sum(q * x for q, x in zip(p, log_p, strict=True)))
    open_to = sum(mask)
    confidence = 1.0 if open_to == 1 else min(1.0, max(0.0, 1.0 - entropy / log(open_to)))
    best = int(np.argmax(policy.log_probabilities[0]))
    return Asked(tuple(seen_F.tolist()), tuple(p), tuple(log_p), float(policy.values[0]), entropy, confidence, best)


class Bound(NamedTuple):
    """What binds at a bar: rules, minimum of confidence, whether nothing may be opened, and by which risk policy."""

    rules: Rules
    min_confidence: float
    closed: bool = False
    policy: str | None = None


def bound(config: PpoTraderConfig, held: tuple[Limits, ...], ts_ms: int, origin: Origin) -> Bound:
    """The tighter of the configuration and the risk policy in force at a time, which may not bind synthetic symbols."""
    rules = config.account_rules()
    limits = next((x for x in reversed(held) if x.valid_from_ms <= ts_ms), None)
    if limits is None or (origin == "SYNTHETIC" and not limits.policy.synthetic):
        return Bound(rules, config.min_confidence)
    over = limits.valid_until_ms is not None and ts_ms > limits.valid_until_ms
    now, shut_ms = limits.policy.otherwise if over else limits.policy.now, limits.policy.closed_until_ms
    tighter = replace(
        rules, risk_pct=min(rules.risk_pct, now.risk_per_trade), stop_atr=min(rules.stop_atr, now.stop_atr),
        max_leverage=min(rules.max_leverage, now.max_leverage),
    )
    least = max(config.min_confidence, now.min_confidence)
    return Bound(tighter, least, shut_ms is not None and ts_ms < shut_ms, f"{RISK_POLICY}@{limits.version}")


def lived(
    account: Account | None, order: int, rules: Rules, row: NDArray[np.float64], before: NDArray[np.float64] | None,
    interval_ms: int,
) -> tuple[Account, bool, bool]:
    """The account after a bar, whether the order opened a position, and whether it was ruined and begins anew.

    Args:
        row: of the bar.
        before: of the bar that the order was decided on; None: there was none.
    """
    if account is None or before is None:
        return (opened(rules) if account is None else account), False, False
    opened_ms = int(row[0])
    points = grid_points(opened_ms + 1, opened_ms + interval_ms + 1, rules.funding_interval_ms)
    distance = float(np.nan_to_num(rules.stop_atr * before[5] * before[4]))
    open_, high, low, close = row[1:5].tolist()
    bar = Bar(open_, high, low, close, distance, points, opened_ms == int(before[0]) + interval_ms)
    after, happened = step(rules, account, order, bar)
    entered = order in OPENING and happened.turnover > 0
    return (opened(rules) if happened.ruined else after), entered, happened.ruined


def decided(state: TraderState, config: PpoTraderConfig, bar: Features, row: NDArray[np.float64], ruined: bool
            ) -> tuple[int, Output]:
    """What is done at the close of a bar: the order for the next one, and its record."""
    account = state.account
    assert account is not None
    assert state.origin is not None
    limits = bound(config, state.limits, bar.ts_ms, state.origin)
    rules, least = limits.rules, limits.min_confidence
    columns, known = seen(row[len(PRICES):], state.mask)
    allowed = valid(account.side, account.cooldown)
    reason = _no_policy(state, bar.ts_ms, bool(known))
    found = None
    if reason is None:
        seen_F = observation(columns, np.nan_to_num(row[6]), row[4], account.side, account.quantity,
                             account.entry_price, account.balance, account.equity, config.rules.max_leverage)
        found = asked(state.learner, config.settings(), seen_F, allowed)
    action, reason = _action(state, config, bar.ts_ms, limits, found, reason, ruined)
    binding = config.mode == "PRIMARY" or (
        config.mode == "HYBRID" and found is not None and reason is None and found.confidence >= least)
    return action, Output(TOPIC, TraderDecision(
        decision_id=f"{bar.symbol}/ppo_trader/{bar.ts_ms}", symbol=bar.symbol, ts_ms=bar.ts_ms,
        interval_ms=bar.interval_ms, mode=config.mode, binding=binding, action=NAMES[action],
        recommended=None if found is None else NAMES[found.recommended], forced=reason is not None,
        forced_reason=reason, probabilities=() if found is None else found.probabilities,
        valid=tuple(name for name, ok in zip(NAMES, allowed, strict=True) if ok),
        log_probability=None if found is None else min(0.0, found.log_probabilities[found.recommended]),
        value=None if found is None else found.value, entropy=None if found is None else found.entropy,
        confidence=None if found is None else found.confidence, min_confidence=least,
        policy_id=f"ppo_trader/{bar.symbol}" if state.version else None, policy_version=state.version or None,
        observation=() if found is None else found.observation, close=bar.close, side=account.side,
        quantity=account.quantity, equity=account.equity, risk_pct=rules.risk_pct, max_leverage=rules.max_leverage,
        stop_distance=float(np.nan_to_num(rules.stop_atr * row[5] * row[4])),
        limits_policy=limits.policy, source=bar.source, origin=bar.origin,
    ))


def _no_policy(state: TraderState, ts_ms: int, known: bool) -> str | None:
    """Why the policy may not be asked; None where it may."""
    if not state.learner:
        return "no_policy"
    if state.status == "RETIRED":
        return "policy_retired"
    if state.status == "ACTIVE" and ts_ms > state.trained_ms + state.valid_for_ms:
        return "policy_expired"
    return None if known else "missing_feature"


def _action(state: TraderState, config: PpoTraderConfig, ts_ms: int, limits: Bound, found: Asked | None,
            reason: str | None, ruined: bool) -> tuple[int, str | None]:
    """The action, and why it is not what the policy recommends; None where it is.

    A halt, and the end of a policy, close what is open; all else that forbids opening holds.
    """
    account = state.account
    assert account is not None
    if state.halted or reason in ("policy_retired", "policy_expired"):
        return int(Action.CLOSE if account.side else Action.HOLD), "halt" if state.halted else reason
    if ruined:
        return int(Action.HOLD), "ruined"
    if reason is not None or found is None:
        return int(Action.HOLD), reason
    action = found.recommended
    if action in OPENING:
        recent = sum(t > ts_ms - HOUR_MS for t in state.trades_ms)
        why = "low_confidence" if found.confidence < limits.min_confidence else "risk_closed" if limits.closed else \
            "rate_limit" if recent >= config.max_trades_per_hour else None
        if why is not None:
            return int(Action.HOLD), why
    return action, None

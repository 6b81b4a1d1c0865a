"""The live adapter: what the simulator showed is what live sees; when it may open; what people and limits forbid."""

from __future__ import annotations

from functools import cache
from math import log

import numpy as np
import pytest
from msgspec.structs import replace

from agents.algorithms.trading import ACTIONS, Action
from agents.algorithms.trading_fit import packed, unpacked
from agents.algorithms.trading_gym import TradingEnv
from agents.algorithms.trading_view import FEATURES, INPUTS, Tape, row
from agents.contract import Refused
from agents.ppo_trader import PpoTraderAgent, PpoTraderConfig
from agents.ppo_trader.live import RISK_POLICY, asked
from schemas.codec import Codec
from schemas.events import Features, PolicyRecord, RiskLimits, RiskPolicy, TraderDecision
from tests.agents.traders import DAY_MS, QUARTER_MS, SMALL, Traded, bars, command, config_event, in_order, trade

BOLD = replace(SMALL, mode="PRIMARY", min_confidence=0.0, max_trades_per_hour=1000, training_interval_minutes=120)
HOUR_MS = 3_600_000
CODEC = Codec()


@cache
def bold(n: int = 150) -> Traded:
    return trade(BOLD, bars(n=n))


def decisions(t: Traded) -> list[TraderDecision]:
    found: list[TraderDecision] = t.of("rl_v3.decision")
    return found


def tape(some: tuple[Features, ...]) -> Tape:
    rows = [row(f.open_time_ms, f.interval_ms, f.open or 0.0, f.high or 0.0, f.low or 0.0, f.close, f.regime,
                {name: getattr(f, name) for name in INPUTS}) for f in some]
    return Tape(np.array(rows), QUARTER_MS)


def test_live_sees_what_the_simulator_shows_and_its_account_is_the_simulators() -> None:
    """The simulator, given the actions that live took: the same observations, valid actions and money, bar by bar."""
    some, found = bars(n=150), decisions(bold())
    env = TradingEnv(tape(some), BOLD.account_rules(), episode_bars=10_000)
    seen, info = env.reset(seed=0, options={"start": 0})
    compared, traded = 0, set()
    for bar, d in zip(some[:-1], found, strict=False):  # the simulator's end closes what is open
        assert d.ts_ms == bar.ts_ms
        assert d.valid == tuple(a for a, ok in zip(ACTIONS, info["action_mask"], strict=True) if ok)
        assert (d.side, d.quantity, d.equity) == (env.account.side, env.account.quantity, env.account.equity)
        if d.observation:
            np.testing.assert_array_equal(d.observation, seen)
            compared += 1
        traded.add(d.action)
        seen, *_, info = env.step(np.int64(ACTIONS.index(d.action)))
    assert compared > 100
    assert len(traded) > 1


def test_a_record_says_what_the_policy_said() -> None:
    asked_ = [d for d in decisions(bold()) if d.probabilities]
    for d in asked_:
        p = dict(zip(ACTIONS, d.probabilities, strict=True))
        assert sum(p.values()) == pytest.approx(1.0, abs=1e-6)
        assert {a for a, x in p.items() if x} == set(d.valid)
        entropy = -sum(x * log(x) for x in p.values() if x)
        assert d.entropy == pytest.approx(entropy, abs=1e-5)
        most = log(len(d.valid)) if len(d.valid) > 1 else 1.0  # a cooldown leaves HOLD alone: nothing to be unsure of
        assert d.confidence == pytest.approx(1 - entropy / most, abs=1e-5)
        assert d.recommended == max(p, key=lambda a: p[a])
        assert d.log_probability == pytest.approx(log(p[d.recommended or ""]), abs=1e-5)
        assert (d.action, d.forced) == (d.recommended, False)
        assert len(d.observation) == FEATURES
        assert CODEC.decode("rl_v3.decision", CODEC.encode("rl_v3.decision", d)) == d
    first = decisions(bold())[0]
    assert (first.action, first.forced_reason, first.policy_version, first.probabilities) == (
        "HOLD", "no_policy", None, ())


def test_confidence_comes_from_entropy_not_from_the_value() -> None:
    t, settings = bold(), BOLD.settings()
    seen = np.zeros(FEATURES)
    one = asked(t.state.learner, settings, seen, (True, False, False, False, False, False))
    assert (one.confidence, one.entropy, one.recommended) == (1.0, 0.0, Action.HOLD)
    young = trade(BOLD, bars(n=20)).state.learner
    found = asked(young, settings, seen, (True, True, True, False, False, False))
    assert found.confidence < 0.05  # nearly uniform, whatever its critic says
    assert sum(found.probabilities) == pytest.approx(1.0)


def test_without_confidence_nothing_is_opened() -> None:
    t = trade(replace(BOLD, min_confidence=0.9), bars(n=150))
    reasons = [d.forced_reason for d in decisions(t) if d.probabilities]
    assert {d.action for d in decisions(t)} == {"HOLD"}
    assert "low_confidence" in reasons
    assert all((d.forced_reason == "low_confidence") == (d.recommended in ("LONG", "SHORT"))
               for d in decisions(t) if d.probabilities)


def test_at_most_so_many_positions_are_opened_an_hour() -> None:
    minute = bars(n=240, interval_ms=60_000)
    eager = replace(BOLD, training_interval_minutes=30)
    for most in (2, 5):
        t = trade(replace(eager, max_trades_per_hour=most), minute)
        found = decisions(t)
        opened = [d.ts_ms for d in found if d.action in ("LONG", "SHORT")]
        assert max((sum(ms - HOUR_MS < o <= ms for o in opened) for ms in opened), default=0) <= most
        assert any(d.forced_reason == "rate_limit" for d in found)
    free = [d.ts_ms for d in decisions(trade(eager, minute)) if d.action in ("LONG", "SHORT")]
    assert max(sum(ms - HOUR_MS < o <= ms for o in free) for ms in free) > 5


@pytest.mark.parametrize(("mode", "least", "binding"), [
    ("SHADOW", 0.0, {False}), ("PRIMARY", 0.0, {True}), ("PRIMARY", 1.0, {True}), ("HYBRID", 0.0, {True}),
    ("HYBRID", 1.0, {False}),
])
def test_modes(mode: str, least: float, binding: set[bool]) -> None:
    t = trade(replace(BOLD, mode=mode, min_confidence=least), bars(n=40))
    found = [d for d in decisions(t) if d.probabilities]
    assert {d.binding for d in found} == binding
    assert {d.mode for d in found} == {mode}


def test_off_decides_nothing_and_the_mode_can_be_changed_live() -> None:
    some = bars(n=80)
    off, on = config_event('{"mode": "OFF"}', some[30].ts_ms), config_event('{"mode": "SHADOW"}', some[50].ts_ms)
    t = trade(BOLD, in_order([off, on], some))
    times = {d.ts_ms for d in decisions(t)}
    assert times == {b.ts_ms for i, b in enumerate(some) if not 30 <= i < 50}
    assert {d.mode for d in decisions(t) if d.ts_ms >= some[50].ts_ms} == {"SHADOW"}
    assert PpoTraderConfig().mode == "SHADOW"


def test_a_halt_closes_and_opens_nothing_until_it_is_lifted() -> None:
    some = bars(n=150)
    held = next(i for i, d in enumerate(decisions(bold())) if d.side and i > 20)
    halt, resume = command("HALT", some[held].ts_ms - 1), command("RESUME", some[held + 10].ts_ms - 1)
    t = trade(BOLD, in_order([halt, resume], some))
    during = decisions(t)[held : held + 10]
    assert (during[0].action, during[1].side) == ("CLOSE", 0)
    assert {d.action for d in during[1:]} == {"HOLD"}
    assert {d.forced_reason for d in during} == {"halt"}
    assert decisions(t)[held + 10].forced_reason is None
    other = trade(BOLD, in_order([replace(resume, ts_ms=0)], some[:30]))
    assert "halt" not in {d.forced_reason for d in decisions(other)}


def test_a_policy_is_not_applied_for_ever() -> None:
    some = bars(n=60)
    silent = config_event('{"rl_v3.training.enabled": false}', some[20].ts_ms)
    t = trade(replace(BOLD, valid_for_ms=DAY_MS // 8), in_order([silent], some))
    trained_ms = t.state.trained_ms
    for d in decisions(t):
        expired = trained_ms + DAY_MS // 8 < d.ts_ms
        assert (d.forced_reason == "policy_expired") == expired
    assert t.of("policy.ledger")[-1].valid_until_ms == trained_ms + DAY_MS // 8
    assert decisions(t)[-1].side == 0


def test_where_a_feature_is_missing_nothing_is_done() -> None:
    some = list(bars(n=40))
    some[30] = replace(some[30], macd=None)
    found = decisions(trade(BOLD, some))
    assert (found[30].forced_reason, found[30].action, found[30].observation) == ("missing_feature", "HOLD", ())
    assert found[31].forced_reason is None


def test_a_feed_without_volume_is_traded_without_it() -> None:
    t = trade(BOLD, bars(n=40, volume=False))
    assert t.state.mask == ("spread", "volume")
    assert t.of("policy.ledger")[-1].mask == ("spread", "volume")
    assert decisions(t)[-1].forced_reason is None


def test_records_without_prices_are_neither_learned_from_nor_traded() -> None:
    t = trade(BOLD, [replace(b, open=None, high=None, low=None) for b in bars(n=40)])
    assert decisions(t) == []
    assert {how for _, how in t.slots} == {"warm_up"}


def test_while_windows_are_not_full_the_account_lives_on() -> None:
    some = list(bars(n=150))
    held = next(i for i, d in enumerate(decisions(bold())) if d.side and i > 20)
    t = trade(BOLD, [*some[:held], *(replace(b, ready=False) for b in some[held : held + 3])])
    assert len(decisions(t)) == held
    agent = PpoTraderAgent(BOLD)
    assert t.state.account is not None
    assert t.state.account.equity != decisions(t)[-1].equity or t.state.account.side == 0
    assert unpacked(t.state.bar)[0, 0] == some[held + 2].open_time_ms
    assert agent.jobs(t.state) == ()
    assert packed(unpacked(t.state.window)) == t.state.window


def test_a_ruined_account_begins_anew_and_says_so() -> None:
    config = replace(BOLD, rules=replace(BOLD.rules, fee_bps=150.0, risk_pct=0.1, max_leverage=5.0))
    found = decisions(trade(config, bars(n=250)))
    ruined = [i for i, d in enumerate(found) if d.forced_reason == "ruined"]
    assert ruined
    assert all((found[i].equity, found[i].side, found[i].action) == (10_000.0, 0, "HOLD") for i in ruined)


# ---------------------------------------------------------------------- limits of the risk policy
def limits(version: int, ts_ms: int, *, synthetic: bool = True, closed_until_ms: int | None = None,
           **tighter: float) -> PolicyRecord:
    now = RiskLimits(**({"mode": "CONSERVATIVE", "risk_per_trade": 0.005, "min_confidence": 0.0, "max_positions": 3,
                         "max_leverage": 2.0, "stop_atr": 1.5, "daily_loss_limit": 0.02} | tighter))  # type: ignore[arg-type]
    return PolicyRecord(
        policy_id=RISK_POLICY, version=version, agent="risk_controller", scope="global", ts_ms=ts_ms,
        valid_from_ms=ts_ms, valid_until_ms=ts_ms + DAY_MS, fallback="CONSERVATIVE", status="ACTIVE", reason="test",
        outcomes=0, mask=(), actions=("CONSERVATIVE",), source="test", origin="CLAIMED",
        limits=RiskPolicy(now=now, otherwise=replace(now, max_leverage=0.5), synthetic=synthetic, full_books=(),
                          closed_until_ms=closed_until_ms))


def test_the_limits_in_force_bind_and_are_named() -> None:
    some = bars(n=150)
    t = trade(BOLD, in_order([limits(1, some[10].ts_ms), limits(2, some[40].ts_ms, max_leverage=1.0)], some))
    for i, d in enumerate(decisions(t)):
        version, leverage = (None, 3.0) if i < 10 else (1, 2.0) if i < 40 else (2, 1.0)
        if version == 2 and d.ts_ms > some[40].ts_ms + DAY_MS:
            leverage = 0.5  # past the end of the policy the other limits hold
        assert d.limits_policy == (None if version is None else f"{RISK_POLICY}@{version}")
        assert (d.max_leverage, d.risk_pct) == (leverage, 0.01 if version is None else 0.005)
        assert i < 42 or d.quantity * d.close <= 1.1 * d.equity
    assert decisions(t)[-1].max_leverage == 0.5


def test_limits_of_confidence_and_a_closed_day_forbid_opening() -> None:
    some = bars(n=150)
    sure = trade(BOLD, in_order([limits(1, some[0].ts_ms, min_confidence=0.95)], some))
    shut = trade(BOLD, in_order([limits(1, some[0].ts_ms, closed_until_ms=some[-1].ts_ms)], some))
    for t, reason in ((sure, "low_confidence"), (shut, "risk_closed")):
        assert {d.action for d in decisions(t)[:-1]} == {"HOLD"}
        assert reason in {d.forced_reason for d in decisions(t)}


def test_limits_that_do_not_bind_synthetic_symbols_leave_them_alone() -> None:
    t = trade(BOLD, in_order([limits(1, bars(n=40)[0].ts_ms, synthetic=False)], bars(n=40)))
    assert {(d.limits_policy, d.max_leverage) for d in decisions(t)} == {(None, 3.0)}


def test_a_risk_policy_without_limits_is_refused_and_an_older_one_ignored() -> None:
    t = trade(BOLD, [limits(2, bars(n=40)[0].ts_ms), *bars(n=40)])
    assert t.agent.step(t.state, limits(1, t.state.now_ms))[0] is t.state
    with pytest.raises(Refused, match="UNUSABLE_POLICY"):
        t.agent.step(t.state, replace(limits(3, t.state.now_ms), limits=None))

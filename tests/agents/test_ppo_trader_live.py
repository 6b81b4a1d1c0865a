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
from agents.ppo_trader import PpoTraderAgent, PpoTraderConfig
from agents.ppo_trader.live import asked
from schemas.codec import Codec
from schemas.events import Features, TraderDecision
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

"""Every agent of the roster passes the automatic suite, on what it really gets when all of them run together."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from msgspec.structs import replace

from agents.algorithms.market import generate
from agents.roster import ROSTER
from schemas import catalogue
from schemas.events import (
    Candle,
    Command,
    DecisionOutcome,
    Event,
    HealthAlert,
    Instrument,
    MarketTrade,
    PolicyCommand,
    PolicyConfig,
    Tick,
)
from streams.driver import Driver
from streams.records import Outgoing
from tests.agents.check import check_agent

MINUTE_MS = 60_000
START_MS = 1_700_000_040_000 // MINUTE_MS * MINUTE_MS
BARS = 480  # 230 until features are ready, then some sixty decisions a symbol
SYMBOLS = ("AAA", "BBB", "CCC")
TRADER = ('{"synthetic": true, "rl_v3.training.interval_minutes": 120, "rl_v3.training.episodes_per_run": 1, '
          '"epochs": 1, "episode_bars": 60, "min_rows": 16}')
"""Of the PPO trader: made symbols, too, and few and short runs."""


def candles(symbol: str, seed: int) -> list[Candle]:
    m = generate(seed, BARS)
    columns = zip(*(a.tolist() for a in (m.open, m.high, m.low, m.close, m.volume)), strict=True)
    return [
        Candle(symbol=symbol, interval_ms=MINUTE_MS, open_time_ms=START_MS + i * MINUTE_MS,
               ts_ms=START_MS + (i + 1) * MINUTE_MS, open=o, high=max(o, h, c), low=min(o, lo, c), close=c, volume=v,
               source=f"synthetic:{seed}", origin="SYNTHETIC")
        for i, (o, h, lo, c, v) in enumerate(columns)
    ]


def instrument(symbol: str) -> Instrument:
    return Instrument(symbol=symbol, ts_ms=START_MS, days_per_year=365, fee_bps=1.0, half_spread_bps=0.5,
                      slippage_bps=0.5, source="synthetic:0", origin="SYNTHETIC")


def trades(symbol: str, seed: int) -> list[MarketTrade]:
    """Five a bar, for 40 bars, of a market that has no candles but these come to."""
    closes = generate(seed, 200).close.tolist()
    return [MarketTrade(symbol=symbol, trade_id=i, ts_ms=START_MS + i * MINUTE_MS // 5 + i % 3, price=price,
                        quantity=1.0 + i % 7, taker_side=("BUY", "SELL", None)[i % 3 if 50 < i < 90 else i % 2],
                        source=f"synthetic:{seed}", origin="SYNTHETIC")
            for i, price in enumerate(closes)]


def halt(command: Command, bar: int, symbol: str | None) -> PolicyCommand:
    return PolicyCommand(command_id=f"{command}-{bar}", ts_ms=START_MS + bar * MINUTE_MS, command=command,
                         symbol=symbol, actor="test", reason="test")


def about(command: Command, bar: int, symbol: str, **more: Any) -> PolicyCommand:
    return replace(halt(command, bar, None), policy_id=f"q_learning/{symbol}", **more)


def outside() -> list[tuple[str, Event]]:
    """Instruments, candles of all symbols, trades of one more, a tick a bar, two halts, commands about policies, a
    component that is CRITICAL for an hour; in order of event time."""
    out: list[tuple[str, Event]] = [("market.instruments", instrument(s)) for s in SYMBOLS]
    out.append(("policy.config", PolicyConfig(config_id="trader", agent="ppo_trader", ts_ms=START_MS, values=TRADER,
                                              actor="test", reason="test")))
    commands = {300: halt("HALT", 300, "BBB"), 330: halt("RESUME", 330, "BBB"),
                400: halt("HALT", 400, None), 410: halt("RESUME", 410, None),
                350: about("FREEZE", 350, "AAA"), 380: about("UNFREEZE", 380, "AAA"), 430: about("RETIRE", 430, "BBB"),
                440: about("ROLLBACK", 440, "CCC", version=1),
                450: replace(halt("OVERRIDE", 450, None), policy_id="risk_controller/global", mode="AGGRESSIVE",
                             until_ms=START_MS + 470 * MINUTE_MS)}
    alerts = {340: "CRITICAL", 400: "HEALTHY"}
    for i, row in enumerate(zip(*(candles(s, n) for n, s in enumerate(SYMBOLS)), strict=True), start=1):
        out += [("policy.commands", commands[i])] if i in commands else []
        out += [("policy.config", PolicyConfig(
            config_id="c", agent="decision", ts_ms=START_MS + i * MINUTE_MS, actor="test", reason="test",
            values='{"default_decider": "meta_strategy"}'))] if i == 420 else []
        out += [("system.health.alert", HealthAlert(
            component="features", ts_ms=START_MS + i * MINUTE_MS, status=alerts[i], reason="test",  # type: ignore[arg-type]
            writer="test"))] if i in alerts else []
        out += [("market.candles", c) for c in row]
        out.append(("system.clock", Tick(ts_ms=row[0].ts_ms, writer="ingest:test")))
    out += [("market.trades", t) for t in trades("TTT", 9)]
    return sorted(out, key=lambda pair: pair[1].ts_ms)  # type: ignore[attr-defined]


@cache
def delivered() -> list[tuple[str, Event]]:
    """(topic, event) of all records of a run of the whole roster, in the order in which they were read."""
    seen: list[tuple[str, Event]] = []

    def tap(record: Outgoing) -> Outgoing:
        assert record.event is not None
        seen.append((record.topic, record.event))
        return record

    driver = Driver({name: agent() for name, agent in ROSTER.items()}, tap=tap)
    driver.run(outside())
    assert not [t for t in driver.log if t.endswith(".dlq")], "the realistic run has dead letters"
    return seen


def test_the_run_brings_every_agent_each_of_its_inputs() -> None:
    topics = {topic for topic, _ in delivered()}
    assert {t for name in ROSTER for t in catalogue.AGENTS[name].reads} <= topics
    reasons = {e.reason for _, e in delivered() if isinstance(e, DecisionOutcome)}
    assert {"halt", "no_signal"} <= reasons


def test_every_built_agent_is_in_the_roster() -> None:
    assert set(ROSTER) == {a.name for a in catalogue.built_agents()}
    assert all(agent.name == name for name, agent in ROSTER.items())


@pytest.mark.parametrize("name", sorted(ROSTER))
def test_the_suite(name: str) -> None:
    reads = catalogue.AGENTS[name].reads
    check_agent(ROSTER[name], [event for topic, event in delivered() if topic in reads])

"""Records that are not what happened: changed on their way, or on the log afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from msgspec.structs import replace

from schemas.catalogue import AGENTS
from schemas.events import Candle, Command, Event, PolicyApplied, PolicyCommand, PolicyRecord, Tick, TradeClosed
from streams.records import CE_ID
from streams.verify.evidence import Evidence
from streams.verify.planted.stage import CODEC, HOUR_MS, Stage, Tamper, identities, made
from streams.verify.refold import refold


# ---------------------------------------------------------------------- on their way
def relabelled(topic: str) -> Tamper:
    """Records of a topic under a real label."""
    return lambda name, e: replace(e, source="binance", origin="CLAIMED") if name == topic else e


def unacknowledged(topic: str, event: Event) -> Event | None:
    """Nobody says that a policy was applied."""
    return None if isinstance(event, PolicyApplied) else event


def one_trade(change: Callable[[TradeClosed], TradeClosed], n: int = 5) -> Tamper:
    """The n-th trade changed."""
    count = 0

    def tamper(topic: str, event: Event) -> Event:
        nonlocal count
        if isinstance(event, TradeClosed):
            count += 1
            return change(event) if count == n else event
        return event

    return tamper


def richer(trade: TradeClosed) -> TradeClosed:
    """A result that was invented, in dollars and in R."""
    pnl = trade.pnl_usd + 100.0
    return replace(trade, pnl_usd=pnl, r_multiple=pnl / trade.risk_at_open, pnl_pct=pnl / trade.equity_at_open)


def walk(bars: int, seed: int, symbol: str = "BTCUSDT") -> Iterator[tuple[str, Event]]:
    """Independent normal steps under a real feed's label: what the predecessor fed its learners."""
    random = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(random.normal(0, 0.01, bars)))
    for t in range(bars):
        opened = float(close[t - 1]) if t else 100.0
        closed = float(close[t])
        yield "market.candles", Candle(
            symbol=symbol, interval_ms=HOUR_MS, open_time_ms=t * HOUR_MS, ts_ms=(t + 1) * HOUR_MS, open=opened,
            high=max(opened, closed) * 1.001, low=min(opened, closed) * 0.999, close=closed, source="binance",
            origin="CLAIMED")
        yield "system.clock", Tick(ts_ms=(t + 1) * HOUR_MS, writer="made")


# ---------------------------------------------------------------------- people's commands
def command(run: Stage, kind: Command, policy_id: str | None = "q_learning/MADE", **more: Any) -> Stage:
    """A command given now, and all that follows from it."""
    n = len(run.log.records["policy.commands"][0])
    run.driver.run([("policy.commands", PolicyCommand(
        command_id=f"{kind.lower()}-{n}", ts_ms=run.driver.now_ms, command=kind, policy_id=policy_id, actor="somebody",
        reason="planted", **more))])
    return run


def go_on(run: Stage, bars: int) -> Stage:
    """The market for some bars more."""
    past = len(run.log.records["market.candles"][0])
    run.driver.run(made(bars=past + bars, start=past))
    run.tape.flush(run.driver)
    return run


def rolled_back(run: Stage, change: Callable[[Any], Any] = lambda state: state) -> Stage:
    """The newest version taken back some time later; `change` is what was made of its state meanwhile."""
    newest = [e for e in run.driver.events("policy.ledger")
              if isinstance(e, PolicyRecord) and e.agent == "q_learning"][-1]
    assert newest.provenance is not None
    evidence = Evidence(run.log, run.roster, CODEC, identities=identities())
    fold = refold(evidence, "q_learning", 0, newest.provenance.to_offset).fold
    old = change(fold.scopes[newest.scope].state)
    return go_on(command(
        go_on(run, 60), "ROLLBACK", newest.policy_id, version=newest.version, state=fold.state_bytes(old),
        state_hash=fold.state_hash(newest.scope, old), state_format=fold.agent.format_version), 60)


def richer_state(state: Any) -> Any:
    """A state that nobody learned: every estimate is better."""
    return replace(state, cells=tuple(replace(c, q=tuple(q + 1.0 for q in c.q)) for c in state.cells))


def unsaid(run: Stage) -> Stage:
    """A version that answers a command which is no longer on the log."""
    go_on(command(run, "FREEZE"), 20)
    run.log.records["policy.commands"][0].clear()
    return run


# ---------------------------------------------------------------------- on the log afterwards
def died(run: Stage, agent: str) -> Stage:
    """An agent that wrote nothing, copied nothing and committed nothing; its topics wait."""
    io, log = AGENTS[agent], run.log
    log.commits[agent] = {}
    for topic in (io.changelog, *io.writes, *(() if io.direct else (io.input_topic,))):
        log.records[topic] = {p: [] for p in log.records[topic]}
    log.now_ms += 60_000
    return run


def frozen(run: Stage, agent: str) -> Stage:
    """An agent that goes on publishing, and stores and commits nothing more."""
    more = len(run.log.records["system.clock"][0])
    run.driver.run(made(bars=more + 60, start=more))
    for name in AGENTS:
        if name != agent and name in run.driver.folds:
            for topic, partition in run.log.commits[name]:
                run.log.commits[name][topic, partition] = len(run.log.records[topic][partition])
    return run


def committed_ahead(run: Stage, agent: str) -> Stage:
    """A commit beyond the stored state."""
    run.log.commits[agent][AGENTS[agent].input_topic, 0] += 1
    return run


def traded_again(run: Stage) -> Stage:
    """A trade that an engine reports once more, under another id."""
    rows = run.log.records["execution.trade.closed"][0]
    old = CODEC.decode("execution.trade.closed", rows[5].value)
    assert isinstance(old, TradeClosed)
    new = replace(old, trade_id="again")
    run.log.append("execution.trade.closed", 0, rows[5].key, CODEC.encode("execution.trade.closed", new),
                   ((CE_ID, b"engine:again"),), run.log.now_ms)
    return run


def candle_edited(run: Stage, n: int = 200) -> Stage:
    """A bar that comes again with another high."""
    record = run.log.records["market.candles"][0][n]
    old = CODEC.decode("market.candles", record.value)
    assert isinstance(old, Candle)
    new = replace(old, high=old.high * 1.05)
    run.log.append("market.candles", 0, record.key, CODEC.encode("market.candles", new), record.headers,
                   run.log.now_ms)
    return run


def made_up_policy(run: Stage) -> Stage:
    """A policy version that nobody learned."""
    last = [r for r in run.log.records["policy.ledger"][0] if (r.key or b"").startswith(b"q_learning/")][-1]
    run.log.append("policy.ledger", 0, last.key, last.value, ((CE_ID, b"someone"),), run.log.now_ms)
    return run


def relay_changed(run: Stage, n: int = 200) -> Stage:
    """A bar that relays changed before anyone took it: all that follows is consistent with the copies."""
    rows = run.log.records["market.candles"][0]
    c = CODEC.decode("market.candles", rows[n].value)
    assert isinstance(c, Candle)
    rows[n] = rows[n]._replace(value=CODEC.encode("market.candles", replace(c, low=c.low * 0.999)))
    return run


def relay_left_out(run: Stage) -> Stage:
    """A bar that relays passed over and committed."""
    rows = run.log.records["market.candles"][0]
    c = CODEC.decode("market.candles", rows[-1].value)
    assert isinstance(c, Candle)
    later = replace(c, open_time_ms=c.open_time_ms + HOUR_MS, ts_ms=c.ts_ms + HOUR_MS)
    run.log.append("market.candles", 0, rows[-1].key, CODEC.encode("market.candles", later), rows[-1].headers,
                   run.log.now_ms)
    for name in ("features", "paper_execution"):
        run.log.commits[name]["market.candles", 0] = len(rows)
    return run

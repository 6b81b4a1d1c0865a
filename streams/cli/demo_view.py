"""What the demo shows: a live table, and one last screen. Every number in it was counted on the log."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from schemas.catalogue import AGENTS, GLOBAL, built_agents
from schemas.events import BookMark, EquityMarked
from streams.books import Paired, paired
from streams.cli import demo_trader
from streams.cli.demo_proof import show_proof
from streams.log import LogReader
from streams.observer import Seen
from streams.settings import Settings
from streams.story import steps, trace
from streams.subjects import codec_for

EVIDENCE: dict[str, tuple[str, ...]] = {
    "features": ("market.features",),
    "decision": ("rl.meta.strategy_selected",),
    "paper_execution": ("decision.outcome", "execution.trade.closed"),
    "experience": ("learning.experience",),
    "q_learning": ("rl.q_learning.updated", "policy.ledger"),
    "meta_strategy": ("rl.meta.updated", "policy.ledger"),
    "ppo_trader": ("rl_v3.training.completed", "rl_v3.decision"),
    "risk_controller": ("risk.mode.changed",),
}
"""Agents of the demo, each with the topics whose newest record shows that it worked."""
LEARNER_BOOK, SECOND_BOOK = "q_learning", "meta_strategy"
SHOWN_BASELINES = ("baseline:neutral", "baseline:random", "baseline:buy_and_hold")
MARKS = "execution.equity.marked"
RATE_SAMPLES = 12  # views, four a second: rates of about three seconds


class LiveTable:
    """The table while the demo runs; rates are those of the last seconds.

    Args:
        total: candles of the real symbols.
        symbols: the real symbols.
        outcomes: of each control; 0: there are none.
    """

    def __init__(self, total: int, symbols: Collection[str], outcomes: int) -> None:
        self._total = total
        self._symbols = frozenset(symbols)
        self._outcomes = outcomes
        self._samples: deque[tuple[float, dict[str, int]]] = deque(maxlen=RATE_SAMPLES)

    def view(self, seen: Seen) -> Group:
        """What to show now."""
        agents = [a for a in built_agents() if a.name in EVIDENCE]
        reads = {a.name: sum(seen.records(t) for t in a.reads if t in seen.topics) for a in agents}
        self._samples.append((time.monotonic(), reads))
        (then, before), (now, _) = self._samples[0], self._samples[-1]
        table = Table(title="What the log shows", title_justify="left")
        for name in ("agent", "events in", "events/s", "written", "last evidence"):
            table.add_column(name, justify="left" if name in ("agent", "last evidence") else "right")
        for agent in agents:
            rate = (reads[agent.name] - before[agent.name]) / max(now - then, 1e-9)
            written = sum(seen.records(t) for t in agent.writes if t in seen.topics)
            place = next((seen.newest_place[t] for t in EVIDENCE[agent.name] if seen.newest_place[t]), "nothing yet")
            table.add_row(agent.name, f"{reads[agent.name]:,}", f"{rate:,.0f}", f"{written:,}", place)
        learned = {name: v for name, v in seen.versions.items() if name.partition("/")[2] != GLOBAL}
        newest = max(learned.items(), key=lambda item: item[1], default=("no policy yet", 0))
        outcomes = [v for name, v in learned.items()
                    if name.partition("/")[0] == LEARNER_BOOK and name.partition("/")[2] not in self._symbols]
        blind = f" | controls at {min(outcomes, default=0):,} of {self._outcomes:,} outcomes" if self._outcomes else ""
        line = Text(
            f"{seen.records('market.candles'):,} candles, {self._total:,} of them real{blind}\n"
            f"decisions {seen.records('rl.meta.strategy_selected'):,} | "
            f"trades {seen.records('execution.trade.closed'):,} | "
            f"Q updates {seen.records('rl.q_learning.updated'):,} | "
            f"network updates {seen.records('rl.meta.updated'):,}\n"
            f"policies {len(seen.versions)}, newest {newest[0]} version {newest[1]} | "
            f"decisions changed by a policy {seen.changed:,} of {seen.followed:,}"
        )
        return Group(table, line)


def summary(settings: Settings, seen: Seen, result: dict[str, Any], symbols: Collection[str],
            seed: int) -> dict[str, Any]:
    """Everything that the last screen says, as plain data.

    Args:
        settings: broker and names.
        seen: what the log showed.
        result: timings.
        symbols: the real symbols: their books are shown, those of the controls are not.
        seed: of the run.
    """
    trades = seen.records("execution.trade.closed")
    twice = [d for d, n in seen.trades_by_decision.items() if n > 1]
    credited = sum(n for n in seen.trades_by_decision.values() if n == 1)
    checks = {
        "policies came out": bool(seen.versions),
        "decisions were changed by policies": seen.changed > 0,
        "each trade is credited to exactly one decision": trades > 0 and credited == trades and not twice,
        "no record was refused": not seen.dead,
    }
    return {
        "schema": "quantum.demo/1",
        "seed": seed,
        "checks": checks,
        "candles": seen.records("market.candles"),
        "features": seen.records("market.features"),
        "decisions": seen.records("rl.meta.strategy_selected"),
        "trades": trades,
        "outcomes": dict(seen.outcomes),
        "experiences": seen.records("learning.experience"),
        "orphans": seen.records("learning.orphan"),
        "updates": seen.records("rl.q_learning.updated"),
        "network_updates": seen.records("rl.meta.updated"),
        "drift_alarms": seen.records("learning.drift.detected"),
        "policy_versions": dict(sorted(seen.versions.items())),
        "decisions_under_policy": seen.followed,
        "decisions_changed": seen.changed,
        "dead_letters": dict(seen.dead),
        "books": [book for symbol in sorted(set(symbols) & set(seen.marks))
                  for book in _books(seen.first_marks[symbol], seen.marks[symbol])],
        "paired": [p.as_dict() for p in _paired(settings, symbols)],
        "seconds": {k: result.get(k) for k in ("broker_up_s", "first_policy_s", "run_s", "total_s")},
        "candles_per_s": round(seen.records("market.candles") / max(result["run_s"], 1e-9)),
        "story": _story(settings, seen, symbols),
        "not_built": [a.name for a in AGENTS.values() if not a.built],
    }


def _books(first: EquityMarked, last: EquityMarked) -> list[dict[str, Any]]:
    start = {b.book_id: b for b in first.books}
    return [
        {
            "symbol": last.symbol, "book": b.book_id, "outcomes": b.outcomes, "trades": b.trades,
            "return": b.equity / _start_equity(start, b) - 1.0, "max_drawdown_now": b.drawdown,
            "mean_r": b.sum_r / b.outcomes if b.outcomes else None,
            "from": first.ts_ms, "to": last.ts_ms, "source": last.source, "origin": last.origin,
        }
        for b in last.books
    ]


def _paired(settings: Settings, symbols: Collection[str]) -> list[Paired]:
    """The learner's book minus each baseline of the real symbols, bar by bar."""
    keys, codec = {symbol.encode() for symbol in symbols}, codec_for(settings)
    with LogReader(settings) as log:
        marks = (codec.decode(MARKS, r.value) for r in log.read(MARKS) if r.key in keys)
        pairs = paired(m for m in marks if isinstance(m, EquityMarked))
        return [p for p in pairs if p.book_id == LEARNER_BOOK]


def _start_equity(start: dict[str, BookMark], book: BookMark) -> float:
    """Equity with which a book began; a book that is born later begins with what the others began with."""
    known = start.get(book.book_id) or next(iter(start.values()), book)
    return known.equity


def _story(settings: Settings, seen: Seen, symbols: Collection[str]) -> list[dict[str, str]]:
    """Of one trade on a real symbol that a policy led to; none where there is none."""
    trades = [seen.changed_trades[symbol][0] for symbol in sorted(symbols) if symbol in seen.changed_trades]
    if not trades:
        return []
    with LogReader(settings) as log:
        told = trace(log, codec_for(settings), trades[0].trade_id)
    return [step._asdict() for step in steps(told)]


def closing_screen(console: Console, report: dict[str, Any], proof: dict[str, Any], settings: Settings) -> None:
    """The last screen."""
    console.rule("What happened")
    s = report["seconds"]
    console.print(
        f"{report['candles']:,} candles ({_sources(report)}) in {s['run_s']} s, {report['candles_per_s']:,}/s; "
        f"broker up after {s['broker_up_s']} s, first policy after {s['first_policy_s']} s, all in {s['total_s']} s; "
        f"seed {report['seed']}.\n"
        f"{report['decisions']:,} decisions, {report['trades']:,} trades closed, {report['updates']:,} updates of the "
        f"Q-tables, {report['network_updates']:,} of the networks, {sum(report['policy_versions'].values()):,} policy "
        f"versions of {len(report['policy_versions'])} policies, {report['drift_alarms']} drift alarms.\n"
        f"Policies changed {report['decisions_changed']:,} of {report['decisions_under_policy']:,} decisions."
    )
    for check, good in report["checks"].items():
        console.print(f"  {'yes' if good else 'NO '}  {check}")
    for reason, n in report["dead_letters"].items():
        console.print(f"       {n} x {reason}")
    console.print(_result_table(report))
    for line in demo_trader.lines(report["ppo_trader"]):
        console.print(line)
    show_proof(console, proof)
    if report["story"]:
        console.rule("One trade, end to end")
        console.print(story_table(report["story"]))
    console.rule("Next")
    where = f"--broker {settings.broker}"
    for line in (f"quantum status {where}", f"quantum policy show q_learning --symbol {_symbol(report)} {where}",
                 f"quantum verify {where}", f"quantum tail policy.ledger -o -3 {where}"):
        console.print(f"  {line}", soft_wrap=True)
    console.print("Not built yet: " + ", ".join(report["not_built"]) + ".")


def story_table(story: list[dict[str, str]]) -> Table:
    """A step: what, where (whole, however narrow the screen), and what stands there."""
    table = Table(show_header=False, box=None)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for step in story:
        table.add_row(step["what"], Text(step["place"], style="bold").append(f"\n{step['text']}", style="not bold"))
    return table


def _sources(report: dict[str, Any]) -> str:
    books = report["books"]
    if not books:
        return "no mark was read"
    day = [datetime.fromtimestamp(f(b[k] for b in books) / 1000, UTC).date()
           for f, k in ((min, "from"), (max, "to"))]
    kinds = sorted({f"{b['source']}, {b['origin']}" for b in books})
    return f"{'; '.join(kinds)}; {day[0]} to {day[1]}"


def _symbol(report: dict[str, Any]) -> str:
    return str(report["books"][0]["symbol"]) if report["books"] else "SYMBOL"


def _result_table(report: dict[str, Any]) -> Table:
    table = Table(title=f"Result after all costs, paper money; {LEARNER_BOOK} minus each baseline, bar by bar on the "
                        "same candles", title_justify="left")
    for name in ("symbol", "book", "n", "trades", "mean R", "return", "learner - book"):
        text = name in ("symbol", "book")
        table.add_column(name, justify="left" if text else "right", no_wrap=True)
    minus = {(p["symbol"], p["baseline"]): p for p in report["paired"]}
    for b in report["books"]:
        if b["book"] in (LEARNER_BOOK, SECOND_BOOK, *SHOWN_BASELINES):
            mean = "-" if b["mean_r"] is None else f"{b['mean_r']:+.3f}"
            table.add_row(b["symbol"], b["book"].removeprefix("baseline:"), f"{b['outcomes']:,}", f"{b['trades']:,}",
                          mean, f"{b['return']:+.1%}", _difference(minus.get((b["symbol"], b["book"]))))
    table.caption = "n: outcomes. Last column: basis points a bar and its 99 % interval, whenever one looks."
    return table


def _difference(pair: dict[str, Any] | None) -> str:
    if pair is None:
        return ""
    interval = "" if pair["low_bps"] is None else f" [{pair['low_bps']:+.2f} {pair['high_bps']:+.2f}]"
    return f"{pair['mean_bps']:+.2f}{interval}"

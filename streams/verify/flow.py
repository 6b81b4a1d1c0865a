"""RUNS and RECEIVES: committed offsets against end offsets, and the newest record that the agent wrote.

Membership of a consumer group and clock ticks are heartbeats and count for nothing: input is what the agent's topics
hold beside `system.clock`, work is a record that bears the agent's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from schemas.catalogue import AgentIO
from schemas.events import Candle, Instrument
from streams.log import Record
from streams.verify.cells import Cell, cell
from streams.verify.evidence import Evidence

CLOCK = "system.clock"
FEED = "market.candles"
PATIENCE_S = 30.0
"""How long a record may wait, with nothing written meanwhile, before input counts as moved without evidence. A restart
of a worker takes a few seconds, a rebalance up to ten."""
FRESH_S = 900.0
"""Input older than this is no input: the agent is IDLE, whatever it did before."""
LATE_BARS = 3
CLOSED_MS = 4 * 86_400_000  # a long weekend, for instruments that do not trade every day of the year


class Feeds(Protocol):
    """How far clocks and candles have come."""

    clocks: dict[str | None, int]

    @property
    def newest(self) -> Mapping[str, tuple[Record, Candle]]:
        """The newest candle of each symbol."""


@dataclass(frozen=True)
class Input:
    """Where an agent's input stands.

    Attributes:
        arrived: records on the topics that it reads, ticks left out.
        taken: of all its inputs, ticks and inbox included, how many its group has committed.
        waiting: how many not.
        newest: newest record that arrived.
        last_taken: newest record behind a commit.
        behind: the record behind each commit of the input topic.
        committed: next offset of each input partition, as the group claims it.
        waits_since_ms: append time of the oldest record that waits; None where none does.
    """

    arrived: int
    taken: int
    waiting: int
    newest: Record | None
    last_taken: Record | None
    behind: tuple[Record, ...]
    committed: Mapping[str, int]
    waits_since_ms: int | None


def look(evidence: Evidence, io: AgentIO) -> Input:
    """Where an agent's input stands."""
    committed = evidence.committed[io.name]
    arrived = taken = waiting = 0
    waits: list[int] = []
    behind: list[Record] = []
    for topic in sorted({io.input_topic, *io.reads}):
        places = {p: evidence.log.bounds(topic, p) for p in evidence.topics.get(topic, ())}
        if topic in io.reads and topic != CLOCK:
            arrived += sum(end for _, end in places.values())
        at = {p: min(max(committed.get((topic, p), low), low), end) for p, (low, end) in places.items()}
        taken += sum(o for (t, _), o in committed.items() if t == topic)
        left = {p: at[p] for p, (_, end) in places.items() if at[p] < end}
        waiting += sum(places[p][1] - o for p, o in left.items())
        for p, offset in left.items():
            first = next(evidence.records(topic, {p: offset}), None)
            if first is not None and first.timestamp_ms is not None:
                waits.append(first.timestamp_ms)
        if topic == io.input_topic:
            for p, (low, _) in places.items():
                if (topic, p) in committed and at[p] > low:
                    behind += [r for r in [next(evidence.records(topic, {p: at[p] - 1}), None)] if r is not None]
    newest = [r for topic in io.reads if topic != CLOCK for r in evidence.last(topic)]
    claimed = {f"committed {t}-{p}": o for (t, p), o in sorted(committed.items()) if t == io.input_topic}
    return Input(arrived, taken, waiting, _newest(newest), _newest(behind), tuple(behind), claimed,
                 min(waits, default=None))


def _newest(records: list[Record]) -> Record | None:
    return max(records, key=lambda r: r.timestamp_ms or 0, default=None)


def flow(evidence: Evidence, io: AgentIO, feeds: Feeds, *, patience_s: float = PATIENCE_S,
         fresh_s: float = FRESH_S) -> tuple[Cell, Cell]:
    """The cells RUNS and RECEIVES.

    Args:
        feeds: how far clocks and candles have come.
    """
    missing = [t for t in (io.input_topic, *io.reads, *io.writes, io.changelog) if t not in evidence.topics]
    if missing:
        both = cell("FAIL", f"not on the broker: {', '.join(missing)}")
        return both, both
    now_ms, inputs, work = evidence.now_ms, look(evidence, io), evidence.newest_work(io)
    waited_s = 0.0 if inputs.waits_since_ms is None else (now_ms - inputs.waits_since_ms) / 1000
    quiet_s = None if work is None else (now_ms - (work.timestamp_ms or 0)) / 1000
    figures = {"arrived": inputs.arrived, "taken": inputs.taken, "waiting": inputs.waiting}
    if not inputs.arrived:
        idle = cell("IDLE", f"nothing was ever written to {', '.join(t for t in io.reads if t != CLOCK)}")
        return idle, _feed(evidence, io, feeds, idle)
    stale = waited_s > patience_s and (quiet_s is None or quiet_s > patience_s)
    idle_s = 0.0 if inputs.newest is None else (now_ms - (inputs.newest.timestamp_ms or 0)) / 1000
    runs = _runs(work, stale, waited_s, idle_s > fresh_s, now_ms, figures)
    stored = _newest(evidence.last(io.changelog))
    stuck = waited_s > patience_s and (stored is None or (now_ms - (stored.timestamp_ms or 0)) / 1000 > patience_s)
    receives = _receives(evidence, io, inputs, stuck, waited_s, patience_s, idle_s > fresh_s, figures)
    return runs.showing([inputs.newest]), _feed(evidence, io, feeds, receives.showing(inputs.behind))


def _runs(work: Record | None, stale: bool, waited_s: float, idle: bool, now_ms: int,
          figures: Mapping[str, float]) -> Cell:
    if work is None:
        why = f"it wrote neither state nor an output, while {figures['arrived']:.0f} records arrived"
        return cell("FAIL" if stale else "NOT PROVEN", why, None, None, **figures)
    if stale:
        return cell("STALE", f"{figures['waiting']:.0f} records wait, the oldest for {waited_s:.0f} s, and it wrote "
                             f"nothing since", work, now_ms, **figures)
    if idle:
        return cell("IDLE", "nothing came lately; this is what it wrote last", work, now_ms, **figures)
    return cell("PASS", "the newest record that it wrote", work, now_ms, **figures)


def _receives(evidence: Evidence, io: AgentIO, inputs: Input, stale: bool, waited_s: float,
              patience_s: float, idle: bool, figures: Mapping[str, float]) -> Cell:
    heads = [s.head for s in evidence.stored[io.name].values() if s.head is not None]
    applied, refused = sum(h.applied for h in heads), sum(h.refused for h in heads)
    taken = f"committed {inputs.taken}, {inputs.waiting} waiting; {applied} steps, {refused} refused"
    last, now_ms = inputs.last_taken, evidence.now_ms
    figures = {**figures, "applied": applied, "refused": refused, **inputs.committed}
    if last is None:
        why = f"its group has committed nothing of {io.input_topic}, with {inputs.waiting} records waiting"
        return cell("FAIL" if waited_s > patience_s else "NOT PROVEN", why, None, None, **figures)
    if refused and not applied:
        return cell("FAIL", f"it refused all that it took: {taken}", last, now_ms, **figures)
    if stale:
        return cell("STALE", f"nothing taken and stored for {waited_s:.0f} s: {taken}", last, now_ms, **figures)
    if idle:
        return cell("IDLE", f"nothing came lately: {taken}", last, now_ms, **figures)
    return cell("PASS", taken, last, now_ms, **figures)


def _feed(evidence: Evidence, io: AgentIO, feeds: Feeds, otherwise: Cell) -> Cell:
    """Whether the feed stopped while time went on: only the reader of candles can say it, so its row does.

    Each clock is held against the newest candle of its symbols: a symbol's own clock against that symbol's.
    """
    if FEED not in io.reads or CLOCK not in evidence.topics or otherwise.state not in ("PASS", "IDLE"):
        return otherwise
    clocks = feeds.clocks
    part_time = {e.symbol for r in evidence.records("market.instruments") for e in [evidence.decoded(r)]
                 if isinstance(e, Instrument) and e.days_per_year < 365}
    for clock, now_ms in clocks.items():
        mine = [pair for symbol, pair in feeds.newest.items()
                if symbol == clock or (clock is None and symbol not in clocks)]
        if not mine:
            continue
        record, candle = max(mine, key=lambda pair: pair[1].ts_ms)
        silent_ms = now_ms - candle.ts_ms
        closed_ms = CLOSED_MS if part_time & {c.symbol for _, c in mine} else 0
        if silent_ms > LATE_BARS * candle.interval_ms + closed_ms:
            whose = "the clock" if clock is None else f"the clock of {clock}"
            return cell("STALE", f"{whose} went on for {silent_ms / candle.interval_ms:.0f} bars after the newest "
                                 f"candle: the feed stopped", record, evidence.now_ms,
                        silent_bars=silent_ms / candle.interval_ms)
    return otherwise

"""What a cell of the table is: a state, one sentence, and the record that shows it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from schemas.catalogue import AGENTS
from streams.log import Record
from streams.unresolved import Standing

State = Literal["PASS", "FAIL", "STALE", "IDLE", "NOT PROVEN", "EXPIRED", "NOT BUILT", "NOT APPLICABLE"]
Kind = Literal["RUNS", "RECEIVES", "LEARNS", "PERSISTS", "APPLIED", "ORIGIN"]
KINDS: tuple[Kind, ...] = ("RUNS", "RECEIVES", "LEARNS", "PERSISTS", "APPLIED", "ORIGIN")
SCHEMA = "quantum.verify/1"
MAX_RECORDS = 50
"""Records that a cell carries at most: what one person can look at."""

STATES: Mapping[State, str] = {
    "PASS": "shown by the records named",
    "FAIL": "the records contradict it, or should be there and are not",
    "STALE": "input moved, no evidence since",
    "IDLE": "no input, so nothing to show",
    "NOT PROVEN": "too little evidence either way",
    "EXPIRED": "the records that would show it are deleted",
    "NOT BUILT": "in the catalogue, but without code",
    "NOT APPLICABLE": "the question has no meaning for this agent",
}
RED = frozenset({"FAIL", "STALE"})
OPEN = frozenset({"NOT PROVEN", "EXPIRED"})


@dataclass(frozen=True)
class Cell:
    """One answer.

    Attributes:
        why: one sentence.
        place: `topic-partition@offset` of the record that shows it; None where there is none.
        age_s: how long ago that record was appended; None where unknown.
        figures: the counts that the sentence rests on.
        records: raw records that show it, the one of `place` first; bounded, drawn where there are more.
    """

    state: State
    why: str
    place: str | None = None
    age_s: float | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    records: tuple[Record, ...] = field(default=(), repr=False)

    def saying(self, more: str) -> Cell:
        """This cell with a further half-sentence."""
        return replace(self, why=f"{self.why}; {more}")

    def showing(self, records: Iterable[Record | None], limit: int = MAX_RECORDS) -> Cell:
        """This cell with more records behind those that it has, each once, up to a limit."""
        kept = {r.place: r for r in self.records}
        for r in records:
            if r is not None and len(kept) < limit:
                kept.setdefault(r.place, r)
        return replace(self, records=tuple(kept.values()))

    def showing_each(self, groups: Iterable[Sequence[Record | None]], limit: int = MAX_RECORDS) -> Cell:
        """This cell with groups of records that belong together, each group whole or not at all."""
        shown = self
        for group in groups:
            more = shown.showing(group, limit + len(group))
            shown = more if len(more.records) <= limit else shown
        return shown


def cell(state: State, why: str, record: Record | None = None, now_ms: int | None = None, **figures: float) -> Cell:
    """A cell with the place and age of a record."""
    age_s = None
    if record is not None and record.timestamp_ms is not None and now_ms is not None:
        age_s = max(0.0, (now_ms - record.timestamp_ms) / 1000)
    return Cell(state, why, None if record is None else record.place, age_s, figures,
                () if record is None else (record,))


@dataclass(frozen=True)
class Row:
    """All cells of an agent."""

    agent: str
    cells: Mapping[Kind, Cell]


@dataclass(frozen=True)
class Verdict:
    """What a control showed: its symbol, what was planted there, and the answer.

    Attributes:
        cell: of the learner whose candles, outcomes and policy were looked at first.
        others: of further learners, by name.
        learner: whose `cell` is.
    """

    symbol: str
    kind: str
    cell: Cell
    others: Mapping[str, Cell] = field(default_factory=dict)
    learner: str = "q_learning"


@dataclass(frozen=True)
class Report:
    """All rows, the controls of the runs that are closed, and how the sample was drawn."""

    at_ms: int
    sample: int
    sample_seed: int
    since: str | None
    rows: tuple[Row, ...]
    controls: tuple[Verdict, ...] = ()
    alerts: tuple[Standing, ...] = ()

    @property
    def left_out(self) -> tuple[str, ...]:
        """Agents of the catalogue that were not to be judged."""
        judged = {row.agent for row in self.rows}
        return tuple(name for name in AGENTS if name not in judged)

    @property
    def exit_code(self) -> int:
        """0: all that is built is PASS, IDLE or NOT APPLICABLE; 1: a FAIL or STALE; 3: a NOT PROVEN or EXPIRED.

        A health alert that stands is the word of its writer, no evidence: it makes no cell anything. But somebody says
        that all is not well, and nobody says that it is over: that is no 0, it is a 3.
        """
        return exit_code(c.state for _, _, c in self.every) or (3 if self.alerts else 0)

    @property
    def every(self) -> list[tuple[str, str, Cell]]:
        """All cells with whose and which they are: `q_learning`, `LEARNS`; of the controls `control:KXQ`, `FAIR`, and
        of a further learner there `control:KXQ:meta_strategy`, `FAIR`."""
        return [*((row.agent, kind, c) for row in self.rows for kind, c in row.cells.items()),
                *((f"control:{v.symbol}{whose}", v.kind, c) for v in self.controls
                  for whose, c in (("", v.cell), *((f":{name}", other) for name, other in v.others.items())))]

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON takes it; schema `quantum.verify/1`."""
        return {
            "schema": SCHEMA, "at_ms": self.at_ms, "sample": self.sample, "sample_seed": self.sample_seed,
            "since": self.since, "exit_code": self.exit_code, "left_out": list(self.left_out),
            "agents": [{"agent": row.agent, "cells": {kind: _as_dict(c) for kind, c in row.cells.items()}}
                       for row in self.rows],
            "alerts": [{"component": found.alert.component, "status": found.alert.status,
                        "reason": found.alert.reason, "writer": found.alert.writer, "place": found.record.place}
                       for found in self.alerts],
            "controls": [{"symbol": v.symbol, "kind": v.kind, "learner": v.learner, **_as_dict(v.cell),
                          "others": {name: _as_dict(c) for name, c in v.others.items()}} for v in self.controls],
        }


def _as_dict(c: Cell) -> dict[str, Any]:
    return {"state": c.state, "why": c.why, "place": c.place, "age_s": c.age_s, "figures": dict(c.figures)}


def exit_code(states: Iterable[State]) -> int:
    """Exit code of a table.

    >>> exit_code(["PASS", "NOT PROVEN"]), exit_code(["NOT PROVEN", "STALE"]), exit_code(["IDLE", "NOT BUILT"])
    (3, 1, 0)
    """
    seen = set(states)
    return 1 if seen & RED else 3 if seen & OPEN else 0

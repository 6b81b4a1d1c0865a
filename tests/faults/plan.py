"""Which faults a run gets, in which order: a function of its seed, so that a failure can be played again.

    plan = draw(7, workers=2, session_s=3.0, kills=20, freezes=4, broker_kills=2, broker_freezes=1, joins=2)
    print(*plan.lines(), sep="\\n")

A fault strikes anywhere (after a drawn time) or at a named point inside of the worker: `tests.faults.points` says where
these are. Points in `RECOVERY` lie on the way from an assignment to the first record.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Literal

from agents.algorithms.counter import uniform
from agents.roster import ROSTER
from streams.trainers.jobs import has_jobs

RUNNING = (
    "publish.before", "publish.half", "publish.queued", "publish.acked",
    "flush.begin", "state.before", "state.half", "state.queued", "state.acked",
    "commit.marked", "commit.before", "commit.sent",
    "relay.before", "relay.half", "relay.queued", "relay.acked",
)
RECOVERY = ("takeup.begin", "restore.before", "restore.done", "fence.before", "fence.queued", "fence.acked",
            "takeup.done")
POINTS = (*RUNNING, *RECOVERY)
ANYWHERE = "anywhere"
FITTING = any(has_jobs(kind()) for kind in ROSTER.values())
"""Whether an agent of the roster has long work: then its trainer processes are struck as well."""
BLIND = 0.25  # share of the faults that strike anywhere without waiting for the worker to be at work

Kind = Literal["kill", "freeze", "join", "broker kill", "broker freeze", "trainer kill"]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault.

    Attributes:
        kind: SIGKILL or SIGSTOP of a worker, a worker more that joins and is told to stop, or the broker's; SIGKILL of
            a trainer process of any worker.
        slot: which worker.
        point: a named point, or `ANYWHERE`.
        nth: at which arrival there.
        blind: strike without waiting for the worker to be at work.
        after_s: how long to wait before it strikes.
        hold_s: how long what was struck stays away.
    """

    kind: Kind
    slot: int
    point: str
    nth: int
    blind: bool
    after_s: float
    hold_s: float

    def __str__(self) -> str:
        if self.kind.startswith("broker"):
            return f"{self.kind}, after {self.after_s:.2f} s, away {self.hold_s:.2f} s"
        if self.kind == "trainer kill":
            return f"{self.kind}, after {self.after_s:.2f} s"
        if self.kind == "join":
            return f"join of a worker more, stays {self.hold_s:.2f} s"
        where = f"{'blind ' if self.blind else ''}anywhere, after {self.after_s:.2f} s" if self.point == ANYWHERE \
            else f"at {self.point}, arrival {self.nth}"
        return f"{self.kind} of worker {self.slot} {where}, away {self.hold_s:.2f} s"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Faults of a run, in order; `session_s` is the time-out of its groups' sessions."""

    seed: int
    workers: int
    session_s: float
    faults: tuple[Fault, ...]

    def lines(self) -> Iterator[str]:
        """The plan in words, a line a fault."""
        for i, fault in enumerate(self.faults, 1):
            yield f"seed {self.seed}, {self.workers} worker(s), fault {i}: {fault}"

    def number(self, kind: Kind) -> int:
        """Faults of a kind."""
        return sum(fault.kind == kind for fault in self.faults)


def draw(seed: int, *, workers: int, session_s: float, kills: int, freezes: int, broker_kills: int = 0,
         broker_freezes: int = 0, joins: int = 0, at_points: float = 0.5, trainer_kills: int = 0) -> Plan:
    """A plan.

    Args:
        seed: decides everything below.
        workers: how many run.
        session_s: the groups' session time-out: freezes outlast it.
        kills, freezes, broker_kills, broker_freezes, joins, trainer_kills: how many faults of each kind.
        at_points: share of kills and freezes at named points.
    """
    kinds: list[Kind] = [*["kill"] * kills, *["freeze"] * freezes, *["broker kill"] * broker_kills,
                         *["broker freeze"] * broker_freezes, *["join"] * joins, *["trainer kill"] * trainer_kills]
    order = sorted(range(len(kinds)), key=lambda i: uniform(seed, "faults", "order", i))
    places = _places(seed, kills + freezes, at_points)
    faults = []
    for i in order:
        def u(what: str, i: int = i) -> float:
            return uniform(seed, "faults", i, what)

        kind, worker = kinds[i], i < kills + freezes
        longest = {"kill": 0.0 if u("at once") < 0.7 else 1.5 * session_s, "freeze": 1.0 * session_s,
                   "broker kill": 2.0, "broker freeze": 3.0 * session_s, "join": 2.0, "trainer kill": 0.0}[kind]
        faults.append(Fault(
            kind=kind, slot=int(u("slot") * workers) if worker else 0, point=places[i] if worker else ANYWHERE,
            nth=1 + int(u("nth") * (3 if worker and places[i] in RECOVERY else 6)),
            blind=worker and u("blind") < BLIND, after_s=round(u("after") * 1.2, 2),
            hold_s=round(u("hold") * longest + (1.3 * session_s if kind == "freeze" else 0.0), 2),
        ))
    return Plan(seed=seed, workers=workers, session_s=session_s, faults=tuple(faults))


def short_form() -> Plan:
    """What the default tests play: some ten faults on two workers."""
    return draw(8, workers=2, session_s=2.0, kills=6, freezes=1, broker_kills=1, at_points=3 / 7,
                trainer_kills=2 * FITTING)


def long_form() -> tuple[Plan, ...]:
    """What `make soak` plays: 200 kills, 40 freezes and 20 kills of the broker over ten runs with 1 to 3 workers."""
    return tuple(draw(seed, workers=workers, session_s=3.0, kills=20, freezes=4, broker_kills=2, broker_freezes=1,
                      joins=1, trainer_kills=5 * FITTING)
                 for seed, workers in enumerate((1, 2, 3, 1, 2, 3, 1, 2, 3, 2), 101))


def _places(seed: int, number: int, at_points: float) -> list[str]:
    """Where each fault on a worker strikes; the points take turns, beginning at one that the seed draws."""
    pointed = sorted(range(number), key=lambda i: uniform(seed, "faults", "pointed", i))[:round(number * at_points)]
    turn = count(int(uniform(seed, "faults", "first point") * len(POINTS)))
    order = sorted(POINTS, key=lambda p: uniform(seed, "faults", "turn", p))
    places = [ANYWHERE] * number
    for i in pointed:
        places[i] = order[next(turn) % len(POINTS)]
    return places

"""Runs of the real roster on a log in memory, with parts of it exchanged for cheats."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from agents.algorithms.market import generate
from agents.contract import Agent, Config, State
from agents.decision import DecisionAgent, DecisionConfig
from agents.features import Features
from agents.meta_strategy import MetaStrategyConfig
from agents.ppo_trader import PpoTraderConfig
from agents.roster import ROSTER
from schemas.codec import Codec
from schemas.events import Candle, Event, Tick
from streams.driver import Driver
from streams.identity import Identity, identity_of
from streams.records import Outgoing
from streams.verify.cells import Cell, Kind, Report
from streams.verify.evidence import Since
from streams.verify.judge import verify
from streams.verify.tape import Tape
from streams.verify.view import MemoryLog

HOUR_MS = 3_600_000
BARS = 900
HELD = 100_000
HELD_STEPS = 10_000
REMEMBERED = frozenset({"market.features", "market.regime.changed"})
"""What the agent `features` writes: the same objects in all runs of the same candles."""


class _Remembering(Codec):
    """Decodes equal bytes once, and encodes an event once: a run hands each record to several agents, the judge reads
    it again, and most runs are of the same candles.

    Events cannot be changed, so nobody can tell.
    """

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[tuple[str, bytes], Event] = {}
        self._written: dict[tuple[str, int], tuple[Event, bytes]] = {}

    def encode(self, topic: str, event: Event, schema_id: int | None = None) -> bytes:
        """See `Codec.encode`."""
        if topic not in REMEMBERED:
            return super().encode(topic, event, schema_id)
        found = self._written.get((topic, id(event)))  # which is held, so no other event has this id
        if found is None:
            if len(self._written) >= HELD:
                self._written.clear()
            found = self._written[topic, id(event)] = event, super().encode(topic, event, schema_id)
        return found[1]

    def decode(self, topic: str, data: bytes | None) -> Event:
        """See `Codec.decode`."""
        if data is None:
            return super().decode(topic, data)
        found = self._seen.get((topic, data))
        if found is None:
            if len(self._seen) >= HELD:
                self._seen.clear()
            found = self._seen[topic, data] = super().decode(topic, data)
        return found


CODEC = _Remembering()
CONFIGS: Mapping[str, Config] = {
    "meta_strategy": MetaStrategyConfig(round_size=16),
    "ppo_trader": PpoTraderConfig(synthetic=True, training_interval_minutes=40 * 60, training_episodes_per_run=1,
                                  episode_bars=40, window_rows=64, min_rows=16, epochs=1, hidden=(8,)),
}
Tamper = Callable[[str, Event], Event | None]


class _Steps:
    """The steps of a pure agent, each taken once: the same state and the same event have the same outcome."""

    def __init__(self, agent: Agent[Any]) -> None:
        self._new, self._step = agent.new, agent.step
        self._born: dict[str, State] = {}
        self._taken: dict[tuple[int, int], tuple[State, Event, Any]] = {}

    def new(self, scope: str) -> State:
        """See `Agent.new`."""
        if scope not in self._born:
            self._born[scope] = self._new(scope)
        return self._born[scope]

    def step(self, state: State, event: Event) -> Any:
        """See `Agent.step`."""
        found = self._taken.get((id(state), id(event)))  # both are held, so none else has these ids
        if found is None:
            if len(self._taken) >= HELD_STEPS:
                self._taken.clear()
            found = self._taken[id(state), id(event)] = state, event, self._step(state, event)
        return found[2]


FEATURES = _Steps(Features())


def honest() -> dict[str, Agent[Any]]:
    """The roster; what learns by rounds or runs has short ones: some hundred bars then have enough of them.

    The agent `features` remembers its steps, since nearly all runs give it the same candles.
    """
    agents = {name: kind(CONFIGS.get(name)) for name, kind in ROSTER.items()}
    for method in ("new", "step"):
        setattr(agents["features"], method, getattr(FEATURES, method))
    return agents


def alone(decider: str) -> dict[str, Agent[Any]]:
    """A decision agent that goes by one learner's policies only; the other learners get no outcomes of their own."""
    return {"decision": DecisionAgent(DecisionConfig(deciders=(decider,)))}


def identities() -> dict[str, Identity]:
    """Hashes of the honest agents."""
    return {name: identity_of(agent) for name, agent in honest().items()}


def made(bars: int = BARS, seed: int = 0, source: str = "synthetic:0", origin: Any = "SYNTHETIC", start: int = 0,
         ticks_more: int = 0, symbols: tuple[str, ...] = ("MADE",)) -> Iterator[tuple[str, Event]]:
    """Candles of the made market with a tick behind each bar, and ticks alone behind the last."""
    markets = {symbol: generate(seed + i, max(bars, 1)) for i, symbol in enumerate(symbols)}
    for t in range(start, bars + ticks_more):
        for symbol, m in markets.items() if t < bars else ():
            yield "market.candles", Candle(
                symbol=symbol, interval_ms=HOUR_MS, open_time_ms=t * HOUR_MS, ts_ms=(t + 1) * HOUR_MS,
                open=float(m.open[t]), high=float(m.high[t]), low=float(m.low[t]), close=float(m.close[t]),
                source=source, origin=origin,
            )
        yield "system.clock", Tick(ts_ms=(t + 1) * HOUR_MS, writer="made")


@dataclass
class Stage:
    """A run and its log.

    Attributes:
        roster: what ran.
    """

    driver: Driver
    tape: Tape
    roster: Mapping[str, Agent[Any]]

    @property
    def log(self) -> MemoryLog:
        """What the run wrote, as a broker would hold it."""
        return self.tape.log

    def judge(self, roster: Mapping[str, Agent[Any]] | None = None, since: Since | None = None,
              **options: Any) -> Report:
        """Judge the log.

        Args:
            roster: agents to fold again with; None: the honest ones.
            since: where evidence may begin.
            options: see `verify`.
        """
        return verify(self.log, roster or honest(), since=since, codec=CODEC, **options)

    def judge_by_its_own_code(self, **options: Any) -> Report:
        """Judge with the code that ran, as if it stood in the roster: under the honest hashes, which it stamped."""
        return self.judge(self.roster, identities=identities(), **options)


def stage(agents: Mapping[str, Agent[Any]] | None = None, *, tamper: Tamper | None = None, partitions: int = 1,
          without: Collection[str] = (), **market: Any) -> Stage:
    """Run agents on the made market.

    Args:
        agents: what runs in place of the honest agent of that name. It stamps the honest agent's identity.
        without: agents that do not run; nobody else waits for them.
        tamper: called with everything that is published before anything reads it; None drops the record.
        market: see `made`.
    """
    running = {name: agent for name, agent in {**honest(), **(agents or {})}.items() if name not in without}
    tape = Tape(partitions)

    def tap(record: Outgoing) -> Outgoing | None:
        if tamper is not None and record.event is not None:
            event = tamper(record.topic, record.event)
            if event is None:
                return None
            if event is not record.event:
                record = record._replace(event=event, value=CODEC.encode(record.topic, event))
        return tape(record)

    driver = Driver(running, partitions=partitions, codec=CODEC, tap=tap,
                    identities=identities())
    driver.run(made(**market))
    tape.flush(driver)
    return Stage(driver, tape, running)


def at(report: Report, agent: str, kind: Kind) -> Cell:
    """A cell."""
    return next(row for row in report.rows if row.agent == agent).cells[kind]


def states(report: Report) -> dict[str, str]:
    """State of every cell that is built, keyed agent/KIND."""
    return {f"{row.agent}/{kind}": c.state for row in report.rows for kind, c in row.cells.items()
            if c.state != "NOT BUILT"}


def red(report: Report) -> set[str]:
    """Cells that are FAIL or STALE."""
    return {name for name, state in states(report).items() if state in ("FAIL", "STALE")}

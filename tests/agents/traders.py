"""A small host for the PPO trader: bars through the features' own fold, jobs performed at their latency."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

from msgspec.structs import replace

from agents.algorithms.market import PLANTED, Params, generate
from agents.contract import Job, Output, Refused
from agents.features import Features as FeaturesAgent
from agents.ppo_trader import PpoTraderAgent, PpoTraderConfig
from agents.ppo_trader.state import TraderState
from schemas.events import (
    Candle,
    Command,
    Event,
    Features,
    PolicyCommand,
    PolicyConfig,
    TrainingCompleted,
)

QUARTER_MS = 900_000
DAY_MS = 86_400_000
START_MS = 1_700_006_400_000 // DAY_MS * DAY_MS
SMALL = PpoTraderConfig(hidden=(8,), epochs=1, episode_bars=60, min_rows=8, window_rows=200, synthetic=True)
Done = Callable[[PpoTraderAgent, Job], Output]


@cache
def bars(symbol: str = "T", seed: int = 1, n: int = 400, params: Params = PLANTED,
         interval_ms: int = QUARTER_MS, volume: bool = True) -> tuple[Features, ...]:
    """Features of a made market whose first ready bar closes at a midnight, and nothing before it."""
    m, agent = generate(seed, n + 300, params), FeaturesAgent()
    state, found = agent.new(symbol), list[Features]()
    columns = zip(*(x.tolist() for x in (m.open, m.high, m.low, m.close, m.volume)), strict=True)
    for i, (o, h, lo, c, v) in enumerate(columns):
        opened = i * interval_ms
        candle = Candle(symbol=symbol, interval_ms=interval_ms, open_time_ms=opened, ts_ms=opened + interval_ms,
                        open=o, high=h, low=lo, close=c, volume=v if volume else None, source=f"synthetic:{seed}",
                        origin="SYNTHETIC")
        state, out = agent.step(state, candle)
        event = out[0].event
        assert isinstance(event, Features)
        if event.ready and len(found) < n:
            found.append(event)
    shift = START_MS - found[0].ts_ms
    return tuple(replace(f, open_time_ms=f.open_time_ms + shift, ts_ms=f.ts_ms + shift) for f in found)


class Traded:
    """What a run left.

    Attributes:
        state: the last.
        outputs: of the agent, in order, results of jobs not among them.
        events: what the agent took, in order, results among them.
        jobs: that were performed.
    """

    def __init__(self, agent: PpoTraderAgent, state: TraderState) -> None:
        self.agent, self.state = agent, state
        self.outputs: list[Output] = []
        self.events: list[Event] = []
        self.jobs: list[Job] = []

    def take(self, event: Event) -> tuple[Output, ...]:
        """Fold one event."""
        self.events.append(event)
        self.state, out = self.agent.step(self.state, event)
        self.outputs += out
        return out

    def of(self, topic: str) -> list[Any]:
        """Events put out on a topic."""
        return [o.event for o in self.outputs if o.topic == topic]

    @property
    def slots(self) -> list[tuple[int, str]]:
        """(start, how it ended) of every slot, in order of the start; results among them."""
        ends = [*self.of("rl_v3.training.completed"), *(e for e in self.events if isinstance(e, TrainingCompleted))]
        return sorted({(e.slot_start_ms, e.skipped or e.status) for e in ends})


def performed(agent: PpoTraderAgent, job: Job) -> Output:
    """The job's own result."""
    return agent.perform(job)


def trade(config: PpoTraderConfig, events: Iterable[Event], *, done: Done = performed, late: bool = False,
          traded: Traded | None = None) -> Traded:
    """Fold events in order.

    Args:
        done: makes the result of a job.
        late: results come only after all events, as in a replay that runs ahead of its fits.
        traded: to go on with.
    """
    agent = PpoTraderAgent(config)
    t = traded if traded is not None else Traded(agent, agent.new("T"))
    coming: dict[str, Event] = {}

    def ask() -> None:
        for job in agent.jobs(t.state):
            if job.job_id not in coming and job.job_id not in {j.job_id for j in t.jobs}:
                t.jobs.append(job)
                coming[job.job_id] = done(agent, job).event

    def come(before_ms: int | None) -> None:
        ask()
        while due := [k for k, e in coming.items() if before_ms is None or e.ts_ms < before_ms]:  # type: ignore[attr-defined]
            t.take(coming.pop(due[0]))
            ask()

    for event in events:
        if not late:
            come(event.ts_ms)  # type: ignore[attr-defined]
        t.take(event)
    come(None)
    return t


def config_event(values: str, ts_ms: int, agent: str = "ppo_trader") -> PolicyConfig:
    return PolicyConfig(config_id=f"c{ts_ms}", agent=agent, ts_ms=ts_ms, values=values, actor="ann", reason="because")


def command(kind: Command, ts_ms: int, **changes: Any) -> PolicyCommand:
    values: dict[str, Any] = {"command_id": f"{kind}-{ts_ms}", "ts_ms": ts_ms, "command": kind,
                              "policy_id": None if kind in ("HALT", "RESUME") else "ppo_trader/T",
                              "actor": "ann", "reason": "because"}
    return PolicyCommand(**(values | changes))


def in_order(*several: Sequence[Event]) -> list[Event]:
    """Events by time; at the same time those that were named first come first."""
    return sorted((e for events in several for e in events), key=lambda e: e.ts_ms)  # type: ignore[attr-defined]


def refused(agent: PpoTraderAgent, state: TraderState, event: Event) -> str:
    """Reason of a refusal."""
    try:
        agent.step(state, event)
    except Refused as found:
        return found.reason
    raise AssertionError("it was taken")

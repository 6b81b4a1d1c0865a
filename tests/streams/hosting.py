"""What tests of the host share: producing, waiting, and reading back state and outputs."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Any

import confluent_kafka as ck
import psutil
from confluent_kafka.admin import AdminClient
from faust.types import TP

from schemas.codec import Codec
from schemas.events import Event
from streams import topics
from streams.commits import Commits
from streams.fold import PartitionFold
from streams.log import LogReader, Record
from streams.records import encode_event
from streams.restore import restore
from streams.settings import Settings
from streams.trainers.process import CHILD
from tests.patience import PATIENCE_S
from tests.streams.counting import Count, CountingFeatures, CountingLearner, chained

FEATURES = ("market.candles", "market.candles.dlq", "features.inbox", "features.changelog", "market.features",
            "market.regime.changed")
LEARNER = ("learning.experience", "learning.experience.dlq", "q_learning.changelog", "rl.q_learning.updated",
           "learning.drift.detected", "policy.ledger", "policy.current")
CODEC = Codec()


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test in an event loop of its own."""
    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


def produce(settings: Settings, topic: str, events: Iterable[Event]) -> None:
    """Events as a feed of ours produces them."""
    send(settings, ((topic, record.key, record.value, record.headers)
                    for record in (encode_event(CODEC, topic, e, "", "synthetic:1") for e in events)))


def send(settings: Settings, records: Iterable[tuple[str, Any, Any, Any]], partition: int = -1) -> None:
    """Raw records: (topic, key, value, headers)."""
    producer = ck.Producer({**settings.producer(), "linger.ms": 5})
    for topic, key, value, headers in records:
        while True:
            try:
                producer.produce(settings.topic(topic), value, key, partition, headers=list(headers))
                break
            except BufferError:
                producer.poll(0.05)
    assert producer.flush(PATIENCE_S) == 0


def read(settings: Settings, topic: str) -> list[Record]:
    """All records of a topic."""
    with LogReader(settings) as log:
        return list(log.read(topic))


def count(settings: Settings, topic: str) -> int:
    """Records ever written to a topic without compaction or retention at work."""
    return sum(ends(settings, topic).values())


def ends(settings: Settings, topic: str) -> dict[int, int]:
    """End offsets of a topic's partitions."""
    with LogReader(settings) as log:
        return {p: log.bounds(topic, p)[1] for p in log.partitions(topic)}


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition that reads the broker."""
    give_up = time.monotonic() + PATIENCE_S
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < give_up, f"waited {PATIENCE_S} s for {what}"
        await asyncio.sleep(0.1)


def folds(settings: Settings, agent: CountingFeatures | CountingLearner) -> dict[int, PartitionFold]:
    """Folds of every input partition as the next worker would restore them; nothing to fold again."""
    def new(partition: int) -> PartitionFold:
        return PartitionFold(agent, partition, CODEC)

    io = new(0).io
    with LogReader(settings) as log:
        inputs = [TP(settings.topic(io.input_topic), p) for p in log.partitions(io.input_topic)]
    restored = restore(settings.client(), CODEC, new, inputs, settings.topic(io.changelog), lambda: False)
    assert not any(found.wipe for found in restored.values()), "the state on the changelog is damaged"
    return {tp.partition: found.fold for tp, found in restored.items()}


def counts(settings: Settings, agent: CountingFeatures | CountingLearner) -> dict[str, Count]:
    """Durable state of every symbol."""
    out: dict[str, Count] = {}
    for fold in folds(settings, agent).values():
        for scope, entry in fold.scopes.items():
            assert scope not in out, f"{scope} lives in two partitions"
            assert isinstance(entry.state, Count)
            out[scope] = entry.state
    return out


def expected(events: Iterable[Any]) -> dict[str, Count]:
    """What counting comes to, computed without fold, host or broker."""
    out: dict[str, Count] = {}
    for event in events:
        old = out.get(event.symbol, Count())
        out[event.symbol] = Count(n=old.n + 1, chain=chained(old.chain, event.ts_ms))
    return out


def firsts(records: Iterable[Record]) -> dict[str, Record]:
    """Records by their `ce_id`; repeats must be the same bytes."""
    out: dict[str, Record] = {}
    for record in records:
        ce_id = dict(record.headers)["ce_id"].decode()
        old = out.setdefault(ce_id, record)
        assert (old.key, old.value, old.headers) == (record.key, record.value, record.headers), f"{ce_id} differs"
    return out


def committed(settings: Settings, agent: str, topic: str) -> Mapping[int, int]:
    """The group's committed offsets of a topic; partitions without a commit are left out."""
    with LogReader(settings) as log:
        asked = [(settings.topic(topic), p) for p in log.partitions(topic)]
    with contextlib.closing(Commits(settings, timeout_s=PATIENCE_S)) as commits:
        return {partition: offset for (_, partition), offset in commits.of(settings.group(agent), asked).items()}


class WorkerProcess:
    """A worker in a process of its own."""

    def __init__(self, settings: Settings, name: str, log: Path, script: str = "counting_worker.py") -> None:
        self.log = log
        with log.open("a") as file:
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name(script)), settings.broker, settings.topic_prefix,
                 settings.app_id, str(settings.data_dir), name], stderr=file, stdout=file)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()

    def terminate(self) -> int:
        """SIGTERM; the exit code. Ten seconds are the promise."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(PATIENCE_S)

    def ended(self) -> int | None:
        """The exit code, None while it runs."""
        return self._process.poll()

    def says(self, text: str) -> bool:
        """Whether it has said so yet; one that ended without is an error, with all that it said."""
        ended, said = self.ended(), self.log.read_text()
        assert text in said or ended is None, f"it ended with {ended} and never said {text!r}:\n{said}"
        return text in said

    def pause(self, paused: bool) -> None:
        """SIGSTOP or SIGCONT."""
        self._process.send_signal(signal.SIGSTOP if paused else signal.SIGCONT)


def trainers(parent: int | None = None) -> list[psutil.Process]:
    """Trainer processes below a process; default this one."""
    found = []
    try:
        children = psutil.Process(parent).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    for process in children:
        try:
            if CHILD in process.cmdline():
                found.append(process)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found


async def deleted(settings: Settings, *names: str) -> None:
    """Delete topics, and wait until the broker has done it."""
    client = AdminClient(dict(settings.client()))  # held until its futures have resolved
    wire = [settings.topic(name) for name in names]
    for future in client.delete_topics(wire).values():
        await asyncio.to_thread(future.result)
    await until(lambda: not set(wire) & set(topics.connect(settings)[1]), "the deletion")


async def made_anew(settings: Settings, *names: str) -> None:
    """Delete topics and make them again under their names."""
    await deleted(settings, *names)
    await asyncio.to_thread(topics.apply, settings, names)

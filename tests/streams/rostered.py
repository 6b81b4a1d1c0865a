"""Runs the real roster as `quantum worker` does it, and waits until it has taken everything."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agents.contract import Agent
from agents.roster import ROSTER
from schemas import catalogue
from schemas.catalogue import built_agents
from schemas.codec import Codec
from schemas.events import PartitionHead, ScopeState
from streams.commits import Commits
from streams.fold import PartitionFold
from streams.log import LogReader, NoBroker
from streams.records import HEAD_KEY, SCOPE_PREFIX, Incoming
from streams.settings import Settings
from tests.patience import PATIENCE_S


@contextmanager
def worker(settings: Settings, log: Path, agents: str | None = None, config: str | None = None,
           ) -> Iterator[subprocess.Popen[bytes]]:
    """A worker with the real agents; stopped by SIGTERM if the test has not done so. `config`: of `--agent-config`."""
    line = [sys.executable, "-m", "streams.cli.main", "worker", "--broker", settings.broker, "--topic-prefix",
            settings.topic_prefix, "--app-id", settings.app_id, "--log-level", "warning",
            *(("--agents", agents) if agents else ()), *(("--agent-config", config) if config else ())]
    with log.open("a") as file:
        process = subprocess.Popen(line, stdout=file, stderr=file, env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def behind(settings: Settings, only: Collection[str] | None = None) -> int:
    """Records on the agents' inputs that their groups have not committed."""
    commits = Commits(settings)
    total = 0
    try:
        with LogReader(settings) as log:
            for agent in built_agents():
                if only is not None and agent.name not in only:
                    continue
                for topic in {agent.input_topic, *agent.reads}:
                    ends = {(settings.topic(topic), p): log.bounds(topic, p)[1] for p in log.partitions(topic)}
                    mine = commits.of(settings.group(agent.name), ends)
                    total += sum(end - mine.get(place, 0) for place, end in ends.items())
    finally:
        commits.close()
    return total


def until_done(settings: Settings, process: subprocess.Popen[bytes], log: Path,
               only: Collection[str] | None = None) -> None:
    """Until nothing is left to take, twice in a row: what is taken last may bring more."""
    give_up = time.monotonic() + PATIENCE_S
    quiet = 0
    while quiet < 2:
        assert process.poll() is None, f"the worker ended with {process.returncode}:\n{log.read_text()[-3000:]}"
        assert time.monotonic() < give_up, f"{behind(settings)} records not taken:\n{log.read_text()[-3000:]}"
        time.sleep(0.3)
        try:
            quiet = quiet + 1 if behind(settings, only) == 0 else 0
        except NoBroker:
            quiet = 0


def same_as_its_log(settings: Settings, agents: Mapping[str, Agent[Any]] | None = None) -> dict[str, int]:
    """Hold the durable state of every agent to the fold of its input log as it stands; records folded, by agent.

    Args:
        settings: of the workers.
        agents: those that ran, as they were configured; by default the roster.

    This is what "nothing was lost and nothing counted twice" means: whatever happened to workers and broker, the state
    on the changelog is the one that an undisturbed fold of the input comes to.
    """
    codec, folded = Codec(), {}
    with LogReader(settings) as log:
        for name, agent in (agents or {io.name: ROSTER[io.name]() for io in built_agents()}).items():
            io = catalogue.AGENTS[name]
            heads = newest_heads(log, codec, io.changelog)
            folded[io.name] = 0
            for partition in log.partitions(io.input_topic):
                fold = PartitionFold(agent, partition, codec)
                for r in log.read(io.input_topic, partitions=[partition]):
                    fold.apply(Incoming(r.offset, r.key, r.value, r.headers))
                    folded[io.name] += 1
                if partition in heads:
                    assert fold.offset == heads[partition].input_offset, f"{io.name}-{partition} did not take all"
                    assert fold.counters.applied == heads[partition].applied, f"{io.name}-{partition}"
                    assert states_of(fold) == scopes_of(log, codec, io.changelog, partition), f"{io.name}-{partition}"
                else:
                    assert fold.offset == -1, f"{io.name}-{partition} has input but no state"
    return folded


def newest_heads(log: LogReader, codec: Codec, changelog: str) -> dict[int, PartitionHead]:
    """The newest head of each partition."""
    heads: dict[int, PartitionHead] = {}
    for record in log.read(changelog):
        if record.key == HEAD_KEY and record.value is not None:
            head = codec.decode("state.head", record.value)
            assert isinstance(head, PartitionHead)
            heads[record.partition] = head
    return heads


def states_of(fold: PartitionFold) -> dict[str, bytes]:
    """State of every scope, as bytes."""
    return {scope: fold.state_bytes(entry.state) for scope, entry in fold.scopes.items()}


def scopes_of(log: LogReader, codec: Codec, changelog: str, partition: int) -> dict[str, bytes]:
    """State of every scope on the changelog, as bytes."""
    states: dict[str, tuple[int, bytes]] = {}
    for record in log.read(changelog, partitions=[partition]):
        if (record.key or b"").startswith(SCOPE_PREFIX.encode()) and record.value is not None:
            row = codec.decode("state.scope", record.value)
            assert isinstance(row, ScopeState)
            states[row.scope] = max(states.get(row.scope, (-1, b"")), (row.input_offset, row.state))
    return {scope: state for scope, (_, state) in states.items()}

"""One automatic suite for every agent.

    from tests.agents.check import check_agent

    def test_features() -> None:
        check_agent(Features, candles)

`check_agent` needs a factory and realistic events, in the order in which they come, that the agent takes without
refusing any and that make it publish something; several symbols are better than one. It fails with a plain
AssertionError. The single checks may be called alone. What each holds the agent to stands in its docstring.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from agents.contract import Agent, Batch, Job, Output, Refused, State, Tombstone
from schemas import catalogue
from schemas.columns import ColumnDecoder, Columns
from schemas.events import Event
from schemas.lockstep import PAD
from streams.commanded import addressee
from streams.fold import PartitionFold
from streams.records import Outgoing, event_key
from streams.trainers.jobs import Asked, encoded, has_jobs, returning
from tests.agents.check_inputs import CODEC, Log, bent, broken_value, topic_of

Factory = Callable[[], Agent[Any]]
Rows = list[tuple[Output, ...]]
ROOT = Path(__file__).parents[2]


class Taken(NamedTuple):
    """What a run of events left: outputs of each event, and the last state of each scope in bytes."""

    rows: Rows
    states: dict[str, bytes]


def check_agent(factory: Factory, events: Sequence[Event], *, monotone: bool = True) -> None:
    """Run all checks.

    Args:
        factory: makes the agent, the same each time; the agent's class must be importable by its name.
        events: realistic inputs, in the order in which the agent gets them.
        monotone: False for an agent that may rightly publish an event older than one it published before.
    """
    events = list(events)
    assert events, "no events, nothing is checked"
    check_outputs(factory, events, monotone=monotone)
    check_purity(factory, events)
    check_two_instances(factory, events)
    check_state_round_trip(factory, events)
    check_seeding(factory, events)
    check_step_many(factory, events)
    check_no_look_ahead(factory, events)
    check_late_input(factory, events)
    check_partitions(factory, events)
    check_bad_input(factory, events)
    check_processes(factory, events)
    check_jobs(factory, events)


# ---------------------------------------------------------------------- a small host, without log or partitions
class Host:
    """Steps an agent scope by scope, as a fold would that has all of them."""

    def __init__(self, agent: Agent[Any], states: dict[str, State] | None = None) -> None:
        self.agent = agent
        self.states: dict[str, State] = dict(states or {})
        self.sticky: dict[str, Event] = {}

    def scopes(self, event: Event) -> list[str]:
        """Scopes that an event goes to; a new one is born."""
        topic = topic_of(self.agent, event)
        route = catalogue.AGENTS[self.agent.name].reads[topic]
        if route == "broadcast":
            key = self.agent.sticky_key(event)
            if key is not None:
                self.sticky[key] = event
            only = addressee(event)
            return [s for s in sorted(self.states) if only in (None, s)]
        scope = catalogue.scope_of(topic, event_key(topic, event).decode())
        if route == "gather":
            scope = catalogue.GLOBAL
        elif scope == catalogue.GLOBAL:
            key = self.agent.sticky_key(event)
            if key is not None:
                self.sticky[key] = event
            return sorted(self.states)
        if scope not in self.states:
            state = self.agent.new(scope)
            for kept in self.sticky.values():
                if addressee(kept) in (None, scope):
                    state, _ = self.agent.step(state, kept)
            self.states[scope] = state
        return [scope]

    def take(self, event: Event) -> tuple[Output, ...]:
        """Outputs of an event, over all of its scopes."""
        out: tuple[Output, ...] = ()
        for scope in self.scopes(event):
            self.states[scope], more = self.agent.step(self.states[scope], event)
            out += tuple(more)
        return out

    def bytes(self) -> dict[str, bytes]:
        """States in Avro."""
        return {scope: CODEC.encode_state(state) for scope, state in self.states.items()}


def run(agent: Agent[Any], events: Iterable[Event], *, refusing: bool = False) -> Taken:
    """Fold events in order.

    Args:
        agent: the agent.
        events: its inputs.
        refusing: True where it may refuse; a refused event then has no outputs.
    """
    host, rows = Host(agent), []
    for event in events:
        try:
            rows.append(host.take(event))
        except Refused:
            assert refusing, f"{agent.name} refused a realistic event: {event}"
            rows.append(())
    return Taken(rows, host.bytes())


# ---------------------------------------------------------------------- the checks
def check_outputs(factory: Factory, events: Sequence[Event], *, monotone: bool = True) -> None:
    """Outputs go to topics the catalogue lists, can be encoded, and carry event time that was reached already.

    Within one scope and topic, event time does not go back (`monotone`).
    """
    agent = factory()
    taken = run(agent, events)
    assert any(taken.rows), "the events make the agent publish nothing: the checks would be empty"
    writes, last, reached = catalogue.AGENTS[agent.name].writes, dict[tuple[str, bytes], int](), 0
    for event, row in zip(events, taken.rows, strict=True):
        reached = max(reached, _ts_ms(event))
        for topic, output in row:
            if isinstance(output, Tombstone):
                assert topic == "policy.current", "only the view of policies has keys to be freed"
                assert "policy.ledger" in writes, f"{agent.name} writes no policies"
                continue
            assert topic in writes, f"{agent.name} may not write {topic}"
            assert CODEC.decode(topic, CODEC.encode(topic, output)) == output, "an output changes in the codec"
            ts_ms, place = _ts_ms(output), (topic, event_key(topic, output))
            assert ts_ms <= reached, f"{topic} carries {ts_ms}, which is after its input {reached}"
            assert not monotone or ts_ms >= last.get(place, 0), f"event time goes back on {place}"
            last[place] = ts_ms


def check_purity(factory: Factory, events: Sequence[Event]) -> None:
    """A step changes neither the state nor the event it gets, and gives the same when taken again.

    Also after the agent went on: every fiftieth step is repeated, on the same instance, at the end.
    """
    agent = factory()
    host, kept = Host(agent), []
    for n, event in enumerate(events):
        seen = _event_bytes(agent, event)
        for scope in host.scopes(event):
            state = host.states[scope]
            before = CODEC.encode_state(state)
            first = agent.step(state, event)
            second = agent.step(state, event)
            assert CODEC.encode_state(state) == before, f"step {n} changed the state it got"
            assert first == second, f"step {n} twice from the same state gives different results"
            host.states[scope] = first[0]
            if n % 50 == 0:
                kept.append((n, state, event, first))
        assert _event_bytes(agent, event) == seen, f"step {n} changed its event"
    for n, state, event, result in reversed(kept):
        assert agent.step(state, event) == result, f"step {n} gives another result after later steps: hidden state"


def check_two_instances(factory: Factory, events: Sequence[Event]) -> None:
    """An instance that takes every second step, and another the rest, give what one alone gives."""
    alone = run(factory(), events)
    agents, host, rows = (factory(), factory()), Host(factory()), []
    for n, event in enumerate(events):
        host.agent = agents[n % 2]
        rows.append(host.take(event))
    _same(alone, Taken(rows, host.bytes()), "two instances in turn differ from one: hidden state")


def check_state_round_trip(factory: Factory, events: Sequence[Event]) -> None:
    """States survive Avro after every step: equal, and going on from the decoded one gives the same."""
    agent = factory()
    alone = run(agent, events)
    host, rows = Host(factory()), []
    for n, event in enumerate(events):
        rows.append(host.take(event))
        for scope in host.scopes(event):
            data = CODEC.encode_state(host.states[scope])
            decoded = CODEC.decode_state(agent.state_type, data)
            assert decoded == host.states[scope], f"state of {scope} changes in Avro after step {n}"
            assert CODEC.encode_state(decoded) == data, f"state of {scope} has two encodings after step {n}"
            host.states[scope] = decoded
    _same(alone, Taken(rows, host.bytes()), "going on from decoded states differs")


def check_seeding(factory: Factory, events: Sequence[Event]) -> None:
    """The same seed gives the same; another seed is taken without harm."""
    agent = factory()
    _same(run(agent, events), run(type(agent)(agent.config), events), "the same seed gives different results")
    other = msgspec.structs.replace(agent.config, seed=agent.config.seed + 1)
    _same(run(type(agent)(other), events), run(type(agent)(other), events), "another seed is not reproducible")


def check_step_many(factory: Factory, events: Sequence[Event]) -> None:
    """`step_many`, where an agent takes a topic in columns, equals the steps one by one, batch by batch."""
    agent, rng = factory(), random.Random(11)
    for topic in sorted(agent.in_columns):
        own = [e for e in events if topic_of(agent, e) == topic]
        assert own, f"no events of {topic}, which the agent takes in columns"
        decoder, states = ColumnDecoder(topic), dict[str, State]()
        while own:
            rows, own = own[:(n := rng.randrange(1, 2 * len(events)))], own[n:]
            names = [catalogue.scope_of(topic, event_key(topic, e).decode()) for e in rows]
            scopes = tuple(dict.fromkeys(names))
            before = tuple(states.get(scope) or agent.new(scope) for scope in scopes)
            states |= zip(scopes, before, strict=True)
            outputs: list[tuple[int, Output]] = []
            changed = dict.fromkeys(scopes, -1)
            for row, (name, event) in enumerate(zip(names, rows, strict=True)):
                old = states[name]
                states[name], more = agent.step(old, event)
                outputs += [(row, output) for output in more]
                changed[name] = row if states[name] is not old else changed[name]
            many = agent.step_many(Batch(columns_of(decoder, topic, rows), scopes, before,
                                         np.array([scopes.index(name) for name in names])))
            assert many is not None, f"step_many declines good records of {topic}"
            one_by_one = tuple(states[scope] for scope in scopes), list(changed.values()), outputs
            at_once = tuple(many.states), list(many.changed), list(many.outputs)
            assert at_once == one_by_one, f"step_many differs on {topic}"


def columns_of(decoder: ColumnDecoder, topic: str, events: Sequence[Event]) -> Columns:
    """Events as the columns that a batch of their records comes to."""
    values = [CODEC.encode(topic, event) for event in events]
    end_N = np.cumsum([len(value) for value in values])
    columns = decoder.decode(b"".join(values) + bytes(PAD), end_N - np.array([len(value) for value in values]), end_N)
    assert columns.good_N.all(), f"good records of {topic} are not read in columns"
    return columns


def check_no_look_ahead(factory: Factory, events: Sequence[Event], cuts: int = 5) -> None:
    """Whatever comes after a cut, nothing published before it changes. Events after it are bent, dropped, repeated."""
    rng = random.Random(20240229)
    rows = run(factory(), events).rows
    for _ in range(cuts):
        cut = rng.randrange(1, len(events) + 1)
        tail = [bent(e, rng) for e in events[cut:] if rng.random() > 0.1]
        tail += rng.sample(tail, len(tail) // 10)
        after = run(factory(), [*events[:cut], *tail], refusing=True).rows
        assert after[:cut] == rows[:cut], f"what came after event {cut} changed what was published before it"


def check_late_input(factory: Factory, events: Sequence[Event]) -> None:
    """Old events again, and events out of order: taken, ignored or refused, never another exception.

    A refused event leaves the agent as it was: going on gives what a run without it gives.
    """
    rng = random.Random(7)
    agent = factory()
    host, plain = Host(agent), Host(factory())
    for n, event in enumerate(events):
        if n and n % 7 == 0:
            _refused_or_taken(host, events[rng.randrange(n)])
            if host.bytes() != plain.bytes():  # it was taken, which is its right: go on from the same states
                host.states = dict(plain.states)
        assert host.take(event) == plain.take(event), f"an old event that was not taken changed step {n}"
    shuffled = list(events)
    for _ in range(len(events) // 10):
        i = rng.randrange(len(events))
        shuffled.insert(max(0, i - rng.randrange(20)), shuffled.pop(i))
    run(factory(), shuffled, refusing=True)


def check_partitions(factory: Factory, events: Sequence[Event]) -> None:
    """States of scopes and outputs of each scope are the same for 1 and for 8 partitions."""
    one, eight = folded(factory, events, 1), folded(factory, events, 8)
    assert one == eight, "states or outputs hang on the number of partitions"


def check_bad_input(factory: Factory, events: Sequence[Event]) -> None:
    """Records that nothing can read become dead letters, bytes intact, and leave the agent as it was."""
    agent = factory()
    rng = random.Random(11)
    good, bad = PartitionFold(factory(), 0, CODEC), PartitionFold(agent, 0, CODEC)
    log = Log(agent, 1)
    expected = [r for r in (good.apply(record) for _, record in log.records(events)) if r]
    log, got, refused = Log(agent, 1), [], 0
    for n, (_, record) in enumerate(log.records(events, gap=2)):
        out = bad.apply(record)
        if out:
            got.append(out)
        if n % 5 == 0 and record.value is not None:
            broken = broken_value(record.value, n // 5, rng)
            before = bad.digest()
            out = bad.apply(log.again(record, broken))
            assert [(o.value, o.topic[-4:]) for o in out] == [(broken, ".dlq")], f"{broken!r} is not a dead letter"
            assert bad.digest() == before, "a refused record changed the state"
            refused += 1
    assert refused > 0
    assert bad.counters.refused == refused
    assert bad.digest() == good.digest()
    assert [[(o.topic, o.key, o.value) for o in row] for row in got] == \
        [[(o.topic, o.key, o.value) for o in row] for row in expected]


def check_processes(factory: Factory, events: Sequence[Event]) -> None:
    """Two other processes, with other hash seeds, come to the same outputs and states."""
    agent = factory()
    cls = type(agent)
    task = {
        "module": cls.__module__, "name": cls.__qualname__, "config": msgspec.json.encode(agent.config).decode(),
        "events": [(t, CODEC.encode(t, e).hex()) for t, e in ((topic_of(agent, e), e) for e in events)],
    }
    here = summary(run(agent, events))
    for seed in ("1", "4242"):
        env = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, "-c", "from tests.agents.check import child; child()"], cwd=ROOT,
                              env=env, input=json.dumps(task), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == here, f"a process with PYTHONHASHSEED={seed} comes to another result"


# ---------------------------------------------------------------------- helpers of the checks
def child() -> None:
    """The other process of `check_processes`: reads a task on standard input, prints the summary."""
    import importlib

    task = json.load(sys.stdin)
    cls = getattr(importlib.import_module(task["module"]), task["name"])
    agent = cls(msgspec.json.decode(task["config"], type=cls.config_type))
    print(summary(run(agent, [CODEC.decode(t, bytes.fromhex(v)) for t, v in task["events"]])))


def summary(taken: Taken) -> str:
    """SHA-256 over all outputs, as encoded, and all states."""
    digest = hashlib.sha256()
    for row in taken.rows:
        for topic, event in row:
            digest.update(topic.encode() + CODEC.encode(topic, event))
        digest.update(b"\n")
    for scope, state in sorted(taken.states.items()):
        digest.update(scope.encode() + state)
    return digest.hexdigest()


def folded(
    factory: Factory, events: Sequence[Event], partitions: int
) -> tuple[dict[str, str], dict[bytes | None, list[tuple[str, bytes | None]]]]:
    """State hash of every scope, and (topic, value) of the outputs of every key, after folding by partitions."""
    log = Log(factory(), partitions)
    folds = [PartitionFold(factory(), p, CODEC) for p in range(partitions)]
    outputs: dict[bytes | None, list[tuple[str, bytes | None]]] = {}
    for p, record in log.records(events):
        out: list[Outgoing] = folds[p].apply(record)
        for o in out:
            outputs.setdefault(o.key, []).append((o.topic, o.value))
    hashes = {s: fold.state_hash(s, entry.state) for fold in folds for s, entry in fold.scopes.items()}
    return hashes, outputs


def _refused_or_taken(host: Host, event: Event) -> None:
    before = host.bytes()
    try:
        host.take(event)
    except Refused:
        assert host.bytes() == before, f"a refused event changed the state: {event}"


def _event_bytes(agent: Agent[Any], event: Event) -> bytes:
    return CODEC.encode(topic_of(agent, event), event)


def _same(a: Taken, b: Taken, message: str) -> None:
    for n, (left, right) in enumerate(zip(a.rows, b.rows, strict=True)):
        assert left == right, f"{message}: outputs of event {n}"
    assert a.states == b.states, f"{message}: states"


def _ts_ms(event: Any) -> int:
    return int(event.ts_ms)


def check_jobs(factory: Factory, events: Sequence[Event]) -> None:
    """Jobs are a function of the state's bytes, a request stays as it is; one performed twice has one result.

    The first job that the events open is performed, and its result, then its failure, taken: either closes it, and a
    second answer leaves the very same state.
    """
    agent = factory()
    if not has_jobs(agent):
        return
    host, requests = Host(agent), dict[str, bytes]()
    first: tuple[str, State, Job] | None = None
    for event in events:
        host.take(event)
        for scope, state in host.states.items():
            jobs = agent.jobs(state)
            for job in jobs:
                assert requests.setdefault(job.job_id, job.request) == job.request, f"{job.job_id}: another request"
                if first is None or first[2].job_id == job.job_id:
                    first = scope, state, job
            if jobs:
                again = CODEC.decode_state(agent.state_type, CODEC.encode_state(state))
                assert factory().jobs(again) == jobs, f"{agent.name}/{scope}: a restored state has other jobs open"
    assert first is not None, f"the events open no job of {agent.name}"
    scope, state, job = first
    done = agent.perform(job)
    assert factory().perform(job) == done, f"{job.job_id}: performed twice, it has two results"
    for answer in (done, agent.failed(job, "a test", 0)):
        record = encoded(CODEC, agent, job, answer)
        returning(agent, Asked(scope, job), record)
        event = CODEC.decode(record.topic, record.value)
        closed, _ = agent.step(state, event)
        assert job.job_id not in {j.job_id for j in agent.jobs(closed)}, f"{job.job_id}: {answer.topic} leaves it open"
        twice, more = agent.step(closed, event)
        assert (twice, more) == (closed, ()), f"{job.job_id}: a second answer counts too"
        assert twice is closed, f"{job.job_id}: a second answer makes a new state"

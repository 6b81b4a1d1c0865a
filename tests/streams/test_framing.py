"""Our own records in Confluent framing: what others read, and that whatever compares bytes does not see the framing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import msgspec
import pytest
from click.testing import CliRunner
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext
from faust.types import TP
from msgspec.structs import replace

from agents.contract import Job
from schemas.catalogue import TOPICS
from schemas.codec import CONFLUENT, SINGLE_OBJECT, Codec
from schemas.events import Candle, Event, Experience, PolicyCommand, PolicyRecord
from schemas.refused import Refused
from schemas.released import schema_text
from streams import subjects
from streams.cli.exits import Exit
from streams.cli.main import main
from streams.cli.tail import command as tail
from streams.driver import Driver
from streams.fold import PartitionFold
from streams.log import Record
from streams.policies import blame
from streams.policies.deriving import Deriver, Report
from streams.policies.ledger import read_ledger
from streams.policies.rederive import Genesis, Group
from streams.producing import judged
from streams.records import Incoming, Outgoing, encode_event
from streams.registry import Registry
from streams.registry_errors import RegistryRefused
from streams.settings import Settings
from streams.stats import AgentStats
from streams.subjects import codec_for, event_topics, subject_of
from streams.trainers import trainers as trainers_module
from streams.trainers.child import Done
from streams.trainers.jobs import Asked
from streams.verify.evidence import Evidence
from streams.verify.judge import verify
from streams.verify.labels import Labels
from streams.verify.planted.stage import HOUR_MS, honest, identities, made, red
from streams.verify.tape import Tape
from streams.verify.view import MemoryLog
from streams.worker import run_agents
from tests.faults.judge import judge, read_all
from tests.streams.counting import CountingFeatures, candle
from tests.streams.hosting import FEATURES, count, in_loop, produce, read, send, until
from tests.streams.registries import Stub, apicurio, stubbed

LEDGER, CANDLES, REGIMES, TRADES = "policy.ledger", "market.candles", "market.regime.changed", "execution.trade.closed"
T0 = 1_600_000_000_000
BARS = 600
HALF_MS = BARS // 2 * HOUR_MS


@pytest.fixture(scope="module")
def stub() -> Iterator[Stub]:
    with stubbed() as server:
        subjects.apply(_confluent(server.url))
        yield server


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of an Apicurio Registry with our schemas."""
    with apicurio(tmp_path_factory.mktemp("apicurio") / "log") as url:
        subjects.apply(_confluent(url))
        yield url


def _confluent(url: str) -> Settings:
    return Settings(registry=url, framing="confluent")


@pytest.fixture(params=["stub", pytest.param("real", marks=pytest.mark.registry)])
def settings(request: pytest.FixtureRequest) -> Settings:
    url = request.getfixturevalue(request.param)
    return _confluent(url if isinstance(url, str) else url.url)


def _nothing(record: Outgoing) -> None:
    """Of a record that is published."""


def _run(codec: Codec, bars: int = BARS, tap: Callable[[Outgoing], None] = _nothing,
         without: Collection[str] = ()) -> tuple[Driver, MemoryLog]:
    """The roster on the made market, with its log."""
    tape = Tape()

    def written(record: Outgoing) -> Outgoing | None:
        tap(record)
        return tape(record)

    agents = {name: agent for name, agent in honest().items() if name not in without}
    driver = Driver(agents, codec=codec, tap=written, identities=identities())
    driver.run(made(bars=bars))
    return driver, tape.flush(driver)


class Whole(NamedTuple):
    """A codec that reads a log, the log, and the codec that wrote it: judges may have the one or the other."""

    codec: Codec
    log: MemoryLog
    writer: Codec


@pytest.fixture(scope="module")
def whole(stub: Stub) -> Whole:
    """All agents and all that they learn, written in Confluent framing."""
    settings = _confluent(stub.url)
    codec = codec_for(settings, writes=True)
    asked = len(stub.asked)
    _, log = _run(codec)
    assert len(stub.asked) == asked, "the registry is asked at the start alone"
    return Whole(codec_for(settings), log, codec)


def _reframed(codec: Codec, log: MemoryLog, which: Callable[[Record], bool]) -> MemoryLog:
    """A copy with some records in single-object encoding, as a worker with the other setting writes them."""
    other = MemoryLog()
    other.now_ms, other.commits = log.now_ms, log.commits
    for topic, partitions in log.records.items():
        other.records[topic] = {p: [r._replace(value=codec.canonical(r.value)) if which(r) else r for r in rows]
                                for p, rows in partitions.items()}
    return other


def _marks(log: MemoryLog, topic: str) -> Counter[bytes]:
    return Counter((r.value or b"")[:1] for r in log.read(topic))


def _all_framings(codec: Codec, log: MemoryLog) -> Mapping[str, MemoryLog]:
    return {"confluent": log, "single": _reframed(codec, log, lambda record: True),
            "mixed": _reframed(codec, log, lambda record: (record.timestamp_ms or 0) > HALF_MS)}


def _derived(codec: Codec, log: MemoryLog, policy_id: str | None = None) -> Report:
    ledger = read_ledger(log.read(LEDGER), codec)
    asked = [v for i, versions in ledger.versions.items() for v in versions if policy_id in (None, i)]
    return Deriver(log, honest(), codec, identities=identities(), refit=policy_id is not None)(ledger, asked[-60:])


# ---------------------------------------------------------------------- what others read
def test_confluents_deserialiser_reads_every_topic_of_a_run(settings: Settings) -> None:
    """One run of the roster less its slow learner; the slow one's topics, and those of people, by an event of each."""
    codec = codec_for(settings, writes=True)
    sent: list[tuple[str, Event, bytes]] = []
    _run(codec, 330, lambda r: sent.append((r.topic, r.event, r.value)),  # type: ignore[arg-type]
         without=("ppo_trader",))
    for topic in {t.name for t in event_topics()} - {topic for topic, _, _ in sent}:
        record = encode_event(codec, topic, _example(topic), "", "x")
        sent.append((topic, _example(topic), record.value or b""))
    assert {topic for topic, _, _ in sent} == {t.name for t in event_topics()}
    with SchemaRegistryClient({"url": settings.registry}) as client:
        read_by_others = AvroDeserializer(client)
        for topic, event, value in sent:
            theirs = read_by_others(value, SerializationContext(settings.topic(topic), MessageField.VALUE))
            assert msgspec.convert(theirs, type(event)) == event
            assert codec.decode(topic, value) == event


def _example(topic: str) -> Event:
    event_type = next(kind for kind in Event.__subclasses__() if kind.__name__ == TOPICS[topic].event)
    text = (Path(__file__).parents[2] / "schemas" / "examples" / f"{topic}.json").read_text()
    return msgspec.convert(json.loads(text), event_type)


def test_ids_are_those_of_our_newest_schema_whatever_else_is_registered(settings: Settings) -> None:
    ids = codec_for(settings, writes=True).ids
    older = json.loads(schema_text(TRADES))
    older["fields"] = [field for field in older["fields"] if "default" not in field]
    assert Registry(settings).register(subject_of(settings, TRADES), json.dumps(older)) != ids[TRADES]
    assert codec_for(settings, writes=True).ids == ids
    assert ids.keys() == {topic.name for topic in event_topics()}
    assert codec_for(settings).ids == {}, "who only reads needs no id"


def test_a_topic_whose_schema_is_not_registered_is_named_with_what_to_do(capsys: pytest.CaptureFixture[str],
                                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    with stubbed() as empty:
        settings = _confluent(empty.url)
        with pytest.raises(RegistryRefused, match=r"market\.trades-value .*quantum topics apply"):
            codec_for(settings, writes=True)
        assert codec_for(settings).ids == {}
        Registry(settings).register("market.trades-value", schema_text(CANDLES))
        with pytest.raises(RegistryRefused, match=r"market\.trades-value .*quantum topics apply"):
            codec_for(settings, writes=True)
        monkeypatch.setenv("QUANTUM_REGISTRY", empty.url)
        monkeypatch.setenv("QUANTUM_FRAMING", "confluent")
        assert main(["policy", "halt", "--reason", "x"]) == Exit.FAILED
    assert "quantum topics apply" in capsys.readouterr().err


# ---------------------------------------------------------------------- values are compared, framings are not
def test_the_canonical_form_is_the_fingerprint_and_the_body(stub: Stub) -> None:
    settings = _confluent(stub.url)
    codec = codec_for(settings, writes=True)
    event = candle("AUSDT", T0)
    single, framed = codec.encode(CANDLES, event), encode_event(codec, CANDLES, event, "", "x").value
    assert framed is not None
    assert framed[:1] == CONFLUENT
    assert framed[5:] == single[10:]
    assert codec.canonical(framed) == codec.canonical(single) == single
    assert codec.framed(CANDLES, single) == framed
    odd = (None, b"", b"\x00", b"\x00\x00\x00\xff\xffabc", b"{}", single[:5])
    assert [codec.canonical(value) for value in odd] == list(odd)
    assert codec.framed(CANDLES, b"\xc3\x01another one's") == b"\xc3\x01another one's"
    assert Codec().framed(CANDLES, single) == single
    assert codec.name_of(framed) == CANDLES
    with pytest.raises(Refused, match=r"UNKNOWN_SCHEMA.*QUANTUM_REGISTRY"):
        Codec().name_of(framed)
    assert codec.canonical(framed[:-1] + b"\x01") != single


def test_state_and_outputs_do_not_depend_on_the_framing(stub: Stub) -> None:
    """Written by workers of either setting, and by one that was started again with the other one half way."""
    settings, runs = _confluent(stub.url), {}
    for name in ("single", "confluent", "mixed"):
        codec = codec_for(settings, writes=name != "single")
        tap = partial(_turned, codec) if name == "mixed" else _nothing
        driver, log = _run(codec, 330, tap, without=("ppo_trader", "meta_strategy"))
        runs[name] = driver.digest(), log
    assert {digest for digest, _ in runs.values()} == {runs["single"][0]}
    assert {name: set(_marks(log, LEDGER)) for name, (_, log) in runs.items()} == {
        "single": {b"\xc3"}, "confluent": {b"\x00"}, "mixed": {b"\x00", b"\xc3"}}
    reader, plain = codec_for(settings), runs["single"][1]
    for _, log in runs.values():
        for topic, partitions in log.records.items():
            assert [r._replace(value=reader.canonical(r.value)) for p in partitions for r in partitions[p]] == [
                r for p in plain.records[topic] for r in plain.records[topic][p]], topic


def _turned(codec: Codec, record: Outgoing) -> None:
    """Writes as with the other setting from the fifth version of a policy on."""
    if isinstance(record.event, PolicyRecord) and record.event.version == 5:
        codec.ids = {}


def test_verify_says_the_same_of_each_framing(whole: Whole) -> None:
    codec, log, writer = whole
    logs = _all_framings(codec, log)
    assert [len(_marks(logs[name], LEDGER)) for name in ("confluent", "single", "mixed")] == [1, 1, 2]
    told = {name: verify(copy, honest(), sample_seed=1, codec=writer if name == "mixed" else codec)
            for name, copy in logs.items()}
    assert not red(told["confluent"])
    assert "PASS" in {row.cells["LEARNS"].state for row in told["confluent"].rows if row.agent == "ppo_trader"}
    assert told["confluent"].as_dict() == told["single"].as_dict() == told["mixed"].as_dict()


def test_rederive_says_the_same_of_each_framing_fits_included(whole: Whole) -> None:
    codec, log, writer = whole
    told = {name: _derived(writer if name == "mixed" else codec, copy)
            for name, copy in _all_framings(codec, log).items()}
    assert set(told["confluent"].counts()) == {"MATCH"}
    assert told["confluent"].answers == told["single"].answers == told["mixed"].answers
    fits = _derived(codec, log, "ppo_trader/MADE")
    assert sum(len(a.refits) for a in fits.answers) >= 1
    assert set(fits.counts()) == {"MATCH"}


def test_a_changed_record_is_found_in_confluent_framing_as_well(whole: Whole) -> None:
    codec, log, writer = whole
    other = _reframed(codec, log, lambda record: False)
    rows = other.records["learning.experience"][0]
    n = next(n for n, r in enumerate(rows) if _learnable(codec, r))
    old = codec.decode("learning.experience", rows[n].value)
    assert isinstance(old, Experience)
    value = codec.encode("learning.experience", replace(old, reward_r=old.reward_r + 1), _id_of(rows[n]))
    rows[n] = rows[n]._replace(value=value)
    for inbox in ("q_learning.inbox", "meta_strategy.inbox"):
        copies = other.records[inbox][0]
        copies[:] = [r._replace(value=value) if r.value == log.records["learning.experience"][0][n].value else r
                     for r in copies]
    report = verify(other, honest(), sample_seed=1, codec=codec)
    assert "experience/PERSISTS" in red(report)
    single = _reframed(codec, other, lambda record: True)
    first, *others = [_derived(judge_, log_, "q_learning/MADE").divergences
                      for judge_, log_ in ((codec, other), (writer, other), (codec, single))]
    assert [any("reward_r" in text for text in d.differs) for d in first] == [True]
    assert all(found == first for found in others)


def test_what_a_record_made_an_agent_publish_is_compared_without_its_framing(whole: Whole) -> None:
    codec, log, _ = whole
    agent, end = honest()["q_learning"], log.bounds("q_learning.inbox", 0)[1] - 1
    group = Group(agent, identities()["q_learning"], "q_learning.inbox", 0, ())
    fold = PartitionFold(agent, 0, codec, group.identity)
    rows, made_ = blame._folded(log, group, fold, 0, end)  # type: ignore[arg-type]
    first = read_ledger(log.read(LEDGER), codec).versions["q_learning/MADE"][0]
    desk = blame.Desk(log, honest(), codec, partial(Genesis, codec=codec))
    findings, seen = blame._against_effects(desk, group, rows, made_, first)
    assert findings == []
    assert len(seen) > 10


def _learnable(codec: Codec, record: Record) -> bool:
    event = codec.decode("learning.experience", record.value)
    return isinstance(event, Experience) and event.learnable and event.book_id == "q_learning"


def _id_of(record: Record) -> int:
    assert record.value is not None
    return int.from_bytes(record.value[1:5], "big")


def test_a_record_that_comes_again_in_the_other_framing_is_the_same_record(whole: Whole) -> None:
    codec, log, _ = whole
    other = _reframed(codec, log, lambda record: False)
    for topic in (LEDGER, "learning.experience"):
        for record in list(log.read(topic))[-3:]:
            other.append(topic, 0, record.key, codec.canonical(record.value), record.headers, record.timestamp_ms)
    ledger = read_ledger(other.read(LEDGER), codec)
    assert ledger.rivals == {}
    assert ledger.versions.keys() == read_ledger(log.read(LEDGER), codec).versions.keys()
    evidence = Evidence(other, {}, codec)
    assert len(evidence.events("learning.experience")) == len(list(log.read("learning.experience")))
    assert evidence.conflicts == []


def test_labels_are_told_from_the_bytes_of_either_framing(whole: Whole) -> None:
    codec, log, _ = whole
    rows = list(log.read(CANDLES))
    for records in (rows, [r._replace(value=codec.canonical(r.value)) for r in rows]):
        labels = Labels(CANDLES)
        labels.learn(records[0], codec.decode(CANDLES, records[0].value))
        assert all(map(labels.known, records))


def test_what_a_fold_remembers_needs_no_registry(stub: Stub) -> None:
    """The head of a partition holds commands of people as they came; it must be readable without what framed them."""
    codec = codec_for(_confluent(stub.url), writes=True)
    fold = PartitionFold(honest()["decision"], 0, codec)
    halt = PolicyCommand(command_id="h", command="HALT", actor="x", reason="y", ts_ms=T0, symbol="AUSDT")
    record = encode_event(codec, "policy.commands", halt, "h", "x")
    headers = (*record.headers, ("src_topic", b"policy.commands"), ("src_partition", b"0"), ("src_offset", b"0"),
               ("relay_owner", b"a"))
    fold.apply(Incoming(0, record.key, record.value, headers))
    (sticky,) = fold.head().sticky
    assert Codec().decode("policy.commands", sticky.value) == halt


def test_a_line_has_the_same_id_in_either_framing(stub: Stub) -> None:
    line = json.dumps(msgspec.to_builtins(candle("AUSDT", T0)))
    told = [next(judged(codec, CANDLES, [line])).record
            for codec in (Codec(), codec_for(_confluent(stub.url), writes=True))]
    assert [(record.value or b"")[:1] for record in told if record] == [b"\xc3", b"\x00"]
    assert told[0] is not None
    assert told[1] is not None
    assert told[0].headers == told[1].headers


@in_loop
async def test_results_of_trainers_are_framed_by_the_worker(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trainer process knows no registry."""
    codec, published = codec_for(_confluent(stub.url), writes=True), []
    topic, agent = "rl_v3.training.completed", honest()["ppo_trader"]
    made_ = encode_event(Codec(), topic, _example(topic), "x", "x")

    async def performed(*_: object) -> Done:
        return Done(topic=topic, key=made_.key or b"", value=made_.value or b"", headers=made_.headers)

    async def publish(record: Outgoing) -> None:
        published.append(record)

    monkeypatch.setattr(trainers_module, "performed", performed)
    quiet: Any = SimpleNamespace(healthy=lambda *_: None, recovered=lambda *_: None)
    own = trainers_module.Trainers(agent, codec, slots=trainers_module.asyncio.Semaphore(1), alerts=quiet,
                                   stats=AgentStats(agent.name), publish=publish, fail=pytest.fail)
    await own._see_to(TP("x", 0), Asked((made_.key or b"").decode(), Job("j", b"")))
    assert [record.value for record in published] == [codec.encode(topic, _example(topic), codec.ids[topic])]


# ---------------------------------------------------------------------- workers and commands
@pytest.mark.topics(*FEATURES, "system.clock", "system.health.alert")
@in_loop
async def test_workers_of_either_setting_leave_a_log_that_is_judged_as_one(prefix: Settings, stub: Stub,
                                                                         monkeypatch: pytest.MonkeyPatch,
                                                                         capsys: pytest.CaptureFixture[str]) -> None:
    single = prefix.replace(registry=stub.url)
    confluent = single.replace(framing="confluent")
    await trainers_module.asyncio.to_thread(subjects.apply, single)
    events: list[Candle] = [candle("AUSDT", T0 + 60_000 * n) for n in range(9)]
    for done, settings in enumerate((confluent, single, confluent), 1):
        produce(settings, CANDLES, events[3 * done - 3:3 * done])
        async with run_agents(settings, {"features": CountingFeatures()}, clock=done == 1) as worker:
            asked = len(stub.asked)
            await until(partial(_has, settings, REGIMES, 3 * done), "the outputs")
            if done == 1:
                await until(partial(_has, settings, "system.clock", 1), "a tick")
                worker.hosts[0].alerts.degraded("features", "of this test")
                assert worker.hosts[0].alerts.deliver(30)
            assert not worker.failed
            assert len(stub.asked) == asked
    codec = codec_for(single)
    for topic, marks in ((REGIMES, {0: 6, 0xC3: 3}), ("system.health.alert", {0: 1, 0xC3: 1})):  # HEALTHY by the second
        assert Counter((r.value or b"x")[0] for r in read(single, topic)) == marks
    assert {(r.value or b"x")[0] for r in read(single, "system.clock")} == {0}
    assert {(r.value or b"x")[:2] for r in read(single, "features.changelog")} == {SINGLE_OBJECT}
    assert judge(read_all(single), {"features": CountingFeatures()}, codec=codec).wrong == []
    with SchemaRegistryClient({"url": stub.url}) as client:
        for record in read(single, "system.clock"):
            tick = AvroDeserializer(client)(record.value, SerializationContext(record.topic, MessageField.VALUE))
            assert tick["writer"] == "live"
    row = encode_event(codec_for(confluent, writes=True), CANDLES, events[0], "again", "x")
    send(single, [(CANDLES, row.key, row.value, row.headers)])
    for name in ("broker", "topic_prefix", "app_id"):
        monkeypatch.setenv(f"QUANTUM_{name.upper()}", getattr(prefix, name))
    assert main(["worker", "--agents", "features", "--until-eof"]) == Exit.FAILED
    assert f"no registry is set, and records of {CANDLES} are in Confluent framing" in capsys.readouterr().err
    without = CliRunner().invoke(tail, [REGIMES, "-e", "--json"])
    assert [json.loads(line)["error"] is None for line in without.stdout.splitlines()].count(False) == 6
    assert f"no registry is set, and records of {REGIMES} are in Confluent framing" in without.stderr
    assert "QUANTUM_REGISTRY=URL" in without.stderr
    monkeypatch.setenv("QUANTUM_REGISTRY", stub.url)
    with_it = CliRunner().invoke(tail, [REGIMES, "-e", "--json"])
    assert all(json.loads(line)["error"] is None for line in with_it.stdout.splitlines())
    assert with_it.stderr == ""


def _has(settings: Settings, topic: str, n: int) -> bool:
    return count(settings, topic) >= n

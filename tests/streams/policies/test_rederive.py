"""Versions made again from a log that the driver wrote; the same for an agent with one input and for one with an inbox.

What is planted is one change to a copy of the log; what must come out is its place.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace as with_fields
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from schemas.catalogue import AGENTS, TOPICS, Topic
from schemas.events import Event, Experience, PolicyRecord
from streams.fold import PartitionFold
from streams.log import Record
from streams.policies.deriving import Deriver, Report
from streams.policies.ledger import Asked, Ledger, read_ledger
from streams.records import Incoming
from streams.verify.planted.stage import CODEC, Stage, alone, honest, identities, stage
from streams.verify.view import MemoryLog

LEDGER, EXPERIENCE = "policy.ledger", "learning.experience"
SYMBOLS = ("ALPHA", "BETA")
BARS = 450


@pytest.fixture(scope="module", params=["direct", "inbox"])
def run(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """A run of the roster, its learner with one input of ours, or with an inbox."""
    io = AGENTS["q_learning"]
    if request.param == "direct":
        io = with_fields(io, direct=True, reads={EXPERIENCE: "by_scope"})
    else:
        io = with_fields(io, direct=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(AGENTS, "q_learning", io)  # type: ignore[arg-type]
        inbox = Topic(name="q_learning.inbox", event=None, key="scope", doc="Of this test.")
        patch.setitem(TOPICS, inbox.name, inbox)  # type: ignore[arg-type]
        yield stage(alone("q_learning"), bars=BARS, symbols=SYMBOLS, without=("ppo_trader",))


def test_networks_are_made_again_byte_for_byte() -> None:
    report = again(stage(alone("meta_strategy"), bars=560, without=("ppo_trader",)).log)
    assert len(report.answers) >= 4
    assert set(report.counts()) == {"MATCH"}


def copied(log: MemoryLog) -> MemoryLog:
    other = MemoryLog()
    other.now_ms = log.now_ms
    other.records.update({t: {p: list(rows) for p, rows in ps.items()} for t, ps in log.records.items()})
    return other


def ledger_of(log: MemoryLog) -> Ledger:
    return read_ledger(log.read(LEDGER), CODEC)


def again(log: MemoryLog, *names: str, roster: Any = None, from_genesis: bool = False, **how: Any) -> Report:
    """Rederive what is named; all versions of all policies without a name."""
    ledger = ledger_of(log)
    asked = [v for name in names for v in ledger.of(Asked.parse(name))] if names else \
        [v for versions in ledger.versions.values() for v in versions]
    return Deriver(log, roster or honest(), CODEC, **how)(ledger, asked, from_genesis)


def input_of(log: MemoryLog) -> list[Record]:
    return log.records[AGENTS["q_learning"].input_topic][0]


def flipped(record: Record, byte: int, bit: int) -> Record:
    value = bytearray(record.value or b"")
    value[byte] ^= 1 << bit
    return record._replace(value=bytes(value))


# ---------------------------------------------------------------------- what holds
def test_every_version_of_every_policy_matches_in_one_pass(run: Stage) -> None:
    report = again(run.log)
    assert len(report.answers) == len(run.log.records[LEDGER][0]) > 20
    assert set(report.counts()) == {"MATCH"}
    assert (report.divergences, report.unpublished, report.notes) == ([], [], [])
    by_topic = {f.topic: f for f in report.fetched}
    assert set(by_topic) == {AGENTS[name].input_topic for name in ("q_learning", "risk_controller")}
    fetched, all_of = by_topic[AGENTS["q_learning"].input_topic], ledger_of(run.log).versions
    newest = max(v.at for name, vs in all_of.items() if name.startswith("q_learning/") for v in vs)
    assert (fetched.first, fetched.last, fetched.records) == (0, newest, newest + 1)
    assert fetched.bytes > sum(len(r.value or b"") for r in input_of(run.log)[:fetched.records])


def test_the_newest_version_is_the_default_and_names_what_was_compared(run: Stage) -> None:
    newest = ledger_of(run.log).versions["q_learning/ALPHA"][-1].policy
    (found,) = again(run.log, "q_learning/ALPHA").answers
    assert (found.version, found.outcome) == (newest.version, "MATCH")
    assert newest.provenance is not None
    assert found.state is not None
    assert found.parent is not None
    assert found.value is not None
    assert found.state == (newest.provenance.state_hash,) * 2
    assert found.parent == (newest.provenance.parent_hash,) * 2
    assert found.value.same
    assert found.input.endswith(f"@{newest.provenance.from_offset}..{newest.provenance.to_offset}")


def test_a_range_is_fetched_from_the_start_that_is_given_and_no_further(run: Stage) -> None:
    """Stored state is a hook: here a fold that was taken to just before the range."""
    third = ledger_of(run.log).of(Asked("q_learning/BETA", 3, 3))[0].policy.provenance
    assert third is not None
    report = again(run.log, "q_learning/BETA@3", start_of=lambda agent: Stored(run.log, agent))
    assert report.counts() == {"MATCH": 1}
    (fetched,) = report.fetched
    assert (fetched.first, fetched.last) == (third.from_offset, third.to_offset)
    forced = again(run.log, "q_learning/BETA@3", start_of=lambda agent: Stored(run.log, agent), from_genesis=True)
    assert forced.counts() == {"MATCH": 1}
    assert forced.fetched[0].first == 0


class Stored:
    """A start that folds as far as it may, as stored state would stand; optionally with a wrong state."""

    def __init__(self, log: MemoryLog, agent: Any, spoil: bool = False) -> None:
        self.log, self.agent, self.spoil = log, agent, spoil

    def __call__(self, partition: int, upto: int) -> PartitionFold:
        fold = PartitionFold(self.agent, partition, CODEC, identities()["q_learning"])
        for r in input_of(self.log):
            if r.offset <= upto:
                fold.apply(Incoming(r.offset, r.key, r.value, r.headers))
        if self.spoil:
            fold.scopes = {k: s._replace(state=replace(s.state, explored=s.state.explored + 1))
                           for k, s in fold.scopes.items()}
        return fold


def test_stored_state_that_is_not_what_the_input_gives_is_said_and_the_version_still_matches(run: Stage) -> None:
    report = again(run.log, "q_learning/BETA@6", start_of=lambda agent: Stored(run.log, agent, spoil=True))
    assert report.counts() == {"MATCH": 1}
    assert "the stored state is not what the input gives" in report.notes[0]


# ---------------------------------------------------------------------- one byte
@given(seed=st.integers(0, 2**32))
def test_one_flipped_byte_of_one_event_is_named_or_changes_nothing(run: Stage, seed: int) -> None:
    """Any record of the learner's input, any byte, any bit."""
    log, draw = copied(run.log), Random(seed)
    rows = input_of(log)
    i = draw.randrange(len(rows))
    rows[i] = flipped(rows[i], draw.randrange(len(rows[i].value or b"")), draw.randrange(8))
    report = again(log)
    assert not report.unreadable
    if not report.divergences:  # a field that is not read, or an event behind the last version
        assert set(report.counts()) == {"MATCH"}
        assert not report.unpublished
        return
    assert {d.place for d in report.divergences} == {rows[i].place}
    source = run.log.records[EXPERIENCE][0]
    direct = AGENTS["q_learning"].direct
    for d in report.divergences:
        assert d.source is None if direct else d.source in {r.place for r in source}
        assert "byte " in d.what
        assert not d.unjudged


@pytest.mark.parametrize("field", ["reward_r", "volatility", "decision_id", "learnable", "book_id", "source"])
def test_a_changed_field_is_named_with_both_values(run: Stage, field: str) -> None:
    log = copied(run.log)
    rows = input_of(log)
    i = next(i for i, r in enumerate(rows) if i > 60 and decoded(r).learnable)
    old = decoded(rows[i])
    new = {"reward_r": 9.25, "volatility": 0.5, "decision_id": "someone", "learnable": False, "book_id": "other",
           "source": "binance"}[field]
    rows[i] = rows[i]._replace(value=CODEC.encode(EXPERIENCE, replace(old, **{field: new})))
    report = again(log)
    (d,) = report.divergences
    assert (d.policy_id, d.place) == (f"q_learning/{old.symbol}", rows[i].place)
    assert d.differs == (f"{field}: stored {new!r}, made again {getattr(old, field)!r}",)
    wrong = [a.version for a in report.answers if a.outcome == "MISMATCH"]
    assert d.version == min(wrong)
    assert (len(wrong) <= 2) == (field == "source"), "the state goes astray for good, or until the next outcome"


def decoded(record: Record) -> Experience:
    event = CODEC.decode(EXPERIENCE, record.value)
    assert isinstance(event, Experience)
    return event


def test_an_event_that_is_gone_is_a_hole(run: Stage) -> None:
    log = copied(run.log)
    rows = input_of(log)
    i = next(i for i, r in enumerate(rows) if i > 60 and decoded(r).learnable)
    gone = rows.pop(i)
    (d,) = again(log).divergences
    assert (d.place, d.what) == (gone.place, "this offset holds no record")


def test_a_changed_source_of_a_copy_changes_no_policy(run: Stage) -> None:
    if AGENTS["q_learning"].direct:
        pytest.skip("nothing is copied")
    log = copied(run.log)
    log.records[EXPERIENCE][0][40] = flipped(log.records[EXPERIENCE][0][40], 90, 1)
    assert set(again(log).counts()) == {"MATCH"}


def test_without_anything_to_hold_an_event_against_the_suspects_are_listed(run: Stage) -> None:
    """Source and writer's input are gone: only what the learner published is left, and a volatility leaves no trace."""
    log = copied(run.log)
    for topic in ("experience.inbox", *(() if AGENTS["q_learning"].direct else (EXPERIENCE,))):
        log.records[topic] = {0: []}
    rows = input_of(log)
    i = next(i for i, r in enumerate(rows) if not decoded(r).learnable)
    rows[i] = rows[i]._replace(value=CODEC.encode(EXPERIENCE, replace(decoded(rows[i]), volatility=0.5)))
    (d,) = again(log).divergences
    assert rows[i].place in d.unjudged
    assert d.place is None
    assert "one of them" in d.what


# ---------------------------------------------------------------------- the ledger itself
@pytest.mark.parametrize("what", ["payload", "state_hash", "parent_hash", "claim"])
def test_a_changed_record_of_the_ledger_is_named_itself(run: Stage, what: str) -> None:
    log = copied(run.log)
    rows = log.records[LEDGER][0]
    i = next(i for i, v in enumerate(rows) if i > 10)
    old = CODEC.decode(LEDGER, rows[i].value)
    assert isinstance(old, PolicyRecord)
    assert old.provenance is not None
    assert old.tabular is not None
    cells = old.tabular.cells
    changed = {
        "payload": lambda: replace(old, tabular=replace(old.tabular, cells=(
            replace(cells[0], probabilities=(0.97, 0.01, 0.01, 0.01)), *cells[1:]))),
        "state_hash": lambda: replace(old, provenance=replace(old.provenance, state_hash="0" * 64)),
        "parent_hash": lambda: replace(old, provenance=replace(old.provenance, parent_hash="0" * 64)),
        "claim": lambda: replace(old, edge_claim=True),
    }[what]()
    rows[i] = rows[i]._replace(value=CODEC.encode(LEDGER, changed))
    report = again(log)
    assert report.counts()["MISMATCH"] == 1
    (d,) = report.divergences
    assert (d.place, d.version) == (rows[i].place, old.version)
    assert "the record on the ledger is not what was written" in d.what
    bad = next(a for a in report.answers if a.outcome == "MISMATCH")
    assert any(t.startswith({"payload": "tabular.cells[bull|vol:0].probabilities", "claim": "edge_claim"}.get(
        what, f"provenance.{what}")) for t in bad.differs)


def test_a_version_that_is_gone_or_twice_there_is_no_match(run: Stage) -> None:
    log = copied(run.log)
    gone = log.records[LEDGER][0].pop(12)
    report = again(log)
    assert len(report.unpublished) == 1
    assert dict(gone.headers)["ce_id"].decode() in report.unpublished[0]
    log = copied(run.log)
    rows = log.records[LEDGER][0]
    rows.append(rows[12]._replace(offset=len(rows), headers=(("ce_id", b"someone"),)))
    report = again(log)
    assert report.counts()["MISMATCH"] == 1
    assert f"also at {LEDGER}-0@{len(rows) - 1}" in next(a.why for a in report.answers if a.outcome == "MISMATCH")
    rows[-1] = rows[12]._replace(offset=len(rows) - 1)
    assert set(again(log).counts()) == {"MATCH"}, "a worker that repeats itself writes the same record again"


def test_a_record_of_the_ledger_that_cannot_be_decoded_is_missing(run: Stage) -> None:
    log = copied(run.log)
    log.records[LEDGER][0][9] = log.records[LEDGER][0][9]._replace(value=b"nothing")
    report = again(log)
    assert list(report.unreadable) == [f"{LEDGER}-0@9"]
    assert len(report.unpublished) == 1


# ---------------------------------------------------------------------- what cannot be made again here
def relabelled(log: MemoryLog, upto: int, **changes: str) -> MemoryLog:
    """The log with the provenance of the first records of the ledger changed."""
    other = copied(log)
    for i, r in enumerate(other.records[LEDGER][0][:upto]):
        policy = CODEC.decode(LEDGER, r.value)
        assert isinstance(policy, PolicyRecord)
        assert policy.provenance is not None
        new = replace(policy, provenance=replace(policy.provenance, **changes))  # type: ignore[arg-type]
        other.records[LEDGER][0][i] = r._replace(value=CODEC.encode(LEDGER, new))
    return other


def test_other_code_and_other_configuration_are_told_apart(run: Stage) -> None:
    n = len(run.log.records[LEDGER][0])
    report = again(relabelled(run.log, n, code_hash="0" * 64), "q_learning/ALPHA")
    assert report.counts() == {"OTHER_CODE": 1}
    assert "000000000000" in report.answers[0].why
    seeded = {name: type(a)(replace(a.config, seed=5)) for name, a in honest().items()}
    report = again(run.log, "q_learning/ALPHA", roster=seeded)
    assert report.counts() == {"OTHER_CONFIG": 1}
    assert "--seed 0" in report.answers[0].why


def test_a_parent_of_other_code_needs_a_stored_root(run: Stage) -> None:
    """As after an upgrade: older versions bear another hash, and from genesis the state is not what they left."""
    log = relabelled(run.log, 20, code_hash="0" * 64)
    assert set(again(log, "q_learning/ALPHA@20").counts()) == {"MATCH"}, "other code that did the same does no harm"
    rows = input_of(log)
    rows[10] = rows[10]._replace(value=CODEC.encode(EXPERIENCE, replace(decoded(rows[10]), volatility=0.4)))
    report = again(log, f"q_learning/{decoded(rows[10]).symbol}@20")
    assert report.counts() == {"OTHER_CODE": 1}
    assert "no state is stored" in report.answers[0].why


def test_another_platform_may_match_and_is_never_accused(run: Stage) -> None:
    ours = {name: with_fields(i, platform="elsewhere") for name, i in identities().items()}
    report = again(run.log, "q_learning/ALPHA", identities=ours)
    assert report.counts() == {"MATCH": 1}
    assert "it was made on" in report.answers[0].why
    log = copied(run.log)
    rows = input_of(log)
    rows[30] = rows[30]._replace(value=CODEC.encode(EXPERIENCE, replace(decoded(rows[30]), volatility=0.4)))
    report = again(log, f"q_learning/{decoded(rows[30]).symbol}", identities=ours)
    assert report.counts() == {"OTHER_PLATFORM": 1}


def test_input_that_is_deleted_is_expired_with_the_first_missing_offset(run: Stage) -> None:
    log = copied(run.log)
    topic = AGENTS["q_learning"].input_topic
    log.records[topic][0] = log.records[topic][0][25:]
    learned = [a for a in again(log).answers if a.policy_id.startswith("q_learning/")]
    assert {a.outcome for a in learned} == {"EXPIRED"}
    assert all(f"{topic}-0@0 is deleted" in a.why and "begins at 25" in a.why for a in learned)
    stored = [a for a in again(log, start_of=lambda agent: Stored(run.log, agent)).answers
              if a.policy_id.startswith("q_learning/")]
    late = [a.outcome for a in stored if int(a.input.partition("@")[2].partition("..")[0]) >= 25]
    assert set(late) == {"MATCH"}, "with stored state, what came later can still be made again"
    assert sum(a.outcome == "EXPIRED" for a in stored) == len(stored) - len(late)


def test_input_that_the_log_never_had_is_a_mismatch(run: Stage) -> None:
    log = copied(run.log)
    topic = AGENTS["q_learning"].input_topic
    del log.records[topic][0][-120:]
    report = again(log, "q_learning/ALPHA")
    assert report.counts() == {"MISMATCH": 1}
    assert "the topic was made anew" in report.answers[0].why


def test_a_record_without_provenance_says_so() -> None:
    def bare(topic: str, event: Event) -> Event:
        return replace(event, provenance=None) if isinstance(event, PolicyRecord) else event

    report = again(stage(bars=350, tamper=bare).log)
    assert set(report.counts()) == {"NO_PROVENANCE"}


def test_names_of_versions() -> None:
    assert Asked.parse("a/b") == ("a/b", None, None)
    assert Asked.parse("a/b@c@7") == ("a/b@c", 7, 7)
    for bad in ("", "a/b@0", "a/b@4..2"):
        with pytest.raises(ValueError):
            Asked.parse(bad)

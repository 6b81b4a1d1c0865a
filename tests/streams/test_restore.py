"""State back from a changelog that was damaged, torn, compacted, written by a frozen worker, or by other code.

The changelog here is a list of records; what a broker's compaction would leave of it is made by `compacted`. The judge
is always the same: the restored fold, taken to the end of the input, holds what an undisturbed fold of it holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any, ClassVar, NamedTuple

import msgspec
import pytest
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from agents.contract import Agent, Output, State
from schemas.codec import Codec
from schemas.events import Event, Experience, PartitionHead, PolicyRecord, ScopeState
from streams import blobs, keeping
from streams.blobs import Blobs
from streams.fold import Damaged, OtherFormat, PartitionFold
from streams.held import Held, seal, wiped
from streams.identity import Identity
from streams.records import HEAD_KEY, Headers, Incoming
from streams.restore import InputLost, Restored, chosen

CODEC = Codec()
OLD = Identity(config_hash="c", code_hash="old", feature_schema_hash="s", platform="p")
SCOPES = ("A", "B", "C")
EVERY = 10


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "CHECKPOINT_RECORDS", EVERY)
    monkeypatch.setattr(blobs, "CHUNK_BYTES", 16)


class Sums(State, frozen=True, kw_only=True):
    n: int = 0
    total: float = 0.0
    weights: bytes = b""


class Learner(Agent[Sums]):
    """Sums rewards; publishes a version an experience. Its weights change with every third."""

    name = "q_learning"
    state_type = Sums

    def new(self, scope: str) -> Sums:
        return Sums()

    def step(self, state: Sums, event: Event) -> tuple[Sums, tuple[Output, ...]]:
        assert isinstance(event, Experience)
        n = state.n + 1
        weights = state.weights if n % 3 else (f"{event.symbol}:{n}:".encode() * 8)
        new = Sums(n=n, total=state.total + event.reward_r, weights=weights)
        return new, (Output("policy.ledger", PolicyRecord(
            policy_id=f"q_learning/{event.symbol}", version=n, agent="q_learning", scope=event.symbol, ts_ms=1,
            valid_from_ms=1, fallback="neutral", status="ACTIVE", reason="update", outcomes=n, mask=(),
            actions=("neutral",), source="x", origin="CLAIMED")),)


class Heavy(Learner):
    heavy: ClassVar[tuple[str, ...]] = ("weights",)


class Row(NamedTuple):
    key: bytes
    value: bytes | None
    headers: Headers


def inputs(n: int, seed: int = 0) -> list[Incoming]:
    chance, out = Random(seed), []
    for offset in range(n):
        symbol = chance.choice(SCOPES)
        event = Experience(
            decision_id=f"{symbol}/{offset}", symbol=symbol, book_id="q_learning", ts_ms=offset, decided_ms=offset,
            status="NEUTRAL", learnable=True, forced=False, action="neutral", propensity=1.0, regime="bull",
            volatility=0.1, reward_r=chance.gauss(0, 1), pnl_usd=0.0, size_multiplier=1.0, source="x",
            origin="CLAIMED",
        )
        source = (("src_topic", b"learning.experience"), ("src_partition", b"0"), ("src_offset", str(offset).encode()),
                  ("relay_owner", b"r"))
        out.append(Incoming(offset, symbol.encode(), CODEC.encode("learning.experience", event), source))
    return out


@dataclass
class Changelog:
    """A changelog partition and the blobs of its agent."""

    rows: list[Row] = field(default_factory=list)
    blobs: list[tuple[bytes, bytes | None]] = field(default_factory=list)
    flushes: list[int] = field(default_factory=list)

    def write(self, fold: PartitionFold, upto: int | None = None) -> None:
        """A flush, cut short after so many rows."""
        flush = fold.flush()
        self.blobs += flush.blobs
        self.flushes.append(len(self.rows))
        self.rows += [Row(k, v, seal(v)) for k, v in flush.rows[:upto]]

    def compacted(self) -> Changelog:
        """The last record of each key."""
        last = {row.key: i for i, row in enumerate(self.rows)}
        return Changelog([r for i, r in enumerate(self.rows) if last[r.key] == i], list(dict(self.blobs).items()))

    def held(self) -> Held[str]:
        held: Held[str] = Held()
        for i, row in enumerate(self.rows):
            held.take(CODEC, f"changelog-0@{i}", *row)
        return held

    def read_blobs(self, agent: Agent[Any]) -> Blobs | None:
        found = Blobs(agent.name)
        for key, value in self.blobs:
            found.take(key, value)
        return found if agent.heavy else None


Make = Callable[[], PartitionFold]


def maker(agent: type[Agent[Any]] = Learner, identity: Identity | None = OLD) -> Make:
    return lambda: PartitionFold(agent(), 0, CODEC, identity)


def restored(log: Changelog, make: Make, end: int, low: int = 0) -> Restored:
    found = chosen(lambda _: make(), TP("q_learning.inbox", 0), log.held(), log.read_blobs(make().agent), (low, end))
    log.rows += [Row(key, None, wiped("test")) for key in found.wipe]
    return found


def folded(make: Make, records: Iterable[Incoming], log: Changelog | None = None, every: int = 7) -> PartitionFold:
    fold = make()
    run(fold, records, log, every)
    return fold


def run(fold: PartitionFold, records: Iterable[Incoming], log: Changelog | None = None, every: int = 7) -> list[Any]:
    out: list[Any] = []
    for i, record in enumerate(records, start=1):
        out += fold.apply(record)
        if log is not None and i % every == 0:
            log.write(fold)
    if log is not None:
        log.write(fold)
    return out


def check(found: Restored, make: Make, records: list[Incoming]) -> None:
    """Taken to the end of its input it holds what the undisturbed fold holds."""
    run(found.fold, records[found.start:])
    whole = folded(make, records)
    assert set(whole.scopes) == set(SCOPES)
    assert {s: e.state for s, e in found.fold.scopes.items()} == {s: e.state for s, e in whole.scopes.items()}
    assert found.fold.digest() == whole.digest()


def newest(log: Changelog, key: bytes) -> int:
    return max(i for i, row in enumerate(log.rows) if row.key == key)


@pytest.mark.parametrize("agent", [Learner, Heavy])
@pytest.mark.parametrize("compact", [False, True])
def test_a_healthy_changelog_goes_on_where_it_was(agent: type[Agent[Any]], compact: bool) -> None:
    records, log = inputs(60), Changelog()
    folded(maker(agent), records[:50], log)
    found = restored(log.compacted() if compact else log, maker(agent), 60)
    assert (found.start, found.damage, found.wipe) == (50, None, ())
    check(found, maker(agent), records)


def test_checkpoints_stand_under_keys_of_their_own_and_the_last_three_are_kept() -> None:
    log = Changelog()
    folded(maker(), inputs(100), log)
    keys = {row.key for row in log.compacted().rows}
    for scope in SCOPES:
        assert {f"checkpoint:{i}:scope:{scope}".encode() for i in range(3)} <= keys
    assert {b"checkpoint:0:head", b"checkpoint:1:head", b"checkpoint:2:head"} <= keys
    names = [s.name for s in log.compacted().held().snapshots()]
    assert names[0] == "the newest state"
    assert len(names) == 4


@pytest.mark.parametrize("agent", [Learner, Heavy])
def test_every_checkpoint_is_a_snapshot_from_which_the_rest_can_be_folded(agent: type[Agent[Any]]) -> None:
    records, log = inputs(100), Changelog()
    folded(maker(agent), records, log)
    log = log.compacted()
    for snapshot in list(log.held().snapshots()):
        fold = maker(agent)()
        fold.restore(snapshot.scopes, snapshot.head, log.read_blobs(fold.agent))
        assert snapshot.head is not None
        run(fold, records[snapshot.head.input_offset + 1:])
        assert fold.digest() == folded(maker(agent), records).digest(), snapshot.name


@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("key", [b"scope:A", b"head"])
@pytest.mark.parametrize("poison", [b"", b"\xc3\x01garbage", b"flip"])
def test_a_poisoned_record_is_refused_and_the_last_good_checkpoint_taken(
    key: bytes, poison: bytes, compact: bool,
) -> None:
    records, log = inputs(100), Changelog()
    folded(maker(), records, log)
    at = newest(log, key)
    value = log.rows[at].value or b""
    bad = value[:-3] + bytes([value[-3] ^ 1]) + value[-2:] if poison == b"flip" else poison
    log.rows.append(log.rows[at]._replace(value=bad))
    log = log.compacted() if compact else log
    found = restored(log, maker(), 100)
    assert found.damage is not None
    assert f"changelog-0@{len(log.rows) - 1 - len(found.wipe)}" in found.damage
    assert found.start > 60, "no more than the records since the last checkpoint are folded again"
    assert "checkpoint" in found.damage if compact else found.start == 100
    check(found, maker(), records)
    log.write(found.fold)  # healed: the next reading finds nothing wrong
    assert restored(log, maker(), 100).damage is None


def test_a_sealed_row_that_cannot_be_decoded_is_refused_and_a_checkpoint_taken() -> None:
    """Rows are decoded when all are read: the older ones of its key are gone by then."""
    records, log = inputs(100), Changelog()
    folded(maker(), records, log)
    at = newest(log, b"scope:A")
    cut = (log.rows[at].value or b"")[:-1]
    log.rows[at] = Row(b"scope:A", cut, seal(cut))
    found = restored(log, maker(), 100)
    assert "key scope:A: UNDECODABLE" in (found.damage or "")
    assert "restored from the checkpoint" in (found.damage or "")
    check(found, maker(), records)
    log.write(found.fold)
    assert restored(log, maker(), 100).damage is None


def test_without_a_checkpoint_the_whole_input_is_folded_again_if_it_is_there() -> None:
    records, log = inputs(EVERY - 1), Changelog()
    folded(maker(), records, log)
    log.rows[newest(log, b"scope:A")] = Row(b"scope:A", b"garbage", ())
    log = log.compacted()
    with pytest.raises(InputLost, match="begins at 3"):
        restored(log, maker(), EVERY - 1, low=3)
    found = restored(log, maker(), EVERY - 1)
    assert found.start == 0
    check(found, maker(), records)
    log.write(found.fold)
    assert restored(log, maker(), EVERY - 1).damage is None


@pytest.mark.parametrize("key", [b"scope:B", b"head", b"checkpoint:1:head"])
@pytest.mark.parametrize("compact", [False, True])
def test_a_tombstone_that_nobody_meant_deletes_nothing(key: bytes, compact: bool) -> None:
    records, log = inputs(100), Changelog()
    folded(maker(), records, log)
    log.rows.append(Row(key, None, ()))
    found = restored(log.compacted() if compact else log, maker(), 100)
    assert "tombstone" in (found.damage or "")
    check(found, maker(), records)


def test_of_the_rows_of_a_frozen_writer_that_wakes_up_none_counts() -> None:
    records, log = inputs(60), Changelog()
    frozen = folded(maker(), records[:31], log)
    other = restored(log, maker(), 60).fold
    run(frozen, records[31:36])
    run(other, records[31:], log)
    log.write(frozen)  # its state and head, older than what is there
    found = restored(log, maker(), 60)
    assert (found.start, found.damage) == (60, None)
    check(found, maker(), records)


@pytest.mark.parametrize("rows", [1, 2, None])
def test_a_stale_row_that_compaction_kept_is_found_out(rows: int | None) -> None:
    records, log = inputs(60), Changelog()
    frozen = folded(maker(), records[:31], log)
    other = restored(log, maker(), 60).fold
    run(frozen, records[31:36])
    run(other, records[31:], log)
    log.write(frozen, rows)
    found = restored(log.compacted(), maker(), 60)
    check(found, maker(), records)


def test_a_stale_row_beside_a_flush_that_was_cut_short_is_found_out() -> None:
    """The scope that is ahead of the head must not hide that another one is behind it."""
    records, log = inputs(60), Changelog()
    frozen = folded(maker(), records[:21], log, every=60)
    frozen.apply(records[21])
    other = restored(log, maker(), 60).fold
    run(other, records[21:40], log, every=60)
    run(other, records[40:44])
    log.write(other, 1)  # one scope ahead of the head
    log.write(frozen, 1)  # another one behind it
    found = restored(log.compacted(), maker(), 60)
    assert found.start < 41
    check(found, maker(), records)


def test_a_torn_flush_is_taken_as_it_is() -> None:
    records, log = inputs(40), Changelog()
    fold = folded(maker(), records[:20], log, every=60)
    run(fold, records[20:26])
    for cut in (1, 2):
        torn = Changelog(list(log.rows))
        fold_again = restored(torn, maker(), 40).fold
        run(fold_again, records[20:26])
        torn.write(fold_again, cut)
        found = restored(torn.compacted(), maker(), 40)
        assert (found.start, found.damage) == (20, None)
        check(found, maker(), records)
        assert found.fold.counters.applied == folded(maker(), records).counters.applied, "steps are counted once"


@given(seed=st.integers(0, 10**6))
def test_any_history_of_crashes_frozen_writers_damage_and_compaction_ends_in_the_undisturbed_state(seed: int) -> None:
    """Flushes cut short anywhere, their rest coming later or never; records poisoned; compaction in between.

    A producer is gapless: nothing of a later flush comes before the whole of an earlier one.
    """
    keeping.CHECKPOINT_RECORDS, blobs.CHUNK_BYTES = EVERY, 16  # the fixture's are undone before hypothesis is through
    chance, records, log, sleepers = Random(seed), inputs(80, seed), Changelog(), list[list[Row]]()
    fold, at = maker(Heavy)(), 0
    while at < len(records):
        n = chance.randint(1, 12)
        run(fold, records[at:at + n])
        at += n
        event = chance.random()
        if event < 0.4:
            log.write(fold)
            continue
        cut, before = chance.randint(0, 6), len(log.rows)
        log.write(fold)
        log.rows, rest = log.rows[:before + cut], log.rows[before + cut:]
        if event < 0.5:
            sleepers.append(rest)
        elif event < 0.6 and sleepers:
            log.rows += sleepers.pop()[:chance.choice([1, 2, 9])]
        elif event < 0.7 and log.rows:
            log.rows.append(Row(chance.choice(log.rows).key, chance.choice([None, b"x"]), ()))
        if event > 0.85:
            log = log.compacted()
        found = restored(log, maker(Heavy), len(records))
        fold, at = found.fold, found.start
    whole = folded(maker(Heavy), records)
    assert {s: e.state for s, e in fold.scopes.items()} == {s: e.state for s, e in whole.scopes.items()}


# ------------------------------------------------------------------ heavy state
def test_a_blob_is_written_once_and_only_while_a_row_names_it() -> None:
    records, log = inputs(100), Changelog()
    fold = folded(maker(Heavy), records, log)
    written = [k for k, v in log.blobs if v is not None]
    assert len(written) == len(set(written)), "nothing is written twice"
    left = [k for k, v in dict(log.blobs).items() if v is not None]
    scope = {s: sum(k.startswith(f"q_learning:{s}:".encode()) and k.partition(b"/")[0].endswith(b":0") for k in left)
             for s in fold.scopes}
    assert all(1 <= n <= 5 for n in scope.values()), "the newest, three checkpoints, and what the next flush frees"


@pytest.mark.parametrize("how", ["cut", "missing", "flipped"])
def test_a_blob_that_is_not_whole_is_damage_and_an_older_one_is_taken(how: str) -> None:
    records, log = inputs(100), Changelog()
    fold = folded(maker(Heavy), records, log)
    entry = fold.scopes["A"].state
    assert isinstance(entry, Sums)
    mine = [i for i, (k, v) in enumerate(log.blobs)
            if v is not None and blobs.sha256(entry.weights).hexdigest().encode() in k]
    for i in mine if how == "missing" else mine[-1:]:
        key, value = log.blobs[i]
        log.blobs[i] = (key, None) if how != "flipped" else (key, b"?" + (value or b"")[1:])
    found = restored(log, maker(Heavy), 100)
    words = {"cut": "cut short", "missing": "is not on", "flipped": "damaged"}
    assert words[how] in (found.damage or "")
    check(found, maker(Heavy), records)


# ------------------------------------------------------------------ epochs and formats
def test_other_code_begins_an_epoch_with_a_stored_root() -> None:
    from dataclasses import replace

    new = replace(OLD, code_hash="new")
    records, log = inputs(60), Changelog()
    old = folded(maker(), records[:25], log)
    found = restored(log, maker(identity=new), 60)
    assert found.fold.root_offset == 24
    out = run(found.fold, records[25:], log)
    first = next(o.event for o in out if isinstance(o.event, PolicyRecord) and o.event.scope == "A")
    assert first.provenance is not None
    assert (first.provenance.from_offset, first.provenance.parent_hash) == (25, old.state_hash(
        "A", old.scopes["A"].state))
    again, root = maker(identity=new)(), log.compacted().held().root
    assert root is not None
    again.restore(root.scopes, root.head)
    assert [o.value for o in run(again, records[25:])] == [o.value for o in out], "folded from the root"
    assert restored(log, maker(identity=new), 60).fold.root_offset == 24, "and lasts"


class SumsBefore(State, frozen=True, kw_only=True):
    count: int = 0
    total: float = 0.0


class Before(Learner):
    state_type = SumsBefore  # type: ignore[assignment]

    def new(self, scope: str) -> Any:
        return SumsBefore()

    def step(self, state: Any, event: Event) -> Any:
        new, out = super().step(Sums(n=state.count, total=state.total), event)
        return SumsBefore(count=new.n, total=new.total), out


class Migrating(Learner):
    format_version = 2
    former: ClassVar[Any] = {1: (SumsBefore, lambda old: Sums(n=old.count, total=old.total))}


@pytest.mark.parametrize("cut", [*range(9), None])
def test_state_of_an_older_format_is_migrated_even_if_the_first_flush_is_cut_short(cut: int | None) -> None:
    from dataclasses import replace

    records, log = inputs(60), Changelog()
    folded(maker(Before), records[:25], log)
    new = maker(Migrating, replace(OLD, code_hash="new"))
    first = restored(log, new, 60)
    log.write(first.fold, cut)
    found = restored(log.compacted(), new, 60)
    assert found.start >= 25
    run(found.fold, records[found.start:])
    whole = folded(maker(), records)
    assert {s: (e.state.n, e.state.total) for s, e in found.fold.scopes.items()} \
        == {s: (e.state.n, e.state.total) for s, e in whole.scopes.items()}  # type: ignore[attr-defined]


def test_state_of_a_format_that_nobody_migrates_starts_nothing() -> None:
    class Later(Learner):
        format_version = 3

    log = Changelog()
    folded(maker(), inputs(20), log)
    with pytest.raises(OtherFormat, match="quantum refold q_learning"):
        restored(log, maker(Later), 20)


def test_state_of_another_topic_starts_nothing() -> None:
    fold = maker()()
    head = msgspec.structs.replace(fold.head(), input_topic="other")
    with pytest.raises(OtherFormat, match=r"other-0.*quantum reset q_learning"):
        maker()().restore([], head)


def test_a_head_of_an_older_release_is_read() -> None:
    fold = folded(maker(), inputs(5))
    rows = dict(fold.flush().rows)
    head = CODEC.decode("state.head", rows[HEAD_KEY])
    assert isinstance(head, PartitionHead)
    states = [CODEC.decode("state.scope", v) for k, v in rows.items() if k.startswith(b"scope:")]
    assert all(isinstance(s, ScopeState) for s in states)
    again = maker()()
    again.restore(states, msgspec.structs.replace(head, code_hash=None, config_hash=None))  # type: ignore[arg-type]
    assert again.root_offset == head.input_offset
    with pytest.raises(Damaged, match="digest"):
        maker()().restore(states[1:], head)  # type: ignore[arg-type]

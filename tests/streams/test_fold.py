"""The pure fold of a partition: repeats, fences, dead letters, flush and restore."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from agents.contract import Agent, Output, Refused, State
from schemas.codec import Codec
from schemas.events import Event, Experience, Orphan, PolicyCommand, PolicyRecord, ScopeState, Tick
from streams import fold as f
from streams import records as r
from streams.identity import Identity

CODEC = Codec()
IDENTITY = Identity(config_hash="c", code_hash="k", feature_schema_hash="s", platform="p")


class Count(State, frozen=True, kw_only=True):
    n: int = 0
    halted: bool = False


class Counting(Agent[Count]):
    """Stands in for the agent `experience`: counts orphans of a scope, publishes one for each."""

    name = "experience"
    state_type = Count

    def new(self, scope: str) -> Count:
        return Count()

    def step(self, state: Count, event: Event) -> tuple[Count, tuple[Output, ...]]:
        if isinstance(event, Tick):
            return state, ()
        if isinstance(event, PolicyCommand):
            return msgspec.structs.replace(state, halted=True), ()
        assert hasattr(event, "symbol")
        if event.symbol == "BROKEN":
            raise ZeroDivisionError("a defect")
        if event.symbol == "REFUSED":
            raise Refused("CONFLICT", "on purpose")
        return Count(n=state.n + 1), (Output("learning.orphan", orphan(event.symbol, state.n)),)


class Publishing(Agent[Count]):
    """Stands in for `q_learning`: a policy version an experience."""

    name = "q_learning"
    state_type = Count

    def new(self, scope: str) -> Count:
        return Count()

    def step(self, state: Count, event: Event) -> tuple[Count, tuple[Output, ...]]:
        assert isinstance(event, Experience)
        new = Count(n=state.n + 1)
        return new, (Output("policy.ledger", policy(event.symbol, new.n)),)


def orphan(symbol: str, n: int) -> Orphan:
    orphan_id = "" if symbol == "UNFIT" else f"{symbol}/{n}"  # the schema wants at least a character
    return Orphan(orphan_id=orphan_id, symbol=symbol, ts_ms=n, reason="LATE", source="x", origin="CLAIMED")


def policy(symbol: str, version: int) -> PolicyRecord:
    return PolicyRecord(
        policy_id=f"q_learning/{symbol}", version=version, agent="q_learning", scope=symbol, ts_ms=1, valid_from_ms=1,
        fallback="neutral", status="ACTIVE", reason="update", outcomes=1, mask=(), actions=("neutral",), source="x",
        origin="CLAIMED",
    )


def experience(symbol: str, n: int) -> Experience:
    return Experience(
        decision_id=f"{symbol}/{n}", symbol=symbol, book_id="q_learning", ts_ms=n, decided_ms=n, status="NEUTRAL",
        learnable=True, forced=False, action="neutral", propensity=1.0, regime="bull", volatility=0.1, reward_r=0.0,
        pnl_usd=0.0, size_multiplier=1.0, source="x", origin="CLAIMED",
    )


def outcome_record(offset: int, symbol: str, src: int, owner: str = "a", ce_id: str | None = None) -> r.Incoming:
    """An orphan dressed as an inbox record of `execution.trade.closed`-like external input: any event will do."""
    from schemas.events import DecisionOutcome

    event = DecisionOutcome(decision_id=f"{symbol}/{src}", symbol=symbol, book_id="b", ts_ms=src, status="NEUTRAL",
                            source="x", origin="CLAIMED")
    value = CODEC.encode("decision.outcome", event)
    headers = [(r.SOURCE_TOPIC, b"decision.outcome"), (r.SOURCE_PARTITION, b"0"), (r.SOURCE_OFFSET, str(src).encode()),
               (r.OWNER, owner.encode())]
    if ce_id:
        headers.append((r.CE_ID, ce_id.encode()))
    return r.Incoming(offset, symbol.encode(), value, tuple(headers))


def fence(offset: int, owner: str) -> r.Incoming:
    return r.Incoming(offset, None, None, ((r.SOURCE_TOPIC, b"decision.outcome"), (r.SOURCE_PARTITION, b"0"),
                                           (r.OWNER, owner.encode()), (r.FENCE, b"1")))


def fresh() -> f.PartitionFold:
    fold = f.PartitionFold(Counting(), 0, CODEC, IDENTITY)
    fold.apply(fence(0, "a"))
    return fold


def count(fold: f.PartitionFold, scope: str = "S") -> int:
    return fold.scopes[scope].state.n  # type: ignore[attr-defined,no-any-return]


def test_a_repeat_of_a_source_offset_changes_nothing() -> None:
    fold = fresh()
    assert len(fold.apply(outcome_record(1, "S", 7))) == 1
    assert fold.apply(outcome_record(2, "S", 7)) == []
    assert fold.apply(outcome_record(3, "S", 6)) == []
    assert count(fold) == 1
    assert fold.offset == 3


def test_a_frozen_relay_that_wakes_up_after_its_successor_does_no_harm() -> None:
    fold = fresh()
    fold.apply(outcome_record(1, "S", 0, "a"))
    fold.apply(fence(2, "b"))
    fold.apply(outcome_record(3, "S", 1, "b"))
    fold.apply(outcome_record(4, "S", 2, "a"))  # the sleeper: the same bytes that its successor copies next
    assert fold.apply(outcome_record(5, "S", 2, "b")) == []
    assert fold.apply(outcome_record(6, "S", 1, "a")) == []
    assert count(fold) == 3


def test_a_fence_that_is_written_late_loses_nothing() -> None:
    """Relay a took over, froze with its fence on the way, b took over from it; then a's fence arrives."""
    fold = fresh()
    fold.apply(fence(1, "b"))
    fold.apply(outcome_record(2, "S", 0, "b"))
    fold.apply(fence(3, "a"))
    fold.apply(outcome_record(4, "S", 1, "b"))
    assert count(fold) == 2


@pytest.mark.parametrize(("name", "value"), [
    (r.SOURCE_OFFSET, b"9" * 20), (r.SOURCE_OFFSET, b"%d" % 2**63), (r.SOURCE_PARTITION, b"%d" % 2**31),
    (r.SOURCE_OFFSET, b"1" * 5_000), (r.OWNER, b""), (r.OWNER, b"\xff")])
def test_what_no_head_could_hold_is_of_no_relay_of_ours(name: str, value: bytes) -> None:
    fold = fresh()
    made = outcome_record(1, "S", 0)
    fold.apply(made._replace(headers=tuple((k, value if k == name else v) for k, v in made.headers)))
    assert fold.counters.refused == 1
    assert fold.flush().offset == 1, "the head could not be written: the agent would stand still for ever"


def test_an_owner_of_any_length_fits_the_head() -> None:
    fold = fresh()
    fold.apply(outcome_record(1, "S", 0, "o" * 2_000))
    fold.apply(fence(2, "o" * 2_000))
    assert fold.flush().offset == 2


def test_a_record_offered_twice_by_the_broker_is_taken_once() -> None:
    fold = fresh()
    record = outcome_record(1, "S", 0)
    fold.apply(record)
    assert fold.apply(record) == []
    assert count(fold) == 1


def test_output_ids_are_functions_of_the_input_and_parse_back() -> None:
    fold = fresh()
    (out,) = fold.apply(outcome_record(5, "S", 0))
    assert r.header(out.headers, r.CE_ID) == "experience:0-5:0"
    assert r.output_id("experience:0-5:0") == ("experience", 0, 5, 0)
    for other in (None, "", "x:1-2:3", "experience:1-2", "experience:a-2:3", "urn:uuid:1"):
        assert r.output_id(other) is None


@pytest.mark.usefixtures("direct_learner")
def test_repeated_outputs_of_an_agent_are_dropped_by_their_id() -> None:
    fold = f.PartitionFold(Publishing(), 2, CODEC, IDENTITY)

    def record(offset: int, ce_id: str) -> r.Incoming:
        value = CODEC.encode("learning.experience", experience("S", offset))
        return r.Incoming(offset, b"S", value, ((r.CE_ID, ce_id.encode()),))

    fold.apply(record(0, "experience:1-10:0"))
    fold.apply(record(1, "experience:1-10:1"))
    assert fold.apply(record(2, "experience:1-10:0")) == []  # its writer was killed and published again
    fold.apply(record(3, "experience:3-4:0"))  # another writer partition counts for itself
    assert count(fold) == 3


class Holding(Agent[Count]):
    """Stands in for `decision`: counts the policies of a scope."""

    name = "decision"
    state_type = Count

    def new(self, scope: str) -> Count:
        return Count()

    def step(self, state: Count, event: Event) -> tuple[Count, tuple[Output, ...]]:
        return Count(n=state.n + 1), ()


def test_outputs_of_a_writer_count_apart_in_each_partition_of_their_topic() -> None:
    """A learner's partition writes policies to all partitions of the ledger, and a relay copies these in any order."""
    fold = f.PartitionFold(Holding(), 0, CODEC, IDENTITY)

    def copy(offset: int, symbol: str, partition: int, src: int, ce_id: str) -> r.Incoming:
        value = CODEC.encode("policy.ledger", policy(symbol, 1))
        return r.Incoming(offset, f"q_learning/{symbol}".encode(), value, (
            (r.CE_ID, ce_id.encode()), (r.SOURCE_TOPIC, b"policy.ledger"),
            (r.SOURCE_PARTITION, str(partition).encode()), (r.SOURCE_OFFSET, str(src).encode()), (r.OWNER, b"a")))

    fold.apply(copy(0, "LATER", 3, 0, "q_learning:2-11:0"))
    fold.apply(copy(1, "EARLIER", 1, 0, "q_learning:2-10:0"))
    fold.apply(copy(2, "EARLIER", 1, 1, "q_learning:2-10:0"))  # its writer was killed and published again
    assert (count(fold, "LATER"), count(fold, "EARLIER")) == (1, 1)
    again = f.PartitionFold(Holding(), 0, CODEC, IDENTITY)
    again.restore([CODEC.decode("state.scope", v) for k, v in fold.flush().rows[:-1]], fold.head())
    again.apply(copy(3, "LATER", 3, 1, "q_learning:2-11:0"))
    assert count(again, "LATER") == 1


@pytest.mark.parametrize("forged", [
    (r.SOURCE_PARTITION, b"x"), (r.SOURCE_PARTITION, b"-1"), (r.SOURCE_OFFSET, b"-1x"), (r.SOURCE_OFFSET, b""),
    (r.SOURCE_OFFSET, "\u00b2".encode()), (r.SOURCE_TOPIC, b"nowhere"), (r.SOURCE_TOPIC, b"\xff"), None,
])
def test_what_no_relay_wrote_is_passed_over(forged: tuple[str, bytes] | None) -> None:
    """Anybody may write to an inbox; nothing that stands there may stop the fold."""
    fold = fresh()
    record = outcome_record(1, "A", 3)
    assert fold.apply(record._replace(headers=() if forged is None else (*record.headers, forged))) == []
    assert (fold.counters.applied, fold.counters.refused) == (0, 1)
    fold.apply(outcome_record(2, "A", 3))
    assert fold.counters.applied == 1


def test_a_refusal_leaves_the_state_and_keeps_the_bytes() -> None:
    fold = fresh()
    record = outcome_record(1, "REFUSED", 3)
    (letter,) = fold.apply(record)
    assert letter.topic == "decision.outcome.dlq"
    assert (letter.key, letter.value) == (record.key, record.value)
    assert r.header(letter.headers, r.ERROR + "reason") == "CONFLICT"
    assert r.header(letter.headers, r.ERROR + "offset") == "3"
    assert r.header(letter.headers, r.OWNER) is None  # the relay's own headers are not the producer's
    assert "REFUSED" not in fold.scopes


def test_a_defect_in_a_step_costs_one_record_not_the_stream() -> None:
    fold = fresh()
    (letter,) = fold.apply(outcome_record(1, "BROKEN", 0))
    assert r.header(letter.headers, r.ERROR + "reason") == "STEP_FAILED"
    assert "ZeroDivisionError" in (r.header(letter.headers, r.ERROR + "detail") or "")
    assert len(fold.apply(outcome_record(2, "S", 1))) == 1


def test_an_output_that_its_schema_refuses_undoes_the_whole_step() -> None:
    fold = fresh()
    (letter,) = fold.apply(outcome_record(1, "UNFIT", 0))
    assert r.header(letter.headers, r.ERROR + "reason") == "OUTPUT_REFUSED"
    assert fold.scopes == {}
    assert [k for k, _ in fold.flush().rows] == [b"head"]
    assert len(fold.apply(outcome_record(2, "S", 1))) == 1


@pytest.mark.parametrize(("value", "reason"), [(None, "NULL_VALUE"), (b"", "EMPTY"), (b"{}", "NOT_AVRO")])
def test_what_the_decoder_refuses_is_a_dead_letter(value: bytes | None, reason: str) -> None:
    fold = fresh()
    (letter,) = fold.apply(outcome_record(1, "S", 0)._replace(value=value))
    assert r.header(letter.headers, r.ERROR + "reason") == reason
    assert letter.value == value


def test_a_key_that_is_not_the_values_is_refused() -> None:
    fold = fresh()
    (letter,) = fold.apply(outcome_record(1, "S", 0)._replace(key=b"T"))
    assert r.header(letter.headers, r.ERROR + "reason") == "KEY_MISMATCH"


def restored(flush: f.Flush, drop_head: bool = False, older_head: bytes | None = None) -> f.PartitionFold:
    fold = f.PartitionFold(Counting(), 0, CODEC, IDENTITY)
    rows = [CODEC.decode("state.scope", v) for k, v in flush.rows if k != r.HEAD_KEY]
    head = None if drop_head else CODEC.decode("state.head", older_head or flush.rows[-1][1])
    fold.restore(rows, head)  # type: ignore[arg-type]
    return fold


def test_restore_continues_as_if_nothing_had_happened() -> None:
    fold = fresh()
    for i in range(5):
        fold.apply(outcome_record(1 + i, "ST"[i % 2], i))
    other = restored(fold.flush())
    assert other.digest() == fold.digest()
    assert other.head() == fold.head()
    nxt = outcome_record(6, "S", 5)
    assert other.apply(nxt) == fold.apply(nxt)
    assert other.digest() == fold.digest()


def test_a_torn_flush_skips_what_a_scope_contains_and_refolds_the_rest() -> None:
    fold = fresh()
    fold.apply(outcome_record(1, "S", 0))
    old_head = fold.flush().rows[-1][1]
    records = [outcome_record(2, "S", 1), outcome_record(3, "T", 2)]
    for record in records:
        fold.apply(record)
    flush = fold.flush()
    only_s = f.Flush([row for row in flush.rows if row[0] == b"scope:S"], flush.offset)
    torn = restored(only_s, older_head=old_head)  # S came through at offset 2, T and the head did not
    assert torn.offset == 1
    for record in records:
        torn.apply(record)
    assert (count(torn, "S"), count(torn, "T")) == (2, 1)
    assert torn.digest() == fold.digest()


def test_a_head_that_its_scopes_do_not_meet_is_damage() -> None:
    fold = fresh()
    fold.apply(outcome_record(1, "S", 0))
    fold.apply(outcome_record(2, "T", 1))
    flush = fold.flush()
    with pytest.raises(f.Damaged, match="digest"):
        restored(f.Flush(flush.rows[1:], flush.offset))


def test_another_state_format_is_refused_with_the_command_to_run() -> None:
    fold = fresh()
    fold.apply(outcome_record(1, "S", 0))
    row = CODEC.decode("state.scope", fold.flush().rows[0][1])
    assert isinstance(row, ScopeState)
    with pytest.raises(f.OtherFormat, match="quantum refold experience"):
        f.PartitionFold(Counting(), 0, CODEC).restore([msgspec.structs.replace(row, format_version=9)], None)


def test_a_flush_writes_changed_scopes_only_and_the_head_last() -> None:
    fold = fresh()
    fold.apply(outcome_record(1, "S", 0))
    fold.apply(outcome_record(2, "T", 1))
    assert [k for k, _ in fold.flush().rows] == [b"scope:S", b"scope:T", b"head"]
    fold.apply(outcome_record(3, "T", 2))
    assert [k for k, _ in fold.flush().rows] == [b"scope:T", b"head"]
    assert [k for k, _ in fold.flush().rows] == [b"head"]


class OneByOne(dict[str, Any]):
    """Tells what goes through all of it."""

    def __iter__(self) -> Any:
        raise AssertionError("a flush goes through all scopes")

    items = values = keys = __iter__


def test_a_flush_looks_at_the_scopes_that_changed_and_at_no_other() -> None:
    fold = fresh()
    for i in range(40):
        fold.apply(outcome_record(1 + i, f"S{i:02d}", i))
    fold.flush()
    fold.scopes = OneByOne(fold.scopes)
    fold.keeper._stored = OneByOne(fold.keeper._stored)
    fold.apply(outcome_record(41, "S07", 40))
    fold.apply(outcome_record(42, "NEW", 41))
    flush = fold.flush()
    assert [key for key, _ in flush.rows] == [b"scope:S07", b"scope:NEW", b"head"]
    names = (*(f"S{i:02d}" for i in range(40)), "NEW")
    every = [int(fold.state_hash(name, fold.scopes[name].state), 16) for name in names]
    assert fold.head().digest == f"{sum(every) % 2**256:064x}"


def test_the_digest_is_that_of_the_scopes_that_are_there_however_they_came() -> None:
    fold = fresh()
    for i in range(4):
        fold.apply(outcome_record(1 + i, "STUV"[i], i))
    whole = fold.digest()
    kept, fold.scopes = fold.scopes, {"S": fold.scopes["S"]}
    assert fold.digest() == f"{int(fold.state_hash('S', kept['S'].state), 16):064x}"
    fold.scopes = kept
    assert fold.digest() == whole


@pytest.mark.usefixtures("direct_learner")
def test_a_policy_goes_to_the_ledger_first_and_names_the_range_it_came_from() -> None:
    fold = f.PartitionFold(Publishing(), 2, CODEC, IDENTITY)
    outs = []
    for offset in (0, 4, 9):
        value = CODEC.encode("learning.experience", experience("S", offset))
        outs.append(fold.apply(r.Incoming(offset, b"S", value, ())))
    assert [o.topic for o in outs[0]] == ["policy.ledger", "policy.current"]
    stamps = [CODEC.decode("policy.ledger", o[0].value).provenance for o in outs]  # type: ignore[attr-defined]
    assert [(p.from_offset, p.to_offset) for p in stamps] == [(0, 0), (1, 4), (5, 9)]
    assert stamps[0].parent_hash is None
    assert [p.parent_hash for p in stamps[1:]] == [p.state_hash for p in stamps[:-1]]
    assert stamps[-1].state_hash == fold.state_hash("S", fold.scopes["S"].state)
    assert r.header(outs[1][1].headers, "policy_id") == "q_learning/S"
    assert r.header(outs[1][1].headers, "version") == "2"


@pytest.mark.usefixtures("direct_learner")
def test_the_view_of_a_policy_is_the_ledgers_bytes_encoded_once_under_an_id_of_its_own() -> None:
    class Counted(Codec):
        policies = 0

        def encode(self, topic: str, event: Any, schema_id: int | None = None) -> bytes:
            self.policies += isinstance(event, PolicyRecord)
            return super().encode(topic, event, schema_id)

    codec = Counted()
    fold = f.PartitionFold(Publishing(), 2, codec, IDENTITY)
    ledger, current = fold.apply(r.Incoming(7, b"S", CODEC.encode("learning.experience", experience("S", 7)), ()))
    assert ledger.event is not None
    assert (codec.policies, current.value, current.key) == (1, CODEC.encode("policy.current", ledger.event), ledger.key)
    assert [dict(o.headers)[r.CE_ID] for o in (ledger, current)] == [b"q_learning:2-7:0", b"q_learning:2-7:1"]
    assert dict(current.headers) | {r.CE_ID: b""} == dict(ledger.headers) | {r.CE_ID: b""}

"""Evidence files: what a cell shows, what a file says, and what becomes of it when a byte changes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import sha256
from random import Random

import pytest

from agents.roster import ROSTER
from schemas.events import Decision, Experience, PolicyApplied, PolicyRecord, TradeClosed
from streams.log import Record
from streams.verify.cells import MAX_RECORDS, Report
from streams.verify.evidence_file import NotEvidence, parsed, record_digest, written
from streams.verify.planted.actors import WrongPropensity
from streams.verify.planted.stage import CODEC, Stage, at, stage
from streams.verify.recheck import Rechecked, recheck


@pytest.fixture(scope="module")
def run() -> Stage:
    return stage(bars=500)


@pytest.fixture(scope="module")
def report(run: Stage) -> Report:
    return run.judge(sample_seed=5)


@pytest.fixture(scope="module")
def data(report: Report) -> bytes:
    return written(report, "memory", "")


def again(run: Stage, data: bytes, prefix: str = "") -> Rechecked:
    return recheck(run.log, parsed(data), prefix)


def outcomes(found: Rechecked) -> dict[str, str]:
    return {i.name: i.outcome for i in found.items}


def events(report: Report, agent: str, kind: str) -> list:
    return [CODEC.decode(r.topic, r.value) for r in at(report, agent, kind).records  # type: ignore[arg-type]
            if "changelog" not in r.topic and "inbox" not in r.topic]


# ---------------------------------------------------------------------- what cells show
def test_every_cell_that_is_proved_shows_records_and_the_one_of_its_place_first(report: Report) -> None:
    for row in report.rows:
        for kind, cell in row.cells.items():
            if cell.state == "PASS":
                assert 1 <= len(cell.records) <= MAX_RECORDS, (row.agent, kind)
                assert cell.records[0].place == cell.place
                assert len({r.place for r in cell.records}) == len(cell.records)


def test_learning_shows_updates_with_their_outcome_and_their_parent(report: Report) -> None:
    shown = events(report, "q_learning", "LEARNS")
    policies = {e.version: e for e in shown if isinstance(e, PolicyRecord)}
    offsets = {r.offset for r in at(report, "q_learning", "LEARNS").records if r.topic == "learning.experience"}
    with_all = [v for v, p in policies.items() if v - 1 in policies and p.provenance.to_offset in offsets]
    assert len(with_all) >= 10
    assert all(policies[v].provenance.parent_hash == policies[v - 1].provenance.state_hash for v in with_all)


def test_application_shows_acknowledgement_decision_policy_and_trade(report: Report) -> None:
    shown = events(report, "q_learning", "APPLIED")
    acks = [e for e in shown if isinstance(e, PolicyApplied)]
    decisions = {e.decision_id for e in shown if isinstance(e, Decision)}
    trades = {e.decision_id for e in shown if isinstance(e, TradeClosed)}
    versions = {e.version for e in shown if isinstance(e, PolicyRecord)}
    assert len(acks) >= 10
    assert {a.decision_id for a in acks} == decisions
    assert {a.policy_version for a in acks} <= versions
    assert len(trades) >= 10


def test_a_decision_that_does_not_follow_is_shown_with_its_policy() -> None:
    cheat = stage({"decision": WrongPropensity()}, bars=400).judge(sample_seed=5)
    decision, policy = events(cheat, "q_learning", "APPLIED")[:2]
    assert at(cheat, "q_learning", "APPLIED").state == "FAIL"
    assert (decision.policy_id, decision.policy_version) == (policy.policy_id, policy.version)


def test_origin_shows_trades_with_decision_and_candles_and_rewards_with_trades(report: Report) -> None:
    shown = events(report, "paper_execution", "ORIGIN")
    trades = [e for e in shown if isinstance(e, TradeClosed)]
    bars = {c.open_time_ms for c in shown if type(c).__name__ == "Candle"}
    assert len(trades) >= 8
    assert {t.decision_id for t in trades} <= {e.decision_id for e in shown if isinstance(e, Decision)}
    assert {t.opened_ms for t in trades} <= bars
    rewards = events(report, "experience", "ORIGIN")
    traded = {e.trade_id for e in rewards if isinstance(e, Experience) and e.trade_id}
    assert traded
    assert traded <= {e.trade_id for e in rewards if isinstance(e, TradeClosed)}


def test_state_shows_whole_partitions_so_that_the_digest_can_be_made_by_hand(report: Report) -> None:
    rows = [CODEC.decode("state.head" if r.key == b"head" else "state.scope", r.value)
            for r in at(report, "decision", "PERSISTS").records]
    head = next(r for r in rows if type(r).__name__ == "PartitionHead")
    scopes = [r for r in rows if type(r).__name__ == "ScopeState"]
    total = sum(int(sha256(s.scope.encode() + b"\0" + s.state).hexdigest(), 16) for s in scopes)
    assert f"{total % 2**256:064x}" == head.digest


def test_commits_are_figures(report: Report) -> None:
    assert at(report, "q_learning", "RECEIVES").figures["committed q_learning.inbox-0"] > 0


def test_the_draw_is_the_seeds(run: Stage, report: Report) -> None:
    places = [r.place for r in at(report, "q_learning", "APPLIED").records]
    assert places == [r.place for r in at(run.judge(sample_seed=5), "q_learning", "APPLIED").records]
    assert places != [r.place for r in at(run.judge(sample_seed=6), "q_learning", "APPLIED").records]


# ---------------------------------------------------------------------- framing
def test_the_framing_of_a_record_is_what_the_page_says() -> None:
    record = Record("t", 1, 2, b"k", None, (("a", b"xy"), ("b", b"")), 258)
    raw = (b"\0\0\0\0\0\0\x01\x02" b"\0\0\0\x01k" b"\xff\xff\xff\xff" b"\0\0\0\x02"
           b"\0\0\0\x01a" b"\0\0\0\x02xy" b"\0\0\0\x01b" b"\0\0\0\0")
    assert record_digest(record) == sha256(raw).hexdigest()
    assert record_digest(record._replace(timestamp_ms=None)) == sha256(b"\xff" * 8 + raw[8:]).hexdigest()


def test_no_two_records_are_framed_alike() -> None:
    alike = [Record("t", 0, 0, k, v, h, 5) for k, v, h in (
        (b"ab", b"c", ()), (b"a", b"bc", ()), (None, b"abc", ()), (b"", b"abc", ()), (b"abc", None, ()),
        (b"abc", b"", ()),
        (b"ab", b"", (("c", b""),)), (b"ab", b"", (("", b"c"),)), (b"ab", b"", (("", b""), ("", b"c"))))]
    assert len({record_digest(r) for r in alike}) == len(alike)


# ---------------------------------------------------------------------- the file
def test_a_file_is_json_with_a_claim_for_every_cell(report: Report, data: bytes) -> None:
    shown = json.loads(data)
    assert shown["schema"] == "quantum.evidence/1"
    assert (shown["header"]["cluster_id"], shown["header"]["sample_seed"]) == ("memory", 5)
    cells = {f"{row.agent}/{kind}": c for row in report.rows for kind, c in row.cells.items()}
    claims = {f"{c['claim']['agent']}/{c['claim']['kind']}": c for c in shown["claims"]}
    assert claims.keys() == cells.keys() == shown["header"]["claims"].keys()
    for name, cell in cells.items():
        said = claims[name]["claim"]
        assert (said["state"], said["why"], said["place"]) == (cell.state, cell.why, cell.place)
        assert shown["header"]["claims"][name] == claims[name]["sha256"]
        assert sha256(json.dumps(said, separators=(",", ":")).encode()).hexdigest() == claims[name]["sha256"]


def test_an_untouched_file_and_log_hold(run: Stage, data: bytes) -> None:
    found = again(run, data)
    assert set(outcomes(found).values()) == {"HOLDS", "NO RECORDS"}
    assert found.exit_code == 0
    made = [a for a in ROSTER if a != "bars"]  # which has no trades
    assert {n for n, o in outcomes(found).items() if o == "HOLDS"} >= {f"{a}/ORIGIN" for a in made}
    assert found.digest == json.loads(data)["sha256"]


def test_any_byte_that_is_changed_shows_which_claim_fell(run: Stage, data: bytes) -> None:
    random, lines = Random(1), data.split(b"\n")
    ends = [sum(len(x) + 1 for x in lines[:i + 1]) for i in range(len(lines))]
    names = ["header", *json.loads(data)["header"]["claims"]]
    for _ in range(150):
        at_byte = random.randrange(len(data))
        other = bytes([(data[at_byte] + random.randrange(1, 256)) % 256])
        line = next(i for i, end in enumerate(ends) if at_byte < end)
        found = again(run, data[:at_byte] + other + data[at_byte + 1:])
        fell = {n for n, o in outcomes(found).items() if o == "FELL"}
        assert found.exit_code == 1
        expected = names[line] if line < len(names) else "file"
        assert expected in fell or at_byte in (ends[line] - 1, ends[line] - 2), (at_byte, other, fell)
        assert fell, at_byte


@pytest.mark.parametrize("change", [
    lambda lines: [*lines[:5], *lines[6:]],
    lambda lines: [*lines[:5], lines[5], *lines[5:]],
    lambda lines: [lines[0], lines[2], lines[1], *lines[3:]],
    lambda lines: [*lines, b""],
])
def test_lines_taken_out_repeated_moved_or_added_are_seen(run: Stage, data: bytes, change) -> None:
    assert again(run, b"\n".join(change(data.split(b"\n")))).exit_code == 1


def test_a_claim_that_is_written_anew_with_its_digest_does_not_meet_the_header(run: Stage, data: bytes) -> None:
    lines = data.split(b"\n")
    i = next(i for i, x in enumerate(lines) if b'"agent":"q_learning","kind":"LEARNS"' in x)
    claim = lines[i][9:-78].replace(b'"state":"PASS"', b'"state":"FAIL"')
    lines[i] = b'{"claim":%s,"sha256":"%s"},' % (claim, sha256(claim).hexdigest().encode())
    found = again(run, b"\n".join(lines))
    assert [n for n, o in outcomes(found).items() if o == "FELL"] == ["q_learning/LEARNS"]


@pytest.mark.parametrize("text", [b"", b"{}", b"\x00\xff", b'{"schema":"quantum.verify/1"}'])
def test_what_never_was_an_evidence_file(text: bytes) -> None:
    with pytest.raises(NotEvidence):
        parsed(text)


# ---------------------------------------------------------------------- the log
@pytest.fixture
def altered(run: Stage) -> Iterator[Stage]:
    """The run, its log put back afterwards."""
    kept = {t: {p: list(rows) for p, rows in parts.items()} for t, parts in run.log.records.items()}
    yield run
    run.log.records.clear()
    run.log.records.update(kept)
    run.log.cluster_id = "memory"


def place_of(report: Report, agent: str, kind: str) -> tuple[str, int, int]:
    r = at(report, agent, kind).records[1]  # type: ignore[arg-type]
    return r.topic, r.partition, r.offset


def test_a_byte_of_a_record_that_is_changed(altered: Stage, report: Report, data: bytes) -> None:
    topic, partition, offset = place_of(report, "q_learning", "LEARNS")
    rows = altered.log.records[topic][partition]
    value = rows[offset].value or b""
    rows[offset] = rows[offset]._replace(value=value[:-1] + bytes([value[-1] ^ 1]))
    found = again(altered, data)
    fell = {i.name: i.why for i in found.items if i.outcome == "FELL"}
    assert f"record at {topic}-{partition}@{offset} has other bytes" in fell["q_learning/LEARNS"]
    naming = {f"{row.agent}/{k}" for row in report.rows for k, c in row.cells.items()
              if any((r.topic, r.partition, r.offset) == (topic, partition, offset) for r in c.records)}
    assert set(fell) == naming
    assert found.exit_code == 1


@pytest.mark.parametrize("change", [
    {"key": b"other"}, {"key": None}, {"value": None}, {"headers": ()}, {"timestamp_ms": 7}])
def test_key_headers_and_time_count_too(altered: Stage, report: Report, data: bytes, change) -> None:
    topic, partition, offset = place_of(report, "q_learning", "LEARNS")
    altered.log.records[topic][partition][offset] = altered.log.records[topic][partition][offset]._replace(**change)
    found = next(i for i in again(altered, data).items if i.name == "q_learning/LEARNS")
    assert found.outcome == "FELL"
    assert ("appended at 7" in found.why) == ("timestamp_ms" in change)


def test_deleted_records_have_expired(altered: Stage, data: bytes) -> None:
    rows = altered.log.records["policy.applied"][0]
    rows[:-1] = []
    found = again(altered, data)
    item = next(i for i in found.items if i.name == "q_learning/APPLIED")
    assert item.outcome == "EXPIRED"
    assert "is deleted; the log begins at" in item.why
    assert found.exit_code == 3


def test_a_compacted_record_has_expired(altered: Stage, data: bytes) -> None:
    rows = altered.log.records["decision.changelog"][0]
    altered.log.append("decision.changelog", 0, b"head", b"newer")
    del rows[1]
    assert outcomes(again(altered, data))["decision/PERSISTS"] == "EXPIRED"


def test_a_log_that_was_cut_short_or_made_anew(altered: Stage, data: bytes) -> None:
    del altered.log.records["policy.ledger"][0][3:]
    found = next(i for i in again(altered, data).items if i.name == "q_learning/LEARNS")
    assert found.outcome == "FELL"
    assert "the log ends at 3" in found.why


def test_a_topic_that_is_gone(altered: Stage, data: bytes) -> None:
    del altered.log.records["policy.applied"]
    found = next(i for i in again(altered, data).items if i.name == "q_learning/APPLIED")
    assert (found.outcome, "no such topic" in found.why) == ("FELL", True)


def test_another_cluster_or_prefix_is_named(altered: Stage, data: bytes) -> None:
    altered.log.cluster_id = "elsewhere"
    first = again(altered, data).items[0]
    assert (first.name, first.outcome) == ("log", "FELL")
    assert "this is cluster elsewhere" in first.why
    assert "the evidence is of cluster memory" in first.why
    altered.log.cluster_id = "memory"
    assert again(altered, data, "copy.").exit_code == 1

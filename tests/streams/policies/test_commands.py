"""`quantum policy` and `quantum why` over a broker: a log that the driver wrote, record by record on real topics.

Every command line of docs/policies.md is run on it.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from matplotlib import image

from schemas.events import Decision, Experience, PolicyRecord
from streams import topics
from streams.cli.exits import Exit
from streams.cli.main import main
from streams.log import LogReader
from streams.policies.rederive import OUTCOMES
from streams.settings import Settings
from streams.verify.planted.stage import CODEC, alone, stage
from streams.verify.view import MemoryLog
from tests.streams.hosting import send
from tests.streams.log_fixtures import flags, own_names

PAGE = (Path(__file__).parents[3] / "docs" / "policies.md").read_text()
LINES = [line for block in re.findall(r"^```bash\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
         for line in block.splitlines()]
POLICY = "q_learning/BTCUSDT"


@pytest.fixture(scope="module")
def log() -> MemoryLog:
    return stage(alone("q_learning"), bars=700, symbols=("BTCUSDT", "ETHUSDT"), without=("ppo_trader",)).log


@pytest.fixture(scope="module")
def settings(broker: Settings, log: MemoryLog) -> Iterator[Settings]:
    own = uploaded(broker, log)
    yield own
    removed(own)


def uploaded(broker: Settings, log: MemoryLog, *only: str) -> Settings:
    """The records of a log in memory on topics of their own, at the same offsets; of all topics, or only of some."""
    filled = [t for t, ps in log.records.items() if any(ps.values()) and (not only or t in only)]
    own = own_names(broker, *filled)
    for topic in filled:
        for partition, rows in log.records[topic].items():
            send(own, ((topic, r.key, r.value, r.headers) for r in rows), partition)
    return own


def removed(own: Settings) -> None:
    client, there = topics.connect(own)
    for future in client.delete_topics([t for t in there if t.startswith(own.topic_prefix)]).values():
        future.exception()


def told(settings: Settings, capsys: pytest.CaptureFixture[str], *line: str, code: int = Exit.GOOD) -> dict:
    assert main([*line, "--json", *flags(settings)]) == code, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def versions(log: MemoryLog, policy_id: str = POLICY) -> list[PolicyRecord]:
    events = [CODEC.decode("policy.ledger", r.value) for r in log.records["policy.ledger"][0]]
    return [e for e in events if isinstance(e, PolicyRecord) and e.policy_id == policy_id]


def applied(log: MemoryLog) -> Decision:
    """A decision under a later version."""
    events = [CODEC.decode("rl.meta.strategy_selected", r.value) for r in log.records["rl.meta.strategy_selected"][0]]
    return next(e for e in events if isinstance(e, Decision) and e.policy_id == POLICY and (e.policy_version or 0) >= 7)


def iso(ts_ms: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(ts_ms / 1000, UTC).isoformat().replace("+00:00", "Z")


# ---------------------------------------------------------------------- the page
@pytest.mark.parametrize("line", LINES)
def test_every_line_of_the_page_runs_and_prints(
        settings: Settings, log: MemoryLog, capsys: pytest.CaptureFixture[str], line: str) -> None:
    line = line.replace("DECISION_ID", applied(log).decision_id).replace(
        "2026-01-31T12:00:00Z", iso(versions(log)[4].valid_from_ms))
    name, *words = line.split()
    assert name == "quantum"
    assert main([*words, *flags(settings)]) == Exit.GOOD, capsys.readouterr().err
    assert len(capsys.readouterr().out.splitlines()) >= 3


def test_the_page_has_every_answer_as_the_command_explains_it() -> None:
    rows = re.findall(r"^\| ([A-Z_]+) \| (.+) \| (\d) \|$", PAGE, re.MULTILINE)
    assert {name: text for name, text, _ in rows} == OUTCOMES
    assert {int(code) for _, _, code in rows} <= {int(e) for e in Exit}


# ---------------------------------------------------------------------- each command
def test_list_has_every_policy_now_and_at_a_time(
        settings: Settings, log: MemoryLog, capsys: pytest.CaptureFixture[str]) -> None:
    now = told(settings, capsys, "policy", "list")["policies"]
    assert [(r["policy_id"], r["version"]) for r in now] == [
        (p, versions(log, p)[-1].version) for p in (POLICY, "q_learning/ETHUSDT", "risk_controller/global")]
    at = versions(log)[4].valid_from_ms
    then = told(settings, capsys, "policy", "list", "--at", f"s@{at}")["policies"]
    assert {r["policy_id"]: r["version"] for r in then}[POLICY] == 5
    assert told(settings, capsys, "policy", "list", "--at", "s@0")["policies"] == []
    assert main(["policy", "list", "--at", "2026-01-31T12:00:00", *flags(settings)]) == Exit.USAGE
    assert "no time zone" in capsys.readouterr().err


def test_show_travels_in_time(settings: Settings, log: MemoryLog, capsys: pytest.CaptureFixture[str]) -> None:
    own = versions(log)
    fifth = told(settings, capsys, "policy", "show", POLICY, "--at", iso(own[5].valid_from_ms - 1))
    assert (fifth["version"], fifth["in_force"]["next_version"], fifth["in_force"]["applies"]) == (5, 6, True)
    assert fifth["place"].startswith("policy.ledger-")
    assert fifth["provenance"]["state_hash"] == own[4].provenance.state_hash  # type: ignore[union-attr]
    same = told(settings, capsys, "policy", "show", "q_learning", "--symbol", "BTCUSDT", "--version", "5")
    assert {**same, "in_force": None} == {**fifth, "in_force": None}
    end = own[-1].valid_until_ms
    assert end is not None
    past = told(settings, capsys, "policy", "show", POLICY, "--at", f"s@{end + 1}")
    assert (past["version"], past["in_force"]["applies"]) == (own[-1].version, False)
    assert main(["policy", "show", POLICY, "--at", "s@0", *flags(settings)]) == Exit.FAILED
    assert "the first is valid from" in capsys.readouterr().err
    assert main(["policy", "show", f"{POLICY}@5", "--at", "s@0", *flags(settings)]) == Exit.USAGE
    assert main(["policy", "show", f"{POLICY}@999", *flags(settings)]) == Exit.FAILED


def test_diff_and_plot(settings: Settings, log: MemoryLog, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    own = versions(log)
    found = told(settings, capsys, "policy", "diff", f"{POLICY}@4..5")
    assert found["fields"]["version"] == {"before": 4, "after": 5}
    assert sum(m["visits_after"] - m["visits_before"] for m in found["moves"]) == 1, "one outcome, one visit"
    png = tmp_path / "course.png"
    course = told(settings, capsys, "policy", "plot", POLICY, "--png", str(png))
    assert [p["version"] for p in course["points"]] == [p.version for p in own]
    assert image.imread(png)[..., :3].std() > 0.02
    assert main(["policy", "diff", f"{POLICY}@4", *flags(settings)]) == Exit.USAGE
    assert main(["policy", "plot", "q_learning/NONE", *flags(settings)]) == Exit.FAILED
    assert "there are: q_learning/BTCUSDT" in capsys.readouterr().err


def test_rederive_matches_every_version(
        settings: Settings, log: MemoryLog, capsys: pytest.CaptureFixture[str]) -> None:
    n = len(log.records["policy.ledger"][0])
    done = told(settings, capsys, "policy", "rederive", "--all")
    assert (done["schema"], done["counts"]) == ("quantum.rederive/1", {"MATCH": n})
    assert {f["first"] for f in done["fetched"]} == {0}
    one = told(settings, capsys, "policy", "rederive", f"{POLICY}@6")
    assert [a["version"] for a in one["answers"]] == [6]
    assert told(settings, capsys, "policy", "rederive", POLICY, "--seed", "3",
                code=Exit.OTHER_CODE)["counts"] == {"OTHER_CONFIG": 1}
    assert main(["policy", "rederive", *flags(settings)]) == Exit.USAGE
    assert main(["policy", "rederive", "q_learning/NONE", *flags(settings)]) == Exit.FAILED


def test_rederive_names_the_event_of_which_one_byte_was_changed(
        broker: Settings, log: MemoryLog, capsys: pytest.CaptureFixture[str]) -> None:
    from schemas.catalogue import AGENTS

    topic, other = AGENTS["q_learning"].input_topic, MemoryLog()
    other.records.update({t: {p: list(rows) for p, rows in ps.items()} for t, ps in log.records.items()})
    r = other.records[topic][0][60]
    value = bytearray(r.value or b"")
    event = CODEC.decode("learning.experience", r.value)
    assert isinstance(event, Experience)
    value[value.index(struct.pack("<d", event.volatility)) + 6] ^= 0x10
    other.records[topic][0][60] = r._replace(value=bytes(value))
    own = uploaded(broker, other, "policy.ledger", topic, "learning.experience", "experience.inbox",
                   "rl.q_learning.updated")
    done = told(own, capsys, "policy", "rederive", "--all", code=Exit.FAILED)
    assert {d["place"] for d in done["divergences"]} == {f"{topic}-0@60"}
    assert main(["policy", "rederive", "--all", *flags(own)]) == Exit.FAILED
    assert f"at {topic}-0@60" in capsys.readouterr().out
    removed(own)


def test_rederive_says_what_is_deleted(
        broker: Settings, log: MemoryLog, capsys: pytest.CaptureFixture[str]) -> None:
    from confluent_kafka import TopicPartition

    from schemas.catalogue import AGENTS

    topic = AGENTS["q_learning"].input_topic
    own = uploaded(broker, log, "policy.ledger", topic)
    client, _ = topics.connect(own)
    for future in client.delete_records([TopicPartition(own.topic(topic), 0, 10)]).values():
        future.result()
    with LogReader(own) as reader:
        assert reader.bounds(topic, 0)[0] == 10
    done = told(own, capsys, "policy", "rederive", POLICY, code=Exit.EXPIRED)
    assert f"{topic}-0@0 is deleted" in done["answers"][0]["why"]
    assert told(own, capsys, "why", f"{POLICY}@1")["lineage"]["versions"][0]["missing"].startswith(topic)
    removed(own)


# ---------------------------------------------------------------------- why
def test_a_decision_leads_to_the_outcomes_that_its_policy_was_learned_from(
        settings: Settings, log: MemoryLog, capsys: pytest.CaptureFixture[str]) -> None:
    decision = applied(log)
    version = versions(log)[(decision.policy_version or 0) - 1]
    why = told(settings, capsys, "why", decision.decision_id)
    (made,) = why["lineage"]["versions"]
    assert (made["version"], made["record"]) == (version.version, why["policy"]["record"])
    p = version.provenance
    assert p is not None
    assert made["input"] == f"{p.input_topic}-{p.input_partition}@{p.from_offset}..{p.to_offset}"
    (outcome,) = made["outcomes"]
    assert outcome["experience"]["place"] == f"{p.input_topic}-{p.input_partition}@{p.to_offset}"
    assert made["update"]["value"]["policy_version"] == version.version
    assert made["update"]["value"]["decision_id"] == outcome["experience"]["value"]["decision_id"]
    trade_id = outcome["experience"]["value"]["trade_id"]
    assert (outcome["trade"] is None) == (trade_id is None)
    assert why["lineage"]["not_shown"] == {"versions": version.version - 1, "outcomes": version.outcomes - 1}
    names = [s["what"] for s in why["steps"]]
    assert names.index("policy in force") < names.index("its input") < names.index("learned from") \
        < names.index("decision")


def test_a_version_is_followed_to_its_genesis_and_the_trades_are_named(
        settings: Settings, log: MemoryLog, capsys: pytest.CaptureFixture[str]) -> None:
    why = told(settings, capsys, "why", f"{POLICY}@7", "--depth", "99")
    assert (why["schema"], why["policy"]["value"]["version"]) == ("quantum.why.policy/1", 7)
    chain = why["lineage"]["versions"]
    assert [g["version"] for g in chain] == [7, 6, 5, 4, 3, 2, 1]
    assert why["lineage"]["not_shown"] == {"versions": 0, "outcomes": 0}
    assert [len(g["outcomes"]) for g in chain] == [1] * 6 + [0]
    for g, version in zip(chain, reversed(versions(log)[:7]), strict=True):
        first, last = (int(x) for x in g["input"].rpartition("@")[2].split(".."))
        assert version.provenance is not None
        assert (first, last) == (version.provenance.from_offset, version.provenance.to_offset)
        for outcome in g["outcomes"]:
            traded = outcome["experience"]["value"]["trade_id"]
            if traded is not None:
                assert outcome["trade"]["value"]["trade_id"] == traded
                assert outcome["trade"]["place"].startswith("execution.trade.closed-0@")
    assert any(o["trade"] for g in chain for o in g["outcomes"])
    few = told(settings, capsys, "why", f"{POLICY}@7", "--depth", "5", "--limit", "2")["lineage"]
    assert [len(g["outcomes"]) for g in few["versions"]] == [1, 1, 0, 0, 0]
    assert few["not_shown"] == {"versions": 2, "outcomes": 4}
    assert told(settings, capsys, "why", f"{POLICY}@7", "--depth", "0")["lineage"] is None
    assert main(["why", f"{POLICY}@999", *flags(settings)]) == Exit.FAILED

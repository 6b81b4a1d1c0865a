"""Evidence of a real run on a broker: looked up again by the command, and by a program that has nothing of ours."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree as ET

import confluent_kafka as ck
import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from streams.cli.exits import Exit
from streams.cli.main import main
from streams.ingest import publish
from streams.log import Record
from streams.settings import Settings
from tests.patience import PATIENCE_S
from tests.streams.hosting import read
from tests.streams.log_fixtures import flags
from tests.streams.rostered import until_done, worker
from tests.streams.test_main_job import made

EXAMPLE = Path(__file__).parents[3] / "examples" / "recheck.py"
LEDGER = "policy.ledger"


class Ran(NamedTuple):
    code: int
    lines: dict[str, str]
    last: str


def example(settings: Settings, file: Path) -> Ran:
    done = subprocess.run([sys.executable, "-I", str(EXAMPLE), str(file), "--broker", settings.broker],
                          capture_output=True, text=True, timeout=PATIENCE_S, cwd=file.parent)
    assert "Traceback" not in done.stderr, done.stderr
    return Ran(done.returncode, dict(x.split(" ", 1) for x in done.stdout.splitlines()), done.stderr.strip())


def command(settings: Settings, file: Path, capsys: pytest.CaptureFixture[str]) -> Ran:
    code = main(["verify", "--recheck", str(file), "--json", *flags(settings)])
    shown = json.loads(capsys.readouterr().out)
    assert shown["exit_code"] == code
    return Ran(code, {i["name"]: f"{i['outcome']}: {i['why']}" for i in shown["items"]}, shown["sha256"])


def fallen(ran: Ran) -> set[str]:
    return {name for name, said in ran.lines.items() if said.startswith("FELL")}


def test_the_example_has_nothing_of_ours_and_is_short() -> None:
    text = EXAMPLE.read_text()
    assert len(text.splitlines()) <= 60
    tops = {n.split(".")[0] for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom)
            for n in ([a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""])}
    assert tops - set(sys.stdlib_module_names) == {"confluent_kafka"}


def test_evidence_of_a_real_run(prefix: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with worker(prefix, tmp_path / "worker.log") as process:
        publish(prefix, made(2, 550), lead=24)
        until_done(prefix, process, tmp_path / "worker.log")
    file, xml = tmp_path / "evidence.json", tmp_path / "junit.xml"
    code = main(["verify", "--json", "--evidence", str(file), "--junit", str(xml), *flags(prefix)])
    told = json.loads(capsys.readouterr().out)
    rows = [c["claim"] for c in json.loads(file.read_bytes())["claims"]]
    claims = {f"{c['agent']}/{c['kind']}": c for c in rows}
    open_ = [f"{c['agent']}/{c['kind']}" for c in rows if c["state"] in ("FAIL", "STALE", "NOT PROVEN")]
    assert (code, open_) == (Exit.NOT_PROVEN, ["meta_strategy/LEARNS"]), "it has few rounds so far"
    assert (ET.parse(xml).getroot().get("failures"), len(claims)) == ("0", int(ET.parse(xml).getroot().get("tests")))
    assert max(len(c["records"]) for c in claims.values()) > 30
    holds(prefix, file, capsys, told["evidence"]["sha256"], claims)
    one_byte_of_the_file(prefix, file, capsys)
    another_prefix(prefix, file, capsys)
    one_byte_of_the_log(prefix, file, capsys, claims)


def holds(settings: Settings, file: Path, capsys: pytest.CaptureFixture[str], digest: str, claims: dict) -> None:
    ours, theirs = command(settings, file, capsys), example(settings, file)
    assert (ours.code, theirs.code, ours.last) == (0, 0, digest)
    assert set(theirs.lines.values()) == {"HOLDS"}
    assert theirs.lines.keys() == ours.lines.keys() == claims.keys()
    assert {n for n, said in ours.lines.items() if said.startswith("HOLDS")} == {
        n for n, c in claims.items() if c["records"]}
    assert main(["verify", "--recheck", str(file), *flags(settings)]) == Exit.GOOD
    shown = capsys.readouterr().out
    assert f"sha256 {digest}" in shown
    assert "q_learning/LEARNS (said PASS) HOLDS: " in shown
    assert "NO RECORDS" in shown.splitlines()[-1]


def one_byte_of_the_file(settings: Settings, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, other = file.read_bytes(), file.with_name("other.json")
    line = data.index(b'{"claim":{"agent":"q_learning","kind":"APPLIED"')
    for where, falls in ((data.index(b"changed ", line) + 8, "q_learning/APPLIED"),
                         (data.index(b'"sha256":"', data.index(b"]},", line)) + 12, "q_learning/APPLIED"),
                         (data.index(b'"at_ms":') + 9, "header"), (len(data) - 2, "file")):
        other.write_bytes(data[:where] + bytes([data[where] ^ 1]) + data[where + 1:])
        ours = command(settings, other, capsys)
        assert (ours.code, fallen(ours)) == (1, {falls})
        if where != len(data) - 2:
            theirs = example(settings, other)
            assert (theirs.code, fallen(theirs)) == (1, {falls} if "/" in falls else set())
            assert falls in theirs.last


def another_prefix(settings: Settings, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran = command(settings.replace(topic_prefix="nowhere."), file, capsys)
    assert ran.code == 1
    assert "the evidence is of cluster" in ran.lines["log"]
    assert repr(settings.topic_prefix) in ran.lines["log"]


def one_byte_of_the_log(settings: Settings, file: Path, capsys: pytest.CaptureFixture[str], claims: dict) -> None:
    """The ledger is deleted and made again with the same records at the same offsets and times, but for one byte."""
    rows = read(settings, LEDGER)
    seen = next(r for r in claims["q_learning/LEARNS"]["records"] if r["topic"] == LEDGER)
    at = next(i for i, r in enumerate(rows) if (r.partition, r.offset) == (seen["partition"], seen["offset"]))
    remade(settings, rows)
    assert command(settings, file, capsys).code == example(settings, file).code == 0, "the copy is not exact"
    value = rows[at].value or b""
    rows[at] = rows[at]._replace(value=value[:-1] + bytes([value[-1] ^ 1]))
    remade(settings, rows)
    naming = {n for n, c in claims.items() if seen in c["records"]}
    ours, theirs = command(settings, file, capsys), example(settings, file)
    assert (ours.code, theirs.code) == (1, 1)
    assert fallen(ours) == fallen(theirs) == naming
    assert f"record at {rows[at].place} has other bytes" in ours.lines["q_learning/LEARNS"]
    assert f"{rows[at].place}: other bytes" in theirs.lines["q_learning/LEARNS"]
    remade(settings, [])
    ours = command(settings, file, capsys)
    assert ours.code == 1
    assert "the log ends at 0" in ours.lines["q_learning/LEARNS"]


def remade(settings: Settings, rows: list[Record]) -> None:
    """The ledger with these records in the place of what is in it."""
    name, admin = settings.topic(LEDGER), AdminClient(settings.client())
    partitions = len(admin.list_topics(name, timeout=PATIENCE_S).topics[name].partitions)
    admin.delete_topics([name])[name].result(30)
    while name in admin.list_topics(timeout=PATIENCE_S).topics:
        pass
    admin.create_topics([NewTopic(name, partitions, config={"message.timestamp.type": "CreateTime"})])[name].result(30)
    producer = ck.Producer({**settings.producer(), "linger.ms": 5})
    for r in sorted(rows, key=lambda r: (r.partition, r.offset)):
        producer.produce(name, r.value, r.key, r.partition, timestamp=r.timestamp_ms or 0, headers=list(r.headers))
    assert producer.flush(30) == 0


@pytest.mark.topics
def test_what_is_no_evidence(prefix: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "x.json"
    other.write_text('{"schema":"quantum.verify/1"}')
    assert main(["verify", "--recheck", str(other), *flags(prefix)]) == Exit.USAGE
    assert "quantum.evidence/1" in capsys.readouterr().err
    assert main(["verify", "--recheck", str(tmp_path / "nothing.json"), *flags(prefix)]) == Exit.USAGE
    assert example(prefix, other).code == 1

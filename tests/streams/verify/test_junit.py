"""JUnit XML of a report, as a CI server reads it."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from streams.verify.cells import KINDS, Cell, Report, Row, cell
from streams.verify.junit import junit
from streams.verify.planted.stage import stage


def parsed(report: Report) -> ET.Element:
    return ET.fromstring(junit(report))


def case(root: ET.Element, agent: str, kind: str) -> ET.Element:
    return next(c for s in root for c in s if (s.get("name"), c.get("name")) == (agent, kind))


@pytest.fixture
def report() -> Report:
    states = ("FAIL", "STALE", "NOT PROVEN", "EXPIRED", "IDLE", "PASS")
    cells = {kind: Cell(state, f"why & <{state}>", "a-0@1") for kind, state in zip(KINDS, states, strict=True)}
    return Report(1_700_000_000_000, 20, 1, None, (Row("one", cells), Row("two", dict.fromkeys(
        KINDS, cell("NOT BUILT", "no code")))))


def test_only_red_is_a_failure_and_only_pass_passes(report: Report) -> None:
    root = parsed(report)
    found = {kind: [child.tag for child in case(root, "one", kind)] for kind in KINDS}
    assert found == {"RUNS": ["failure"], "RECEIVES": ["failure"], "LEARNS": ["skipped"], "PERSISTS": ["skipped"],
                     "APPLIED": ["skipped"], "ORIGIN": ["system-out"]}
    failure = case(root, "one", "RUNS")[0]
    assert (failure.get("type"), failure.get("message"), failure.text) == (
        "FAIL", "FAIL: why & <FAIL>", "why & <FAIL> [a-0@1]")
    assert case(root, "one", "LEARNS")[0].get("message") == "NOT PROVEN: why & <NOT PROVEN>"


def test_counts_are_those_of_the_cases(report: Report) -> None:
    root = parsed(report)
    assert root.tag == "testsuites"
    assert [root.get(n) for n in ("tests", "failures", "skipped", "errors")] == ["12", "2", "9", "0"]
    assert [root[0].get(n) for n in ("name", "tests", "failures", "skipped", "errors")] == ["one", "6", "2", "3", "0"]
    assert root[0].get("timestamp") == "2023-11-14T22:13:20"
    for suite in root:
        assert len(suite) == int(suite.get("tests") or 0)
        assert sum(c.find("failure") is not None for c in suite) == int(suite.get("failures") or 0)
        assert sum(c.find("skipped") is not None for c in suite) == int(suite.get("skipped") or 0)


def test_names_from_the_log_cannot_break_the_document() -> None:
    cells = dict.fromkeys(KINDS, Cell("FAIL", "\x00\x1b]]> \ud800 é\uffff", "a\x01-0@1"))
    root = parsed(Report(0, 1, 1, None, (Row("one", cells),)))
    assert case(root, "one", "RUNS")[0].get("message") == "FAIL: \ufffd\ufffd]]> \ufffd é\ufffd"


def test_a_real_report() -> None:
    root = parsed(stage(bars=300).judge())
    assert root.get("failures") == "0"
    assert case(root, "features", "RUNS").find("system-out") is not None
    assert case(root, "features", "LEARNS").find("skipped") is not None
    assert case(root, "trees", "RUNS")[0].get("message", "").startswith("NOT BUILT")

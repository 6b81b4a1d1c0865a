"""A report as JUnit XML, for continuous integration: a suite an agent, a case a cell.

FAIL and STALE are failures. What is not proven, expired, idle, not built or not applicable is skipped, with the state
before the sentence: visible, and no failure. PASS passes, its sentence in `system-out`.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from xml.etree import ElementTree as ET

from streams.verify.cells import RED, Cell, Report

_NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(report: Report) -> bytes:
    """The report as a JUnit XML document in UTF-8."""
    suites = ET.Element("testsuites", name="quantum verify")
    for agent, cells in groupby(report.every, key=itemgetter(0)):
        suites.append(_suite(agent, [(kind, cell) for _, kind, cell in cells], report.at_ms))
    for name in ("tests", "failures", "skipped", "errors"):
        suites.set(name, str(sum(int(s.get(name, "0")) for s in suites)))
    ET.indent(suites)
    return ET.tostring(suites, encoding="utf-8", xml_declaration=True)


def _suite(agent: str, cells: list[tuple[str, Cell]], at_ms: int) -> ET.Element:
    states = [c.state for _, c in cells]
    red = sum(s in RED for s in states)
    when = datetime.fromtimestamp(at_ms / 1000, UTC).replace(tzinfo=None).isoformat(timespec="seconds")
    suite = ET.Element("testsuite", name=agent, tests=str(len(states)), failures=str(red), errors="0",
                       skipped=str(len(states) - red - states.count("PASS")), timestamp=when, time="0")
    for kind, cell in cells:
        suite.append(_case(agent, kind, cell))
    return suite


def _case(agent: str, kind: str, cell: Cell) -> ET.Element:
    case = ET.Element("testcase", classname=f"quantum.verify.{agent}", name=kind, time="0")
    why = _plain(cell.why)
    where = "" if cell.place is None else f" [{_plain(cell.place)}]"
    if cell.state == "PASS":
        ET.SubElement(case, "system-out").text = f"{why}{where}"
    elif cell.state in RED:
        failure = ET.SubElement(case, "failure", type=cell.state, message=f"{cell.state}: {why}")
        failure.text = f"{why}{where}"
    else:
        ET.SubElement(case, "skipped", message=f"{cell.state}: {why}")
    return case


def _plain(text: str) -> str:
    """Text without the characters that XML cannot hold: names come from the log."""
    return _NOT_XML.sub("\ufffd", text)

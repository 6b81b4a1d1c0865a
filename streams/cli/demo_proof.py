"""The demo's last part: its log, held against itself by `quantum verify`, with the controls and the self-test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from schemas.catalogue import AGENTS, built_agents
from streams.cli.agents import configured
from streams.cli.recheck import judging
from streams.cli.verify import state_text
from streams.settings import Settings
from streams.subjects import codec_for
from streams.trainers.process import give_way
from streams.verify.cells import KINDS, RED, Report
from streams.verify.judge import verify

BUDGET = 6_000
"""Input records folded again for each agent, from a checkpoint on where it has more, of which there is one in 5,000;
`quantum verify`: 200,000."""
FITS = 1  # training runs of the PPO trader performed again
SELF_TEST_S = 300.0  # it takes some 20 s of processor time; machines may be busy
OTHER_HALF = ("features", "paper_execution", "experience", "meta_strategy", "risk_controller")
"""Judged by a process of its own: about half of the work, the controls aside."""


@contextmanager
def self_test() -> Iterator[subprocess.Popen[bytes]]:
    """The self-test, which asks nothing of the log, in a process of its own that takes what the block leaves idle."""
    line = [sys.executable, "-m", "streams.cli.main", "verify", "--self-test", "--json", "--jobs", "1"]
    process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"})
    try:
        give_way(process.pid)  # the agents' waiting for each other leaves it room
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


@contextmanager
def second_judge() -> Iterator[ProcessPoolExecutor]:
    """For a process that judges half of the agents; the first call starts it, `ready` for one."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        yield pool


def ready() -> None:
    """Called in the second process early, so that its imports are done when it is to judge."""


def prove(settings: Settings, sample_seed: int, second: ProcessPoolExecutor,
          testing: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Verify the demo's log, and the judge itself, by the self-test that runs; as plain data."""
    report = _judged(settings, sample_seed, second)
    second.shutdown(wait=False)  # who looks around behind the demo does not need it
    try:
        out, _ = testing.communicate(timeout=SELF_TEST_S)
        tested = json.loads(out)
    except (subprocess.TimeoutExpired, ValueError) as exc:
        tested = {"error": f"{type(exc).__name__}: {exc}"}
    return {"report": report, "self_test": tested}


def _judged(settings: Settings, sample_seed: int, second: ProcessPoolExecutor) -> Report:
    """All agents, in two processes; the controls here."""
    here, there = [[a.name for a in built_agents() if (a.name in OTHER_HALF) is other] for other in (False, True)]
    other = second.submit(judge, settings, there, sample_seed)
    report = judge(settings, here, sample_seed, controls=True)
    rows = {row.agent: row for row in (*report.rows, *other.result().rows)}
    return replace(report, rows=tuple(rows[name] for name in AGENTS if name in rows))


def judge(settings: Settings, names: list[str], sample_seed: int, controls: bool = False) -> Report:
    """Some of the agents, and the controls where asked for."""
    roster = configured(settings, (), [agent.name for agent in built_agents()])
    with judging(settings) as log:
        return verify(log, roster, sample_seed=sample_seed, budget=BUDGET, only=names, controls=controls,
                      fits=FITS, codec=codec_for(settings))


def red(report: Report) -> list[str]:
    """Cells and controls that are red, by name."""
    return [f"{whose} {which}" for whose, which, c in report.every if c.state in RED]


def show_proof(console: Console, proof: dict[str, Any]) -> None:
    """The cells of what is built, the red and the open ones in words, the controls, the self-test in a line."""
    report: Report = proof["report"]
    console.rule("Held against the log: quantum verify")
    table = Table("agent", *(kind.capitalize() for kind in KINDS), box=None, pad_edge=False)
    for row in report.rows:
        if any(c.state != "NOT BUILT" for c in row.cells.values()):
            table.add_row(row.agent, *(state_text(row.cells[kind], short=True) for kind in KINDS))
    console.print(table)
    for row in report.rows:
        for kind, c in row.cells.items():
            if c.state not in ("PASS", "NOT BUILT", "NOT APPLICABLE"):
                console.print(Text(f"{row.agent} {kind} ").append(state_text(c)).append(f": {c.why}"))
    for verdict in report.controls:
        console.print(Text(f"control {verdict.symbol}, {verdict.kind} ").append(state_text(verdict.cell))
                      .append(f": {verdict.cell.why}"))
        for name, other in verdict.others.items():
            console.print(Text(f"  {name} ").append(state_text(other)).append(f": {other.why}"))
    console.print(_self_test_line(proof["self_test"]))


def _self_test_line(tested: dict[str, Any]) -> Text:
    if "error" in tested:
        return Text(f"self-test of verify: {tested['error']}", style="red")
    return Text(f"self-test of verify: {tested['caught']}/{tested['planted']} planted cheats caught, "
                f"{', '.join(tested['honest_red']) or 'nothing'} red in an honest run")

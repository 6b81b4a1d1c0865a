"""Every command line and the script of docs/inspecting.md, run against a real broker."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from agents.roster import ROSTER
from schemas import pages
from schemas.events import TraderDecision
from streams.inspecting.standing import STATES
from streams.story.verdict import MEANING
from tests.patience import PATIENCE_S
from tests.streams.log_fixtures import (
    CODEC,
    candles,
    features,
    head,
    own_names,
    policy,
    produce,
    record,
    refused,
    relayed,
    scope_state,
)
from tests.streams.test_why import decision

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "inspecting.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
LINES = [line for language, block in BLOCKS if language == "bash" for line in block.splitlines()
         if not line.startswith("export ")]
kcat_or_skip = pytest.mark.skipif(shutil.which("kcat") is None, reason="kcat is not installed (apt install kcat)")


@pytest.fixture(scope="module")
def settings(broker):
    own = own_names(broker, "market.candles", "market.candles.dlq", "policy.current", "policy.ledger", "decision.inbox",
                    "decision.changelog", "rl.meta.strategy_selected", "rl_v3.decision")
    policies = [policy(1), policy(2), policy(1, "ETHUSDT")]
    for topic in ("policy.ledger", "policy.current"):
        produce(own, [record(topic, p, f"q_learning:0-{p.version}:0") for p in policies], partition=2)
    produce(own, candles(5))
    produce(own, [record("rl.meta.strategy_selected", decision(1))])
    traded = msgspec.convert(pages.example_of("rl_v3.decision"), TraderDecision)
    produce(own, [record("rl_v3.decision", replace(traded, decision_id="BTCUSDT/ppo_trader/1640998800000"))])
    produce(own, [refused(candles(1)[0], 7)])
    produce(own, [relayed("decision", record("market.features", features()), 0, 0)], partition=1)
    state = ROSTER["decision"]().new("BTCUSDT")
    produce(own, [scope_state("decision", "BTCUSDT", CODEC.encode_state(state)), head("decision", 1, 1)], partition=1)
    return own


@pytest.fixture(scope="module")
def shell(settings, tmp_path_factory):
    """Runs a line of the page, with the topics' prefix put in where the page has none."""
    folder = tmp_path_factory.mktemp("bin")
    for name, words in (("quantum", "-m streams.cli.main"), ("python", "")):
        (folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
        (folder / name).chmod(0o755)
    env = os.environ | {"QUANTUM_BROKER": settings.broker, "QUANTUM_TOPIC_PREFIX": settings.topic_prefix,
                        "QUANTUM_APP_ID": settings.app_id, "PATH": f"{folder}:{os.environ['PATH']}", "NO_COLOR": "1",
                        "PYTHONPATH": str(ROOT)}

    def run(line):
        own = re.sub(r"(?<=kcat)(.*? -t )(\S+)", rf"\g<1>{settings.topic_prefix}\g<2>", line)
        own = re.sub(r"(?<=BROKER )policy\.current$", f"{settings.topic_prefix}policy.current", own)
        return subprocess.run(["bash", "-o", "pipefail", "-c", own], cwd=ROOT, env=env, capture_output=True, text=True,
                              timeout=PATIENCE_S, check=False)

    return run


@pytest.mark.parametrize("line", [pytest.param(x, marks=kcat_or_skip) if "kcat" in x else x for x in LINES])
def test_every_line_runs_and_prints(shell, line):
    done = shell(line)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@kcat_or_skip
def test_kcat_tells_policies_apart(shell):
    out = shell(next(x for x in LINES if "'%T %k %h" in x)).stdout.splitlines()
    assert [(x.split()[1], re.search(r"version=(\d+)", x)[1]) for x in out] == [
        ("q_learning/BTCUSDT", "1"), ("q_learning/BTCUSDT", "2"), ("q_learning/ETHUSDT", "1")]


@kcat_or_skip
def test_kcat_and_decode_print_policies(shell):
    out = shell(next(x for x in LINES if "policy.current" in x and "quantum decode" in x)).stdout.splitlines()
    assert len(out) == 3
    assert all('"PolicyRecord"' in x and '"bull|vol:0"' in x for x in out)


@kcat_or_skip
def test_kcat_shows_the_reason_of_a_dead_letter(shell):
    assert "__streams.errors.reason=OUT_OF_RANGE" in shell(next(x for x in LINES if "candles.dlq -e" in x)).stdout


def test_a_plain_consumer_reads_the_newest_policies(shell):
    out = shell(next(x for x in LINES if x.startswith("python"))).stdout.splitlines()
    assert sorted(x.split("{")[0] for x in out) == ["q_learning/BTCUSDT 2 ACTIVE ", "q_learning/ETHUSDT 1 ACTIVE "]
    assert all("'bull|vol:0': 'neutral'" in x for x in out)


def test_the_script_is_the_pages_and_imports_nothing_of_ours():
    script = (ROOT / "examples" / "read_policies.py").read_text()
    (block,) = [text for language, text in BLOCKS if language == "python"]
    assert script.partition('"""\n\n')[2] == block
    assert set(re.findall(r"^(?:import|from) (\w+)", block, re.MULTILINE)) == {
        "io", "json", "sys", "fastavro", "confluent_kafka"}


def test_the_page_has_every_state_as_the_command_explains_it():
    rows = dict(re.findall(r"^\| ([A-Z ]+) \| (.+) \|$", PAGE, re.MULTILINE))
    assert rows == STATES


def test_the_page_has_every_verdict_as_the_command_explains_it():
    rows = dict(re.findall(r"^\| ([a-z-]+) \| (.+) \|$", PAGE, re.MULTILINE))
    rows = {k: v for k, v in rows.items() if k not in ("state", "verdict")}
    assert rows == MEANING

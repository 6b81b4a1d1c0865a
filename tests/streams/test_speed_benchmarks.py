"""The benchmarks of speed and memory in small: that they run and measure what they say, without a bound on any time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import long_run_memory, roster_throughput, step_cost, trade_to_policy
from benchmarks.roster.engine import Mark
from benchmarks.roster.hands import Came
from benchmarks.roster.inputs import Tape, name_of, roster, tapes
from benchmarks.roster.report import machine, table, write
from benchmarks.step_cost import Case, costs, turn
from schemas.catalogue import built_agents
from schemas.codec import Codec
from streams.settings import Settings
from tests.streams.log_fixtures import T0_MS, policy

PROGRAMS = ("trade_to_policy", "step_cost", "roster_throughput", "long_run_memory")


@pytest.mark.parametrize("name", PROGRAMS)
def test_each_says_what_it_is(name: str) -> None:
    done = subprocess.run([sys.executable, "-m", f"benchmarks.{name}", "--help"], capture_output=True, text=True,
                          check=True, cwd=Path(__file__).parents[2])
    assert all(option in done.stdout for option in ("--json FILE", "--small"))


def test_figures_go_to_people_and_into_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table("what", ("name", "us"), [("a", 1234.5), ("b", None)])
    assert "1,234.5" in capsys.readouterr().out
    write(tmp_path / "out.json", {"machine": machine()})
    assert json.loads((tmp_path / "out.json").read_text())["machine"]["cores"] > 0


# ---------------------------------------------------------------------- a trade, and what is learned from it
def test_every_trade_is_followed_to_its_policy_and_over_as_many_bare_hops(
        prefix: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert trade_to_policy.HOPS == 4  # a relay and a fold of each of two agents
    rows = trade_to_policy.run(prefix, tmp_path, [20], seconds=0.5, rounds=2, symbols=2)
    (row,) = rows
    assert (row["trades"], row["lost"], row["bare_lost"]) == (20, 0, 0)
    for figures in (*row["ours"].values(), row["bare"]):
        assert figures["n"] == 20
        assert 0 < figures["p50"] <= figures["p99"] <= figures["p99.9"] <= figures["max"]
    assert row["ratios"].keys() == {"p50", "p99", "p99.9"}
    trade_to_policy.show(rows)
    assert "policy.current" in capsys.readouterr().out


def test_versions_of_earlier_trades_count_for_no_round() -> None:
    codec, old, new = Codec(), policy(symbol="OLD"), policy(symbol="NEW")
    hands = SimpleNamespace(came=[Came(1.0 + n, topic, 0, n, codec.encode(topic, version)) for n, (topic, version) in
                                  enumerate([("policy.current", old), ("policy.ledger", new), ("policy.ledger", new)])])
    ours: Any = SimpleNamespace(hands=hands, codec=codec, settings=Settings())
    found: dict[str, dict[Mark, float]] = {name: {} for name in trade_to_policy.SEEN}
    assert trade_to_policy.Ours._take(ours, {("NEW", T0_MS): 0.0}, found) == 1
    assert found == {"policy.ledger": {("NEW", T0_MS): 2.0}, "policy.current": {}}
    assert hands.came == []


# ---------------------------------------------------------------------- what a step costs
@pytest.fixture(scope="module")
def taped() -> dict[str, Tape]:
    return tapes(2, 340, 4)


def test_every_agent_gets_real_records_for_any_number_of_symbols(
        taped: dict[str, Tape], capsys: pytest.CaptureFixture[str]) -> None:
    rows = costs(taped, list(taped), [1, 2, 4], rounds=2, least_s=0.01)
    assert [row["agent"] for row in rows] == [a.name for a in built_agents()] == list(roster())
    for row in rows:
        by = row["by_symbols"]
        assert all(figures["us"] > 0 and figures["refused"] == 0 for figures in by.values()), row
        assert by[1]["events"] < by[2]["events"] < by[4]["events"], row
        assert row["flatness"] > 0
        assert {n: f["scopes"] for n, f in by.items()} == (
            {1: 1, 2: 1, 4: 1} if row["agent"] == "risk_controller" else {1: 1, 2: 2, 4: 4})
    step_cost.show(rows, [1, 2, 4])
    assert "paper_execution" in capsys.readouterr().out


def test_a_copied_symbol_folds_to_what_the_first_one_does(taped: dict[str, Tape]) -> None:
    """Of the agents that draw nothing at random by the names of what they take."""
    for name in ("bars", "features", "ppo_trader"):
        fold, _ = turn(Case.of(taped[name], 4))
        assert sorted(fold.scopes) == [name_of(i) for i in range(4)]
        for i in (0, 1):
            first, copy = (fold.codec.encode_state(fold.scopes[name_of(n)].state) for n in (i, i + 2))
            assert first.replace(name_of(i).encode(), name_of(i + 2).encode()) == copy, name


# ---------------------------------------------------------------------- the whole roster
def test_the_roster_takes_every_candle_open_and_closed_loop(
        prefix: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = roster_throughput.run(prefix, tmp_path, None, workers=1, symbols=2, bars=8, warm_bars=0)
    for name, candles in (("open", 16), ("closed", 4)):
        loop = report[name]
        assert (loop["candles"], loop["lost"], loop["made"]["market.features"]) == (candles, 0, candles)
        assert loop["candles_a_second"] > 0
        assert loop["agents"]["features"]["records"] == candles
        assert loop["agents"]["features"]["fold_s"] >= 0
        assert loop["cpu_s"]["worker 1"] > 0
    roster_throughput.show(report)
    assert "By agent" in capsys.readouterr().out


def test_every_agent_runs_in_one_of_the_processes() -> None:
    names = sorted(a.name for a in built_agents())
    assert all(sorted(n for group in groups for n in group) == names for groups in roster_throughput.GROUPS.values())


# ---------------------------------------------------------------------- memory
def test_memory_is_sampled_over_events_and_by_symbols(capsys: pytest.CaptureFixture[str]) -> None:
    report = long_run_memory.measure(events=6_000, candles=48, symbols=[2, 4], warm_bars=8)
    assert (report["bars"]["events"], report["bars"]["refused"]) == (6_000, 0)
    assert report["roster"]["candles"] == 48
    assert set(report["roster"]["by_agent"]) == set(report["by_symbols"]) == set(roster())
    assert all(sample["rss_kb"] > 0 for name in ("bars", "roster") for sample in report[name]["samples"])
    assert report["by_symbols"]["features"][4] > 0
    long_run_memory.show(report)
    assert "a million" in capsys.readouterr().out


def test_growth_is_the_slope_after_the_warm_up() -> None:
    samples = [{"events": n * 1_000, "kb": 50.0 * n if n < 5 else 250.0 + 3 * (n - 5)} for n in range(21)]
    assert long_run_memory.growth(samples, "kb", 0.25) == pytest.approx(3_000)
    assert long_run_memory.growth(samples, "kb", 0.0) > 4_000

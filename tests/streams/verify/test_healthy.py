"""What verify must not call red: honest runs, short ones, running ones; and what its cells say."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import pairwise
from math import exp
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from agents.roster import ROSTER
from schemas.catalogue import AGENTS
from schemas.events import Candle, Event, Experience, MarketTrade, PolicyRecord
from streams.log import Record
from streams.verify.candles import gaussian_walk
from streams.verify.cells import KINDS, exit_code
from streams.verify.evidence import Since
from streams.verify.planted.stage import CODEC, Stage, at, made, red, stage, states
from streams.verify.view import MemoryLog


@pytest.fixture(scope="module")
def healthy() -> Stage:
    return stage()


def test_an_honest_run_passes(healthy: Stage) -> None:
    report = healthy.judge()
    expected = {f"{a}/{k}": "NOT APPLICABLE" if k in ("LEARNS", "APPLIED") and "policy.ledger" not in AGENTS[a].writes
                else "IDLE" if a == "bars" else "PASS" for a in ROSTER for k in KINDS} | dict.fromkeys(
                    ("risk_controller/APPLIED", "ppo_trader/APPLIED"), "IDLE")
    assert states(report) == expected
    assert report.exit_code == 0


def test_the_smallest_edge_that_could_have_shown_is_said_of_each_learner(healthy: Stage) -> None:
    """Held against the last policy here; verify itself reckons it from the outcomes."""
    cell = at(healthy.judge(), "q_learning", "LEARNS")
    last = CODEC.decode("policy.ledger", healthy.log.records["policy.ledger"][0][-1].value)
    assert isinstance(last, PolicyRecord)
    assert last.edge is not None
    assert cell.figures["edge_outcomes:MADE"] == last.edge.n == last.outcomes
    assert cell.figures["edge_smallest_r:MADE"] == last.edge.smallest_r
    assert f"MADE {last.edge.smallest_r:.3f} R in {last.edge.n}" in cell.why


def test_before_a_hundred_outcomes_nothing_is_evaluated_and_it_says_so() -> None:
    cell = at(stage(bars=500).judge(), "q_learning", "LEARNS")
    assert cell.state == "PASS"
    assert "no edge evaluated, 100 outcomes are needed" in cell.why


def test_an_outcome_that_the_learner_refused_is_not_asked_of_its_claim() -> None:
    seen: list[str] = []

    def absurd(topic: str, event: Event) -> Event:
        if isinstance(event, Experience) and event.learnable and event.book_id == "q_learning":
            seen.append(event.decision_id)
            return replace(event, reward_r=1000.0) if len(seen) == 50 else event
        return event

    run = stage(tamper=absurd)
    for dead in run.driver.log["learning.experience.dlq"]:  # the driver keeps dead letters to itself
        run.log.append("learning.experience.dlq", 0, dead.key, dead.value, dead.headers, run.log.now_ms)
    cell = at(run.judge(), "q_learning", "LEARNS")
    assert cell.state == "PASS", cell
    assert cell.figures["edge_outcomes:MADE"] == len(seen) - 1


def test_every_pass_names_the_record_that_shows_it_and_its_age(healthy: Stage) -> None:
    for row in healthy.judge().rows:
        for kind, cell in row.cells.items():
            if cell.state == "PASS":
                topic, _, rest = (cell.place or "").rpartition("-")
                partition, _, offset = rest.partition("@")
                record = healthy.log.records[topic][int(partition)][int(offset)]
                assert cell.age_s == (healthy.log.now_ms - (record.timestamp_ms or 0)) / 1000, (row.agent, kind)


def test_agents_without_code_are_not_built(healthy: Stage) -> None:
    rows = {row.agent: {c.state for c in row.cells.values()} for row in healthy.judge().rows}
    assert list(rows) == list(AGENTS)
    assert all(rows[a.name] == {"NOT BUILT"} for a in AGENTS.values() if not a.built)


def test_a_built_agent_that_is_not_in_the_roster_fails(healthy: Stage) -> None:
    roster = {name: kind() for name, kind in ROSTER.items() if name != "experience"}
    report = healthy.judge(roster)
    assert {f"experience/{k}" for k in KINDS} == red(report)


@pytest.mark.parametrize("seed", range(5))
def test_other_draws_and_other_markets_pass(seed: int) -> None:
    run = stage(seed=100 + seed, bars=700)
    for sample_seed in range(4):
        assert red(run.judge(sample_seed=sample_seed)) == set()


@pytest.mark.parametrize("bars", [1, 40, 150, 260, 300, 340, 380])
def test_a_short_run_is_never_red(bars: int) -> None:
    report = stage(bars=bars).judge()
    assert red(report) == set()
    assert at(report, "q_learning", "LEARNS").state in ("IDLE", "NOT PROVEN", "PASS")
    assert at(report, "q_learning", "APPLIED").state in ("NOT PROVEN", "PASS")


def test_nothing_at_all_is_idle_and_proves_nothing() -> None:
    report = stage(bars=0).judge()
    assert red(report) == set()
    assert {at(report, a, "RUNS").state for a in ROSTER} == {"IDLE"}
    assert report.exit_code == 3


def test_several_symbols_on_several_partitions() -> None:
    run = stage(partitions=8, symbols=("ALPHA", "BETA"), bars=600)
    report = run.judge()
    assert red(report) == set()
    assert at(report, "q_learning", "PERSISTS").figures["policies"] == 2


def test_a_run_that_went_on_behind_its_last_flush_folds_on_to_what_was_published() -> None:
    run = stage(bars=600)
    run.driver.run(made(bars=640, start=600))
    report = run.judge(budget=0)
    assert at(report, "features", "PERSISTS").figures["next_outputs"] >= 40
    assert at(report, "q_learning", "PERSISTS").figures["next_outputs"] > 0
    assert {at(report, a, "PERSISTS").state for a in ROSTER if a != "bars"} == {"PASS"}
    assert red(run.judge()) <= {f"{a}/{k}" for a in ROSTER for k in ("RUNS", "RECEIVES")}  # nobody commits here


def test_state_that_cannot_be_held_against_anything_is_not_proven(healthy: Stage) -> None:
    cell = at(healthy.judge(budget=0), "features", "PERSISTS")
    assert cell.state == "NOT PROVEN"


def test_learning_from_deleted_input_is_expired() -> None:
    run = stage(bars=600)
    del run.log.records["q_learning.inbox"][0][:3]
    cell = at(run.judge(), "q_learning", "LEARNS")
    assert cell.state == "EXPIRED"


def test_since_leaves_earlier_evidence_out(healthy: Stage) -> None:
    everything = at(healthy.judge(), "q_learning", "APPLIED").figures["applied"]
    n = len(healthy.log.records["policy.applied"][0])
    some = at(healthy.judge(since=Since.parse(f"policy.applied-0@{n - 30},rl.meta.strategy_selected-0@100")),
              "q_learning", "APPLIED").figures["applied"]
    assert everything > 30 >= some > 0
    ledger = len(healthy.log.records["policy.ledger"][0])
    few = at(healthy.judge(since=Since.parse(f"policy.ledger-0@{ledger - 3}")), "q_learning", "LEARNS")
    assert (few.state, few.figures["sample"]) == ("NOT PROVEN", 3)


def test_the_report_is_plain_json(healthy: Stage) -> None:
    shown = json.loads(json.dumps(healthy.judge(sample_seed=7).as_dict()))
    assert (shown["schema"], shown["sample_seed"], shown["exit_code"]) == ("quantum.verify/1", 7, 0)
    assert set(shown["agents"][1]["cells"]) == set(KINDS)


def test_whoever_runs_some_agents_on_purpose_judges_those() -> None:
    run = stage(bars=260, without={"paper_execution", "meta_strategy", "ppo_trader", "risk_controller"})
    whole = run.judge()
    assert whole.exit_code == 1
    part = run.judge(only=["features", "decision"])
    assert [row.agent for row in part.rows] == ["features", "decision"]
    assert part.exit_code in (0, 3), part
    assert {"paper_execution", "q_learning"} <= set(part.as_dict()["left_out"])


def test_reading_changes_nothing_and_the_same_draw_gives_the_same_report(healthy: Stage) -> None:
    before = {t: {p: list(rows) for p, rows in ps.items()} for t, ps in healthy.log.records.items()}
    first, again = healthy.judge(sample_seed=3), healthy.judge(sample_seed=3)
    assert first == again
    assert {t: {p: list(rows) for p, rows in ps.items()} for t, ps in healthy.log.records.items()} == before


def test_exit_codes() -> None:
    assert exit_code(["PASS", "IDLE", "NOT APPLICABLE", "NOT BUILT"]) == 0
    assert exit_code(["PASS", "EXPIRED"]) == 3
    assert exit_code(["NOT PROVEN", "FAIL"]) == 1
    assert exit_code(["STALE"]) == 1


def test_bars_without_trades_are_idle_and_with_trades_pass(healthy: Stage) -> None:
    assert "nothing was ever written to market.trades" in at(healthy.judge(), "bars", "ORIGIN").why
    run = stage(bars=0)
    run.driver.run(ticks())
    run.tape.flush(run.driver)
    report = run.judge()
    assert {at(report, "bars", k).state for k in KINDS} == {"PASS", "NOT APPLICABLE"}, report
    cell = at(report, "bars", "ORIGIN")
    assert "19 candles carry the labels of their trades (made CLAIMED)" in cell.why
    assert {r.topic for r in cell.records} == {"market.candles", "market.trades"}
    assert at(report, "features", "ORIGIN").state == "PASS"
    assert red(report) == set()


@pytest.mark.parametrize(("changes", "words"), [
    ({"source": "binance"}, "source binance, but its trades come from made"),
    ({"origin": "CHECKED"}, "says CHECKED, but its trades are CLAIMED"),
    ({"open_time_ms": 600 * 60_000, "ts_ms": 601 * 60_000}, "has no trade on market.trades"),
])
def test_bars_that_say_more_than_their_trades(changes: dict[str, Any], words: str) -> None:
    def tamper(topic: str, event: Event) -> Event:
        return replace(event, **changes) if isinstance(event, Candle) else event

    run = stage(bars=0, tamper=tamper)
    run.driver.run(ticks())
    run.tape.flush(run.driver)
    cell = at(run.judge(), "bars", "ORIGIN")
    assert cell.state == "FAIL"
    assert words in cell.why


def ticks() -> Iterator[tuple[str, Event]]:
    """Four trades a minute for 21 minutes: 19 bars, the first and the last not among them."""
    for i in range(84):
        yield "market.trades", MarketTrade(symbol="TICK", trade_id=i, ts_ms=i * 15_000, price=100.0 + i % 5,
                                           quantity=1.0, taker_side="BUY", source="made", origin="CLAIMED")


def test_gaussian_walk_calls_few_heavy_tailed_series_normal() -> None:
    """Student's t with 4 degrees of freedom, about what hourly returns have; normal steps for comparison."""
    random = np.random.default_rng(1)

    def closes(steps: np.ndarray) -> list[float]:
        return [100 * exp(x) for x in np.cumsum(steps)]

    assert not [i for i in range(50) if gaussian_walk(closes(random.standard_t(4, 2000) * 0.005))]
    assert sum(gaussian_walk(closes(random.normal(0, 0.005, 2000))) is not None for _ in range(50)) >= 48
    assert gaussian_walk(closes(random.normal(0, 0.005, 900))) is None, "too few to say"
    assert all(a != b for a, b in pairwise(closes(random.normal(0, 0.005, 5))))


def test_policies_ahead_of_the_stored_state_are_not_drawn_and_not_accused() -> None:
    """As on a broker at any moment: published, not yet stored, not yet committed."""
    run = stage(bars=600)
    run.driver.run(made(bars=640, start=600))
    for sample_seed in range(5):
        assert at(run.judge(sample_seed=sample_seed), "q_learning", "LEARNS").state == "PASS"


@pytest.mark.parametrize(("later_ms", "state"), [(1, "PASS"), (0, "FAIL")])
def test_heavy_state_that_is_deleted_while_it_is_read_is_not_lost(later_ms: int, state: str) -> None:
    """As by a flush between the reading of the state and that of its weights; what was deleted before is damage."""
    run = stage(bars=700)
    keys = {r.key for r in run.log.records["state.blobs"][0] if (r.key or b"").startswith(b"meta_strategy:")}
    assert keys
    for key in keys:
        run.log.append("state.blobs", 0, key, None, (), run.log.now_ms + later_ms)
    assert at(run.judge(), "meta_strategy", "PERSISTS").state == state


class Growing(MemoryLog):
    """A log that the run goes on writing while it is read: some bars more behind every reading of a topic."""

    def grow(self, run: Stage, first: int, bars: int) -> None:
        self.run, self.left, self.readings = run, list(made(bars=bars, start=first)), 0

    def read(self, topic: str, start: Mapping[int, int] | None = None,
             until: Mapping[int, int] | None = None) -> Iterator[Record]:
        found = list(super().read(topic, start, until))
        self.readings += 1
        now, self.left = self.left[:24], self.left[24:]
        self.run.driver.run(now)
        yield from found


def test_a_run_that_goes_on_while_it_is_read_is_not_accused() -> None:
    run = stage(bars=400)
    growing = Growing()
    growing.now_ms, growing.records, growing.commits = run.log.now_ms, run.log.records, run.log.commits
    run.tape.log = growing
    growing.grow(run, 400, 3600)
    report = run.judge(patience_s=1e9, fresh_s=1e9)
    assert growing.left, "it came to its end while it was read"
    assert growing.readings > 30
    assert red(report) == set(), report

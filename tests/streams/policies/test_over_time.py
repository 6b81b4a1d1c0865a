"""Versions in force, what changed between two, and the course of a policy; records made by hand."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from schemas import pages
from schemas.events import Edge, MetaUpdated, PolicyRecord, TrainingCompleted
from streams.log import Record
from streams.policies.course import course, lines, spark, trained
from streams.policies.difference import difference
from streams.policies.ledger import Version, event_time, in_force, read_ledger
from streams.policies.updates import figures
from tests.streams.log_fixtures import CODEC, HOUR_MS, T0_MS, policy, record
from tests.streams.test_policy_view import learned


def version(number: int, hour: int, of: PolicyRecord | None = None, **changes: Any) -> Version:
    made = replace(of or policy(number), version=number, valid_from_ms=T0_MS + hour * HOUR_MS, **changes)
    return Version(Record("policy.ledger", 0, number - 1, b"", b"", (), 0), made)


def test_the_version_in_force_is_the_highest_that_is_valid_by_then() -> None:
    """Version 3 came of a late event: it takes the place of 2 although 2 is valid from later."""
    rows = [version(1, 0), version(2, 10), version(3, 5), version(4, 20)]
    found = {h: in_force(rows, T0_MS + h * HOUR_MS) for h in (-1, 0, 4, 5, 12, 20, 99)}
    assert {h: v and v.policy.version for h, v in found.items()} == {-1: None, 0: 1, 4: 1, 5: 3, 12: 3, 20: 4, 99: 4}


def test_repeats_count_once_and_rivals_are_kept_apart() -> None:
    def stored(offset: int, event: PolicyRecord, ce_id: str) -> Record:
        out = record("policy.ledger", event, ce_id)
        return Record(out.topic, 0, offset, out.key, out.value, out.headers, 0)

    rows = [stored(0, policy(1), "q_learning:0-4:0"), stored(1, policy(1), "q_learning:0-4:0"),
            stored(2, learned(2), "q_learning:0-6:1"), stored(3, policy(2), "q_learning:0-6:1"),
            stored(4, policy(1, "ETHUSDT"), "q_learning:0-7:0"), Record("policy.ledger", 0, 5, b"x", b"y", (), 0)]
    ledger = read_ledger(rows, CODEC)
    assert {k: [(v.policy.version, v.at) for v in vs] for k, vs in ledger.versions.items()} == {
        "q_learning/BTCUSDT": [(1, 4), (2, 6)], "q_learning/ETHUSDT": [(1, 7)]}
    assert {k: [r.offset for r in rs] for k, rs in ledger.rivals.items()} == {("q_learning/BTCUSDT", 2): [3]}
    assert list(ledger.unreadable) == ["policy.ledger-0@5"]
    assert list(read_ledger(rows, CODEC, ["q_learning/ETHUSDT"]).versions) == ["q_learning/ETHUSDT"]


def test_a_difference_names_fields_flips_and_moves_the_largest_first() -> None:
    told = difference(policy(1), learned(5))
    assert {f.name: (f.before, f.after) for f in told.fields}["outcomes"] == (0, 46)
    assert [tuple(f) for f in told.flips] == [("bear|vol:1", "neutral", "breakout")]
    assert [(m.state_key, m.action) for m in told.moves] == [("bear|vol:1", a) for a in (
        "breakout", "trend_following", "neutral", "mean_reversion")]
    first = told.moves[0]
    assert (first.p_before, first.p_after, first.q_before, first.q_after, first.visits_after) == (0.25, 0.8, 0.0, 0.5,
                                                                                                  33)
    assert difference(learned(5), learned(5)).fields == ()
    assert difference(learned(5), learned(5)).moves == ()


def test_a_version_without_a_table_differs_in_every_cell() -> None:
    told = difference(learned(5), replace(learned(6), tabular=None))
    assert len(told.moves) == 48
    assert {m.p_after for m in told.moves} == {None}


def test_a_course_has_a_point_a_version_and_lines_over_event_time() -> None:
    edge = Edge(n=100, mean_r=0.2, sd_r=1.0, lower_r=-0.1, smallest_r=0.3)
    points = course([version(2, 5, learned()), version(1, 0), version(3, 10, learned(), edge_claim=False, edge=edge)])
    assert [(p.version, p.flips, p.edge_mean_r) for p in points] == [(1, 0, None), (2, 1, None), (3, 0, 0.2)]
    assert points[0].greedy_p == {}
    assert points[1].greedy_p == {"bear": pytest.approx(0.8)}
    drawn = {name: (line, said) for name, line, said in lines(points, 11)}
    assert drawn["outcomes"][0] == "▁▁▁▁▁██████"
    assert drawn["greedy flips"] == ("▁▁▁▁▁█▁▁▁▁▁", "1 in all")
    assert drawn["edge mean, R"][0] == " " * 10 + "▄"
    assert drawn["greedy p, bear"][0].startswith(" " * 5 + "▄")


def test_a_sparkline_leaves_gaps_where_there_is_nothing() -> None:
    assert spark([1.0, None, float("nan"), 2.0]) == "▁  █"
    assert spark([None, None]) == "  "
    assert spark([0.0, 0.0], low=0.0) == "▁▁"


@pytest.mark.parametrize("text", ["2022-01-01T00:00:00", "yesterday", "12345", "s@x"])
def test_a_time_without_a_zone_or_none_at_all_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"s@"):
        event_time(text)
    assert event_time("2022-01-01T01:00:00+01:00") == T0_MS


def test_what_training_told_of_itself_stands_beside_the_version_that_it_led_to() -> None:
    done = pages.example_of("rl_v3.training.completed")
    made = msgspec.convert(done, TrainingCompleted)
    versions = [version(n, 3 * n, replace(policy(n), scope="BTCUSDT", reason=f"update: {job}"))
                for n, job in ((1, "another"), (2, made.job_id))]
    rows = [record("rl_v3.training.completed", e, f"ppo_trader:job:{n}") for n, e in enumerate((
        made, replace(made, avg_reward=9.0), replace(made, symbol="ETHUSDT"), replace(made, job_id="unknown")))]
    stored = [Record(r.topic, 0, n, r.key, r.value, r.headers, 0) for n, r in enumerate(rows)]
    told = figures(versions, [*stored, Record("rl_v3.training.completed", 0, 9, b"BTCUSDT", b"x", (), 0)], CODEC)
    assert told == {2: {"reward, %": made.avg_reward, "entropy, nats": made.entropy, "KL, nats": made.approx_kl,
                        "clip fraction": made.clip_fraction, "explained variance": made.explained_variance}}
    points = course(versions, told)
    assert trained(points) == list(told[2])
    drawn = {name: said for name, _, said in lines(points, 11)}
    assert drawn["KL, nats"].startswith(f"{made.approx_kl:+.4f}")


def test_rounds_of_the_meta_strategy_are_told_by_version() -> None:
    made = msgspec.convert(pages.example_of("rl.meta.updated"), MetaUpdated)
    row = record("rl.meta.updated", made, "meta_strategy:0-1:0")
    told = figures([version(made.policy_version, 0, replace(policy(1), scope="BTCUSDT"))],
                   [Record(row.topic, 0, 0, row.key, row.value, row.headers, 0)], CODEC)
    assert told[made.policy_version]["reward, R"] == made.mean_reward_r

"""What stands beside the versions of a policy: figures of its updates, the policy by regime, gain on a control."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib import image
from msgspec.structs import replace

from schemas.events import REGIME_SYMBOLS, STRATEGY_SYMBOLS, Control, ControlReveal, MetaUpdated, QUpdated
from streams.calibrated import generator, table
from streams.log import Record
from streams.policies import gained, rewards
from streams.policies.beside import beside
from streams.policies.by_regime import by_regime, most_probable
from streams.policies.course import Point, as_rows, course, lines
from streams.policies.drawn import picture
from streams.policies.ledger import Version, read_ledger
from streams.records import encode_event
from streams.verify.controls import judge_controls
from streams.verify.evidence import Evidence
from streams.verify.planted.stage import CODEC, HOUR_MS, Stage, honest, identities, stage
from streams.verify.view import MemoryLog
from tests.streams.log_fixtures import policy
from tests.streams.test_policy_view import learned

BARS = 800
NETWORK, TABLE = "meta_strategy/MADE", "q_learning/MADE"


def key(symbol: str = "MADE", made_by: str | None = None) -> ControlReveal:
    control = Control(symbol=symbol, kind="PLANTED", market_seed=0, bars=BARS, published=BARS, interval_ms=HOUR_MS,
                      first_open_ms=0)
    return ControlReveal(run_id="r", ts_ms=BARS * HOUR_MS, seed=0, generator=made_by or generator(),
                         controls=(control,), source="synthetic:0", origin="SYNTHETIC")


@pytest.fixture(scope="module")
def run() -> Stage:
    """The made market is the planted one, so it stands for a control once a key says so."""
    run = stage(bars=BARS, without={"risk_controller", "ppo_trader"})
    row = encode_event(CODEC, gained.REVEAL, key(), "reveal:r/0", "synthetic:0")
    run.log.create(gained.REVEAL, 1)
    run.log.append(gained.REVEAL, 0, row.key, row.value, row.headers, run.log.now_ms)
    return run


def versions(log: MemoryLog, policy_id: str) -> list[Version]:
    return read_ledger(log.read("policy.ledger"), CODEC, [policy_id]).versions[policy_id]


def points(run: Stage, policy_id: str) -> list[Point]:
    own = versions(run.log, policy_id)
    more = beside(run.log, CODEC, own)
    return course(own, more.training, more.gain)


def test_of_a_network_every_figure_of_its_updates_is_beside_the_version_that_they_made(run: Stage) -> None:
    drawn = {p.version: p for p in points(run, NETWORK)}
    told = [e for e in run.driver.events("rl.meta.updated") if isinstance(e, MetaUpdated)]
    assert len(told) > 5
    for e in told:
        assert drawn[e.policy_version].training == {
            "reward, R": e.mean_reward_r, "entropy, nats": e.entropy, "KL, nats": e.approx_kl,
            "clip fraction": e.clip_fraction, "explained variance": e.explained_variance}
    assert not drawn[1].training, "nothing made the first"


def test_of_the_q_learner_the_reward_is_a_mean_over_its_last_outcomes(run: Stage) -> None:
    told = [e for e in run.driver.events("rl.q_learning.updated") if isinstance(e, QUpdated)]
    drawn = {p.version: p for p in points(run, TABLE)}
    last = told[-1]
    assert drawn[last.policy_version].training == {
        "reward, R": pytest.approx(sum(e.reward_r for e in told[-rewards.OUTCOMES:]) / rewards.OUTCOMES)}
    assert rewards.trailing([told[0], told[0], None, replace(told[1], symbol="OTHER")], "MADE") == {
        told[0].policy_version: told[0].reward_r}


def test_the_gain_is_the_one_that_verify_says_of_the_control(run: Stage) -> None:
    (verdict,) = judge_controls(Evidence(run.log, honest(), CODEC, identities=identities()))
    assert verdict.kind == "PLANTED"
    assert "gain so far" in verdict.others["meta_strategy"].why, verdict.others
    for policy_id, cell in ((TABLE, verdict.cell), (NETWORK, verdict.others["meta_strategy"])):
        assert points(run, policy_id)[-1].gain == pytest.approx(cell.figures["gain"])
    own = versions(run.log, TABLE)
    assert [p.gain for p in points(run, TABLE)[::40]] == pytest.approx(
        [table("planted").gain_of_policy(v.policy) for v in own[::40]])


def test_what_is_no_control_has_no_gain() -> None:
    assert gained.kind_of([key()], "MADE") == "PLANTED"
    assert gained.kind_of([key("OTHER")], "MADE") is None
    assert gained.kind_of([key(made_by="0" * 64)], "MADE") is None, "of another version of the generator"
    fair = key()
    assert gained.kind_of([replace(fair, controls=(replace(fair.controls[0], kind="FAIR"),))], "MADE") is None
    assert gained.kind_of([], "MADE") is None
    assert beside(MemoryLog(), CODEC, []) == ({}, {})


def test_a_network_that_chooses_no_strategy_has_no_gain(run: Stage) -> None:
    """The trader's, on a control that it was told to trade."""
    (last,) = versions(run.log, NETWORK)[-1:]
    assert last.policy.network is not None
    other = replace(last.policy, network=replace(last.policy.network, inputs=("position", *last.policy.network.inputs)))
    assert gained.gains([last._replace(policy=other)], "PLANTED", []) == {}


def test_the_policy_by_regime_is_what_it_draws_there(run: Stage) -> None:
    newest = points(run, NETWORK)[-1]
    assert list(newest.policy) == list(REGIME_SYMBOLS)
    for regime, p in newest.policy.items():
        assert list(p) == list(STRATEGY_SYMBOLS)
        assert sum(p.values()) == pytest.approx(1.0)
        assert newest.greedy_p[regime] == max(p.values()) == p[most_probable(newest.policy)[regime]]
    assert by_regime(policy(1)) == {}, "a table without outcomes"
    (regime,) = by_regime(learned())
    assert (regime, sum(by_regime(learned())[regime].values())) == ("bear", pytest.approx(1.0))
    assert by_regime(replace(policy(1), tabular=None)) == {}


def test_text_and_picture_have_all_of_it(run: Stage, tmp_path: Path) -> None:
    for policy_id, more in ((NETWORK, ["entropy, nats", "KL, nats", "clip fraction", "explained variance"]),
                            (TABLE, [])):
        drawn = points(run, policy_id)
        shown = {name: said for name, _, said in lines(drawn, 40)}
        assert {"outcomes", "edge bound, R", "gain", "greedy flips", "greedy p, bull", "reward, R", *more} <= set(shown)
        assert shown["greedy p, bull"].endswith(f"; {most_probable(drawn[-1].policy)['bull']}")
        assert as_rows(drawn)[-1]["policy"]["bull"] == drawn[-1].policy["bull"]
        picture(policy_id, drawn, tmp_path / "course.png")
        assert image.imread(tmp_path / "course.png")[..., :3].std() > 0.02
    assert sum(p.flips for p in points(run, NETWORK)) > 0


def test_a_course_of_one_version_is_drawn_too(tmp_path: Path) -> None:
    (only,) = course([Version(Record("policy.ledger", 0, 0, b"", b"", (), 0), policy(1))])
    assert "gain" not in {name for name, _, _ in lines([only], 20)}
    picture("q_learning/BTCUSDT", [only], tmp_path / "one.png")
    assert (tmp_path / "one.png").stat().st_size > 1000

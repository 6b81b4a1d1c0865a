"""Paired differences of books: by hand, against NumPy and SciPy, over a run of the roster, and as a command."""

from __future__ import annotations

import json
from math import sqrt
from typing import Any

import numpy as np
import pytest
from scipy import stats

from agents.algorithms.sequential import two_sided
from schemas.events import BookMark, EquityMarked
from streams.books import ALPHA, BPS, MIN_BARS, RHO, Pairing, paired
from streams.cli.exits import Exit
from streams.cli.main import main
from tests.streams.log_fixtures import flags, own_names, produce, record

HOUR_MS = 3_600_000


def book(book_id: str, equity: float, **changes: Any) -> BookMark:
    values: dict[str, Any] = {"peak_equity": equity, "drawdown": 0.0, "day_pnl": 0.0, "position": 0.0, "trades": 0,
                              "outcomes": 0, "sum_r": 0.0, "sum_r2": 0.0}
    return BookMark(book_id=book_id, equity=equity, **(values | changes))


def mark(bar: int, *books: BookMark, symbol: str = "S") -> EquityMarked:
    return EquityMarked(symbol=symbol, interval_ms=HOUR_MS, ts_ms=(bar + 1) * HOUR_MS, close=100.0, halted=False,
                        books=books, source="test", origin="CLAIMED")


def test_by_hand() -> None:
    """Three marks: the learner makes 1 % and then nothing, the baseline nothing and then loses 2 %."""
    events = [
        mark(0, book("learner", 10_000.0), book("baseline:a", 5_000.0)),
        mark(1, book("learner", 10_100.0), book("baseline:a", 5_000.0)),
        mark(2, book("learner", 10_100.0, outcomes=4, sum_r=2.0), book("baseline:a", 4_900.0)),
    ]
    (pair,) = paired(events)
    assert (pair.symbol, pair.book_id, pair.baseline) == ("S", "learner", "baseline:a")
    assert (pair.n, pair.differing) == (2, 2)
    assert (pair.mean_bps, pair.sd_bps) == pytest.approx((150.0, 100 / sqrt(2)))
    assert (pair.low_bps, pair.high_bps, pair.verdict) == (None, None, "open")
    assert (pair.total_pct, pair.baseline_total_pct) == pytest.approx((1.0, -2.0))
    assert (pair.outcomes, pair.mean_r, pair.baseline_outcomes, pair.baseline_mean_r) == (4, 0.5, 0, None)
    assert (pair.first_ms, pair.last_ms) == (HOUR_MS, 3 * HOUR_MS)


def walk(rng: np.random.Generator, drift: float, bars: int) -> np.ndarray:
    return 10_000.0 * np.cumprod(1 + np.concatenate(([0.0], rng.normal(drift, 0.01, bars))))


@pytest.mark.parametrize(("drift", "verdict"), [(0.003, "better"), (0.0, "open"), (-0.003, "worse")])
def test_against_numpy_and_scipy(drift: float, verdict: str) -> None:
    rng = np.random.default_rng(1)
    ours, theirs = walk(rng, drift, 1500), walk(rng, 0.0, 1500)
    (pair,) = paired(mark(t, book("baseline:a", float(b)), book("x", float(a)))
                     for t, (a, b) in enumerate(zip(ours, theirs, strict=True)))
    differences = BPS * (ours[1:] / ours[:-1] - theirs[1:] / theirs[:-1])
    assert pair.n == 1500
    assert pair.mean_bps == pytest.approx(differences.mean())
    assert pair.sd_bps == pytest.approx(differences.std(ddof=1))
    t = stats.ttest_rel(ours[1:] / ours[:-1], theirs[1:] / theirs[:-1])
    assert t.statistic == pytest.approx(pair.mean_bps / (pair.sd_bps / sqrt(1500)))
    b = two_sided(1500, RHO, ALPHA)
    half = differences.std() * b / sqrt(1500**2 - b**2)
    assert (pair.low_bps, pair.high_bps) == pytest.approx((differences.mean() - half, differences.mean() + half))
    fixed = t.confidence_interval(1 - ALPHA)
    assert pair.low_bps is not None
    assert pair.low_bps < BPS * fixed.low, "an interval that may be looked at always is the wider one"
    assert pair.verdict == verdict


def test_repeats_and_late_marks_change_nothing_and_symbols_stay_apart() -> None:
    first, second = [mark(t, book("x", 100.0 + t), book("baseline:a", 100.0)) for t in range(2)]
    other = mark(0, book("x", 1.0), book("baseline:a", 1.0), symbol="T")
    pairing = Pairing()
    for event in (first, other, second, first, second):
        pairing.add(event)
    s, t = pairing.pairs()
    assert (s.symbol, s.n, t.symbol, t.n) == ("S", 1, "T", 0)
    assert s.mean_bps == pytest.approx(100.0)
    assert (t.mean_bps, t.sd_bps) == (0.0, 0.0)


def test_a_book_that_comes_later_is_paired_from_then_on_and_one_that_lost_all_stays_there() -> None:
    events = [mark(0, book("x", 100.0), book("baseline:a", 100.0)),
              mark(1, book("x", 0.0), book("baseline:a", 100.0), book("y", 50.0)),
              mark(2, book("x", 0.0), book("baseline:a", 101.0), book("y", 50.0))]
    x, y = paired(events)
    assert (x.n, y.n) == (2, 1)
    assert x.mean_bps == pytest.approx((-10_000 - 100) / 2)
    assert y.mean_bps == pytest.approx(-100)
    assert paired([]) == []
    assert paired([mark(0, book("x", 1.0))]) == []


def test_every_baseline_of_a_run_is_there_and_the_returns_are_those_of_the_books() -> None:
    """The whole roster on the made market, from its log."""
    from streams.verify.planted.stage import CODEC, stage

    log = stage(bars=700).log
    marks = [CODEC.decode("execution.equity.marked", r.value) for r in log.read("execution.equity.marked")]
    pairs = {p.baseline: p for p in paired(m for m in marks if isinstance(m, EquityMarked))}
    assert pairs.keys() == {f"baseline:{n}" for n in ("neutral", "random", "trend_following", "mean_reversion",
                                                      "breakout", "buy_and_hold")}
    neutral = pairs["baseline:neutral"]
    assert neutral.n == len(marks) - 1 > MIN_BARS
    assert neutral.baseline_total_pct == 0.0
    assert neutral.baseline_mean_r == 0.0
    last = marks[-1]
    assert isinstance(last, EquityMarked)
    own = next(b for b in last.books if b.book_id == "q_learning")
    assert all(p.outcomes == own.outcomes for p in pairs.values())
    assert 0 < neutral.differing < neutral.n


@pytest.fixture(scope="module")
def settings(broker):
    settings = own_names(broker, "execution.equity.marked")
    produce(settings, [record("execution.equity.marked", mark(t, book("x", 100.0 + t % 3), book("baseline:a", 100.0)),
                              f"test:{t}") for t in range(130)])
    return settings


def test_the_command_prints_a_table_and_json(settings, capsys) -> None:
    assert main(["books", "--json", *flags(settings)]) == Exit.GOOD
    shown = json.loads(capsys.readouterr().out)
    assert shown["schema"] == "quantum.books/1"
    (pair,) = shown["pairs"]
    assert (pair["n"], pair["baseline"], pair["verdict"]) == (129, "baseline:a", "open")
    assert pair["low_bps"] < pair["mean_bps"] < pair["high_bps"]
    assert main(["books", *flags(settings)]) == Exit.GOOD
    assert "129 (129)" in capsys.readouterr().out
    assert main(["books", "-s", "NONE", *flags(settings)]) == Exit.FAILED
    assert "NONE" in capsys.readouterr().err

"""The kept tables of the controls: they are those of this source, and of edges of the size that DOMAIN asks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents.algorithms import market
from agents.algorithms.strategies import STRATEGIES
from streams import calibrated
from streams.laboratory import BARS_A_MARKET, try_market

LEARNABLE = [name for name, params in market.MARKETS.items() if params.best]


@pytest.mark.parametrize("name", LEARNABLE)
def test_it_is_of_this_source(name: str) -> None:
    kept = calibrated.kept(name)
    if kept["python"] != calibrated.python():
        pytest.skip(f"made with Python {kept['python']}; another version writes the same source otherwise")
    assert kept["digest"] == calibrated.digest(), "python -m streams.calibrated makes the tables anew"


@pytest.mark.parametrize("name", LEARNABLE)
def test_the_best_strategy_of_each_regime_has_an_edge_of_half_a_deviation(name: str) -> None:
    report = calibrated.kept(name)["report"]
    assert report["trades"] >= 200_000
    assert report["detector_right"] >= 0.9
    for regime, best in zip(market.REGIMES, market.MARKETS[name].best, strict=True):
        row = report["by_hidden_regime"][regime]
        assert row[best]["d"] == pytest.approx(0.5, abs=0.05)
        others = [row[s]["mean_r_of_a_decision"] for s in STRATEGIES[:3] if s != best]
        assert row[best]["mean_r_of_a_decision"] > max(0.0, *others)


@pytest.mark.parametrize("name", LEARNABLE)
def test_markets_that_it_was_not_made_of_agree_with_it(name: str) -> None:
    """The value of choosing blindly, from eight markets more: within five of their own errors."""
    table = calibrated.table(name)
    trials = [try_market(seed, BARS_A_MARKET, market.MARKETS[name]) for seed in range(8)]
    means = [float(t.rewards.mean()) for t in trials]
    middle = sum(means) / len(means)
    error = (sum((m - middle) ** 2 for m in means) / (len(means) - 1) / len(means)) ** 0.5
    assert abs(middle - table.uniform()) < 5 * error


def test_a_kept_table_is_read_as_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = calibrated.table("planted")
    monkeypatch.setattr(calibrated, "FOLDER", tmp_path)
    calibrated.write("planted", table)
    calibrated.table.cache_clear()
    again = calibrated.table("planted")
    calibrated.table.cache_clear()
    assert again.uniform() == table.uniform()
    assert again.oracle((0.003, 0.006)) == table.oracle((0.003, 0.006))
    assert again.hidden_value == table.hidden_value

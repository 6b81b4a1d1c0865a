"""Contract with River: a frozen and thawed estimator goes on as one that was never frozen, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from river import drift, stats

from agents.algorithms import river_state
from agents.algorithms.river_state import (
    Moments,
    RiverChanged,
    adwin_update,
    moments_update,
    quantile_update,
    together,
)

NUMBERS = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=60)


@given(NUMBERS)
def test_variance_goes_on(xs: list[float]) -> None:
    whole, frozen = stats.Var(), Moments()
    for x in xs:
        whole.update(x)
        frozen = moments_update(frozen, x)
        assert (frozen.n, frozen.mean, frozen.variance) == (whole.mean.n, whole.mean.get(), whole.get())


@given(st.lists(NUMBERS, max_size=4))
def test_parts_together_are_the_moments_of_all(parts: list[list[float]]) -> None:
    frozen = []
    for xs in [*parts, []]:
        moments = Moments()
        for x in xs:
            moments = moments_update(moments, x)
        frozen.append(moments)
    whole, every = together(frozen), np.array([x for xs in parts for x in xs])
    assert whole.n == len(every)
    if len(every):
        assert whole.mean == pytest.approx(every.mean(), rel=1e-9, abs=1e-9)
        assert whole.squares == pytest.approx(((every - every.mean()) ** 2).sum(), rel=1e-9, abs=1e-6)


@given(NUMBERS, st.sampled_from([1 / 3, 2 / 3]))
def test_quantile_goes_on(xs: list[float], q: float) -> None:
    whole, frozen = stats.Quantile(q), b""
    for x in xs:
        whole.update(x)
        frozen, estimate = quantile_update(frozen, q, x)
        assert estimate == whole.get()
        assert frozen == whole._quantile.__getstate__()


@pytest.mark.parametrize("seed", range(3))
def test_adwin_goes_on_through_its_alarms(seed: int) -> None:
    rng = np.random.default_rng(seed)
    whole, frozen, alarms = drift.ADWIN(delta=0.002), b"", 0
    for x in [*rng.normal(0, 0.3, 700), *rng.normal(1, 0.3, 700), *rng.normal(-1, 0.3, 700)]:
        whole.update(float(x))
        got = adwin_update(frozen, 0.002, float(x))
        assert got.alarm == whole.drift_detected
        if not got.alarm:
            assert got.state == whole._helper.__getstate__()
            assert got.width_after == whole.width
        else:
            assert got.width_before > got.width_after > 0
            assert got.mean == whole.estimation
        frozen, alarms = got.state, alarms + got.alarm
    assert alarms >= 2


def test_quantiles_of_a_known_distribution() -> None:
    frozen, rng = b"", np.random.default_rng(0)
    for x in rng.random(5000):
        frozen, estimate = quantile_update(frozen, 1 / 3, float(x))
    assert estimate == pytest.approx(1 / 3, abs=0.02)


class _Bare:
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass


@pytest.mark.parametrize(("module", "name"), [("stats", "Quantile"), ("drift", "ADWIN")])
def test_an_upgrade_that_moves_the_state_fails_loudly(monkeypatch: pytest.MonkeyPatch, module: str, name: str) -> None:
    monkeypatch.setattr(getattr(river_state, module), name, _Bare)
    with pytest.raises(RiverChanged, match="not a"):
        quantile_update(b"", 0.5, 1.0) if name == "Quantile" else adwin_update(b"", 0.002, 1.0)


def test_a_variance_without_its_fields_fails_loudly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(river_state.stats, "Var", _Bare)
    with pytest.raises(RiverChanged, match="Var"):
        moments_update(Moments(), 1.0)


def test_bytes_that_are_no_state_fail_loudly() -> None:
    with pytest.raises(RiverChanged, match="does not take 2 bytes"):
        quantile_update(b"\x00\x01", 0.5, 1.0)

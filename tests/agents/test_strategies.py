"""The reference strategies: by hand, and by symmetry."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.algorithms import strategies
from schemas.events import STRATEGY_SYMBOLS

NUMBER = st.integers(-40, 40).map(lambda n: n / 8)  # exact in binary, so that 0.5 + x and 0.5 - x mirror each other
INPUTS = ("ema_dist_14", "ema_dist_50", "bollinger_position", "range_position")


def test_the_order_is_the_one_of_the_schema() -> None:
    assert strategies.STRATEGIES == STRATEGY_SYMBOLS


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((0.01, 0.02, 0.9, 1.1), (1, -1, 1, 0)),
        ((-0.01, -0.02, -0.9, -0.1), (-1, 1, -1, 0)),
        ((0.01, -0.02, 0.5, 1.0), (0, 0, 0, 0)),
        ((0.0, 0.02, -0.5, 0.0), (0, 0, 0, 0)),
    ],
)
def test_by_hand(values: tuple[float, ...], expected: tuple[int, ...]) -> None:
    assert strategies.signals(**dict(zip(INPUTS, values, strict=True))) == expected


@given(NUMBER, NUMBER, NUMBER, NUMBER)
def test_a_mirrored_market_has_mirrored_signals(a: float, b: float, c: float, d: float) -> None:
    up = strategies.signals(ema_dist_14=a, ema_dist_50=b, bollinger_position=c, range_position=0.5 + d)
    down = strategies.signals(ema_dist_14=-a, ema_dist_50=-b, bollinger_position=-c, range_position=0.5 - d)
    assert up is not None
    assert down is not None
    assert up == tuple(-x for x in down)
    assert set(up) <= {-1, 0, 1}


@pytest.mark.parametrize("missing", [m for m in product([False, True], repeat=4) if any(m)])
def test_a_missing_input_is_no_signal(missing: tuple[bool, ...]) -> None:
    values = {name: None if gone else 0.3 for name, gone in zip(INPUTS, missing, strict=True)}
    assert strategies.signals(**values) is None

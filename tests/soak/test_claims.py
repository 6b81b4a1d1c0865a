"""False and true claims, gain, recovery and false alarms at the size of their promises: `make soak`, some two hours."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def measured(module: str, *args: str) -> list[dict[str, Any]]:
    """What a benchmark prints: one JSON object a line."""
    done = subprocess.run([sys.executable, "-m", f"benchmarks.{module}", *args], check=True, capture_output=True,
                          text=True, cwd=Path(__file__).parents[2])
    return [json.loads(line) for line in done.stdout.splitlines()]


def k_of(rate: str) -> int:
    """The k of "k of n [low, high]"."""
    return int(rate.split()[0])


@pytest.mark.soak
def test_on_a_fair_walk_at_most_18_of_1000_ever_claim() -> None:
    """Within 10,000 outcomes, with all costs and with none."""
    for found in measured("candle_outcomes", "--market", "fair", "--costs", "both", "--seeds", "1000",
                          "--outcomes", "10000"):
        assert k_of(found["ever_claimed"]) <= 18, found


@pytest.mark.soak
@pytest.mark.parametrize("market", ["planted", "reversed"])
def test_a_planted_edge_is_claimed_and_learned_in_388_of_400(market: str) -> None:
    (found,) = measured("candle_outcomes", "--market", market, "--seeds", "400", "--outcomes", "3000")
    assert k_of(found["gain_good_and_claimed"]) >= 388, found


@pytest.mark.soak
def test_a_swap_is_recovered_from_and_nothing_alarms_without_one() -> None:
    (swapped,) = measured("q_edge_simulation", "--seeds", "200", "--outcomes", "6000", "--world",
                          "d=.5, swapped at 3000")
    assert swapped["gain_at_least_.8"] >= 180, swapped
    (still,) = measured("q_edge_simulation", "--seeds", "1000", "--world", "d=.5")
    assert still["runs_with_alarm"] <= 18, still

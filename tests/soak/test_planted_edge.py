"""The learner on the market with a planted edge, at the size of its promise: `make soak`, some 20 minutes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SEEDS, NEEDED, CONTROLS, BOUND = 400, 388, 100, 0.15


@pytest.mark.soak
def test_the_edge_is_learned_and_noise_is_not(tmp_path: Path) -> None:
    """Gain >= .8 after 3,000 outcomes in 388 of 400 seeds; with permuted rewards the mean gain is about 0."""
    report = tmp_path / "report.json"
    subprocess.run(
        [sys.executable, "-m", "benchmarks.planted_edge", "--seeds", str(SEEDS), "--controls", str(CONTROLS),
         "--json", str(report)], check=False, cwd=Path(__file__).parents[2])
    summary = json.loads(report.read_text())["summary"]
    low, high = summary["control_interval_90"]
    assert summary["good"] >= NEEDED, f"{summary['good']} of {summary['seeds']} seeds"
    assert summary["controls"] == CONTROLS
    assert -BOUND < low < high < BOUND, f"90 % interval of the mean gain of noise: {low:.3f} to {high:.3f}"

"""A training run: the same bytes whoever performs it, from the weights of the run before."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from agents.algorithms.learner import from_bytes
from agents.algorithms.trading import Rules
from agents.algorithms.trading_fit import FitRequest, fit, packed, trader_settings, unpacked
from agents.algorithms.trading_view import dropped
from tests.agents.tapes import QUARTER_MS, made_tape, rough_tape

ROOT = Path(__file__).parents[2]
SETTINGS = trader_settings(hidden=(16,), epochs=2)


def request(**changes: object) -> FitRequest:
    tape = made_tape(1, 800)
    base = FitRequest(name="r/1", seed=3, episodes=2, episode_bars=300, interval_ms=QUARTER_MS, rules=Rules(),
                      settings=SETTINGS, mask=dropped(tape), rows=packed(tape.rows))
    return msgspec.structs.replace(base, **changes)


def test_rows_come_back() -> None:
    rows = rough_tape(1, 20).rows
    np.testing.assert_array_equal(unpacked(packed(rows)), rows)


def test_the_same_request_gives_the_same_bytes_in_another_process_too() -> None:
    asked = request()
    here = fit(asked)
    assert fit(asked) == here
    program = ("import sys, msgspec\nfrom agents.algorithms.trading_fit import FitRequest, fit\n"
               "r = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=FitRequest)\n"
               "sys.stdout.buffer.write(fit(r).learner)")
    done = subprocess.run([sys.executable, "-c", program], input=msgspec.msgpack.encode(asked), capture_output=True,
                          cwd=ROOT, env=os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": str(ROOT)}, check=True)
    assert done.stdout == here.learner


def test_another_seed_or_name_is_another_run() -> None:
    learners = {fit(r).learner for r in (request(), request(seed=4), request(name="r/2"))}
    assert len(learners) == 3


def test_every_run_updates_and_rollouts_are_bounded() -> None:
    short = fit(request())
    assert (short.steps, len(short.updates), short.lengths) == (600, 1, (300, 300))
    assert short.updates[0].experiences == 600
    many = fit(request(episodes=9))
    assert [u.experiences for u in many.updates] == [2043, 657]
    assert fit(request(episodes=1, episode_bars=5)).updates[0].experiences == 5


def test_a_run_goes_on_from_its_parent() -> None:
    first = fit(request())
    second = fit(request(name="r/2", parent=first.learner))
    before, after = (from_bytes(f.learner, SETTINGS) for f in (first, second))
    assert (before.updates, after.updates) == (1, 2)
    assert after.steps == 2 * before.steps
    assert not np.array_equal(before.parameters, after.parameters)


def test_a_parent_of_other_networks_is_refused() -> None:
    first = fit(request())
    with pytest.raises(ValueError, match="a learner of other networks"):
        fit(request(parent=first.learner, settings=trader_settings(hidden=(8,))))


def test_episodes_that_are_ruined_end_early() -> None:
    tape = rough_tape(1, 400)
    harsh = Rules(fee_bps=50.0, risk_pct=0.5, max_leverage=10.0)
    found = fit(request(rows=packed(tape.rows), rules=harsh, episodes=4))
    assert max(found.lengths) < 300
    assert found.steps == sum(found.lengths) == sum(u.experiences for u in found.updates)


def test_the_parts_of_the_reward_are_told() -> None:
    found = fit(request())
    assert found.sums["reward"] == pytest.approx(sum(found.rewards))
    assert found.sums["reward"] == pytest.approx(found.sums["growth"] + found.sums["drawdown"])
    assert found.sums["fees"] > 0
    assert found.sums["turnover"] > 0

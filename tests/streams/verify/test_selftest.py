"""`quantum verify --self-test`, and that it would say so where a cheat is not caught."""

from __future__ import annotations

import json

import pytest

from streams.cli.exits import Exit
from streams.cli.main import main
from streams.verify.planted import selftest
from streams.verify.planted.selftest import PLANTS, Plant, SelfTest, self_test
from streams.verify.planted.stage import stage

#: What must be among them, whatever else is.
NEEDED = {"Constant", "NeverUpdates", "Hashed", "WeightZero", "IgnoresPolicies", "unacknowledged", "stopped-feed",
          "died-at-start", "real-label", "random-walk", "invented-pnl"}


def test_all_are_caught_without_a_broker(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--self-test", "--json", "--broker", "127.0.0.1:1"]) == Exit.GOOD
    shown = json.loads(capsys.readouterr().out)
    assert (shown["schema"], shown["exit_code"], shown["honest_red"]) == ("quantum.selftest/1", 0, [])
    assert shown["caught"] == shown["planted"] == len(shown["items"]) == len(PLANTS)
    assert {i["name"] for i in shown["items"]} >= NEEDED
    assert all(i["caught"] and i["why"] and i["cell"] for i in shown["items"])


def test_names_are_told_apart() -> None:
    assert len({(p.name, p.own) for p in PLANTS}) == len({p.what for p in PLANTS}) == len(PLANTS)


def test_what_is_not_caught_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """An honest run in the place of a cheat: nothing to catch, so it must not count."""
    nothing = Plant("nothing", "an honest run", lambda: stage(bars=200), "decision", "RUNS")
    monkeypatch.setattr(selftest.self_test, "__defaults__", ((nothing, PLANTS[-1]), 0))
    assert main(["verify", "--self-test", "--jobs", "1"]) == Exit.FAILED
    shown = capsys.readouterr().out
    assert "NOT CAUGHT nothing" in shown
    assert "1/2 caught" in shown


def test_red_in_the_honest_run_fails_it() -> None:
    assert SelfTest((), ("decision/RUNS",)).exit_code == 1


@pytest.mark.parametrize("sample_seed", [1])
def test_other_draws_catch_them_too(sample_seed: int) -> None:
    assert [c.name for c in self_test(sample_seed=sample_seed) if not c.caught] == []


@pytest.mark.parametrize("more", [["--recheck", __file__], ["--evidence", "x.json"], ["--junit", "x.xml"],
                                  ["--since", "a-0@1"]])
def test_it_does_nothing_else(more: list[str]) -> None:
    assert main(["verify", "--self-test", *more]) == Exit.USAGE

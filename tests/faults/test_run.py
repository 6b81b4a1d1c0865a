"""The short form of the fault harness, for every run of the tests; the long one is `tests/soak/test_faults.py`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from streams import broker as embedded
from tests.faults.plan import Plan, short_form
from tests.faults.run import SYMBOLS, Report, run


def played(plan: Plan, folder: Path, bars: int, symbols: Sequence[str] = SYMBOLS) -> Report:
    """A run; skipped where there is no broker."""
    try:
        return run(plan, folder, bars=bars, symbols=symbols)
    except (embedded.NoJava, embedded.FetchFailed) as exc:
        pytest.skip(f"no embedded broker: {str(exc).splitlines()[0]}")


def test_kills_freezes_and_a_dead_broker_change_nothing(tmp_path: Path) -> None:
    plan = short_form()
    print(*plan.lines(), sep="\n")
    report = played(plan, tmp_path, bars=2500, symbols=SYMBOLS[:3])
    print(report.row())
    assert not report.wrong, report.told()
    figures = report.found.figures
    assert (report.kills.total(), report.freezes.total(), report.others["broker kill"]) == (6, 1, 1)
    assert min(figures[name] for name in ("candles", "trades", "versions", "repeated outputs", "scopes")) > 0, figures

"""The long form of the fault harness: 200 kills, 40 freezes and 20 kills of the broker; `make soak`, some 40 minutes.

    pytest -m soak -s tests/soak/test_faults.py          # -s shows the table as it grows
    pytest -m soak -s tests/soak/test_faults.py -k 104   # one seed again
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.plan import ANYWHERE, POINTS, Plan, long_form
from tests.faults.run import Report
from tests.faults.test_run import played

BARS = 12_000


@pytest.fixture(scope="module")
def reports() -> Iterator[list[Report]]:
    """Reports of the runs; the sums are printed at the end."""
    done: list[Report] = []
    yield done
    total = sum((Counter(r.row()) for r in done), Counter())
    kills, freezes = (sum((getattr(r, name) for r in done), Counter()) for name in ("kills", "freezes"))
    print("\nall runs:", json.dumps({k: v for k, v in total.items() if k not in ("seed", "workers")}))
    for point in (ANYWHERE, *POINTS):
        print(f"{point:16} kills {kills[point]:3}  freezes {freezes[point]:3}")


@pytest.mark.soak
@pytest.mark.parametrize("plan", long_form(), ids=lambda plan: f"{plan.seed}-{plan.workers}")
def test_nothing_is_lost_and_nothing_counted_twice(plan: Plan, tmp_path: Path, reports: list[Report]) -> None:
    report = played(plan, tmp_path, bars=BARS)
    reports.append(report)
    print("\n" + json.dumps(report.row()), *report.wrong, sep="\n", flush=True)
    assert not report.wrong, report.told()
    assert (report.kills.total(), report.freezes.total(), report.others["broker kill"]) == (20, 4, 2)

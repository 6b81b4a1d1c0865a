"""The harness kills trainer processes, whosever they are."""

from __future__ import annotations

import asyncio
import os
import threading
from types import SimpleNamespace
from typing import Any

from agents.contract import Job
from streams.trainers.process import TrainerFailed, order_of, performed
from tests.faults.plan import draw
from tests.faults.run import Injector, Report
from tests.patience import PATIENCE_S
from tests.streams.trainers.fitter import Fitter


def test_a_trainer_is_struck() -> None:
    plan = draw(1, workers=1, session_s=1.0, kills=0, freezes=0, trainer_kills=1)
    report, here = Report(plan), SimpleNamespace(running=True, pid=os.getpid(), exit_code=lambda: None)
    away: Any = SimpleNamespace(running=False)
    injector = Injector(away, [here], away, report)  # type: ignore[list-item]
    said: list[str] = []

    def fit() -> None:
        try:
            asyncio.run(performed(order_of(Fitter(), Job("A/good-60-1/0", b"x")), 120))
        except TrainerFailed as failed:
            said.append(str(failed))

    trainer = threading.Thread(target=fit)
    trainer.start()
    injector.apply(plan.faults[0])
    trainer.join(PATIENCE_S)
    assert report.others == {"trainer kill": 1}
    assert "was ended by SIGKILL without a result" in said[0]
    assert injector.trainers() == []

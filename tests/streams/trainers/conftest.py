"""The catalogue with the fitting agent."""

from __future__ import annotations

from typing import Any

import pytest

from schemas import catalogue
from tests.streams.trainers.fitter import NAME, catalogue_of_fitter


@pytest.fixture
def fitter(monkeypatch: pytest.MonkeyPatch) -> None:
    """`q_learning` is the fitting agent."""
    agents: Any = catalogue.AGENTS
    monkeypatch.setitem(agents, NAME, catalogue_of_fitter())

"""The agents that are built, by name. Adding one is a folder and a line here.

An agent's module, and the libraries that it needs, are loaded when it is first asked for: a worker loads those that it
runs.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import Any

from agents.contract import Agent

_CLASSES = {
    "bars": "Bars",
    "features": "Features",
    "decision": "DecisionAgent",
    "paper_execution": "PaperExecutionAgent",
    "experience": "ExperienceAgent",
    "q_learning": "QLearningAgent",
    "meta_strategy": "MetaStrategyAgent",
    "ppo_trader": "PpoTraderAgent",
    "risk_controller": "RiskControllerAgent",
}
"""Class of each agent in the package of its name."""


class Roster(MutableMapping[str, type[Agent[Any]]]):
    """Classes of agents by name, loaded when they are first asked for."""

    def __init__(self, classes: dict[str, str]) -> None:
        self._found: dict[str, type[Agent[Any]] | str] = dict(classes)

    def __getitem__(self, name: str) -> type[Agent[Any]]:
        found = self._found[name]
        if isinstance(found, str):
            found = self._found[name] = getattr(import_module(f"agents.{name}"), found)
        return found

    def __setitem__(self, name: str, kind: type[Agent[Any]]) -> None:
        self._found[name] = kind

    def __delitem__(self, name: str) -> None:
        del self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


ROSTER = Roster(_CLASSES)

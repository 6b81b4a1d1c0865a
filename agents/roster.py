"""The agents that are built, by name. Adding one is a folder and a line here."""

from __future__ import annotations

from typing import Any

from agents.contract import Agent
from agents.decision import DecisionAgent
from agents.experience import ExperienceAgent
from agents.features import Features
from agents.meta_strategy import MetaStrategyAgent
from agents.paper_execution import PaperExecutionAgent
from agents.q_learning import QLearningAgent
from agents.risk_controller import RiskControllerAgent

ROSTER: dict[str, type[Agent[Any]]] = {
    Features.name: Features,
    DecisionAgent.name: DecisionAgent,
    PaperExecutionAgent.name: PaperExecutionAgent,
    ExperienceAgent.name: ExperienceAgent,
    QLearningAgent.name: QLearningAgent,
    MetaStrategyAgent.name: MetaStrategyAgent,
    RiskControllerAgent.name: RiskControllerAgent,
}

"""`--agent-config`, as worker and verify share it."""

from __future__ import annotations

import click
import pytest

from agents.decision.core import DecisionConfig
from streams.cli.agents import configured
from streams.settings import Settings

SETTINGS = Settings(seed=7)


def test_a_configuration_is_taken_and_the_seed_is_the_settings_unless_given() -> None:
    agents = configured(SETTINGS, ['decision={"decide_every_bars": 8}', 'q_learning={"seed": 3}'],
                        ["decision", "q_learning"])
    assert agents["decision"].config == DecisionConfig(decide_every_bars=8, seed=7)
    assert agents["q_learning"].config.seed == 3


@pytest.mark.parametrize("text", ["decision", "nobody={}", "features={}", 'decision={"unknown": 1}', "decision={",
                                  'decision={"decide_every_bars": 0}'])
def test_what_is_no_configuration_of_a_running_agent_is_wrong_usage(text: str) -> None:
    with pytest.raises(click.UsageError, match="--agent-config"):
        configured(SETTINGS, [text], ["decision"])

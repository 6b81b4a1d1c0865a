"""A worker process of a release of its own: other code in its hash, or another layout of its state.

Usage: rolling_worker.py BROKER PREFIX APP_ID DATA_DIR RELEASE:FORMAT
"""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from agents.contract import Output
from schemas import catalogue
from schemas.events import STRATEGY_SYMBOLS, Cell, Event, Experience, PolicyRecord, Tabular
from streams import identity
from streams.settings import Settings
from streams.worker import serve
from tests.streams.counting import Count, CountingLearner


class CountingPolicies(CountingLearner):
    """Writes a policy version for each experience: its version is the count."""

    def step(self, state: Count, event: Event) -> tuple[Count, tuple[Output, ...]]:
        new, outputs = super().step(state, event)
        return new, (*outputs, Output("policy.ledger", policy(event, new.n)))


def policy(event: Any, version: int) -> PolicyRecord:
    """A policy that says nothing but its version."""
    assert isinstance(event, Experience)
    cell = Cell(state_key="bull|vol:0", probabilities=(0.25,) * 4, q=(0.0,) * 4, se=(1.0,) * 4, visits=(0,) * 4,
                greedy="neutral")
    return PolicyRecord(
        policy_id=f"q_learning/{event.symbol}", version=version, agent="q_learning", scope=event.symbol,
        ts_ms=event.ts_ms, valid_from_ms=event.ts_ms, fallback="neutral", status="ACTIVE", reason="update",
        outcomes=version, mask=(), actions=STRATEGY_SYMBOLS, tabular=Tabular(volatility_edges=(), cells=(cell,)),
        source=event.source, origin=event.origin)


def hash_of(release: str) -> str:
    """The code hash of a release."""
    return sha256(release.encode()).hexdigest()


def main(broker: str, prefix: str, app_id: str, data_dir: str, name: str) -> int:
    """Run until a signal."""
    agents: Any = catalogue.AGENTS  # as the fixture `direct_learner` has it in the test's process
    agents["q_learning"] = replace(catalogue.AGENTS["q_learning"], reads={"learning.experience": "by_scope"},
                                   direct=True)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    release, _, layout = name.partition(":")
    identity.code_hash = lambda module: hash_of(release)  # type: ignore[assignment]
    CountingPolicies.format_version = int(layout)
    settings = Settings(broker=broker, topic_prefix=prefix, app_id=app_id, data_dir=Path(data_dir))
    return 0 if serve(settings, {"q_learning": CountingPolicies()}) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

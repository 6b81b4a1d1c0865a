"""Learners that do not learn what they say. Each stamps the honest one's identity."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any

import msgspec
from msgspec.structs import replace

from agents.q_learning import QLearningAgent
from schemas.events import STRATEGY_SYMBOLS, Edge, Event, Experience, PolicyRecord, Tabular
from streams.verify.planted.changing import Step, changed


def _updates(change: Callable[[PolicyRecord], PolicyRecord]) -> Callable[[PolicyRecord], PolicyRecord]:
    """A change of every policy but the genesis."""
    return lambda p: p if p.reason == "genesis" else change(p)


class Constant(QLearningAgent):
    """Publishes a version for every outcome, always with the table of the first."""

    def step(self, state: Any, event: Event) -> Step:
        """As the honest one, the tables exchanged."""
        after, outputs = super().step(state, event)
        return after, changed(outputs, PolicyRecord, lambda p: replace(p, tabular=blank(p.tabular)))


class NeverUpdates(QLearningAgent):
    """Publishes a genesis policy and takes every outcome, but learns from none."""

    def step(self, state: Any, event: Event) -> Step:
        """As the honest one up to the genesis."""
        after, outputs = super().step(state, event)
        kept = tuple(o for o in outputs if isinstance(o.event, PolicyRecord) and o.event.reason == "genesis")
        return (after, kept) if kept or not outputs else (state, ())


class FreezesItself(QLearningAgent):
    """Says from some version on that people froze it, so that nobody asks why it learns no more."""

    def step(self, state: Any, event: Event) -> Step:
        """As the honest one, the status exchanged."""
        after, outputs = super().step(state, event)
        return after, changed(outputs, PolicyRecord, lambda p: p if p.version < 20 else replace(p, status="FROZEN"))


class Hashed(QLearningAgent):
    """Its tables are digests of what it was given: they change with every outcome and mean nothing."""

    def step(self, state: Any, event: Event) -> Step:
        """As the honest one, the tables exchanged."""
        after, outputs = super().step(state, event)
        noise = sha256(msgspec.msgpack.encode(event)).digest()
        return after, changed(outputs, PolicyRecord, _updates(lambda p: replace(p, tabular=noisy(p.tabular, noise))))


class HashedDraws(QLearningAgent):
    """Learns its estimates honestly and draws by digests."""

    def step(self, state: Any, event: Event) -> Step:
        """As the honest one, the probabilities exchanged."""
        after, outputs = super().step(state, event)
        noise = sha256(msgspec.msgpack.encode(event)).digest()
        return after, changed(outputs, PolicyRecord, _updates(lambda p: replace(p, tabular=drawn_by(p.tabular, noise))))


class Rewarded(QLearningAgent):
    """Learns from another reward than the one it was given."""

    def step(self, state: Any, event: Event) -> Step:
        """As the honest one, the reward exchanged."""
        if isinstance(event, Experience) and event.learnable:
            event = replace(event, reward_r=self.of(event))
        return super().step(state, event)

    def of(self, event: Experience) -> float:
        """The reward that it learns from."""
        raise NotImplementedError


class OutcomesUnseen(Rewarded):
    """Learns from a reward of its own making."""

    def of(self, event: Experience) -> float:
        """Of the action's name."""
        return len(event.action) / 10


class FlippedSign(Rewarded):
    """Learns to do what loses."""

    def of(self, event: Experience) -> float:
        """Negated."""
        return -event.reward_r


class ClippedRewards(Rewarded):
    """A loss counts for half of an R at most."""

    def of(self, event: Experience) -> float:
        """Clipped."""
        return min(max(event.reward_r, -0.5), 0.5)


class WideClip(Rewarded):
    """A loss counts for five R at most: no outcome of a quiet run shows it."""

    def of(self, event: Experience) -> float:
        """Clipped."""
        return min(max(event.reward_r, -5.0), 5.0)


class LossesHalved(Rewarded):
    """Every loss counts half: its estimates rise with the reward and are all too good."""

    def of(self, event: Experience) -> float:
        """Losses halved."""
        return event.reward_r / 2 if event.reward_r < 0 else event.reward_r


class OnlyWins(QLearningAgent):
    """Learns from wins and forgets every loss."""

    def step(self, state: Any, event: Event) -> Step:
        """As the honest one, losses left out."""
        lost = isinstance(event, Experience) and event.learnable and event.reward_r < 0
        return (state, ()) if lost else super().step(state, event)


class OldTables(QLearningAgent):
    """Publishes a new version for every outcome, with the table of the version before."""

    def step(self, state: Any, event: Event) -> Step:
        """As the honest one, the table that of the state before."""
        after, outputs = super().step(state, event)
        return after, changed(outputs, PolicyRecord, _updates(lambda p: replace(p, tabular=self._before(state, p))))

    def _before(self, state: Any, policy: PolicyRecord) -> Tabular:
        q = {k: c.q for k, c in zip((c.state_key for c in policy.tabular.cells), state.cells, strict=True)} \
            if policy.tabular is not None else {}
        assert policy.tabular is not None
        return replace(policy.tabular, cells=tuple(replace(c, q=q[c.state_key]) for c in policy.tabular.cells))


class CopiesAnother(QLearningAgent):
    """Publishes for every symbol the newest table of the symbol that it saw first."""

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self._first: PolicyRecord | None = None

    def step(self, state: Any, event: Event) -> Step:
        """As the honest one, the tables exchanged."""
        after, outputs = super().step(state, event)
        return after, changed(outputs, PolicyRecord, self._copied)

    def _copied(self, policy: PolicyRecord) -> PolicyRecord:
        if self._first is None or policy.scope == self._first.scope:
            self._first = policy
        return replace(policy, tabular=self._first.tabular)


class AlwaysClaims(QLearningAgent):
    """Learns honestly and says that it has an edge, whatever it earned; `how` is what it says of its figures."""

    def __init__(self, how: dict[str, float] | None = None) -> None:
        super().__init__()
        self._how = how or {}

    def step(self, state: Any, event: Event) -> Step:
        """As the honest one, the claims exchanged."""
        after, outputs = super().step(state, event)
        return after, changed(outputs, PolicyRecord, self._claiming)

    def _claiming(self, policy: PolicyRecord) -> PolicyRecord:
        if policy.edge is None:
            return policy
        return replace(policy, edge_claim=True, edge=replace(policy.edge, **self._how))


class ClaimsEarly(QLearningAgent):
    """Claims from its first outcomes on."""

    def step(self, state: Any, event: Event) -> Step:
        """As the honest one, the claims exchanged."""
        after, outputs = super().step(state, event)
        edge = Edge(n=after.outcomes, mean_r=1.0, sd_r=1.0, lower_r=0.5, smallest_r=0.1)
        return after, changed(outputs, PolicyRecord, lambda p: replace(p, edge_claim=True, edge=edge))


def blank(table: Tabular | None) -> Tabular:
    """A table that knows nothing."""
    assert table is not None
    return replace(table, volatility_edges=(0.001, 0.002), cells=tuple(
        replace(c, q=(0.0,) * 4, se=(1.0,) * 4, visits=(0,) * 4, probabilities=(0.25,) * 4, greedy="neutral")
        for c in table.cells))


def noisy(table: Tabular | None, noise: bytes) -> Tabular:
    """Estimates made of a digest."""
    assert table is not None
    return replace(table, cells=tuple(
        replace(c, q=q, greedy=STRATEGY_SYMBOLS[q.index(max(q))])
        for i, c in enumerate(table.cells)
        for q in [tuple((noise[(4 * i + j) % 32] - 128 + j / 10) / 100 for j in range(4))]))


def drawn_by(table: Tabular | None, noise: bytes) -> Tabular:
    """Probabilities made of a digest."""
    assert table is not None
    cells = []
    for i, c in enumerate(table.cells):
        weights = [1 + noise[(4 * i + j) % 32] for j in range(4)]
        cells.append(replace(c, probabilities=tuple(w / sum(weights) for w in weights)))
    return replace(table, cells=tuple(cells))

"""What each learner told of its newest update: reward, and of networks entropy, KL and explained variance.

Beside it stands what the policy of that symbol claims.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from schemas.codec import Codec
from schemas.events import Event, MetaUpdated, QUpdated, TrainingCompleted
from streams.inspecting.claimed import CURRENT, Claim, Claims
from streams.log import LogReader, Record, Start
from streams.records import readable

TOPICS = {"q_learning": "rl.q_learning.updated", "meta_strategy": "rl.meta.updated",
          "ppo_trader": "rl_v3.training.completed"}
"""Where learners tell of their updates."""
NEWEST = 64
"""Last records of a partition that are looked at: a round of the networks, in outcomes of the Q-learner."""


@dataclass(frozen=True)
class Learned:
    """The newest update of a learner, of whatever symbol.

    Attributes:
        version: of the policy that it made; None where the update does not name it.
        n: outcomes of the reward, episodes where `unit` is %.
        reward: their mean; of the Q-learner over the symbol's last ones, as it learns one at a time.
        unit: R, or % of the account.
        entropy, approx_kl: nats; None for a table.
        explained_variance: of the critic; None for a table.
        place: `topic-partition@offset` of the record.
        claim: what the newest version of the symbol's policy claims; None where there is none.
    """

    agent: str
    symbol: str
    version: int | None
    n: int
    reward: float | None
    unit: str
    entropy: float | None
    approx_kl: float | None
    explained_variance: float | None
    ts_ms: int
    place: str
    claim: Claim | None = None

    @property
    def sentence(self) -> str:
        """In words."""
        name = f"{self.agent} {self.symbol}" + ("" if self.version is None else f" version {self.version}")
        many = f"{self.n} {'outcome' if self.unit == 'R' else 'episode'}{'s' if self.n != 1 else ''}"
        parts = ["no reward" if self.reward is None else f"reward {self.reward:+.3f} {self.unit} ({many})"]
        parts += [f"{what} {value:{form}}" for what, value, form in (
            ("entropy", self.entropy, ".3f"), ("KL", self.approx_kl, ".4f"),
            ("explained variance", self.explained_variance, "+.3f")) if value is not None]
        return f"{name}: {', '.join(parts)}" + ("" if self.claim is None else f"; {self._claimed(self.claim)}")

    def _claimed(self, claim: Claim) -> str:
        """Learning goes on between two looks, and the trader's updates do not name the version that they make."""
        other = claim.version != self.version
        return (f"version {claim.version}: " if other else "") + claim.sentence


def newest_updates(log: LogReader, codec: Codec, there: Collection[str], claims: Claims) -> list[Learned]:
    """The newest update of each learner that told of one; what cannot be read is passed over.

    Args:
        there: topics that hold records.
        claims: of the policies.
    """
    found = [newest(agent, _read(log, codec, topic)) for agent, topic in TOPICS.items() if topic in there]
    told = [learned for learned in found if learned is not None]
    known = claims.of([(u.agent, u.symbol) for u in told]) if CURRENT in there else {}
    return [replace(u, claim=known.get((u.agent, u.symbol))) for u in told]


def _read(log: LogReader, codec: Codec, topic: str) -> list[tuple[Record, Event]]:
    return list(readable(codec, topic, log.read(topic, start=Start.last(NEWEST))))


def newest(agent: str, rows: list[tuple[Record, Event]]) -> Learned | None:
    """The newest update among records of one learner; None where none of them tells of one."""
    told = [(r, e) for r, e in rows if isinstance(e, QUpdated | MetaUpdated)
            or (isinstance(e, TrainingCompleted) and e.success)]
    if not told:
        return None
    record, event = max(told, key=lambda pair: (pair[0].timestamp_ms or 0, pair[0].offset))
    if isinstance(event, QUpdated):
        rewards = {e.decision_id: e.reward_r for _, e in rows if isinstance(e, QUpdated) and e.symbol == event.symbol}
        return Learned(agent, event.symbol, event.policy_version, len(rewards), sum(rewards.values()) / len(rewards),
                       "R", None, None, None, event.ts_ms, record.place)
    if isinstance(event, MetaUpdated):
        return Learned(agent, event.symbol, event.policy_version, event.n, event.mean_reward_r, "R", event.entropy,
                       event.approx_kl, event.explained_variance, event.ts_ms, record.place)
    assert isinstance(event, TrainingCompleted)
    return Learned(agent, event.symbol, None, event.episodes, event.avg_reward, "%", event.entropy, event.approx_kl,
                   event.explained_variance, event.ts_ms, record.place)

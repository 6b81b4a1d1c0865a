"""What training told of itself, by version of the policy that it led to: reward, entropy, KL, explained variance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from schemas.codec import Codec
from schemas.events import Event, MetaUpdated, TrainingCompleted
from schemas.refused import Refused
from streams.log import Record
from streams.policies.ledger import Version

TOPICS: Mapping[str, str] = {"meta_strategy": "rl.meta.updated", "ppo_trader": "rl_v3.training.completed"}
"""Where the learners of networks tell of an update, by agent."""
REWARDS = ("reward, R", "reward, %")
"""Names of the mean reward: of an outcome of a round, and of an episode of a training run."""
Figures = dict[str, float]


def figures(versions: Sequence[Version], records: Iterable[Record], codec: Codec) -> dict[int, Figures]:
    """The figures of each version that an update made.

    Args:
        versions: of one policy.
        records: of the topic of its agent in `TOPICS`; what cannot be read, or is another symbol's, is passed over.
    """
    if not versions:
        return {}
    scope = versions[0].policy.scope
    made_by = {v.policy.reason.removeprefix("update: "): v.policy.version for v in versions}
    found: dict[int, Figures] = {}
    for record in records:
        if record.key is None or record.key.decode(errors="replace") != scope:
            continue
        try:
            event = codec.decode(record.topic, record.value)
        except Refused:
            continue
        told = _told(event, made_by)
        if told is not None:
            found.setdefault(*told)
    return found


def _told(event: Event, made_by: Mapping[str, int]) -> tuple[int, Figures] | None:
    if isinstance(event, MetaUpdated) and event.policy_version is not None:
        version: int | None = event.policy_version
        named: dict[str, float | None] = {REWARDS[0]: event.mean_reward_r}
    elif isinstance(event, TrainingCompleted) and event.success:
        version = made_by.get(event.job_id or "")
        named = {REWARDS[1]: event.avg_reward}
    else:
        return None
    if version is None:
        return None
    more = {"entropy, nats": event.entropy, "KL, nats": event.approx_kl, "clip fraction": event.clip_fraction,
            "explained variance": event.explained_variance}
    return version, {k: v for k, v in (named | more).items() if v is not None}

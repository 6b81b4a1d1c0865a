"""LEARNS: every policy version made again from the input, and sampled ones once more with other rewards.

The first shows that the policies are what the declared code makes of the outcomes. Code can be declared that ignores
them, so the second asks the code itself: with another reward the estimate must be another one, on the side of the
reward, and no other estimate may move with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import NamedTuple

import msgspec

from schemas.catalogue import AgentIO
from schemas.events import Experience, PolicyRecord
from streams.fold import PartitionFold
from streams.identity import Identity
from streams.log import Record
from streams.records import Incoming
from streams.states import hash_of
from streams.verify import shown, trained
from streams.verify.cells import Cell, cell
from streams.verify.commanded import Update, contradiction
from streams.verify.evidence import Evidence
from streams.verify.limits import BY_RULE
from streams.verify.refold import Before, Refolded, begins, first_offset, refold, root_of
from streams.verify.said import payload_wrong, said

LEDGER = "policy.ledger"
MIN_UPDATES = 5
"""Fewer updates than that prove nothing: five estimates that all move with five rewards do so by chance in 1 of 24^5
runs, if each is held at five rewards."""
FOLLOW = 0.75
"""Share of sampled updates in which the probability of the action must rise with its reward. Chance alone gives one
half; a drift alarm that one reward raises and another does not may turn a single one round."""


PROBES_R = (1.0, -1.0, 10.0, -10.0)
"""R added to the reward of a sampled update. The far ones meet limits that no outcome of a quiet run would."""
FAR_R = 50.0  # a learner may refuse a reward that no trade can have made
STRAIGHT = 1e-6
"""Relative error of a slope. An estimate is a mean of rewards, so equal steps of the reward are equal steps of it."""


class Answer(NamedTuple):
    """What one sampled update did when its reward was another one; `wrong` is None where all went as declared."""

    wrong: str | None
    followed: bool


def learns(evidence: Evidence, io: AgentIO, sample: int, random: Random,
           again: dict[tuple[str, int], Refolded]) -> Cell:
    """The cell LEARNS of an agent that writes policies."""
    updates = [Update(r, e) for r, e in evidence.events(LEDGER) if isinstance(e, PolicyRecord) and e.agent == io.name]
    partitions = {p for p, s in evidence.stored[io.name].items() if s.head is not None}
    for u in updates:
        wrong = payload_wrong(u.policy)
        if wrong is not None:
            return cell("FAIL", f"{u.policy.policy_id} version {u.policy.version}: {wrong}", u.record, evidence.now_ms)
    unborn = [u for u in updates if u.policy.provenance is None]
    if unborn:
        return cell("FAIL", f"{len(unborn)} policies name no provenance", unborn[-1].record, evidence.now_ms)
    earlier = [u for u in updates if _before_epoch(evidence, u)]
    updates = [u for u in updates if not _before_epoch(evidence, u)]
    untrue = contradiction(evidence, updates)
    if untrue is not None:
        return cell("FAIL", *untrue, evidence.now_ms)
    identity = _identity(evidence, io, updates)
    if isinstance(identity, Cell):
        return identity
    unfounded = _unfounded(evidence, io, earlier)
    if unfounded is not None:
        return unfounded
    gone = sorted(p for p in partitions if not begins(evidence, io.name, p))
    if gone:
        return cell("EXPIRED", f"{io.input_topic} is not there from its beginning (partition {gone[0]}), so no parent "
                               f"can be folded")
    drawn = _draw(updates, sample, random, evidence)
    done = _again(evidence, io, partitions, identity, drawn, again)
    verdict = _verdict(evidence, io, updates, drawn, done, identity, random)
    for reason in _reasons(evidence, io):
        verdict = verdict.saying(f"a person began this epoch: {reason}")
    if earlier:
        verdict = verdict.saying(f"{len(earlier)} versions of an earlier epoch, by other code or configuration, are "
                                 f"not made again")
    return verdict.showing_each(shown.updates(evidence, drawn, updates))


def _before_epoch(evidence: Evidence, u: Update) -> bool:
    """Whether a version was made before the epoch of the stored state began."""
    p = u.policy.provenance
    return p is not None and p.to_offset < first_offset(evidence, u.policy.agent, p.input_partition)


def _unfounded(evidence: Evidence, io: AgentIO, earlier: list[Update]) -> Cell | None:
    """A root that the earlier epoch does not lead to: all that follows would rest on a state from nowhere."""
    named = {(u.policy.scope, u.policy.provenance.to_offset): u for u in earlier if u.policy.provenance is not None}
    roots = {p: root for p in evidence.stored[io.name] if (root := root_of(evidence, io.name, p)) is not None}
    for root in roots.values():
        if root.head is not None and root.head.root_reason is not None:
            continue  # a person began it; the cell says so
        for row in root.scopes:
            u = named.get((row.scope, row.input_offset))
            p = None if u is None else u.policy.provenance
            if u is not None and p is not None and p.state_hash != hash_of(row.scope, row.state):
                return cell("FAIL", f"the epoch began with another state of {row.scope} than {u.policy.policy_id} "
                                    f"version {u.policy.version}, the last before it, names", u.record,
                            evidence.now_ms)
    if roots and not earlier and not _reasons(evidence, io):
        where = min(roots)
        first = first_offset(evidence, io.name, where)
        return cell("NOT PROVEN", f"the epoch began at {io.input_topic}-{where}@{first} with a state that no version "
                                  f"before it vouches for: quantum refold {io.name}")
    return None


def _reasons(evidence: Evidence, io: AgentIO) -> list[str]:
    """Why people began the epochs of an agent's partitions."""
    heads = [s.head for s in evidence.stored[io.name].values() if s.head is not None]
    return sorted({h.root_reason for h in heads if h.root_reason is not None})


def learned(policy: PolicyRecord) -> bool:
    """Whether a version was made by an outcome: neither the first one nor an answer to a command."""
    return policy.reason != "genesis" and policy.command_id is None


def _identity(evidence: Evidence, io: AgentIO, updates: list[Update]) -> Identity | Cell:
    """What to stamp on the versions made again; a cell where they were made by other code or another configuration."""
    ours = evidence.identities[io.name]
    newest: dict[str, Update] = {}
    for u in updates:
        newest[u.policy.policy_id] = u
    for u in newest.values():
        p = u.policy.provenance
        assert p is not None
        for what, theirs, mine in (("code", p.code_hash, ours.code_hash), ("configuration", p.config_hash,
                                                                           ours.config_hash)):
            if theirs != mine:
                return cell("NOT PROVEN", f"{u.policy.policy_id} was made by another {what} ({theirs[:12]}) than this "
                                          f"one ({mine[:12]}): verify with the {what} that made it",
                            u.record, evidence.now_ms)
    platforms = {u.policy.provenance.platform for u in newest.values() if u.policy.provenance is not None}
    if len(platforms) > 1:
        return cell("NOT PROVEN", f"the newest policies come from different platforms: {', '.join(sorted(platforms))}")
    return replace(ours, platform=platforms.pop()) if platforms else ours


def _draw(updates: list[Update], sample: int, random: Random, evidence: Evidence) -> list[Update]:
    """Updates to ask again, among those within `since` whose input is in the stored state: that far it is folded."""
    candidates = [u for u in updates if learned(u.policy) and evidence.covers(u.record) and _stored(evidence, u)]
    return candidates if len(candidates) <= sample else random.sample(candidates, sample)


def _stored(evidence: Evidence, u: Update) -> bool:
    p, stored = u.policy.provenance, evidence.stored[u.policy.agent]
    head = stored[p.input_partition].head if p is not None and p.input_partition in stored else None
    return p is not None and head is not None and p.to_offset <= head.input_offset


def _again(evidence: Evidence, io: AgentIO, partitions: Iterable[int], identity: Identity, drawn: list[Update],
           again: dict[tuple[str, int], Refolded]) -> dict[int, Refolded]:
    keep: dict[int, set[int]] = {}
    for u in drawn:
        assert u.policy.provenance is not None
        keep.setdefault(u.policy.provenance.input_partition, set()).add(u.policy.provenance.to_offset)
    done = {}
    for p in sorted(partitions):
        head = evidence.stored[io.name][p].head
        assert head is not None
        done[p] = again[io.name, p] = refold(evidence, io.name, p, head.input_offset, identity=identity,
                                             keep=keep.get(p, ()))
    return done


def _verdict(evidence: Evidence, io: AgentIO, updates: list[Update], drawn: list[Update], done: dict[int, Refolded],
             identity: Identity, random: Random) -> Cell:
    learnable = sum(d.learnable for d in done.values())
    versions = sum(learned(u.policy) for u in updates)
    by_command = sum(u.policy.command_id is not None for u in updates)
    unlearned = sum(d.unlearned for d in done.values())
    figures = {"outcomes": learnable, "versions": len(updates), "sample": len(drawn), "commanded": by_command,
               "unlearned": unlearned}
    last, now_ms = (updates[-1].record if updates else None), evidence.now_ms
    needed = MIN_UPDATES * _round_size(evidence, io)
    if learnable >= needed and not versions:
        return cell("FAIL", f"{learnable} outcomes to learn from, and not one update of a policy", last, now_ms,
                    **figures)
    for d in done.values():
        if d.contradicts is not None:
            other = "" if identity.platform == evidence.identities[io.name].platform else \
                f" (written on {identity.platform}, folded again on another platform)"
            return cell("NOT PROVEN" if other else "FAIL", d.contradicts + other, last, now_ms, **figures)
    stray = _stray(evidence, updates, done)
    if stray is not None:
        return cell("FAIL", f"{stray.policy.policy_id} version {stray.policy.version} does not follow from its input",
                    stray.record, now_ms, **figures)
    if trained.trains(evidence.roster[io.name]):
        elsewhere = identity.platform != evidence.identities[io.name].platform
        return trained.verdict(evidence, io, updates, drawn, done, last, elsewhere, figures)
    if io.name in BY_RULE:
        return _by_rule(updates, done, last, now_ms, figures)
    if len(drawn) < MIN_UPDATES:
        return cell("NOT PROVEN", f"too few updates ({len(drawn)}/{MIN_UPDATES}) to hold against other rewards", last,
                    now_ms, **figures)
    answers = [(u, _ask(evidence, u, done, identity, drawn, random)) for u in drawn]
    for u, answer in answers:
        if answer.wrong is not None:
            return cell("FAIL", f"{u.policy.policy_id} version {u.policy.version}: {answer.wrong}", u.record, now_ms,
                        **figures)
    followed = sum(a.followed for _, a in answers)
    if followed < FOLLOW * len(answers):
        return cell("FAIL", f"what is drawn does not follow what is learned: in {followed} of {len(answers)} updates "
                            f"the action's probability rises with its reward", last, now_ms, **figures)
    told = f"; {by_command} versions answer commands" if by_command else ""
    told += f"; {unlearned} outcomes came while a policy was frozen or retired" if unlearned else ""
    return cell("PASS", f"{sum(len(d.policies) for d in done.values())} versions made again byte for byte; in "
                        f"{len(answers)} of {len(answers)} drawn, another reward gave another policy, in its direction"
                        f"{told}",
                max((u.record for u in drawn), key=lambda r: r.timestamp_ms or 0), now_ms, **figures)


def _by_rule(updates: list[Update], done: dict[int, Refolded], last: Record | None, now_ms: int,
             figures: dict[str, int]) -> Cell:
    """The verdict on policies that are rules: there is no reward to ask them again with."""
    if not updates:
        return cell("NOT PROVEN", "no version yet", last, now_ms, **figures)
    return cell("PASS", f"{sum(len(d.policies) for d in done.values())} versions made again byte for byte; they follow "
                        f"from rules, and no reward is learned from", last, now_ms, **figures)


def _stray(evidence: Evidence, updates: list[Update], done: dict[int, Refolded]) -> Update | None:
    """A version on the ledger that the input does not give."""
    made = {ce_id for d in done.values() for ce_id in d.policies}
    for u in updates:
        p = u.policy.provenance
        assert p is not None
        headers = dict(u.record.headers)
        there = p.input_topic in evidence.topics and p.input_partition in evidence.topics[p.input_topic]
        if not there or not evidence.reaches(p.input_topic, p.input_partition, p.to_offset):
            return u  # it names input that is not there
        upto = done[p.input_partition].fold.offset if p.input_partition in done else -1
        # Above the stored state a running agent may have published already; the next state will speak of it.
        if headers.get("ce_id", b"").decode(errors="replace") not in made and p.to_offset <= upto:
            return u
    return None


def _ask(evidence: Evidence, update: Update, done: dict[int, Refolded], identity: Identity, drawn: list[Update],
         random: Random) -> Answer:
    """Make an update again with other rewards: negated, one more and one less, and that of another sampled update."""
    p = update.policy.provenance
    assert p is not None
    before = done[p.input_partition].before.get(p.to_offset) if p.input_partition in done else None
    event = None if before is None else evidence.decoded(before.record)
    tabular = update.policy.tabular is not None
    if before is None or not isinstance(event, Experience) or (tabular and event.state_key is None):
        return Answer("its provenance names no outcome that it could have been learned from", False)
    rewards = {event.reward_r, -event.reward_r}
    rewards |= {event.reward_r + more for more in PROBES_R if abs(event.reward_r + more) < FAR_R}
    other = random.choice(drawn).policy.provenance
    swap = done[other.input_partition].before.get(other.to_offset) if other is not None else None
    swapped = None if swap is None else evidence.decoded(swap.record)
    if isinstance(swapped, Experience):
        rewards.add(swapped.reward_r)
    made = []
    for reward in sorted(rewards):
        policy = _made(evidence, update.policy.agent, before, p.input_partition, identity, event, reward)
        if policy is None or (policy.tabular is None if tabular else policy.network is None):
            return Answer(f"with a reward of {reward:g} R it publishes no {'table' if tabular else 'network'}", False)
        made.append(policy)
    return _direction(event, sorted(rewards), made) if tabular else _network_direction(event, sorted(rewards), made)


def _round_size(evidence: Evidence, io: AgentIO) -> int:
    """Outcomes that a learner of rounds gathers for one update; 1 for all others."""
    return int(getattr(evidence.roster[io.name].config, "round_size", 1))


def _network_direction(event: Experience, rewards: list[float], made: list[PolicyRecord]) -> Answer:
    """Policies by ascending reward: no two rewards may give the same weights, and the highest must leave the action
    more probable, and the state more valued, than the lowest.

    The other outcomes of the round pull as well, so a single update may go the other way.
    """
    weights = [m.network.weights for m in made if m.network is not None]
    if len(set(weights)) < len(rewards):
        return Answer("other rewards leave its weights as they are", False)
    low, high = said(made[0], event), said(made[-1], event)
    if low is None or high is None or event.action not in made[0].actions:
        return Answer(f"its network says nothing of the state of {event.decision_id}", False)
    i = made[0].actions.index(event.action)
    assert low.value is not None
    assert high.value is not None
    return Answer(None, high.probabilities[i] > low.probabilities[i] and high.value > low.value)


def _made(evidence: Evidence, name: str, before: Before, partition: int, identity: Identity, event: Experience,
          reward: float) -> PolicyRecord | None:
    """The policy that the parent's state and this outcome give, had its reward been another one."""
    fold = PartitionFold(evidence.roster[name], partition, evidence.codec, identity)
    if before.entry is not None:
        fold.scopes = {before.scope: before.entry}
    fold.offset = before.record.offset - 1
    changed = msgspec.structs.replace(event, reward_r=reward)
    record = Incoming(before.record.offset, before.record.key, before.record.value, before.record.headers, changed)
    return next((o.event for o in fold.apply(record) if o.topic == LEDGER and isinstance(o.event, PolicyRecord)), None)


def _direction(event: Experience, rewards: list[float], made: list[PolicyRecord]) -> Answer:
    """Policies by ascending reward: the estimate of the outcome's cell and action must ascend with it, straight, and no
    other may move."""
    tables = [{c.state_key: c for c in m.tabular.cells} for m in made if m.tabular is not None]
    if any(event.state_key not in t for t in tables) or event.action not in made[0].actions:
        return Answer(f"its table has no cell {event.state_key} with {event.action}", False)
    key, i = event.state_key or "", made[0].actions.index(event.action)
    estimates = [t[key].q[i] for t in tables]
    if len(set(estimates)) == 1:
        return Answer(f"other rewards leave the estimate of {key}, {event.action} at {estimates[0]:g}", False)
    if any(a >= b for a, b in pairwise(estimates)):
        return Answer(f"the estimate of {key}, {event.action} does not move with the reward", False)
    slopes = [(b - a) / (y - x) for (x, a), (y, b) in pairwise(zip(rewards, estimates, strict=True))
              if y - x > STRAIGHT]
    if max(slopes) - min(slopes) > STRAIGHT * max(slopes):
        return Answer(f"the estimate of {key}, {event.action} does not move evenly with the reward: some rewards count "
                      f"{min(slopes) / max(slopes):.0%} of others", False)
    others = [tuple(q for k, c in sorted(t.items()) for j, q in enumerate(c.q) if (k, j) != (key, i)) for t in tables]
    if len(set(others)) > 1:
        return Answer(f"the reward of {key}, {event.action} moves the estimates of others", False)
    for m, t in zip(made, tables, strict=True):
        for c in t.values():
            if c.greedy not in m.actions or c.q[m.actions.index(c.greedy)] < max(c.q):
                return Answer(f"the greedy action of {c.state_key} is not the one of the highest estimate", False)
    return Answer(None, tables[-1][key].probabilities[i] > tables[0][key].probabilities[i])

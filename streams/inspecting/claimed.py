"""What the policy of each learner claims: the edge of its outcomes with its bound, and its gain on a control."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from schemas.codec import Codec
from schemas.events import PolicyRecord
from schemas.refused import Refused
from streams.log import LogReader, Record
from streams.policies.beside import gain
from streams.policies.ledger import Version

CURRENT = "policy.current"


@dataclass(frozen=True)
class Claim:
    """The newest version of a policy, and how many policies of its learner claim an edge.

    Attributes:
        place: `topic-partition@offset` of the version on `policy.current`.
        edge_claim: None where it was not evaluated.
        n: outcomes that the edge rests on.
        edge_mean_r, edge_lower_r: their mean and its anytime lower bound, R; None where not evaluated.
        gain: on the calibrated table, where the symbol is a control whose key is on the log; else None.
        claiming: policies of the learner whose newest version claims an edge, of `policies`.
    """

    policy_id: str
    version: int
    place: str
    edge_claim: bool | None
    n: int | None
    edge_mean_r: float | None
    edge_lower_r: float | None
    gain: float | None
    claiming: int
    policies: int

    @property
    def sentence(self) -> str:
        """In words."""
        if self.edge_mean_r is None or self.edge_lower_r is None:
            parts = ["edge not evaluated"]
        else:
            word = "claimed" if self.edge_claim else "not claimed"
            parts = [f"edge {self.edge_mean_r:+.3f} R, bound {self.edge_lower_r:+.3f} R (n {self.n}): {word}"]
        if self.gain is not None:
            parts.append(f"gain {self.gain:+.2f}")
        if self.policies > 1:
            parts.append(f"{self.claiming} of {self.policies} policies claim an edge")
        return ", ".join(parts)


class Claims:
    """The newest version of every policy, of which each look reads only what is new.

    Args:
        log: a reader.
    """

    def __init__(self, log: LogReader, codec: Codec) -> None:
        self._log = log
        self._codec = codec
        self._next: dict[int, int] = {}
        self._newest: dict[str, Version] = {}

    def of(self, learners: Collection[tuple[str, str]]) -> dict[tuple[str, str], Claim]:
        """What the policies of these learners and symbols claim; one without a policy is left out."""
        self._look()
        by_agent: dict[str, list[bool | None]] = {}
        for v in self._newest.values():
            by_agent.setdefault(v.policy.agent, []).append(v.policy.edge_claim)
        found = {}
        for agent, symbol in learners:
            version = self._newest.get(f"{agent}/{symbol}")
            if version is not None:
                found[agent, symbol] = self._claim(version, by_agent[agent])
        return found

    def _claim(self, v: Version, of_agent: list[bool | None]) -> Claim:
        p, e = v.policy, v.policy.edge
        return Claim(
            p.policy_id, p.version, v.record.place, p.edge_claim, None if e is None else e.n,
            None if e is None else e.mean_r, None if e is None else e.lower_r,
            gain(self._log, self._codec, [v]).get(p.version), sum(map(bool, of_agent)), len(of_agent))

    def _look(self) -> None:
        ends = {p: self._log.bounds(CURRENT, p)[1] for p in self._log.partitions(CURRENT)}
        if any(at > ends.get(p, 0) for p, at in self._next.items()):  # it is another topic than it was
            self._next, self._newest = {}, {}
        self._take(self._log.read(CURRENT, start={p: self._next.get(p, 0) for p in ends}))
        self._next = ends

    def _take(self, records: Iterable[Record]) -> None:
        newest: dict[str, Record] = {}
        for record in records:
            newest[(record.key or b"").decode(errors="replace")] = record
        for key, record in newest.items():
            if record.value is None:
                self._newest.pop(key, None)
                continue
            try:
                policy = self._codec.decode(CURRENT, record.value)
            except Refused:
                continue
            held = self._newest.get(key)
            if isinstance(policy, PolicyRecord) and (held is None or policy.version >= held.policy.version):
                self._newest[key] = Version(record, policy)

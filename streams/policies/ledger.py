"""Every version of every policy, as `policy.ledger` has them: the truth, of which `policy.current` is a view.

An output id that comes again with the same bytes is the same record again (a worker repeated itself after a crash) and
counts once, in whichever framing. The same version with other bytes, or under another id, is a rival: at most one of
the two is true.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from schemas.codec import Codec
from schemas.events import PolicyRecord
from schemas.refused import Refused
from streams.log import Record, Start
from streams.records import CE_ID, header, output_id

LEDGER = "policy.ledger"
_ASKED = re.compile(r"(?P<id>.+?)(?:@(?P<first>[0-9]{1,18})(?:\.\.(?P<last>[0-9]{1,18}))?)?")


class Version(NamedTuple):
    """A version of a policy and its record on the ledger."""

    record: Record
    policy: PolicyRecord

    @property
    def ce_id(self) -> str:
        """Its output id; empty where it has none."""
        return header(self.record.headers, CE_ID) or ""

    @property
    def at(self) -> int:
        """Offset of the input that made it: by the output id, which the broker keeps beside the value, else by its
        provenance; -1 where neither says."""
        written, p = output_id(self.ce_id), self.policy.provenance
        if written is not None and written[0] == self.policy.agent:
            return written[2]
        return -1 if p is None else p.to_offset

    @property
    def name(self) -> str:
        """`policy@version`."""
        return f"{self.policy.policy_id}@{self.policy.version}"


class Asked(NamedTuple):
    """What a person asks for: a policy, one version of it or several; both numbers None: the newest."""

    policy_id: str
    first: int | None = None
    last: int | None = None

    @classmethod
    def parse(cls, text: str) -> Asked:
        """`POLICY`, `POLICY@VERSION` or `POLICY@FIRST..LAST`.

        >>> Asked.parse("q_learning/BTCUSDT@4..7")
        Asked(policy_id='q_learning/BTCUSDT', first=4, last=7)

        Raises:
            ValueError: the range is empty, or a version is 0.
        """
        match = _ASKED.fullmatch(text)
        if match is None:
            raise ValueError("a policy is named AGENT/SCOPE, its versions AGENT/SCOPE@N or AGENT/SCOPE@FIRST..LAST")
        first, last = match["first"], match["last"]
        one = None if first is None else int(first)
        asked = cls(match["id"], one, one if last is None else int(last))
        if asked.first is not None and asked.last is not None and not 1 <= asked.first <= asked.last:
            raise ValueError(f"{text}: versions are 1, 2, 3 ..., the smaller first")
        return asked


@dataclass
class Ledger:
    """What the ledger holds.

    Attributes:
        versions: of each policy, in order of arrival; of repeats the first.
        rivals: further records of a version, by (policy id, version): with other bytes, or under another output id.
        unreadable: places of records that cannot be decoded, with the reason.
        records: records read.
        keys: policy ids that the records are keyed by, those passed over included.
    """

    versions: dict[str, list[Version]] = field(default_factory=dict)
    rivals: dict[tuple[str, int], list[Record]] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    records: int = 0
    keys: set[str] = field(default_factory=set)

    def of(self, asked: Asked) -> list[Version]:
        """The versions asked for, ascending; a missing one is left out.

        Raises:
            LookupError: there is none, with what there is.
        """
        there = self.versions.get(asked.policy_id, [])
        if not there:
            known = ", ".join(sorted(self.keys)) or "none"
            raise LookupError(f"{LEDGER} holds no policy {asked.policy_id}; there are: {known}")
        if asked.first is None or asked.last is None:
            return [newest(there)]
        found = sorted((v for v in there if asked.first <= v.policy.version <= asked.last),
                       key=lambda v: v.policy.version)
        if not found:
            numbers = [v.policy.version for v in there]
            raise LookupError(f"{LEDGER} holds no such version of {asked.policy_id}; it holds {min(numbers)} to "
                              f"{max(numbers)}")
        return found


def read_ledger(records: Iterable[Record], codec: Codec, keys: Iterable[str] | None = None) -> Ledger:
    """Versions from records of the ledger, in order.

    Args:
        records: of `policy.ledger`.
        codec: Avro codec.
        keys: policy ids that matter; None: all.
    """
    wanted = None if keys is None else {k.encode() for k in keys}
    ledger = Ledger()
    seen: dict[tuple[str, int], Version] = {}
    for record in records:
        ledger.records += 1
        ledger.keys.add((record.key or b"").decode(errors="replace"))
        if wanted is not None and record.key not in wanted:
            continue
        try:
            policy = codec.decode(LEDGER, record.value)
        except Refused as refused:
            ledger.unreadable[record.place] = str(refused)
            continue
        assert isinstance(policy, PolicyRecord)
        version = Version(record, policy)
        first = seen.setdefault((policy.policy_id, policy.version), version)
        if first is version:
            ledger.versions.setdefault(policy.policy_id, []).append(version)
        elif (first.ce_id, codec.canonical(first.record.value)) != (version.ce_id, codec.canonical(record.value)):
            ledger.rivals.setdefault((policy.policy_id, policy.version), []).append(record)
    return ledger


def newest(versions: Sequence[Version]) -> Version:
    """The highest version."""
    return max(versions, key=lambda v: v.policy.version)


def in_force(versions: Iterable[Version], ts_ms: int) -> Version | None:
    """The version for decisions at an event time: the highest that is valid from then or before.

    It is the actor's rule (`agents.decision.held`): a newer version takes the place of older ones from its `valid_from`
    on. Live, an actor may decide before a version reaches it; each decision names the version that it applied.
    """
    return max((v for v in versions if v.policy.valid_from_ms <= ts_ms), key=lambda v: v.policy.version, default=None)


def at_time(ledger: Ledger, ts_ms: int) -> Mapping[str, Version]:
    """The version in force of each policy at an event time; policies without one are left out."""
    found = {policy_id: in_force(versions, ts_ms) for policy_id, versions in ledger.versions.items()}
    return {policy_id: v for policy_id, v in found.items() if v is not None}


def event_time(text: str) -> int:
    """Epoch milliseconds from an ISO time with zone, or `s@MILLISECONDS` as `Start.parse` takes it.

    >>> event_time("2022-01-01T00:00:00Z"), event_time("s@5")
    (1640995200000, 5)

    Raises:
        ValueError: neither, or a time without a zone.
    """
    if not text.startswith("s@") and text.isdecimal():
        raise ValueError(f"{text!r} is a number; write s@{text} for milliseconds")
    try:
        return Start.parse(text if text.startswith("s@") else f"s@{text}").value
    except ValueError as exc:
        what = str(exc) if "time zone" in str(exc) else f"{text!r} is no time"
        raise ValueError(f"{what}; write e.g. 2026-01-31T12:00:00Z, or s@MILLISECONDS") from None

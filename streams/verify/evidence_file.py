"""Evidence files: every cell as a claim with the records that show it, so that others can look them up again.

A file is one JSON object of the schema `quantum.evidence/1`, written a claim a line:

    {"schema":"quantum.evidence/1","header":{...},"sha256":"<of the header>","claims":[
    {"claim":{...},"sha256":"<of the claim>"},
    {"claim":{...},"sha256":"<of the claim>"}
    ]}

Each digest is over the bytes between the colon and the comma, as they stand: no JSON has to be written again to check
one. The header holds the digest of every claim, so the header's own digest stands for the whole file. `docs/proof.md`
has the framing of a record.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from struct import pack
from typing import Literal

import msgspec

from streams.log import Record
from streams.verify.cells import Cell, Report, State

SCHEMA = "quantum.evidence/1"
_HEAD = re.compile(rb'\{"schema":"quantum\.evidence/1","header":(\{.*\}),"sha256":"([0-9a-f]{64})","claims":\[')
_CLAIM = re.compile(rb'\{"claim":(\{.*\}),"sha256":"([0-9a-f]{64})"\}')
_END = b"\n]}\n"


class Seen(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One record: where it stands, when the broker appended it, and the digest of its bytes; see `record_digest`."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int | None
    sha256: str

    @property
    def place(self) -> str:
        """`topic-partition@offset`."""
        return f"{self.topic}-{self.partition}@{self.offset}"


class Claim(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A cell of an agent or, under `control:SYMBOL`, of a control."""

    agent: str
    kind: str
    state: State
    why: str
    place: str | None
    age_s: float | None
    figures: dict[str, float]
    records: list[Seen]

    @property
    def name(self) -> str:
        """`agent/KIND`."""
        return f"{self.agent}/{self.kind}"


class Header(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of which log, when, how drawn, and the digest of every claim by its name."""

    cluster_id: str
    topic_prefix: str
    at_ms: int
    sample: int
    sample_seed: int
    since: str | None
    exit_code: int
    claims: dict[str, str]


class NotEvidence(ValueError):
    """A file that never was one of these."""


@dataclass(frozen=True)
class Filed:
    """What a file says, as far as it is what was written.

    Attributes:
        header: None where it was altered.
        digest: the header's, as computed: it stands for the whole file.
        claims: unaltered ones, by name.
        fallen: what was altered, by name (`agent/KIND`, `header` or `file`), with the sentence.
    """

    header: Header | None
    digest: str
    claims: dict[str, Claim]
    fallen: dict[str, str] = field(default_factory=dict)


def record_digest(record: Record, timestamp_ms: int | Literal["own"] | None = "own") -> str:
    """SHA-256 of a record, hex, over: timestamp, key, value, number of headers, then name and value of each.

    The timestamp is a signed 64-bit number of milliseconds (-1: none), the number of headers an unsigned 32-bit one;
    everything else is its length as a signed 32-bit number (-1: null) and its bytes. All numbers are big-endian. A
    header without a value counts as empty.

    Args:
        record: raw, as read.
        timestamp_ms: another timestamp than its own.
    """
    at = record.timestamp_ms if timestamp_ms == "own" else timestamp_ms
    digest = sha256(pack(">q", -1 if at is None else at) + _framed(record.key) + _framed(record.value))
    digest.update(pack(">I", len(record.headers)))
    for name, value in record.headers:
        digest.update(_framed(name.encode()) + _framed(value))
    return digest.hexdigest()


def _framed(part: bytes | None) -> bytes:
    return pack(">i", -1) if part is None else pack(">i", len(part)) + part


def claim_of(agent: str, kind: str, cell: Cell) -> Claim:
    """A cell as a claim."""
    seen = [Seen(topic=r.topic, partition=r.partition, offset=r.offset, timestamp_ms=r.timestamp_ms,
                 sha256=record_digest(r)) for r in cell.records]
    return Claim(agent=agent, kind=kind, state=cell.state, why=cell.why, place=cell.place, age_s=cell.age_s,
                 figures=dict(cell.figures), records=seen)


def written(report: Report, cluster_id: str, topic_prefix: str) -> bytes:
    """A report as an evidence file."""
    lines: dict[str, tuple[bytes, str]] = {}
    for agent, kind, cell in report.every:
        claim = claim_of(agent, kind, cell)
        text = msgspec.json.encode(claim)
        lines[claim.name] = text, sha256(text).hexdigest()
    header = msgspec.json.encode(Header(
        cluster_id=cluster_id, topic_prefix=topic_prefix, at_ms=report.at_ms, sample=report.sample,
        sample_seed=report.sample_seed, since=report.since, exit_code=report.exit_code,
        claims={name: digest for name, (_, digest) in lines.items()}))
    head = b'{"schema":"%s","header":%s,"sha256":"%s","claims":[' % (
        SCHEMA.encode(), header, sha256(header).hexdigest().encode())
    return _joined(head, (b'{"claim":%s,"sha256":"%s"}' % (text, digest.encode()) for text, digest in lines.values()))


def _joined(head: bytes, claims: Iterable[bytes]) -> bytes:
    return head + b"\n" + b",\n".join(claims) + _END


def parsed(data: bytes) -> Filed:
    """What stands in a file and was not altered.

    Raises:
        NotEvidence: neither a header nor a claim of this schema is in it.
    """
    first, *rest = data.split(b"\n")
    header, digest = _header(first)
    claims: dict[str, Claim] = {}
    lines: dict[str, bytes] = {}
    for line in (x.removesuffix(b",") for x in rest):
        claim = _claim(line)
        if claim is not None:
            claims[claim.name], lines[claim.name] = claim, line
    if header is None and not claims:
        raise NotEvidence(f"neither a header nor a claim of the schema {SCHEMA} is in it")
    fallen = {} if header is not None else {"header": "it was altered: its digest is another one"}
    for name, said in ({} if header is None else header.claims).items():
        if name not in claims:
            fallen[name] = "the file was altered: its line does not meet its digest, or is gone"
        elif not lines[name].endswith(b'"%s"}' % said.encode()):
            fallen[name] = "the file was altered: the header holds another digest of it"
    for name in () if header is None else claims.keys() - header.claims.keys():
        fallen[name] = "the file was altered: the header does not know it"
    if header is not None and not fallen and data != _joined(first, (lines[name] for name in header.claims)):
        fallen["file"] = "it was altered outside of its header and claims"
    return Filed(header, digest, {n: c for n, c in claims.items() if n not in fallen}, fallen)


def _header(line: bytes) -> tuple[Header | None, str]:
    match = _HEAD.fullmatch(line)
    if match is None:
        return None, ""
    digest = sha256(match[1]).hexdigest()
    if digest != match[2].decode():
        return None, digest
    try:
        return msgspec.json.decode(match[1], type=Header), digest
    except msgspec.DecodeError:
        return None, digest


def _claim(line: bytes) -> Claim | None:
    match = _CLAIM.fullmatch(line)
    if match is None or sha256(match[1]).hexdigest() != match[2].decode():
        return None
    try:
        return msgspec.json.decode(match[1], type=Claim)
    except msgspec.DecodeError:
        return None

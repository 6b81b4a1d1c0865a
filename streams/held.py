"""What a changelog partition holds, and the snapshots of the whole partition that can be made of it, newest first.

Keys: `head` and `scope:<scope>` hold the newest state; `checkpoint:<slot>:head` and `checkpoint:<slot>:scope:<scope>`
the last three checkpoints, a scope's slots being its own; `root:...` the state with which the present code began. Of
the records of a key the one that contains most input counts, not the last: a writer that was frozen and wakes up may
write an old one. A record that does not meet its checksum, cannot be decoded or stands under a wrong key is refused,
and so is a tombstone that does not say who wrote it and why; what was read before it stays. Whether what is left is
whole, the head's digest says (`PartitionFold.restore`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Generic, NamedTuple, TypeVar

from msgspec.structs import replace

from schemas.codec import Codec
from schemas.events import PartitionHead, ScopeState
from schemas.limits import Unfit
from schemas.reading import read_long
from schemas.refused import Refused
from streams.records import HEAD_KEY, SCOPE_PREFIX, Headers, header, headers_of

SLOTS = 3
SEAL = "sha256"
WIPED = "wiped"
CHECKPOINT = "checkpoint:"
ROOT = "root:"
W = TypeVar("W")
RawHeaders = Sequence[tuple[str, bytes | str | None]] | None


def seal(value: bytes) -> Headers:
    """Headers of a state record: the SHA-256 of its value, hex."""
    return ((SEAL, _seal_of(value)),)


def wiped(why: str) -> Headers:
    """Headers of a tombstone that deletes a state record on purpose."""
    return ((WIPED, why.encode()),)


def checkpoint_key(slot: int, key: str) -> bytes:
    """Key of a head or scope record as a checkpoint keeps it.

    >>> checkpoint_key(2, "scope:BTCUSDT")
    b'checkpoint:2:scope:BTCUSDT'
    """
    return f"{CHECKPOINT}{slot}:{key}".encode()


def kind_of(key: bytes) -> str | None:
    """Schema of the record under a key of a changelog; None for a key that is none of ours.

    >>> kind_of(b"head"), kind_of(b"root:scope:X"), kind_of(b"checkpoint:9:head")
    ('state.head', 'state.scope', None)
    """
    inner = _inner(key)
    if inner == HEAD_KEY.decode():
        return "state.head"
    return "state.scope" if inner is not None and inner.startswith(SCOPE_PREFIX) else None


def _inner(key: bytes) -> str | None:
    """`head` or `scope:<scope>`, whatever the key keeps it for."""
    try:
        text = key.decode()
    except UnicodeDecodeError:
        return None
    if text.startswith(ROOT):
        return text[len(ROOT):]
    if text.startswith(CHECKPOINT):
        slot, _, inner = text[len(CHECKPOINT):].partition(":")
        return inner if slot in {str(i) for i in range(SLOTS)} else None
    return text


class Snapshot(NamedTuple):
    """State of a partition at one offset. `head` is None where none was ever written."""

    name: str
    scopes: tuple[ScopeState, ...]
    head: PartitionHead | None


@dataclass(slots=True)
class Held(Generic[W]):
    """The records of a changelog partition that count.

    Args:
        place: `topic-partition@offset` of what the caller says of a record; asked only where it is told to a person.

    Attributes:
        heads: by key.
        where: where each head and scope stands, as the caller says it.
        keys: every key that is there.
    """

    place: Callable[[W], str] = str
    heads: dict[bytes, PartitionHead] = field(default_factory=dict)
    where: dict[bytes, W] = field(default_factory=dict)
    keys: set[bytes] = field(default_factory=set)
    _kinds: dict[bytes, tuple[str | None, str | None]] = field(default_factory=dict)
    _refused: dict[bytes, str] = field(default_factory=dict)
    _rows: dict[bytes, ScopeState] = field(default_factory=dict)
    _peeked: dict[bytes, _Peeked] = field(default_factory=dict)
    _unread: dict[bytes, tuple[Codec, bytes]] = field(default_factory=dict)

    @property
    def scopes(self) -> dict[bytes, ScopeState]:
        """The rows of scopes that count, by key."""
        self._read()
        return self._rows

    @property
    def refused(self) -> dict[bytes, str]:
        """What was refused under a key after the record that counts, in words."""
        self._read()
        return self._refused

    def _read(self) -> None:
        unread, self._unread = self._unread, {}
        for key, (codec, value) in unread.items():
            try:
                self._rows[key] = _decoded(codec, *self._kinds[key], value)  # type: ignore[assignment]
            except Refused as refused:  # sealed as it is: a defect of its writer, and no older row stands for it
                self._refused[key] = f"{self._named(self.where[key], key)}: {refused.reason}: {refused.detail}"
                self._forget(key)

    def take(self, codec: Codec, where: W, key: bytes, value: bytes | None, headers: RawHeaders) -> None:
        """One record, in the order of the log.

        A sealed row that begins like the one before it is decoded only if none comes that counts more: of a changelog
        that was never compacted, a thousandth counts.
        """
        if value is None:
            self._tombstone(where, key, headers_of(headers))
            return
        peeked = self._peeked.get(key)
        order = None if peeked is None else peeked.order(value)
        if peeked is not None and order is not None and _seal_in(headers) == _seal_of(value):
            if order < peeked.newest:
                return
            peeked.newest = order
            self._unread[key] = codec, value
        else:
            if key not in self._kinds:
                self._kinds[key] = kind_of(key), _inner(key)
                self.keys.add(key)
            try:
                if not self._supersedes(codec, key, value, headers):
                    return
            except Refused as refused:
                self._refused[key] = f"{self._named(where, key)}: {refused.reason}: {refused.detail}"
                return
        self.where[key] = where
        self._refused.pop(key, None)

    def _supersedes(self, codec: Codec, key: bytes, value: bytes, headers: RawHeaders) -> bool:
        """Decode a record and take it up, unless an earlier one of its key contains more.

        Raises:
            Refused: it is none of ours, or was changed.
        """
        kind, name = self._kinds[key]
        _check_seal(kind, value, headers)
        row = _decoded(codec, kind, name, value)
        if isinstance(row, PartitionHead):
            head = self.heads.get(key)
            if head is not None and row.input_offset < head.input_offset:
                return False
            self.heads[key] = row
            return True
        peeked, order = self._peeked.get(key), (row.input_offset, row.anchor_offset)
        if peeked is not None and order < peeked.newest:
            return False
        self._unread.pop(key, None)
        self._rows[key] = row
        self._peeked[key] = _Peeked(_beginning(codec, row), order)
        return True

    def _named(self, where: W, key: bytes) -> str:
        return f"{self.place(where)}, key {key.decode(errors='replace')}"

    def _tombstone(self, where: W, key: bytes, headers: Headers) -> None:
        if header(headers, WIPED) is None:
            self._refused[key] = f"{self._named(where, key)}: a tombstone that does not say why"
            return
        self._forget(key)
        self.heads.pop(key, None)
        self._refused.pop(key, None)
        self.keys.discard(key)
        self._kinds.pop(key, None)

    def _forget(self, key: bytes) -> None:
        for rows in (self._rows, self._peeked, self._unread, self.where):
            rows.pop(key, None)

    @property
    def head(self) -> PartitionHead | None:
        """The newest head."""
        return self.heads.get(HEAD_KEY)

    def newest(self) -> dict[str, ScopeState]:
        """The newest row of every scope."""
        return {row.scope: row for key, row in self.scopes.items() if key.startswith(SCOPE_PREFIX.encode())}

    def snapshots(self) -> Iterator[Snapshot]:
        """What the partition can be restored from, newest first; each has still to meet its head's digest."""
        kept = sorted(((h.input_offset, key) for key, h in self.heads.items() if key != HEAD_KEY), reverse=True)
        if self.head is not None or not kept:
            yield Snapshot("the newest state", tuple(self.newest().values()), self.head)
        root = self.root
        for _, key in kept:
            head = self.heads[key]
            if key.startswith(ROOT.encode()) and root is not None:
                yield root
            else:
                yield Snapshot(f"the checkpoint at {head.input_topic}-{head.input_partition}@{head.input_offset}",
                               self._at(head.input_offset), head)

    @property
    def root(self) -> Snapshot | None:
        """The state with which the epoch began; None where it began with nothing."""
        head = self.heads.get((ROOT + HEAD_KEY.decode()).encode())
        if head is None:
            return None
        scopes = tuple(row for key, row in self.scopes.items() if key.startswith(ROOT.encode()))
        return Snapshot(f"the root of the epoch at {head.input_topic}-{head.input_partition}@{head.input_offset}",
                        scopes, head)

    def _at(self, offset: int) -> tuple[ScopeState, ...]:
        """Of every scope the newest row that holds nothing beyond an offset."""
        best: dict[str, ScopeState] = {}
        for key, row in self.scopes.items():
            if row.input_offset > offset or key.startswith(ROOT.encode()):
                continue
            old = best.get(row.scope)
            if old is None or (row.input_offset, row.anchor_offset) > (old.input_offset, old.anchor_offset):
                best[row.scope] = row
        return tuple(best.values())

    def slots(self) -> dict[str, list[int]]:
        """Input offset in each checkpoint slot of `head` and of every `scope:<scope>`; -2 where it is free."""
        found: dict[str, list[int]] = {}
        for key in (*self.scopes, *self.heads):
            text = key.decode(errors="replace")
            if text.startswith(CHECKPOINT):
                slot, _, inner = text[len(CHECKPOINT):].partition(":")
                offset = self.scopes[key].input_offset if key in self.scopes else self.heads[key].input_offset
                found.setdefault(inner, [-2] * SLOTS)[int(slot)] = offset
        return found


@dataclass(slots=True)
class _Peeked:
    """How far the row of a key that counts reaches, and the bytes with which it begins, up to its input offset."""

    beginning: bytes
    newest: tuple[int, int]

    def order(self, value: bytes) -> tuple[int, int] | None:
        """Input and anchor offset of a row of the same schema, agent, scope and format; None for any other."""
        if not value.startswith(self.beginning):
            return None
        try:
            input_offset, at = read_long(value, len(self.beginning))
            return input_offset, read_long(value, at)[0]
        except (IndexError, Unfit):
            return None


def _beginning(codec: Codec, row: ScopeState) -> bytes:
    """The bytes of a row before its input offset, in our newest schema."""
    least = replace(row, input_offset=0, anchor_offset=0, anchor_hash=None, previous_hash=None, state=b"")
    return codec.encode("state.scope", least)[:-5]  # the two offsets, two absent hashes, an empty state: a byte each


def _seal_of(value: bytes) -> bytes:
    return sha256(value).hexdigest().encode()


def _seal_in(headers: RawHeaders) -> bytes | str | None:
    for name, value in headers or ():
        if name == SEAL:
            return value
    return None


def _check_seal(kind: str | None, value: bytes, headers: RawHeaders) -> None:
    """Hold a record against its checksum.

    Raises:
        Refused: its key is none of ours, it has no checksum, or another one.
    """
    if kind is None:
        raise Refused("UNKNOWN_KEY", "no state record has such a key")
    sealed = _seal_in(headers)
    if sealed != _seal_of(value):
        raise Refused("BAD_CHECKSUM", "it has no checksum, so none of ours wrote it" if sealed is None else
                      "its bytes do not have the SHA-256 that it was written with")


def _decoded(codec: Codec, kind: str | None, name: str | None, value: bytes) -> ScopeState | PartitionHead:
    """A state record that is what its key says.

    Raises:
        Refused: it is not.
    """
    assert kind is not None, "unknown keys are refused before"
    row = codec.decode(kind, value)
    assert isinstance(row, ScopeState | PartitionHead)
    if isinstance(row, ScopeState) and name != SCOPE_PREFIX + row.scope:
        raise Refused("KEY_MISMATCH", f"it holds the scope {row.scope}")
    return row

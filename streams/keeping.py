"""State of a partition's scopes on its way to the changelog: what a flush writes, checkpoints, roots, blobs.

A flush writes the scopes that changed, then the head; one in about `CHECKPOINT_RECORDS` input records also writes a
checkpoint, so that damage of the newest state costs the refolding of some thousand records at most. Where other code or
another configuration takes state over, an epoch begins, and its root is written once: what all that follows is folded
from. `streams.held` reads all that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agents.contract import State
from schemas.events import PartitionHead, ScopeState
from streams.blobs import Blobs, Chunk, chunks, deletions, heavy_values, named
from streams.held import ROOT, SLOTS, Held, checkpoint_key
from streams.records import HEAD_KEY, SCOPE_PREFIX
from streams.states import hash_of

if TYPE_CHECKING:
    from streams.fold import PartitionFold

DIGEST_MODULUS = 2**256
CHECKPOINT_RECORDS = 5_000
HEAD = HEAD_KEY.decode()
Rows = list[tuple[bytes, bytes]]


@dataclass(slots=True)
class Flush:
    """What to write, in this order, each acknowledged before the next.

    Attributes:
        rows: for the changelog: changed scopes, a checkpoint perhaps, the head last, as (key, value).
        offset: input offset up to which the state holds everything once this is written; None where the head is left
            out, because a scope is still ahead of it.
        blobs: for `state.blobs`, before the rows.
    """

    rows: Rows
    offset: int | None
    blobs: list[Chunk] = field(default_factory=list)


def digest_of(rows: Iterable[ScopeState], offset: int) -> str:
    """The digest that a head at an input offset must have, if these are its scopes; see `PartitionHead.digest`."""
    hashes = (hash_of(r.scope, r.state) if r.input_offset <= offset else r.previous_hash or "0" for r in rows)
    return _digest(int(h, 16) for h in hashes)


def _digest(numbers: Iterable[int]) -> str:
    return f"{sum(numbers) % DIGEST_MODULUS:064x}"


class Keeper:
    """What of a fold is written, and what has still to be."""

    def __init__(self, fold: PartitionFold) -> None:
        self._fold = fold
        self._dirty: dict[str, None] = {}
        self._hashes: dict[str, int] = {}  # of the scopes' present states, as far as known
        self._total = 0  # their sum: a flush looks at what has changed, not at a thousand other scopes
        self._unhashed: dict[str, None] = {}  # scopes whose hash is not known
        self._encoded_states: dict[str, tuple[State, bytes]] = {}  # while a flush is made: each is encoded once
        self._counted: dict[str, int] = {}  # as the newest head counts them
        self._uncounted: dict[str, None] = {}  # written since the newest head
        self._torn: set[str] = set()  # scopes that hold input beyond the newest head
        self._unkept: dict[str, None] = {}  # changed since the last checkpoint
        self._slots: dict[str, list[int]] = {}
        self._checkpoint_at = 0
        self._root = Flush([], None)
        self._named: dict[str, dict[str, set[str]]] = {}  # blobs that kept rows name, by scope and row
        self._stored: dict[str, dict[str, int]] = {}  # chunks of blobs that are on the log, by scope
        self._renamed: dict[str, None] = {}  # scopes whose rows may name other blobs than at the last flush

    # ------------------------------------------------------------------ what has changed
    @property
    def unsaved(self) -> bool:
        """Whether there is something to write although no input was taken."""
        return bool(self._dirty or self._root.rows)

    def touch(self, scope: str, changed: bool) -> None:
        """A scope has to be written; `changed`: its state is another one."""
        if changed:
            self._total -= self._hashes.pop(scope, 0)
            self._unhashed[scope] = None
        self._dirty[scope] = None

    def rewrite(self) -> None:
        """Write all scopes with the next flush."""
        self._dirty.update(dict.fromkeys(self._fold.scopes))

    def begin_epoch(self, head: PartitionHead) -> None:
        """Write the present state as the root with the next flush, whatever has been folded by then."""
        out = self._root
        out.rows = [self._row(f"{ROOT}{SCOPE_PREFIX}{s}".encode(), s, out) for s in self._fold.scopes]
        out.rows.append(((ROOT + HEAD).encode(), self._encoded(head)))

    # ------------------------------------------------------------------ digests
    def _hash(self, scope: str) -> int:
        """SHA-256 of a scope's present state."""
        if scope not in self._hashes:
            self._hashed(scope, int(hash_of(scope, self._state(scope)), 16))
        return self._hashes[scope]

    def _hashed(self, scope: str, number: int) -> None:
        self._total += number - self._hashes.get(scope, 0)
        self._hashes[scope] = number
        self._unhashed.pop(scope, None)

    def _state(self, scope: str) -> bytes:
        """A scope's present state in Avro."""
        state = self._fold.scopes[scope].state
        known = self._encoded_states.get(scope)
        if known is None or known[0] is not state:
            known = self._encoded_states[scope] = state, self._fold.state_bytes(state)
        return known[1]

    def digest(self) -> str:
        """Order-independent digest of all scopes as of the fold's offset, 64 hex digits."""
        scopes = self._fold.scopes
        if len(self._hashes) + len(self._unhashed) != len(scopes):  # they were put there, not folded
            self._hashes = {s: h for s, h in self._hashes.items() if s in scopes}
            self._total = sum(self._hashes.values())
            self._unhashed = {s: None for s in scopes if s not in self._hashes}
        for scope in list(self._unhashed):
            self._hash(scope)
        return _digest([self._total, *(self._counted.get(s, 0) - self._hash(s) for s in self._torn if self._beyond(s))])

    def _beyond(self, scope: str) -> bool:
        return self._fold.scopes[scope].offset > self._fold.offset

    def restored(self, rows: Iterable[ScopeState]) -> None:
        """Take note of rows whose states the fold has taken up."""
        for row in rows:
            written = int(hash_of(row.scope, row.state), 16)
            if row.format_version == self._fold.agent.format_version:
                self._hashed(row.scope, written)
            if row.input_offset <= self._fold.offset:
                self._counted[row.scope] = written
                continue
            self._torn.add(row.scope)
            if row.previous_hash is not None:
                self._counted[row.scope] = int(row.previous_hash, 16)

    def adopt(self, held: Held[Any], blobs: Blobs | None) -> None:
        """Take note of what the changelog keeps beside the newest state."""
        self._slots = held.slots()
        self._checkpoint_at = max([0, *self._slots.get(HEAD, ())])
        self._unkept = {s: None for s, e in self._fold.scopes.items()
                        if e.offset not in self._slots.get(SCOPE_PREFIX + s, ())}
        if blobs is None:
            return
        self._stored = blobs.counts()
        for key, row in held.scopes.items():
            state = self._fold.codec.decode_state(self._fold.agent.state_type, row.state) \
                if row.format_version == self._fold.agent.format_version else None
            names = set() if state is None else named(state, self._fold.agent.heavy)
            self._named.setdefault(row.scope, {})[key.decode()] = names
        self._renamed = dict.fromkeys(self._stored)

    # ------------------------------------------------------------------ what is written
    def flush(self, head: PartitionHead) -> Flush:
        """What changed since the last flush, the head last; it counts as written from here on.

        A flush that was cut short leaves scopes ahead of the head. Until the fold has come up to them no new head is
        written: it would speak of states that nobody can show.

        Args:
            head: the fold's, as it stands now.
        """
        ahead = any(self._beyond(s) for s in self._torn)
        out = Flush([], None if ahead else self._fold.offset, list(self._freed()))
        out.blobs += self._root.blobs
        out.rows += self._root.rows  # first, so that a flush cut short leaves the old state or the root whole
        for scope in self._dirty:
            out.rows.append(self._row((SCOPE_PREFIX + scope).encode(), scope, out))
        self._unkept |= self._dirty
        self._uncounted |= self._dirty
        self._dirty.clear()
        self._root = Flush([], None)
        if not ahead:
            self._head(out, head)
        self._encoded_states.clear()
        return out

    def _head(self, out: Flush, head: PartitionHead) -> None:
        if self._fold.offset // CHECKPOINT_RECORDS > self._checkpoint_at // CHECKPOINT_RECORDS:
            self._checkpoint(out, head)
        out.rows.append((HEAD_KEY, self._encoded(head)))
        for scope in (*self._uncounted, *self._torn):
            self._counted[scope] = self._hash(scope)
        self._torn.clear()
        self._uncounted.clear()

    def _checkpoint(self, out: Flush, head: PartitionHead) -> None:
        """Keep every scope that changed since the last checkpoint in the slot of its oldest one, then the head."""
        for scope in self._unkept:
            slot = self._slot(SCOPE_PREFIX + scope, self._fold.scopes[scope].offset)
            out.rows.append(self._row(checkpoint_key(slot, SCOPE_PREFIX + scope), scope, out))
        slot = self._slot(HEAD, self._fold.offset)
        out.rows.append((checkpoint_key(slot, HEAD), self._encoded(head)))
        self._unkept.clear()
        self._checkpoint_at = self._fold.offset

    def _slot(self, key: str, offset: int) -> int:
        slots = self._slots.setdefault(key, [-2] * SLOTS)
        slot = slots.index(min(slots))
        slots[slot] = offset
        return slot

    def _encoded(self, head: PartitionHead) -> bytes:
        return self._fold.codec.encode("state.head", head)

    def _row(self, key: bytes, scope: str, out: Flush) -> tuple[bytes, bytes]:
        fold, entry = self._fold, self._fold.scopes[scope]
        state = self._state(scope)
        self._hashed(scope, int(hash_of(scope, state), 16))
        if fold.agent.heavy:
            self._blobs(key, scope, heavy_values(entry.state, fold.agent.heavy), out)
        row = ScopeState(
            agent=fold.agent.name, scope=scope, format_version=fold.agent.format_version, input_offset=entry.offset,
            anchor_offset=entry.anchor_offset, anchor_hash=entry.anchor_hash,
            previous_hash=f"{self._counted[scope]:064x}" if scope in self._counted else None, state=state,
        )
        return key, fold.codec.encode("state.scope", row)

    # ------------------------------------------------------------------ blobs
    def _blobs(self, key: bytes, scope: str, values: Mapping[str, bytes], out: Flush) -> None:
        """Write the blobs that a row names, those that are not there yet."""
        stored = self._stored.setdefault(scope, {})
        for name, value in values.items():
            if name not in stored:
                written = list(chunks(self._fold.agent.name, scope, value))
                out.blobs += written
                stored[name] = len(written)
        self._named.setdefault(scope, {})[key.decode()] = set(values)
        self._renamed[scope] = None

    def _freed(self) -> Iterator[Chunk]:
        """Tombstones of the blobs that no row names since the last flush, which is acknowledged by now."""
        renamed, self._renamed = self._renamed, {}
        for scope in renamed:
            stored = self._stored.get(scope, {})
            used = set().union(*self._named.get(scope, {}).values())
            for name in [n for n in stored if n not in used]:
                yield from deletions(self._fold.agent.name, scope, name, stored.pop(name))

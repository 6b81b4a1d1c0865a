"""Heavy state: fields of bytes that are kept apart from the rest, in chunks on `state.blobs`, named by their SHA-256.

A state row then holds 32 bytes in place of each such field. Its chunks are acknowledged before the row that names them,
and deleted only when no kept row names them any more, so no row ever names half a blob; a blob that is missing or cut
short is damage of the row, and never taken for the state. The key of a chunk is `<agent>:<scope>:<sha256>:<i>/<n>`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import NamedTuple, TypeVar

import msgspec

TOPIC = "state.blobs"
CHUNK_BYTES = 512 * 1024
_KEY = re.compile(rb"([a-z0-9_]+):(.+):([0-9a-f]{64}):(\d{1,9})/(\d{1,9})", re.DOTALL)
S = TypeVar("S", bound=msgspec.Struct)


class Chunk(NamedTuple):
    """Key and value of a record of `state.blobs`; None deletes it."""

    key: bytes
    value: bytes | None


class BlobLost(Exception):
    """A blob that a state row names is not there, or not whole."""


def lightened(state: S, heavy: Sequence[str]) -> S:
    """The state with the SHA-256 of each heavy field in its place; an empty field stays empty."""
    found = {name: getattr(state, name) for name in heavy}
    return msgspec.structs.replace(state, **{n: sha256(v).digest() for n, v in found.items() if v}) if found else state


def heavy_values(state: msgspec.Struct, heavy: Sequence[str]) -> dict[str, bytes]:
    """Every heavy field that is not empty, by its SHA-256 in hex."""
    values: list[bytes] = [getattr(state, name) for name in heavy]
    return {sha256(v).hexdigest(): v for v in values if v}


def named(state: msgspec.Struct, heavy: Sequence[str]) -> set[str]:
    """SHA-256, hex, of the blobs that a lightened state names."""
    return {getattr(state, name).hex() for name in heavy} - {""}


def chunks(agent: str, scope: str, data: bytes) -> Iterator[Chunk]:
    """The records that a blob is written as."""
    name, n = sha256(data).hexdigest(), -(-len(data) // CHUNK_BYTES)
    for i in range(n):
        yield Chunk(f"{agent}:{scope}:{name}:{i}/{n}".encode(), data[i * CHUNK_BYTES:(i + 1) * CHUNK_BYTES])


def deletions(agent: str, scope: str, name: str, n: int) -> Iterator[Chunk]:
    """The tombstones that delete a blob of n chunks."""
    return (Chunk(f"{agent}:{scope}:{name}:{i}/{n}".encode(), None) for i in range(n))


class Blobs:
    """What a partition of `state.blobs` holds for one agent."""

    def __init__(self, agent: str) -> None:
        self._agent = agent.encode()
        self._parts: dict[tuple[str, str], dict[int, bytes]] = {}
        self._counts: dict[tuple[str, str], int] = {}

    def take(self, key: bytes | None, value: bytes | None) -> None:
        """One record; those of other agents, and those that are no chunks, are passed over."""
        match = _KEY.fullmatch(key or b"")
        if match is None or match[1] != self._agent:
            return
        place = match[2].decode(errors="replace"), match[3].decode()
        if value is None:
            self._parts.get(place, {}).pop(int(match[4]), None)
            return
        self._parts.setdefault(place, {})[int(match[4])] = value
        self._counts[place] = int(match[5])

    def get(self, scope: str, name: str) -> bytes:
        """A blob, whole and of the right hash.

        Raises:
            BlobLost: it is not.
        """
        parts, n = self._parts.get((scope, name), {}), self._counts.get((scope, name), 0)
        which = f"blob {name[:12]} of {self._agent.decode()}/{scope}"
        if not parts:
            raise BlobLost(f"{which} is not on {TOPIC}")
        missing = [i for i in range(n) if i not in parts]
        if missing:
            raise BlobLost(f"{which} is cut short: {len(missing)} of {n} chunks are missing, the first is {missing[0]}")
        data = b"".join(parts[i] for i in range(n))
        if sha256(data).hexdigest() != name:
            raise BlobLost(f"{which} is damaged: {len(data)} bytes of another SHA-256")
        return data

    def counts(self) -> dict[str, dict[str, int]]:
        """Chunks that each blob there is said to have, by scope and SHA-256."""
        found: dict[str, dict[str, int]] = {}
        for (scope, name), parts in self._parts.items():
            if parts:
                found.setdefault(scope, {})[name] = self._counts[scope, name]
        return found

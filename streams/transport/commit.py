"""Offsets of finished work, coalesced and committed without waiting.

State heads carry the input offset, so a commit is for the eyes of people, for lag, and for where a relay resumes: it
may come a little later, never earlier than the acknowledgement of what it stands for. While partitions are held nobody
waits for a commit's answer; when they are let go, the newest offset of each is committed once more, and waited for: the
one before may still be on its way, or may have failed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from faust.types import TP

COMMIT_INTERVAL_S = 0.25
RETRY_S = 1.0


class Committer:
    """Collects offsets and commits the newest of each partition.

    Args:
        commit: commits offsets; its flag asks to wait for the broker's answer.
        interval_s: least time between two commits.
        retry_s: time after which a commit that failed is tried again.
    """

    def __init__(self, commit: Callable[[Mapping[TP, int], bool], Awaitable[None]],
                 interval_s: float = COMMIT_INTERVAL_S, retry_s: float = RETRY_S) -> None:
        self._commit = commit
        self._interval_s = interval_s
        self._retry_s = retry_s
        self._next: dict[TP, int] = {}
        self._newest: dict[TP, int] = {}
        self._task: asyncio.Task[None] | None = None

    def mark(self, tp: TP, offset: int) -> None:
        """Everything below `offset` is finished."""
        self._next[tp] = self._newest[tp] = offset
        self._soon(self._interval_s)

    def again(self) -> None:
        """A commit has failed: the next mark may be long in coming, so commit the newest offsets once more."""
        if self._newest:
            self._next = {**self._newest}
            self._soon(self._retry_s)

    def _soon(self, wait_s: float) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._later(wait_s))

    async def _later(self, wait_s: float) -> None:
        while self._next:
            await asyncio.sleep(wait_s)
            offsets, self._next = self._next, {}
            if offsets:
                await self._commit(offsets, False)

    async def finish(self) -> None:
        """Commit the newest offset of everything ever marked and wait for the broker."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self._next = {}
        if self._newest:
            await self._commit(dict(self._newest), True)

    def forget(self) -> None:
        """Drop what is marked, after a failure."""
        self._next.clear()
        self._newest.clear()

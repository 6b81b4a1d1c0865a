"""What is new, handed to every page that is open: a queue each, and a snapshot for those that join."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from streams.inspecting.shown import plain

WAITING = 200  # messages that wait for a page; one that is further behind is hung up on, and comes back for a snapshot
PAGES = 32
LINGER_S = 30.0  # how long the log is looked at after the last page left


class Full(Exception):
    """Too many pages are open."""


class Hub:
    """Pages that are open. All of it belongs to the event loop, but for `tell`.

    Args:
        loop: the event loop.
        watched: told whether somebody watches.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, watched: Callable[[bool], None]) -> None:
        self._loop = loop
        self._watched = watched
        self._pages: set[asyncio.Queue[bytes | None]] = set()
        self._leaving: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def pages(self) -> int:
        """How many are open."""
        return len(self._pages)

    @contextmanager
    def joined(self) -> Iterator[asyncio.Queue[bytes | None]]:
        """A queue of messages for as long as a page is open; None: hang up.

        Raises:
            Full: too many pages are open.
        """
        if len(self._pages) >= PAGES or self._closed:
            raise Full
        if self._leaving is not None:
            self._leaving.cancel()
        self._watched(True)
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._pages.add(queue)
        try:
            yield queue
        finally:
            self._pages.discard(queue)
            if not self._pages:
                self.linger()

    def linger(self) -> None:
        """Nobody watches: soon the log is not looked at any more."""
        self._leaving = self._loop.call_later(LINGER_S, self._watched, False)

    def tell(self, name: str, data: Any) -> None:
        """Send an event to every page; from any thread."""
        text = message(name, data)
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._put, text)

    def close(self) -> None:
        """Hang up on every page."""
        self._closed = True
        if self._leaving is not None:
            self._leaving.cancel()
        for queue in self._pages:
            queue.put_nowait(None)

    def _put(self, text: bytes) -> None:
        for queue in self._pages:
            if queue.qsize() < WAITING:
                queue.put_nowait(text)
            elif queue.qsize() == WAITING:
                queue.put_nowait(None)


def message(name: str, data: Any) -> bytes:
    """A server-sent event; its data as one line of JSON.

    >>> message("x", {"n": float("nan")})
    b'event: x\\ndata: {"n":"nan"}\\n\\n'
    """
    return f"event: {name}\ndata: {as_json(data)}\n\n".encode()


def as_json(data: Any) -> str:
    """JSON that every browser takes: numbers that it does not have are text."""
    return json.dumps(plain(data), separators=(",", ":"), allow_nan=False, default=str)

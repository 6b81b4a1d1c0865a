"""What librdkafka calls us back with, in ways that let go of whom it calls.

A client keeps its callbacks, so one that is a method of the client's owner closes a circle, and both live until
Python's full collection comes by. In a process with much in memory that is hardly ever, and each client holds one of
the 1,024 keys of thread storage that a process has. With `Heard` and `weakly` a client ends with its owner.
"""

from __future__ import annotations

import copy
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaError

KEPT = 16


class Heard:
    """The latest errors, as `error_cb`. It refers to nobody."""

    def __init__(self) -> None:
        self.errors: deque[KafkaError] = deque(maxlen=KEPT)

    def __call__(self, error: KafkaError) -> None:
        """Keep an error; "all brokers are down" says that, not why, and is kept only as long as nothing better is."""
        if error.code() != KafkaError._ALL_BROKERS_DOWN or not self.errors:
            self.errors.append(error)

    def why(self, otherwise: str = "") -> str:
        """The latest reason, in librdkafka's words."""
        named = (e.str() for e in reversed(self.errors) if e.code() != KafkaError._ALL_BROKERS_DOWN)
        return next(named, self.errors[-1].str() if self.errors else otherwise)

    def clear(self) -> None:
        """Forget them: the broker answered."""
        self.errors.clear()


def result_of(answer: Future[Any], timeout_s: float) -> Any:
    """What an `AdminClient` found, or the failure that it keeps, as one of its own.

    Raised itself, the failure would refer to the frames that it passed, one of which has the future that keeps it.

    Raises:
        KafkaException: no answer, or a refusal.
        TimeoutError: no answer in time.
    """
    failed = answer.exception(timeout_s)
    if failed is not None:
        raise copy.copy(failed)
    return answer.result()


def weakly(method: Callable[..., None]) -> Callable[..., None]:
    """A callback that calls a bound method as long as its object lives, and does not keep it alive."""
    found = weakref.WeakMethod(method)

    def call(*args: Any) -> None:
        if (alive := found()) is not None:
            alive(*args)

    return call

"""Fast path and judge together: what the generated function gives, and where it gives up, what the closures say.

The function is generated when its schema is first used, which takes some milliseconds; a program that never meets a
topic never pays for it. One that must not stop for so long in the midst of its work has it generated before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from schemas.fast_source import Unsupported

A = TypeVar("A")
B = TypeVar("B")
R = TypeVar("R")


def tried(make: Callable[[], Callable[[A, B], R]], judge: Callable[[A, B], R],
          ) -> tuple[Callable[[A, B], R], Callable[[], None]]:
    """Reads the one value that fills data[at:], or gives `begin` and a record's bytes behind it, as the judge does.

    Args:
        make: makes the fast path; `Unsupported` from it means that there is none.
        judge: decides wherever the fast path raises anything; what it raises is raised.

    Returns:
        The function, and one that makes its fast path now, if there is one and it is not made yet.
    """
    fast: Callable[[A, B], R] = _unmade

    def run(one: A, other: B) -> R:
        nonlocal fast
        try:
            return fast(one, other)
        except Exception:
            prepare()
        return judge(one, other)

    def prepare() -> None:
        nonlocal fast
        if fast is _unmade:
            fast = _made(make)

    return run, prepare


def _made(make: Callable[[], Any]) -> Any:
    try:
        return make()
    except Unsupported:
        return _never


def _unmade(*_: Any) -> Any:
    raise Unsupported("not made yet")


def _never(*_: Any) -> Any:
    raise Unsupported("there is no fast path")

"""What cheats share: a step, and outputs changed on their way out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agents.contract import Output
from schemas.events import Event

Step = tuple[Any, tuple[Output, ...]]


def changed(outputs: tuple[Output, ...], kind: type, change: Callable[[Any], Event | None]) -> tuple[Output, ...]:
    """Outputs with every event of a kind changed, or left out where the change gives None."""
    made = [(o, change(o.event) if isinstance(o.event, kind) else o.event) for o in outputs]
    return tuple(o._replace(event=e) for o, e in made if e is not None)

"""An Apache Kafka to measure on: one of its own that goes with the run, or one that is there already."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from streams import broker as embedded
from streams import topics
from streams.settings import Settings


class Place(NamedTuple):
    """Where a benchmark runs. `pid`: of the broker, None where it is somebody else's."""

    settings: Settings
    folder: Path
    pid: int | None


@contextmanager
def place(broker: str | None, **settings: Any) -> Iterator[Place]:
    """The catalogue's topics, empty, and a folder for as long as the block lasts.

    Args:
        broker: HOST:PORT to use instead of an embedded one; the topics get a prefix of their own and stay there.
        settings: further fields of `Settings`.
    """
    with tempfile.TemporaryDirectory(prefix="quantum-bench-") as name, ExitStack() as stack:
        folder, pid = Path(name), None
        here = Settings(data_dir=folder, **settings)
        if broker is None:
            stack.callback(embedded.down, here, ephemeral_dir=folder)
            running = embedded.up(here, ephemeral_dir=folder)
            here, pid = here.replace(broker=running.address), running.pid
        else:
            own = f"b{uuid.uuid4().hex[:8]}"
            here = here.replace(broker=broker, topic_prefix=f"{own}.", app_id=own)
        topics.apply(here)
        yield Place(here, folder, pid)

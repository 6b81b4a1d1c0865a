"""Alerts on `system.health.alert` that stand: what nobody has said to be over."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from schemas.codec import Codec
from schemas.events import HealthAlert
from streams.log import Record
from streams.records import readable

TOPIC = "system.health.alert"


class Standing(NamedTuple):
    """An alert that stands, with the record that says it."""

    alert: HealthAlert
    record: Record

    @property
    def text(self) -> str:
        """One line: component, status, reason and place."""
        return f"{self.alert.component} {self.alert.status}: {self.alert.reason}  [{self.record.place}]"


def unresolved(codec: Codec, records: Iterable[Record]) -> list[Standing]:
    """The alerts that stand: the newest of each component, where it is not HEALTHY.

    Only the component itself ends its alert. What cannot be decoded is no alert.

    Args:
        codec: Avro codec.
        records: of `system.health.alert`, in order.
    """
    newest: dict[str, Standing] = {}
    for record, event in readable(codec, TOPIC, records):
        if isinstance(event, HealthAlert):
            newest.pop(event.component, None)
            newest[event.component] = Standing(event, record)
    return [found for found in newest.values() if found.alert.status != "HEALTHY"]

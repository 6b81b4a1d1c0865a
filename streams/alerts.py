"""Alerts of a host on `system.health.alert`: CRITICAL when it cannot go on, DEGRADED for damage that is repaired,
HEALTHY when that is over.

An alert is about a component and stands until the same component is HEALTHY, whoever says so: `<agent>` for the agent
in this group, `<agent>-<partition>` for its state there, `<agent>:<topic>-<partition>` for a source. They have a
producer of their own: the process's may be the very thing that died, and must not wait. Nothing here blocks but
`deliver` and `recovered`; all may be called from any thread.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import confluent_kafka as ck

from schemas.codec import Codec
from schemas.events import Health, HealthAlert
from streams.log import LogReader, NoBroker, NoTopic
from streams.records import encode_event
from streams.settings import Settings
from streams.transport.timeouts import ALERT_S
from streams.unresolved import TOPIC, unresolved

log = logging.getLogger(__name__)
MAX_TEXT = 512  # of the schema's strings
_silent = logging.Logger("quantum.alerts")
_silent.addHandler(logging.NullHandler())


class Alerts:
    """The alerts of one agent's host.

    Args:
        settings: broker and names.
        agent: whose host writes.
        now_ms: the wall clock, milliseconds; a host is live.
        codec: Avro codec; None: one that knows no registry.
    """

    def __init__(self, settings: Settings, agent: str, now_ms: Callable[[], int] = lambda: int(time.time() * 1000),
                 codec: Codec | None = None) -> None:
        self._settings = settings
        self._agent = agent
        self._now_ms = now_ms
        self._codec = codec or Codec()
        self._lock = threading.Lock()
        self._producer: ck.Producer | None = None
        self._last: dict[str, tuple[Health, str]] = {}

    @property
    def said(self) -> bool:
        """Whether this host has said anything."""
        return self._producer is not None

    def critical(self, component: str, reason: str) -> None:
        """The host cannot go on."""
        self._say(component, "CRITICAL", reason)

    def degraded(self, component: str, reason: str) -> None:
        """There is damage; it is being repaired."""
        self._say(component, "DEGRADED", reason)

    def healthy(self, component: str, reason: str) -> None:
        """What this host said of the component is over; nothing is written where it said nothing."""
        if self._last.get(component, ("HEALTHY", ""))[0] != "HEALTHY":
            self._say(component, "HEALTHY", reason)

    def _say(self, component: str, status: Health, reason: str) -> None:
        with self._lock:
            if self._last.get(component) == (status, reason):
                return  # it stands
            self._last[component] = (status, reason)
            alert = HealthAlert(component=component[:MAX_TEXT], ts_ms=self._now_ms(), status=status,
                                reason=shortened(reason), writer=f"host:{self._agent}"[:MAX_TEXT])
            what = hashlib.sha256(f"{status} {reason}".encode()).hexdigest()[:12]
            row = encode_event(self._codec, TOPIC, alert, f"alert:{alert.component}:{alert.ts_ms}:{what}",
                               alert.writer)
            if self._producer is None:
                self._producer = ck.Producer({
                    **self._settings.producer(),
                    "message.timeout.ms": 0,  # a broker that is away is waited for: `deliver` has the limit
                    "topic.metadata.propagation.max.ms": 1000,  # a missing topic is told at once
                }, logger=_silent)
            self._producer.produce(self._settings.topic(row.topic), row.value, row.key, headers=list(row.headers),
                                   on_delivery=_delivered)
            self._producer.poll(0)

    def deliver(self, timeout_s: float) -> bool:
        """Wait until every alert is acknowledged; whether they all were in time."""
        left = 0 if self._producer is None else self._producer.flush(timeout_s)
        if left:
            log.error("%d alerts of %s were not acknowledged within %.0f s and are not on %s", left, self._agent,
                      timeout_s, self._settings.topic(TOPIC))
        return not left

    def recovered(self, mine: Callable[[str], bool], reason: str) -> list[str]:
        """Say HEALTHY of every component whose alert stands, also of another process; returns which.

        Args:
            mine: whether a component is well now, by its name.
            reason: what was seen.
        """
        try:
            with LogReader(self._settings, ALERT_S, logger=_silent) as reader:  # a stop waits no longer for it
                standing = unresolved(self._codec, reader.read(TOPIC))
        except (NoBroker, NoTopic, ck.KafkaException) as exc:
            log.warning("%s cannot be read, so that no alert of %s is taken back: %s", TOPIC, self._agent, exc)
            return []
        over = [found.alert.component for found in standing if mine(found.alert.component)]
        for component in over:
            self._last.pop(component, None)  # another process may have said more since this one did
            self._say(component, "HEALTHY", reason)
        return over


def shortened(reason: str) -> str:
    """A reason that fits the schema: its middle is left out, since it begins with the place and ends with what to do.

    >>> len(shortened("x" * 1000)), shortened("all")
    (512, 'all')
    """
    if len(reason) <= MAX_TEXT:
        return reason or "no reason was given"
    half = (MAX_TEXT - 5) // 2
    return f"{reason[: MAX_TEXT - 5 - half]} ... {reason[-half:]}"


def _delivered(error: ck.KafkaError | None, message: Any) -> None:
    if error is not None:
        log.error("an alert (%s) is not on %s: %s", message.key(), message.topic(), error.str(),
                  extra={"topic": message.topic(), "partition": message.partition()})

"""What a worker looks at every few seconds: does the broker answer, and are the topics still those it began on?

A broker that is away is said once, with the reason, and once more when it is back, with how long it was gone; it is
waited for. A topic that was deleted, or made anew, and another cluster end the hosts that need it: librdkafka may go on
for a minute without a word, or read what is none of theirs.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import confluent_kafka as ck

from streams.host import AgentHost
from streams.samelog import Cluster, NoAnswer, Seen, missing
from streams.transport.timeouts import MISSING_S, WATCH_S

log = logging.getLogger(__name__)


class Watch:
    """Looks for all hosts of a worker.

    Args:
        address: the broker's, for people.
        client: librdkafka client configuration.
        hosts: those that end when their log is no longer theirs.
    """

    def __init__(self, address: str, client: Mapping[str, str | int], hosts: Sequence[AgentHost]) -> None:
        self._address = address
        self._hosts = hosts
        self._names = frozenset().union(*(host.log.topics for host in hosts))
        self._cluster = Cluster(client)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="watch")  # the default's may all wait for the broker
        self._gone_since: float | None = None
        self._missing_since: dict[str, float] = {}

    async def run(self) -> None:
        """Look until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            began = time.monotonic()
            try:
                seen = await loop.run_in_executor(self._thread, self._cluster.once, self._names)
            except NoAnswer as exc:
                self._gone(began, exc)
            except ck.KafkaException as exc:
                log.warning("%s refuses to say which topics it has: %s", self._address, exc.args[0].str())
            else:
                self._back()
                self._judge(seen)
            await asyncio.sleep(WATCH_S)

    def _gone(self, began: float, why: NoAnswer) -> None:
        if self._gone_since is None:
            self._gone_since = began
            log.warning("the broker %s does not answer (%s); it is waited for, nothing is lost meanwhile",
                        self._address, why)

    def _back(self) -> None:
        if self._gone_since is not None:
            log.warning("the broker %s answers again, after %.0f s", self._address,
                        time.monotonic() - self._gone_since)
            self._gone_since = None

    def _judge(self, seen: Seen) -> None:
        now = time.monotonic()
        self._missing_since = {name: self._missing_since.get(name, now) for name in seen.missing}
        gone = {name for name, since in self._missing_since.items() if now - since >= MISSING_S}
        for host in self._hosts:
            if host.app.failed.is_set():
                continue
            lost = host.log.changed(seen)
            if lost is None and gone & host.log.topics:
                lost = missing(gone & host.log.topics)
            if lost is not None:
                host.fail(lost)

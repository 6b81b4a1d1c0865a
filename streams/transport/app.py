"""The Faust app of an agent on this transport."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, cast

import faust
from faust.transport.base import Transport
from yarl import URL

from streams.transport.assign import NoTables, Owner
from streams.transport.consume import DriverConsumer
from streams.transport.poll import PollThread
from streams.transport.produce import DriverProducer
from streams.transport.timeouts import DRAIN_S


class BatchSchema(faust.Schema):
    """Values are batches already: nothing is decoded on the way to the agent."""

    def compile(self, app: Any, **kwargs: Any) -> Any:
        """A decoder that passes the message on."""
        async def decode(message: Any, **_: Any) -> Any:
            return app.create_event(None, message.value, None, message)

        return decode


class DriverTransport(Transport):
    """Transport of librdkafka consumers and producers."""

    Consumer = DriverConsumer
    Producer = DriverProducer
    driver_version = "confluent-kafka"


class BatchApp(faust.App):
    """A Faust app whose agents see micro-batches.

    Args:
        group: consumer group, and the app's id.
        consumer: librdkafka client configuration of the consumer.
        producer: librdkafka configuration of the process's producer.
        owner: takes partitions up and lets them go.
        columns: the one topic that is read, if its records are wanted packed where they can be; see `transport.raw`.
        drain_timeout_s: longest time in which partitions are let go, and in which the app stops.
    """

    def __init__(self, group: str, *, consumer: Mapping[str, str | int], producer: Mapping[str, str | int],
                 owner: Owner, drain_timeout_s: float = DRAIN_S, columns: str | None = None) -> None:
        self.consumer_config = {**consumer, "group.id": group}
        self.producer_config = dict(producer)
        self.owner = owner
        self.columns = columns
        self.drain_timeout_s = drain_timeout_s
        self.failed = asyncio.Event()
        self._deadline: float | None = None
        super().__init__(
            group, broker="kafka://unused", store=URL("memory://"), web_enabled=False, topic_disable_leader=True,
            topic_allow_declare=False, TableManager=NoTables, broker_request_timeout=3600, broker_session_timeout=600,
            broker_commit_interval=3600, autodiscover=False,
        )

    def batches(self, *topics: str) -> Any:
        """A Faust topic whose stream yields batches of these topics."""
        return self.topic(*topics, schema=BatchSchema(key_serializer="raw", value_serializer="raw"), acks=False)

    def drain_left_s(self) -> float:
        """How long a drain may take from now; while the app stops, all its parts share one deadline."""
        if not self.should_stop:
            return self.drain_timeout_s
        now = time.monotonic()
        if self._deadline is None:
            self._deadline = now + self.drain_timeout_s
        return max(0.05, self._deadline - now)

    @property
    def sender(self) -> DriverProducer:
        """The producer, by its own type."""
        return cast(DriverProducer, self.producer)

    @property
    def poll_thread(self) -> PollThread | None:
        """The consumer's thread, once started."""
        return cast(DriverConsumer, self.consumer).thread

    async def on_first_start(self) -> None:
        """Faust would make directories for tables here; there are none."""

    def _new_transport(self) -> DriverTransport:
        return DriverTransport(self.conf.broker_consumer, self)

    def _new_producer_transport(self) -> DriverTransport:
        return DriverTransport(self.conf.broker_producer, self)

    def _crash(self, reason: BaseException) -> None:
        super()._crash(reason)
        if not self.failed.is_set():
            self.failed.set()
            self.owner.went_down(reason)

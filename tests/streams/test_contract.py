"""What the transport relies on inside of faust-streaming, mode and confluent-kafka, held down one by one.

An upgrade that changes any of it fails here and names the place, before it loses a record somewhere else.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from importlib import metadata
from typing import Any

import confluent_kafka as ck
import faust
import pytest
from faust.app.base import App
from faust.assignor.leader_assignor import LeaderAssignor
from faust.assignor.partition_assignor import PartitionAssignor
from faust.tables.manager import TableManager
from faust.tables.recovery import Recovery
from faust.topics import Topic
from faust.transport.base import Transport
from faust.transport.conductor import Conductor
from faust.transport.consumer import Consumer, Fetcher
from faust.transport.producer import Producer
from faust.types import TP
from faust.types.tuples import ConsumerMessage
from mode import Service
from mode.utils.queues import FlowControlEvent

from streams.transport.app import BatchApp, DriverTransport
from streams.transport.assign import NoTables
from streams.transport.consume import DriverConsumer
from streams.transport.poll import FetchFailed
from streams.transport.produce import DriverProducer


class Nobody:
    """An owner that is never asked."""

    async def take_up(self, tps: set[TP], committed: Any) -> dict[TP, int]:
        return {}

    async def let_go(self) -> None:
        return

    async def explained(self, failed: FetchFailed) -> BaseException | None:
        return failed

    def went_down(self, reason: BaseException) -> None:
        return


def _app() -> BatchApp:
    return BatchApp("contract", consumer={"bootstrap.servers": "127.0.0.1:1"},
                    producer={"bootstrap.servers": "127.0.0.1:1"}, owner=Nobody())


def test_versions_are_the_ones_this_was_written_against() -> None:
    assert metadata.version("faust-streaming") == "0.15.3", "read every test here before raising the pin"
    assert metadata.version("confluent-kafka").startswith("2.16."), "read every test here before raising the pin"


SIGNATURES: list[tuple[Any, list[str]]] = [
    (Transport.create_consumer, ["self", "callback", "kwargs"]),
    (Transport.create_producer, ["self", "kwargs"]),
    (App._new_transport, ["self"]),
    (App._new_producer_transport, ["self"]),
    (App._on_partitions_assigned, ["self", "assigned", "generation_id"]),
    (App._on_partitions_revoked, ["self", "revoked"]),
    (App._stop_consumer, ["self"]),
    (App._consumer_wait_empty, ["self", "consumer", "logger"]),
    (App.on_rebalance_start, ["self"]),
    (App.on_first_start, ["self"]),
    (App.create_event, ["self", "key", "value", "headers", "message"]),
    (Consumer.on_partitions_assigned, ["self", "assigned", "generation_id"]),
    (Consumer.on_partitions_revoked, ["self", "revoked"]),
    (Consumer.perform_seek, ["self"]),
    (Consumer.wait_empty, ["self"]),
    (Consumer.stop_flow, ["self"]),
    (Consumer.resume_flow, ["self"]),
    (Consumer.commit, ["self", "topics", "start_new_transaction"]),
    (Consumer._commit, ["self", "offsets"]),
    (Consumer._drain_messages, ["self", "fetcher"]),
    (Consumer._get_active_partitions, ["self"]),
    (Consumer.on_buffer_full, ["self", "tp"]),
    (Consumer.on_buffer_drop, ["self", "tp"]),
    (Consumer.verify_event_path, ["self", "now", "tp"]),
    (Producer.send, ["self", "topic", "key", "value", "partition", "timestamp", "headers", "transactional_id"]),
    (Producer.flush, ["self"]),
    (TableManager._update_channels, ["self"]),
    (Recovery._resume_streams, ["self", "generation_id"]),
    (Service._crash, ["self", "reason"]),
    (Service.crash, ["self", "reason"]),
    (FlowControlEvent.resume, ["self"]),
]


@pytest.mark.parametrize(("function", "parameters"), SIGNATURES, ids=lambda x: getattr(x, "__qualname__", ""))
def test_signature(function: Any, parameters: list[str]) -> None:
    assert list(inspect.signature(function).parameters) == parameters, f"{function.__qualname__} takes something else"


OVERRIDDEN = {
    DriverConsumer: Consumer, DriverProducer: Producer, NoTables: TableManager, BatchApp: App,
    DriverTransport: Transport,
}
OURS = {
    "arrived", "cut", "group_assigned", "group_revoked", "commit_failed", "fail", "send_rows", "batches",
    "drain_left_s",
    "_deliver", "_end", "_forget", "_post", "_settle", "_took", "__init__", "__module__", "__doc__",
    "__abstractmethods__", "_abc_impl", "thread", "logger",
}


@pytest.mark.parametrize("ours", OVERRIDDEN, ids=lambda c: c.__name__)
def test_what_is_overridden_exists_above(ours: type) -> None:
    above = OVERRIDDEN[ours]
    for name, value in vars(ours).items():
        if callable(value) and name not in OURS and not name.startswith("__"):
            assert hasattr(above, name), f"{above.__module__}.{above.__name__}.{name} is gone: who calls ours now?"


def _order(function: Any, *parts: str) -> None:
    source = inspect.getsource(function)
    places = [source.find(part) for part in parts]
    assert -1 not in places, f"{function.__qualname__} lacks {parts[places.index(-1)]!r}"
    assert places == sorted(places), f"{function.__qualname__} has another order than {parts}"


def test_a_rebalance_ends_with_seek_then_clear_then_resume() -> None:
    _order(Recovery._resume_streams, "consumer.perform_seek()", "app.flow_control.resume()", "consumer.resume_flow()",
           "_fetcher.maybe_start()", "app.on_rebalance_end()")


def test_without_tables_recovery_resumes_streams_at_once() -> None:
    _order(Recovery._restart_recovery.__wrapped__ if hasattr(Recovery._restart_recovery, "__wrapped__")
           else Recovery._restart_recovery.fun, "if not self.tables", "_resume_streams", "continue")


def test_a_revocation_stops_the_flow_then_waits_for_the_streams() -> None:
    _order(App._on_partitions_revoked, "T(consumer.stop_flow)", "T(self.flow_control.suspend)",
           "T(self.flow_control.clear)", "T(self._consumer_wait_empty)")
    _order(App._stop_consumer, "consumer.stop_flow()", "self.flow_control.clear()", "_consumer_wait_empty")
    _order(App._consumer_wait_empty, "stream_wait_empty", "consumer.wait_empty()")


def test_the_fetcher_runs_our_loop() -> None:
    _order(Fetcher._fetcher.fun if hasattr(Fetcher._fetcher, "fun") else Fetcher._fetcher.__wrapped__,
           "consumer._drain_messages(self)")


def test_the_conductor_keeps_its_index() -> None:
    app = _app()
    assert isinstance(app.topics, Conductor)
    assert app.topics._tp_index[TP("x", 0)] == set(), "channels by topic-partition, empty by default"
    _order(Conductor._update_tp_index, "tp_index[tp].add(topic)")


def test_the_settings_do_what_we_say() -> None:
    conf = _app().conf
    assert conf.id == "contract", "the consumer group is the app's id"
    assert conf.stream_wait_empty, "wait_empty() is called before a revocation"
    assert conf.stream_recovery_delay == 0
    assert not conf.web_enabled
    assert not conf.topic_allow_declare
    assert "if not self.app.conf.topic_disable_leader" in inspect.getsource(LeaderAssignor.on_start)
    assert PartitionAssignor(_app()).assigned_actives() == set(), "no tables, nothing assigned to recover"


def test_a_topic_takes_our_schema_and_needs_no_acks() -> None:
    topic = _app().batches("a", "b")
    assert isinstance(topic, Topic)
    assert list(topic.topics) == ["a", "b"]
    assert not topic.acks
    assert "channel.acks" in inspect.getsource(Conductor._update_indices)


def test_a_message_takes_what_we_give() -> None:
    tp = TP("x", 1)
    message = ConsumerMessage("x", 1, -1, 0.0, 0, [], None, object(), None, 0, 0, tp, generation_id=3)
    assert (message.tp, message.generation_id, message.refcount) == (tp, 3, 0)


def test_streams_skip_messages_of_another_generation() -> None:
    from faust import streams

    assert "message.generation_id != self.app.consumer_generation_id" in inspect.getsource(streams), \
        "a token of before a rebalance must not reach the agent"
    assert hasattr(faust.App, "consumer_generation_id") or "consumer_generation_id" in inspect.getsource(App)


def test_a_token_reaches_the_agent_through_faust() -> None:
    async def run() -> list[Any]:
        app, seen = _app(), []

        @app.agent(app.batches("x"))
        async def taker(stream: Any) -> None:
            async for batch in stream:
                seen.append(batch)

        app.consumer_generation_id = 1
        app.flow_control.resume()
        agent = next(iter(app.agents.values()))
        await agent.start()
        for _ in range(20):
            await asyncio.sleep(0)
        tp, token = TP("x", 0), object()
        message = ConsumerMessage("x", 0, -1, 0.0, 0, [], None, token, None, 0, 0, tp, generation_id=1)
        for topic in list(app.topics):
            topic.queue.put_nowait(app.create_event(None, token, None, message))
        for _ in range(50):
            await asyncio.sleep(0.002)
        await agent.stop()
        return [seen, [token]]

    seen, sent = asyncio.run(run())
    assert seen == sent


def test_a_crash_of_a_part_is_a_crash_of_the_app() -> None:
    async def run() -> bool:
        app = _app()
        await app.consumer.crash(RuntimeError("part"))
        return app.failed.is_set() and isinstance(app.crash_reason, RuntimeError)

    assert asyncio.run(run())


# ---------------------------------------------------------------------- confluent-kafka
def test_consume_with_no_time_takes_what_is_there() -> None:
    consumer = ck.Consumer({"bootstrap.servers": "127.0.0.1:1", "group.id": "x"})
    consumer.subscribe(["x"])
    began = time.monotonic()
    assert consumer.consume(1000, 0) == []
    assert time.monotonic() - began < 0.5, "consume(n, 0) must not wait"
    consumer.close()


def test_produce_takes_its_arguments_by_place() -> None:
    reports: list[Any] = []
    producer = ck.Producer({"bootstrap.servers": "127.0.0.1:1", "message.timeout.ms": 50})
    producer.produce("topic", b"value", b"key", 3, lambda error, message: reports.append((error, message)),
                     headers=[("a", b"1"), ("a", b"2")])
    producer.flush(10)
    ((error, message),) = reports
    assert error.code() == ck.KafkaError._MSG_TIMED_OUT
    assert (message.topic(), message.partition(), message.key(), message.value()) == ("topic", 3, b"key", b"value")


def test_a_full_producer_says_so_at_once() -> None:
    producer = ck.Producer({"bootstrap.servers": "127.0.0.1:1", "queue.buffering.max.messages": 2,
                            "message.timeout.ms": 50})
    producer.produce("topic", b"value")
    producer.produce("topic", b"value")
    with pytest.raises(BufferError):
        producer.produce("topic", b"value")
    producer.flush(10)


def test_too_large_is_an_exception_of_produce() -> None:
    producer = ck.Producer({"bootstrap.servers": "127.0.0.1:1", "message.max.bytes": 1000})
    with pytest.raises(ck.KafkaException) as caught:
        producer.produce("topic", bytes(2000))
    assert caught.value.args[0].code() == ck.KafkaError.MSG_SIZE_TOO_LARGE


@pytest.mark.parametrize("option", [
    {"enable.gapless.guarantee": True, "enable.idempotence": True}, {"message.timeout.ms": 0},
    {"partitioner": "murmur2_random"}, {"sticky.partitioning.linger.ms": 0},
])
def test_the_producer_knows(option: dict[str, Any]) -> None:
    ck.Producer({"bootstrap.servers": "127.0.0.1:1", **option})


@pytest.mark.parametrize("option", [
    {"fetch.queue.backoff.ms": 5}, {"auto.offset.reset": "error"}, {"enable.partition.eof": True},
    {"enable.auto.offset.store": False}, {"partition.assignment.strategy": "range"},
])
def test_the_consumer_knows(option: dict[str, Any]) -> None:
    ck.Consumer({"bootstrap.servers": "127.0.0.1:1", "group.id": "x", **option}).close()


@pytest.mark.parametrize("name", [
    "ILLEGAL_GENERATION", "UNKNOWN_MEMBER_ID", "REBALANCE_IN_PROGRESS", "_STATE", "FENCED_INSTANCE_ID", "_NO_OFFSET",
    "_ASSIGNMENT_LOST", "_TRANSPORT", "_ALL_BROKERS_DOWN", "_TIMED_OUT", "_RESOLVE", "_PARTITION_EOF",
    "_MAX_POLL_EXCEEDED", "_WAIT_COORD", "_IN_PROGRESS", "MSG_SIZE_TOO_LARGE", "_MSG_TIMED_OUT",
])
def test_error_codes_exist(name: str) -> None:
    assert isinstance(getattr(ck.KafkaError, name), int)


def test_calls_from_other_threads_are_why_there_is_one_thread() -> None:
    """poll() lets go of Python's lock while it waits."""
    consumer = ck.Consumer({"bootstrap.servers": "127.0.0.1:1", "group.id": "x"})
    consumer.subscribe(["x"])
    thread = threading.Thread(target=consumer.poll, args=(0.5,))
    thread.start()
    turns, until = 0, time.monotonic() + 0.3
    while time.monotonic() < until:
        turns += 1
    thread.join()
    consumer.close()
    assert turns > 1000, "poll() held Python's lock"

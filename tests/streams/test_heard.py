"""Clients end with their owners, and say the reason of a failure rather than its sum."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import Future
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, KafkaException

from streams.heard import Heard, result_of, weakly
from streams.log import LogReader, NoBroker
from streams.samelog import Cluster, NoAnswer
from streams.settings import Settings
from streams.transport.produce import SharedProducer

NOBODY = {"bootstrap.servers": "127.0.0.1:1"}


def test_the_reason_is_told_and_not_that_all_brokers_are_down() -> None:
    heard = Heard()
    assert heard.why("nothing") == "nothing"
    heard(KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"))
    assert heard.why() == "1/1 brokers are down"
    heard(KafkaError(KafkaError._AUTHENTICATION, "Authentication failed"))
    heard(KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"))
    assert heard.why() == "Authentication failed"
    heard.clear()
    assert heard.why("nothing") == "nothing"


def test_a_weak_callback_calls_as_long_as_its_object_lives() -> None:
    class Owner:
        def take(self, error: int) -> None:
            taken.append(error)

    taken: list[int] = []
    owner = Owner()
    call = weakly(owner.take)
    call(1)
    del owner
    call(2)
    assert taken == [1]


def test_a_refusal_does_not_keep_whoever_asked() -> None:
    """A future keeps its failure, whose traceback would keep the frame that has the future."""
    class Asker:
        def ask(self) -> None:
            answer: Future[object] = Future()
            answer.set_exception(KafkaException(KafkaError(KafkaError._TRANSPORT, "gone")))
            result_of(answer, 0)

    gc.disable()
    try:
        asker = Asker()
        gone = weakref.ref(asker)
        with pytest.raises(KafkaException, match="gone"):
            asker.ask()
        del asker
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("kind", ["reader", "cluster", "producer"])
def test_who_is_done_with_a_client_has_no_need_of_the_collector(kind: str, tmp_path: Path) -> None:
    """Thousands of them in one process had used up its keys of thread storage before the collector came by."""
    gc.collect()
    gc.disable()
    try:
        if kind == "reader":
            reader = LogReader(Settings(broker="127.0.0.1:1", data_dir=tmp_path), timeout_s=0.2)
            gone = weakref.ref(reader)
            with reader, pytest.raises(NoBroker):
                reader.topics()
            del reader
        elif kind == "cluster":
            cluster = Cluster(NOBODY)
            gone = weakref.ref(cluster)  # type: ignore[assignment]
            with pytest.raises(NoAnswer):
                cluster.once(["some"])
            del cluster
        else:
            shared = SharedProducer.acquire({**NOBODY, "enable.idempotence": "true"})
            gone = weakref.ref(shared)  # type: ignore[assignment]
            thread = shared._thread
            shared.release()
            del shared
            thread.join()
        assert gone() is None
    finally:
        gc.enable()

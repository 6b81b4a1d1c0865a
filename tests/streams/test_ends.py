"""Clients that live longer than a broker: after a SIGKILL it leads its partitions under a new epoch."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, OffsetSpec

from streams import broker as embedded
from streams import topics
from streams.ends import offsets
from streams.ingest.lead import Lead
from streams.log import LogReader
from streams.settings import Settings
from streams.transport.logs import LIBRDKAFKA
from tests.patience import PATIENCE_S

TOPIC = "market.candles"


def sooner_or_later(question: Callable[[], Any]) -> Any:
    """The answer of a broker that has just come back, asked until it gives one."""
    give_up = time.monotonic() + PATIENCE_S
    while True:
        try:
            return question()
        except KafkaException:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.2)


def test_offsets_are_answered_after_a_kill_of_the_broker(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    try:
        running = embedded.up(settings, ephemeral_dir=tmp_path)
    except (embedded.NoJava, embedded.FetchFailed) as exc:
        pytest.skip(f"no embedded broker: {str(exc).splitlines()[0]}")
    settings = settings.replace(broker=running.address)
    try:
        topics.apply(settings)
        admin = AdminClient(dict(settings.client()), logger=LIBRDKAFKA)
        with LogReader(settings) as log, Lead(settings, 1) as lead:
            assert log.bounds(TOPIC, 0) == (0, 0)
            assert offsets(admin, [(TOPIC, 0)], OffsetSpec.latest()) == {(TOPIC, 0): 0}
            assert not any(lead._measure().values())
            killed = psutil.Process(running.pid)
            killed.kill()
            killed.wait(PATIENCE_S)
            assert embedded.up(settings, ephemeral_dir=tmp_path).address == running.address
            assert log.bounds(TOPIC, 0) == (0, 0)
            assert sooner_or_later(lambda: offsets(admin, [(TOPIC, 0)], OffsetSpec.latest())) == {(TOPIC, 0): 0}
            left = sooner_or_later(lead._measure)
            assert not any(left.values()), "ingest would wait for agents that have long come along"
    finally:
        embedded.down(settings, ephemeral_dir=tmp_path)

"""Ends of partitions, asked of a broker that has just started."""

from __future__ import annotations

from typing import Any

import confluent_kafka as ck
import pytest
from faust.types import TP

from streams.transport import recover


class Starting:
    """A consumer whose first question goes wrong in a way that passes."""

    asked = 0
    code = ck.KafkaError._UNKNOWN_PARTITION

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Nothing to connect to."""

    def get_watermark_offsets(self, place: ck.TopicPartition, timeout: float) -> tuple[int, int]:
        Starting.asked += 1
        if Starting.asked == 1:
            raise ck.KafkaException(ck.KafkaError(Starting.code))
        return 3, 7

    def close(self) -> None:
        """Nothing to leave."""


@pytest.mark.parametrize("code", [
    ck.KafkaError._UNKNOWN_PARTITION,  # the broker has just started
    ck.KafkaError._DESTROY_BROKER,  # its connection is being exchanged: seen once in twenty kills of workers and broker
    ck.KafkaError._TIMED_OUT_QUEUE,  # behind a frozen worker that wakes up: seen once in a fault run
])
def test_what_passes_is_asked_again(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recover.ck, "Consumer", Starting)
    monkeypatch.setattr(Starting, "asked", 0)
    monkeypatch.setattr(Starting, "code", code)
    assert recover.watermarks({}, [TP("a", 0)], lambda: False) == {TP("a", 0): (3, 7)}
    assert Starting.asked == 2

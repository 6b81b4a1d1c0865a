"""Ends of partitions, asked of a broker that has just started."""

from __future__ import annotations

from typing import Any

import confluent_kafka as ck
import pytest
from faust.types import TP

from streams.transport import recover


class Starting:
    """A consumer whose broker knows the partition at the second question."""

    asked = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Nothing to connect to."""

    def get_watermark_offsets(self, place: ck.TopicPartition, timeout: float) -> tuple[int, int]:
        Starting.asked += 1
        if Starting.asked == 1:
            raise ck.KafkaException(ck.KafkaError(ck.KafkaError._UNKNOWN_PARTITION))
        return 3, 7

    def close(self) -> None:
        """Nothing to leave."""


def test_a_partition_that_a_starting_broker_does_not_know_yet_is_asked_for_again(
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recover.ck, "Consumer", Starting)
    assert recover.watermarks({}, [TP("a", 0)], lambda: False) == {TP("a", 0): (3, 7)}

"""Over how many partitions the topics are spread that the catalogue keys by symbol; all others have one.

A partition is the unit that a worker takes: an agent can be shared by as many workers as it has partitions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from schemas.catalogue import MARKET_PARTITIONS, Topic
from streams.settings import Settings

ENTRY = "market.candles"


def spread(settings: Settings, there: Mapping[str, int], otherwise: int = MARKET_PARTITIONS) -> int:
    """Partitions of the topics that are spread by symbol: as set, else as `market.candles` has.

    Args:
        there: partitions of the topics on the broker, by their names there.
        otherwise: where neither says anything.
    """
    return settings.partitions or there.get(settings.topic(ENTRY)) or otherwise


def spread_over(topic: Topic, partitions: int) -> Topic:
    """A topic of the catalogue with that many partitions, if it is spread by symbol.

    >>> from schemas.catalogue import TOPICS
    >>> [spread_over(TOPICS[name], 16).partitions for name in ("market.candles", "system.clock")]
    [16, 1]
    """
    return topic if topic.partitions == 1 else replace(topic, partitions=partitions)

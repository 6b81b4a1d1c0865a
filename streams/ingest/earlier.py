"""What an earlier run has published, from the log: so that a run that was killed goes on where it was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from schemas.events import Candle, QUpdated
from schemas.refused import Refused
from streams.log import LogReader
from streams.subjects import codec_for

if TYPE_CHECKING:
    from streams.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """What stands on the log.

    Attributes:
        last_ms: close of the newest candle, by symbol and length of the bar in ms. A producer writes a symbol's candles
            in order, so none before it is missing.
        candles: candles by symbol, each bar once.
        updates: updates of the learner by symbol, each decision once.
    """

    last_ms: Mapping[tuple[str, int], int] = field(default_factory=dict)
    candles: Mapping[str, int] = field(default_factory=dict)
    updates: Mapping[str, int] = field(default_factory=dict)

    def has(self, candle: Candle) -> bool:
        """Whether a candle was published."""
        return candle.ts_ms <= self.last_ms.get((candle.symbol, candle.interval_ms), -1)


NOTHING = Earlier()


def earlier(settings: Settings) -> Earlier:
    """What stands on the log by now.

    Raises:
        NoBroker, NoTopic: it cannot be read.
    """
    codec = codec_for(settings)
    bars: set[tuple[str, int, int]] = set()
    decisions: set[tuple[str, str]] = set()
    with LogReader(settings) as log:
        for topic in ("market.candles", "rl.q_learning.updated"):
            for record in log.read(topic):
                try:
                    event = codec.decode(topic, record.value)
                except Refused:  # somebody else's; the agents have refused it as well
                    continue
                if isinstance(event, Candle):
                    bars.add((event.symbol, event.interval_ms, event.ts_ms))
                elif isinstance(event, QUpdated):
                    decisions.add((event.symbol, event.decision_id))
    last_ms: dict[tuple[str, int], int] = {}
    for symbol, interval_ms, ts_ms in bars:
        last_ms[symbol, interval_ms] = max(ts_ms, last_ms.get((symbol, interval_ms), -1))
    return Earlier(last_ms=last_ms, candles=Counter(symbol for symbol, _, _ in bars),
                   updates=Counter(symbol for symbol, _ in decisions))

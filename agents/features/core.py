"""The agent: which bars are taken, into which windows, and what is published."""

from __future__ import annotations

from agents.algorithms.candles import candle_problem, numbers_digest
from agents.algorithms.lineage import merge_origin
from agents.algorithms.regime import Thresholds
from agents.contract import Agent, Config, Output, Refused, State
from agents.features.bar import Windows, advance, features_of
from schemas.events import Candle, Event, Origin, RegimeChanged
from schemas.events import Features as FeaturesEvent

RECENT = 16  # bars whose repeats are told from conflicts; a producer that retries stays within it
MAX_INTERVALS = 8
DAY_MS = 86_400_000


class FeaturesConfig(Config, frozen=True, kw_only=True):
    """Configuration.

    Attributes:
        max_gap_bars: missing bars up to which windows carry on, whatever the time.
        max_gap_ms: missing time up to which windows carry on, whatever the bars; 4 days: the longest usual weekend.
        volatile_enter, volatile_exit, trend_enter, trend_exit: see `agents.algorithms.regime.Thresholds`.
    """

    max_gap_bars: int = 12
    max_gap_ms: int = 4 * DAY_MS
    volatile_enter: float = Thresholds().volatile_enter
    volatile_exit: float = Thresholds().volatile_exit
    trend_enter: float = Thresholds().trend_enter
    trend_exit: float = Thresholds().trend_exit

    def __post_init__(self) -> None:
        if self.max_gap_bars < 0 or self.max_gap_ms < 0:
            raise ValueError("a gap cannot be negative")
        if not (0 < self.volatile_exit <= self.volatile_enter and 0 <= self.trend_exit <= self.trend_enter):
            raise ValueError("a label must be left at a threshold that is not above the one where it is entered")


class Interval(State, frozen=True, kw_only=True):
    """One interval of a symbol. Recent bars: opening times and digests of their numbers, the newest last."""

    interval_ms: int
    source: str
    origin: Origin
    bar_count: int
    recent_open_ms: tuple[int, ...]
    recent_digests: tuple[bytes, ...]
    windows: Windows


class FeaturesState(State, frozen=True, kw_only=True):
    """State of a symbol: its intervals in the order in which they were first seen."""

    intervals: tuple[Interval, ...] = ()


class Features(Agent[FeaturesState]):
    """Candles to features and regimes. Config: `FeaturesConfig`."""

    name = "features"
    state_type = FeaturesState
    config_type = FeaturesConfig
    config: FeaturesConfig

    def __init__(self, config: Config | None = None) -> None:
        super().__init__(config)
        c = self.config
        self._thresholds = Thresholds(c.volatile_enter, c.volatile_exit, c.trend_enter, c.trend_exit)

    def new(self, scope: str) -> FeaturesState:
        return FeaturesState()

    def step(self, state: FeaturesState, event: Event) -> tuple[FeaturesState, tuple[Output, ...]]:
        if not isinstance(event, Candle):
            raise Refused("UNEXPECTED", f"features takes candles, not {event.SCHEMA_NAME}")
        check(event)
        intervals = state.intervals
        i = index_of(intervals, event.interval_ms)
        if i == MAX_INTERVALS:
            raise Refused("TOO_MANY_INTERVALS", f"{event.symbol} has {MAX_INTERVALS} intervals already")
        interval = intervals[i] if i < len(intervals) else first(event)
        digest = digest_of(event)
        if repeats(interval, event, digest):
            return state, ()
        after, outputs = self._take(interval, event, digest)
        return FeaturesState(intervals=(*intervals[:i], after, *intervals[i + 1:])), outputs

    def _take(self, before: Interval, candle: Candle, digest: bytes) -> tuple[Interval, tuple[Output, ...]]:
        windows = Windows() if self._gap_is_long(before, candle) else before.windows
        origin = merge_origin(before.origin, candle.origin)
        after_windows, values = advance(windows, candle, self._thresholds)
        after = Interval(
            interval_ms=before.interval_ms, source=before.source, origin=origin, bar_count=before.bar_count + 1,
            recent_open_ms=(*before.recent_open_ms[1 - RECENT:], candle.open_time_ms),
            recent_digests=(*before.recent_digests[1 - RECENT:], digest),
            windows=after_windows,
        )
        features = features_of(candle, values, after.bar_count, origin)
        outputs: tuple[Output, ...] = (Output("market.features", features),)
        if features.regime != windows.regime:
            outputs += (Output("market.regime.changed", regime_changed(features, windows)),)
        return after, outputs

    def _gap_is_long(self, interval: Interval, candle: Candle) -> bool:
        if not interval.recent_open_ms:
            return False
        missing_ms = candle.open_time_ms - interval.recent_open_ms[-1] - candle.interval_ms
        c = self.config
        return missing_ms > c.max_gap_ms and missing_ms > c.max_gap_bars * candle.interval_ms


def index_of(intervals: tuple[Interval, ...], interval_ms: int) -> int:
    """Place of an interval among those of the symbol; their number where it is new."""
    for i, interval in enumerate(intervals):
        if interval.interval_ms == interval_ms:
            return i
    return len(intervals)


def first(candle: Candle) -> Interval:
    """An interval before its first bar."""
    return Interval(
        interval_ms=candle.interval_ms, source=candle.source, origin=candle.origin, bar_count=0,
        recent_open_ms=(), recent_digests=(), windows=Windows(),
    )


def check(candle: Candle) -> None:
    """Hold a bar against itself.

    Raises:
        Refused: BAD_CANDLE.
    """
    c = candle
    problem = candle_problem(
        open_ms=c.open_time_ms, ts_ms=c.ts_ms, interval_ms=c.interval_ms, open_=c.open, high=c.high, low=c.low,
        close=c.close, volume=c.volume, taker=c.taker_buy_volume,
    )
    if problem is not None:
        raise Refused("BAD_CANDLE", problem)


def repeats(interval: Interval, candle: Candle, digest: bytes) -> bool:
    """Whether a bar was taken before; False for one that may be taken now.

    Raises:
        Refused: SOURCE_CONFLICT, CONFLICT or LATE.
    """
    if candle.source != interval.source:
        raise Refused("SOURCE_CONFLICT", f"{candle.symbol} at {candle.interval_ms} ms comes from {interval.source}, "
                                         f"this bar from {candle.source}")
    times = interval.recent_open_ms
    if not times or candle.open_time_ms > times[-1]:
        return False
    if candle.open_time_ms not in times:
        raise Refused("LATE", f"bar {candle.open_time_ms} came after bar {times[-1]}")
    if interval.recent_digests[times.index(candle.open_time_ms)] != digest:
        raise Refused("CONFLICT", f"bar {candle.open_time_ms} was taken before with other numbers")
    return True


def digest_of(candle: Candle) -> bytes:
    """8 bytes that tell the numbers of one bar from those of another."""
    c = candle
    return numbers_digest(c.open, c.high, c.low, c.close, c.volume, c.quote_volume, c.trades, c.taker_buy_volume)


def regime_changed(features: FeaturesEvent, before: Windows) -> RegimeChanged:
    """The change of label at a bar. A first label has no previous one and follows 0 bars."""
    f = features
    assert f.regime is not None
    assert f.trend_strength is not None
    assert f.volatility_ratio is not None
    return RegimeChanged(
        symbol=f.symbol, interval_ms=f.interval_ms, ts_ms=f.ts_ms, previous=before.regime, current=f.regime,
        bars_in_previous=before.regime_bars if before.regime is not None else 0,
        trend_strength=f.trend_strength, volatility_ratio=f.volatility_ratio, source=f.source, origin=f.origin,
    )

"""The agent: which trades are taken, into which bars, and when a bar is closed."""

from __future__ import annotations

from msgspec.structs import replace

from agents.algorithms.candles import PRICE_MAX, PRICE_MIN, VOLUME_MAX, WEEK_MS
from agents.algorithms.seen import Seen
from agents.bars.bar import Bar, begun, closed, grown, opening_ms
from agents.bars.many import stepped
from agents.contract import Agent, Batch, Config, Output, Refused, State, Stepped
from schemas.events import Event, MarketTrade

SECOND_MS = 1_000
MAX_LATENESS_MS = 3_600_000


class BarsConfig(Config, frozen=True, kw_only=True):
    """Configuration.

    Attributes:
        interval_ms: length of a bar, 1 s to a week.
        lateness_ms: how long a bar waits behind its end, in event time, for trades that come late: at most an hour.
    """

    interval_ms: int = 60_000
    lateness_ms: int = 2_000

    def __post_init__(self) -> None:
        if not SECOND_MS <= self.interval_ms <= WEEK_MS:
            raise ValueError(f"interval_ms {self.interval_ms} is outside of {SECOND_MS} to {WEEK_MS}")
        if not 0 <= self.lateness_ms <= min(MAX_LATENESS_MS, 100 * self.interval_ms):
            raise ValueError(f"lateness_ms {self.lateness_ms} is outside of 0 to an hour or 100 intervals")


class BarsState(State, frozen=True, kw_only=True):
    """State of a symbol.

    Attributes:
        source: of all its trades; empty before the first.
        begins_ms: opening of the first bar whose trades are all known; earlier trades are left out.
        newest_ms: latest time of a trade.
        closed_ms: end of the newest bar that was closed, or that passed without a trade; 0 before the first.
        seen: numbers of the trades that came.
        bars: those that are not closed, by opening time.
    """

    source: str = ""
    begins_ms: int = 0
    newest_ms: int = 0
    closed_ms: int = 0
    seen: Seen = Seen()
    bars: tuple[Bar, ...] = ()


class Bars(Agent[BarsState]):
    """Trades to closed bars. Config: `BarsConfig`."""

    name = "bars"
    state_type = BarsState
    config_type = BarsConfig
    in_columns = frozenset({"market.trades"})
    config: BarsConfig

    def new(self, scope: str) -> BarsState:
        return BarsState()

    def step(self, state: BarsState, event: Event) -> tuple[BarsState, tuple[Output, ...]]:
        if not isinstance(event, MarketTrade):
            raise Refused("UNEXPECTED", f"bars takes trades, not {event.SCHEMA_NAME}")
        check(event)
        interval_ms = self.config.interval_ms
        open_ms = opening_ms(event.ts_ms, interval_ms)
        if not state.source:
            state = BarsState(source=event.source, begins_ms=open_ms + interval_ms)
        if event.source != state.source:
            raise Refused("SOURCE_CONFLICT", f"trades of {event.symbol} come from {state.source}, this one from "
                                             f"{event.source}")
        if state.seen.has(event.trade_id):
            return state, ()
        check_time(state, event, open_ms)
        bars = state.bars if open_ms < state.begins_ms else taken(state.bars, event, open_ms)
        after = replace(state, seen=state.seen.with_(event.trade_id), bars=bars,
                        newest_ms=max(state.newest_ms, event.ts_ms))
        return self._close(after, event.symbol)

    def step_many(self, batch: Batch[BarsState]) -> Stepped[BarsState] | None:
        return stepped(batch, self.config.interval_ms, self.config.lateness_ms)

    def _close(self, state: BarsState, symbol: str) -> tuple[BarsState, tuple[Output, ...]]:
        """Close what nothing can come to any more."""
        interval_ms = self.config.interval_ms
        until_ms = opening_ms(max(state.newest_ms - self.config.lateness_ms, 0), interval_ms)
        if until_ms <= max(state.closed_ms, state.begins_ms):
            return state, ()
        done = [bar for bar in state.bars if bar.open_time_ms < until_ms]
        outputs = tuple(Output("market.candles", closed(bar, symbol, state.source, interval_ms)) for bar in done)
        return replace(state, closed_ms=until_ms, bars=state.bars[len(done):]), outputs


def taken(bars: tuple[Bar, ...], trade: MarketTrade, open_ms: int) -> tuple[Bar, ...]:
    """Bars with a trade more, in the bar that opens at `open_ms`; a new one where there is none."""
    for i in range(len(bars) - 1, -1, -1):
        if bars[i].open_time_ms == open_ms:
            return (*bars[:i], grown(bars[i], trade), *bars[i + 1:])
        if bars[i].open_time_ms < open_ms:
            return (*bars[:i + 1], begun(open_ms, trade), *bars[i + 1:])
    return (begun(open_ms, trade), *bars)


def check(trade: MarketTrade) -> None:
    """Hold a trade against the sane range.

    Raises:
        Refused: BAD_TRADE.
    """
    if not PRICE_MIN <= trade.price <= PRICE_MAX:
        raise Refused("BAD_TRADE", f"price {trade.price} is outside of {PRICE_MIN} to {PRICE_MAX}")
    if not 0 < trade.quantity <= VOLUME_MAX:
        raise Refused("BAD_TRADE", f"quantity {trade.quantity} is not above 0 and at most {VOLUME_MAX}")


def check_time(state: BarsState, trade: MarketTrade, open_ms: int) -> None:
    """Refuse what comes too late.

    Raises:
        Refused: LATE.
    """
    if trade.trade_id <= state.seen.forgotten:
        raise Refused("LATE", f"trade {trade.trade_id} is too old to be told from a repeat; numbers above "
                              f"{state.seen.forgotten} can be")
    if state.begins_ms <= open_ms < state.closed_ms:
        raise Refused("LATE", f"trade {trade.trade_id} of {trade.ts_ms} came after its bar was closed; closed are "
                              f"all before {state.closed_ms}")

"""What every agent takes, for real: made markets as trades, through the whole roster in memory, tapped at each fold.

The markets of some symbols are run until every agent is at work. From then on each record that a fold takes is kept,
with the states that it meets. Both can be had for any number of symbols: further symbols are copies of the first ones
under names of equal length, put into the records' and the states' bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from agents.bars.core import BarsConfig
from agents.contract import Agent
from agents.ppo_trader import PpoTraderConfig
from agents.risk_controller.config import RiskConfig
from agents.roster import ROSTER
from schemas.catalogue import GLOBAL
from schemas.codec import Codec
from schemas.events import Candle, Event, Instrument, MarketTrade, Tick
from streams.driver import Driver
from streams.fold import PartitionFold, Scope
from streams.identity import Identity, identity_of
from streams.ingest.merge import Loaded
from streams.ingest.publish import instruments
from streams.ingest.synthetic import synthetic_market
from streams.records import Incoming

HOUR_MS = 3_600_000
FEED = "made"
_NAME = re.compile(rb"SYM\d{5}")
TRADES_A_BAR = 4
WARM_BARS = 352  # features are ready after 232, policies begin 20 decisions of 4 bars later


def name_of(number: int) -> str:
    """Name of a symbol; all are of one length."""
    return f"SYM{number:05d}"


def roster() -> dict[str, Agent[Any]]:
    """Every agent, at work on made markets; the trader does not train, which is no step's work."""
    configs = {
        "bars": BarsConfig(interval_ms=HOUR_MS, lateness_ms=0), "risk_controller": RiskConfig(synthetic=True),
        "ppo_trader": PpoTraderConfig(synthetic=True, training_enabled=False),
    }
    return {name: kind(configs.get(name)) for name, kind in ROSTER.items()}


def market_events(symbols: int, bars: int, seed: int = 1) -> Iterator[tuple[str, Event]]:
    """Instruments, then the trades that make each bar and a tick of the clock behind it, in order of event time."""
    loaded, costs = synthetic_market(seed, [name_of(i) for i in range(symbols)], bars)
    first: list[Instrument] = instruments(loaded, costs)
    for instrument in first:
        yield "market.instruments", instrument
    yield from _trades(loaded, symbols)


def _trades(loaded: Loaded, symbols: int) -> Iterator[tuple[str, Event]]:
    candles = loaded.candles()
    number = 0
    while row := [c for _, c in zip(range(symbols), candles, strict=False)]:
        for i, (price, at_ms) in enumerate((("open", 0), ("high", HOUR_MS // 4), ("low", HOUR_MS // 2),
                                            ("close", HOUR_MS - 1))):
            for candle in row:
                yield "market.trades", _trade(candle, number + i + 1, getattr(candle, price), at_ms)
        number += TRADES_A_BAR
        yield "system.clock", Tick(ts_ms=row[0].ts_ms, writer="benchmark")


def _trade(candle: Candle, number: int, price: float, at_ms: int) -> MarketTrade:
    return MarketTrade(symbol=candle.symbol, trade_id=number, ts_ms=candle.open_time_ms + at_ms, price=price,
                       quantity=1_000.0, taker_side="BUY", source=FEED, origin="SYNTHETIC")


@dataclass
class Tape:
    """What one agent's fold took.

    Attributes:
        states: state of each scope when the tape begins, in Avro.
        sticky: what the fold remembers for scopes that come later.
        records: what it took, with the event time of the run at each.
    """

    agent: Agent[Any]
    identity: Identity
    codec: Codec
    states: dict[str, bytes] = field(default_factory=dict)
    sticky: dict[str, Any] = field(default_factory=dict)
    records: list[tuple[int, Incoming]] = field(default_factory=list)
    offset: int = -1

    @property
    def spans_symbols(self) -> bool:
        """Whether its one scope holds all symbols; then a state for more symbols comes of their records alone."""
        return list(self.states) == [GLOBAL]

    def scopes(self, symbols: int) -> dict[str, Scope]:
        """States of so many symbols."""
        if self.spans_symbols or not self.states:
            return {}
        found = {}
        for i in range(symbols):
            name, of = name_of(i), name_of(i % len(self.states))
            state = self.states[of].replace(of.encode(), name.encode())
            found[name] = Scope(self.codec.decode_state(self.agent.state_type, state), self.offset)
        return found

    def fold(self, scopes: Mapping[str, Scope]) -> PartitionFold:
        """A fold that holds these scopes."""
        fold = PartitionFold(self.agent, 0, self.codec, self.identity)
        fold.scopes, fold.sticky, fold.offset = dict(scopes), dict(self.sticky), self.offset
        return fold

    def copies(self, symbols: int) -> list[tuple[int, Incoming]]:
        """The records for so many symbols, those of one moment together; what is of no symbol comes once."""
        offset, found, taped = self.offset, [], self._symbols()
        for at_ms, record in self.records:
            named = _NAME.search(record.key or b"")
            numbers = [None] if named is None else range(int(named[0][3:]), symbols, taped)
            for number in numbers:
                offset += 1
                found.append((at_ms, _renamed(record, offset, named, number)))
        return found

    def _symbols(self) -> int:
        return len({found[0] for _, r in self.records if (found := _NAME.search(r.key or b"")) is not None})


def _renamed(record: Incoming, offset: int, named: re.Match[bytes] | None, number: int | None) -> Incoming:
    if named is None or number is None:
        return record._replace(offset=offset)
    old, new = named[0], name_of(number).encode()
    assert record.key is not None
    value = None if record.value is None else record.value.replace(old, new)
    return record._replace(offset=offset, key=record.key.replace(old, new), value=value)


def tapes(symbols: int, warm_bars: int, bars: int) -> dict[str, Tape]:
    """The tape of every agent: `bars` bars of so many symbols, after as many to get warm."""
    codec, agents = Codec(), roster()
    found = {name: Tape(agent, identity_of(agent), codec) for name, agent in agents.items()}
    driver = Driver(agents, codec=codec, identities={name: tape.identity for name, tape in found.items()}, keep=())
    events = market_events(symbols, warm_bars + bars)
    ticks = 0

    def until(last: int) -> Iterator[tuple[str, Event]]:
        nonlocal ticks
        while ticks < last and (pair := next(events, None)) is not None:
            ticks += pair[0] == "system.clock"
            yield pair

    driver.run(until(warm_bars))
    for name, tape in found.items():
        _tap(driver, tape, driver.folds[name][0])
    driver.run(until(warm_bars + bars))
    return found


def _tap(driver: Driver, tape: Tape, fold: PartitionFold) -> None:
    apply = fold.apply
    tape.offset, tape.sticky = fold.offset, dict(fold.sticky)
    tape.states = {scope: tape.codec.encode_state(entry.state) for scope, entry in fold.scopes.items()}

    def taped(record: Incoming) -> Any:
        tape.records.append((driver.now_ms, record))
        return apply(record)

    fold.apply = taped  # type: ignore[method-assign]

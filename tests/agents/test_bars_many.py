"""Many trades at once against `step` one after the other: states, outputs and their rows, bit for bit."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from agents.algorithms import seen as seen_module
from agents.algorithms.candles import WEEK_MS
from agents.algorithms.seen import Seen
from agents.bars import Bars, BarsConfig, BarsState
from agents.contract import Batch, Output, Refused
from schemas import catalogue
from schemas.codec import Codec
from schemas.columns import ColumnDecoder
from schemas.events import MarketTrade
from streams.fold import PartitionFold
from streams.many import ManyFold, packed
from tests.agents.check import check_step_many, columns_of

CODEC = Codec()
TRADES = "market.trades"
START_MS = 1_700_000_000_000
CONFIGS = [  # interval, lateness
    (60_000, 2_000), (1_000, 0), (1_000, 5_500), (3_600_000, 3_600_000), (WEEK_MS, 3_600_000), (WEEK_MS, 0),
]


@dataclasses.dataclass
class Market:
    """Draws trades of some symbols; most fields say how often something is out of the ordinary."""

    rng: random.Random
    interval_ms: int
    start_ms: int = START_MS
    symbols: int = 4
    jitter_ms: int = 0  # so far trades arrive from the order in which they were made
    spread_ms: int = 0  # and so far that is from the order of their numbers
    gap: float = 0.0  # in the numbers
    repeat: float = 0.0
    late: float = 0.0  # up to some intervals
    strange: float = 0.0  # another source, a price or a quantity that cannot be
    unknown: float = 0.02  # sides
    mixed: float = 0.1  # origins

    def drawn(self, count: int) -> list[MarketTrade]:
        """Trades in order of arrival."""
        rng, out, ts_ms = self.rng, [], self.start_ms
        numbers = [rng.choice([0, 1, 10**12]) for _ in range(self.symbols)]
        for _ in range(count):
            ts_ms += rng.choice([0, 0, 1, self.interval_ms // 40, self.interval_ms // 9, self.interval_ms // 2])
            ts_ms += 3 * self.interval_ms * (rng.random() < .01)
            s = rng.randrange(self.symbols)
            numbers[s] += 1 + rng.randrange(1, 5) * (rng.random() < self.gap)
            out.append(self._odd(MarketTrade(
                symbol=f"S{s}", trade_id=numbers[s], ts_ms=max(ts_ms - rng.randrange(self.spread_ms + 1), 0),
                price=rng.choice([100.0, rng.uniform(90, 110)]), quantity=rng.choice([.1, .7, rng.uniform(1e-9, 9)]),
                taker_side=None if rng.random() < self.unknown else rng.choice(["BUY", "SELL"]), source=f"feed{s % 2}",
                origin=rng.choice(["CHECKED", "SYNTHETIC", "MIXED"]) if rng.random() < self.mixed else "CLAIMED")))
        if self.jitter_ms:
            out.sort(key=lambda trade: trade.ts_ms + rng.uniform(0, self.jitter_ms))
        for i in sorted((i for i in range(1, count) if rng.random() < self.repeat), reverse=True):
            out.insert(i, out[max(i - rng.choice([1, 5, 50]), 0)])
        return out

    def _odd(self, trade: MarketTrade) -> MarketTrade:
        rng = self.rng
        if rng.random() < self.late:
            trade = replace(trade, ts_ms=max(trade.ts_ms - rng.randrange(5 * self.interval_ms), 0))
        if rng.random() < self.strange:
            trade = replace(trade, **rng.choice([{"source": "other"}, {"price": 1e13}, {"price": 1e-13},
                                                 {"quantity": 1e19}]))
        return trade


class Beside:
    """The steps and `step_many` beside each other, from batch to batch.

    Attributes:
        rows, answered: taken so far, and how many of these `step_many` answered for.
        closed: how many bars.
    """

    def __init__(self, exact: bool = True) -> None:
        self.decoder, self.states, self.exact = ColumnDecoder(TRADES), dict[str, BarsState](), exact
        self.rows = self.answered = self.closed = 0

    def take(self, agent: Bars, trades: Sequence[MarketTrade]) -> None:
        """Compare on one batch."""
        scopes = tuple(dict.fromkeys(t.symbol for t in trades))
        before = tuple(self.states.get(scope) or agent.new(scope) for scope in scopes)
        self.states |= zip(scopes, before, strict=True)
        columns = columns_of(self.decoder, TRADES, trades)
        for held_N in (*columns.values.values(), *columns.present.values()):
            held_N.flags.writeable = False
        many = agent.step_many(Batch(columns, scopes, before, np.array([scopes.index(t.symbol) for t in trades])))
        changed, outputs, ordinary = dict.fromkeys(scopes, -1), [], True
        for row, trade in enumerate(trades):
            old = self.states[trade.symbol]
            try:
                new, more = agent.step(old, trade)
            except Refused:
                ordinary = False
                continue
            ordinary = ordinary and new is not old
            self.states[trade.symbol], changed[trade.symbol] = new, row
            outputs += [(row, output) for output in more]
        self.rows += len(trades)
        self.closed += len(outputs)
        if many is None:
            assert not (ordinary and self.exact), "it declines what is in order"
            return
        assert ordinary, "it answers where a row is refused or comes again"
        states = [self.states[scope] for scope in scopes]
        assert list(many.states) == states
        assert list(many.outputs) == outputs
        assert all(isinstance(output, Output) for _, output in many.outputs)
        assert repr((list(many.states), list(many.changed), list(many.outputs))) == repr(
            (states, list(changed.values()), outputs)), "a number of numpy's, or another zero"
        assert list(map(CODEC.encode_state, many.states)) == list(map(CODEC.encode_state, states))
        self.answered += len(trades)

    def run(self, agent: Bars, trades: Sequence[MarketTrade], rng: random.Random, most: int) -> None:
        """Compare in batches of random sizes."""
        for batch in batches(trades, rng, most):
            self.take(agent, batch)


def batches(trades: Sequence[Any], rng: random.Random, most: int) -> Iterator[Sequence[Any]]:
    at = 0
    while at < len(trades):
        size = rng.randrange(1, most)
        yield trades[at:at + size]
        at += size


def bars(interval_ms: int, lateness_ms: int) -> Bars:
    return Bars(BarsConfig(interval_ms=interval_ms, lateness_ms=lateness_ms))


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("seed", range(3))
def test_ordinary_trades_are_all_taken_at_once(seed: int, config: tuple[int, int]) -> None:
    """In whatever order within the lateness, with gaps or without."""
    rng, beside = random.Random(seed), Beside()
    market = Market(rng, config[0], symbols=(1, 4, 30)[seed], gap=(0.0, .05, .6)[seed], jitter_ms=config[1] // 2,
                    spread_ms=config[1] // 3)
    beside.run(bars(*config), market.drawn(1_500), rng, 400)
    assert beside.answered == beside.rows
    assert beside.closed > 40


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("seed", range(4))
def test_equal_or_declined_where_trades_are_out_of_the_ordinary(seed: int, config: tuple[int, int]) -> None:
    rng, beside = random.Random(seed), Beside()
    often = rng.choice([.002, .01])
    market = Market(rng, config[0], symbols=rng.choice([1, 3, 20]), gap=rng.choice([0.0, .1]), repeat=often, late=often,
                    strange=often, unknown=.05, mixed=.2, jitter_ms=rng.choice([0, config[1]]))
    beside.run(bars(*config), market.drawn(2_000), rng, 60)
    assert .2 * beside.rows < beside.answered < beside.rows
    assert beside.closed > 40


@pytest.mark.parametrize("most", [1, 3, 12])
@pytest.mark.parametrize("seed", range(4))
def test_numbers_are_forgotten_as_by_steps(seed: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen_module, "MOST", most)
    rng, beside = random.Random(seed), Beside(exact=seed % 2 == 0)
    market = Market(rng, 60_000, symbols=2, gap=.3, jitter_ms=20 * (seed % 2))
    beside.run(bars(60_000, 60_000), market.drawn(800), rng, 40)
    assert beside.answered > .2 * beside.rows
    assert all(state.seen.forgotten > 0 for state in beside.states.values())


@pytest.mark.parametrize("interval_ms", [1_000, WEEK_MS])
def test_times_near_the_epoch_where_weeks_open_before_it(interval_ms: int) -> None:
    rng, beside = random.Random(1), Beside()
    beside.run(bars(interval_ms, 0), Market(rng, interval_ms, start_ms=0, symbols=5).drawn(600), rng, 100)
    assert beside.answered == beside.rows


@pytest.mark.parametrize("seed", range(6))
def test_states_that_another_configuration_left(seed: int) -> None:
    """An agent that starts again with another interval or lateness goes on from bars that are on no grid of its own."""
    rng, beside = random.Random(seed), Beside()
    trades = Market(rng, 60_000, symbols=3, jitter_ms=5_000, late=.01).drawn(1_200)
    for part in range(0, len(trades), 150):
        beside.run(bars(rng.choice([20_000, 45_000, 60_000, 300_000]), rng.choice([0, 2_000, 150_000])),
                   trades[part:part + 150], rng, 60)
    assert beside.answered > .3 * beside.rows


def trade(number: int, at_ms: int, **more: Any) -> MarketTrade:
    values: dict[str, Any] = {"symbol": "AAA", "trade_id": number, "ts_ms": START_MS // 60_000 * 60_000 + at_ms,
                              "price": 100.0, "quantity": 1.0, "source": "test", "origin": "CLAIMED"}
    return MarketTrade(**(values | more))


@pytest.mark.parametrize("odd", [
    trade(9, 65_000, source="another"), trade(9, 65_000, price=1e13), trade(9, 65_000, price=1e-13),
    trade(9, 65_000, quantity=1e19), trade(3, 62_000), trade(2, 61_000), trade(9, -1, symbol="BBB", source="another"),
])
def test_one_odd_trade_is_left_to_the_step(odd: MarketTrade) -> None:
    beside, agent = Beside(), Bars()
    beside.take(agent, [trade(1, 0), trade(2, 61_000), trade(1, 5, symbol="BBB")])
    beside.take(agent, [trade(3, 62_000), odd, trade(10, 66_000)])
    assert (beside.answered, beside.rows) == (3, 6)


@pytest.mark.parametrize(("field", "value"), [("quantity", 0.0), ("quantity", float("nan")), ("price", float("nan"))])
def test_what_the_schema_would_not_let_through_is_left_to_the_step(field: str, value: float) -> None:
    columns = columns_of(ColumnDecoder(TRADES), TRADES, [trade(1, 0), trade(2, 1)])
    batch = Batch(columns, ("AAA",), (BarsState(),), np.zeros(2, np.int64))
    assert Bars().step_many(batch) is not None
    columns.values[field][1] = value
    assert Bars().step_many(batch) is None


def test_a_late_trade_is_left_to_the_step_and_one_from_before_the_first_bar_is_not() -> None:
    beside, agent = Beside(), Bars()
    beside.take(agent, [trade(5, 1_000), trade(4, -90_000), trade(6, 60_000), trade(7, 122_000)])
    assert (beside.answered, beside.closed) == (4, 1)
    beside.take(agent, [trade(8, 123_000), trade(9, 119_999)])
    beside.take(agent, [trade(10, 124_000), trade(11, 59_999)])
    beside.take(agent, [trade(12, 200_000), trade(13, 179_999)])
    assert beside.answered == 6, "only what is from before the first bar"


def test_the_sum_goes_by_the_order_of_arrival_and_on_from_the_open_bar() -> None:
    """Sums that come out otherwise in any other order, or when pairs are added first."""
    rng, beside, agent = random.Random(3), Beside(), Bars()
    trades = [trade(i, 60_000 * bool(i), quantity=10.0 ** rng.randrange(-9, 17), taker_side="BUY") for i in range(900)]
    assert len({sum(t.quantity for t in rng.sample(trades, 900)) for _ in range(5)}) > 1
    for start in (0, 1, 300, 301):
        beside.take(agent, trades[start:{0: 1, 1: 300, 300: 301, 301: 900}[start]])
    assert beside.answered == 900


def test_the_suite_for_agents_holds_it_too() -> None:
    check_step_many(Bars, Market(random.Random(2), 60_000).drawn(500))


@dataclasses.dataclass
class Message:
    """As a client hands it out."""

    at: int
    trade: MarketTrade

    def offset(self) -> int:
        return self.at

    def key(self) -> bytes:
        return self.trade.symbol.encode()

    def value(self) -> bytes:
        return CODEC.encode(TRADES, self.trade)

    def headers(self) -> list[tuple[str, bytes]]:
        return []


@pytest.mark.parametrize("often", [0.0, .01])
def test_a_fold_is_the_same_either_way(often: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offsets, states, outputs with their ids, dead letters; the trades are read directly, without an inbox."""
    monkeypatch.setitem(catalogue.AGENTS, "bars", dataclasses.replace(catalogue.AGENTS["bars"], direct=True))
    rng, agent = random.Random(4), Bars()
    trades = Market(rng, 60_000, jitter_ms=1_000, repeat=often, late=often, strange=often).drawn(2_000)
    rows, many = PartitionFold(agent, 1, CODEC), ManyFold(PartitionFold(agent, 1, CODEC))
    for messages in batches([Message(2 * i, trade) for i, trade in enumerate(trades)], rng, 300):
        records = packed(messages)
        assert many.apply(records) == [out for i in range(len(messages)) for out in rows.apply(records.row(i))]
        assert (many.fold.offset, many.fold.scopes, many.fold.counters) == (rows.offset, rows.scopes, rows.counters)
    assert sorted(many.fold.flush().rows) == sorted(rows.flush().rows)
    assert rows.counters.emitted > 100
    assert (rows.counters.refused > 0) == (often > 0)


# ---------------------------------------------------------------------- numbers
def runs(numbers: Sequence[int]) -> tuple[list[int], list[int]]:
    """Ends of the runs of numbers, as they come."""
    first = [n for i, n in enumerate(numbers) if not i or numbers[i - 1] != n - 1]
    return first, [n for n, more in zip(numbers, [*numbers[1:], -1], strict=True) if more != n + 1]


def one_by_one(seen: Seen, numbers: Sequence[int]) -> Seen | None:
    for n in numbers:
        if n <= seen.forgotten or seen.has(n):
            return None
        seen = seen.with_(n)
    return seen


@pytest.mark.parametrize("most", [1, 2, 5, 256])
def test_ascending_numbers_are_always_answered(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen_module, "MOST", most)
    rng, held = random.Random(most), Seen()
    for _ in range(300):
        n, numbers = (held.last[-1] if held.last else -1), []
        for _ in range(rng.choice([1, 2, 10, 600 if rng.random() < .1 else 3])):
            n += rng.choice([1, 1, 1, 2, 50])
            numbers.append(n)
        held, before = one_by_one(held, numbers), held
        assert before.with_all(*runs(numbers)) == held
    assert (held.forgotten > 0) == (len(held.first) == most), "some were forgotten, and only where there are too many"


@pytest.mark.parametrize("most", [1, 2, 5, 256])
@pytest.mark.parametrize("seed", range(5))
def test_numbers_in_any_order_are_answered_as_one_by_one_or_not(seed: int, most: int,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen_module, "MOST", most)
    rng, held, answered, forgot = random.Random(seed), Seen(), 0, 0
    for _ in range(1_500):
        low = (held.last[-1] if held.last else 0) - rng.randrange(30)
        numbers = [max(low + rng.randrange(40), 0) for _ in range(rng.choice([1, 2, 5]))]
        if rng.random() < .7:
            numbers = list(dict.fromkeys(numbers))
        numbers = [n + i for n in numbers for i in range(rng.choice([1, 1, 4]))]
        expected, many = one_by_one(held, numbers), held.with_all(*runs(numbers))
        if many is not None:
            assert many == expected, (held, numbers)
            assert all(type(n) is int for n in (*many.first, *many.last, many.forgotten))
            answered, forgot = answered + 1, forgot + (many.forgotten > held.forgotten)
        else:
            assert expected is None or len(held.first) + len(numbers) > most, "none of the ranges can be forgotten"
        held = expected if expected is not None else Seen() if rng.random() < .02 else held
    assert answered > 100
    assert forgot > 3

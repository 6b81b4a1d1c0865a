"""A fold in columns against the same fold a record at a time: offsets, states, outputs, ids, dead letters, counters."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from agents.contract import Agent, Batch, Output, Refused, State, Stepped
from benchmarks.engines.window import WindowAgent, installed
from schemas import catalogue
from schemas.catalogue import AgentIO
from schemas.codec import Codec
from schemas.events import Candle, Event, MarketTrade
from streams.fold import PartitionFold
from streams.many import FEW, ManyFold, packed
from streams.records import (
    FENCE,
    OWNER,
    SOURCE_OFFSET,
    SOURCE_PARTITION,
    SOURCE_TOPIC,
    TOPIC_ID,
    Headers,
    Incoming,
    Outgoing,
)
from tests.agents.check import check_step_many

CODEC = Codec()
T0 = 1_700_000_000_000
UNLUCKY, DEFECT, UNFIT = 13.0, 66.0, 99.0  # quantities


class Chain(State, frozen=True, kw_only=True):
    """How many trades, a hash over them in order."""

    n: int = 0
    chain: int = 0


class Chaining(Agent[Chain]):
    """Refuses some, fails on some, publishes at some, does not change at some; `step_many` is its steps in a loop."""

    name = "chaining"
    state_type = Chain
    in_columns = frozenset({"market.trades"})

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def new(self, scope: str) -> Chain:
        return Chain()

    def step(self, state: Chain, event: Event) -> tuple[Chain, tuple[Output, ...]]:
        assert isinstance(event, MarketTrade)
        if event.quantity == UNLUCKY:
            raise Refused("UNLUCKY", "13")
        if event.quantity == DEFECT:
            raise RuntimeError("a defect")
        if event.trade_id % 5 == 0:
            return state, ()
        new = Chain(n=state.n + 1, chain=(state.chain * 1_000_003 + hash((event.ts_ms, event.price))) % (2**61 - 1))
        if event.trade_id % 7:
            return new, ()
        close = -1.0 if event.quantity == UNFIT else 1.0
        bar = Candle(symbol=event.symbol, interval_ms=1_000, open_time_ms=event.ts_ms, ts_ms=event.ts_ms + 1_000,
                     open=1.0, high=1.0, low=1.0, close=close, source=event.source, origin=event.origin)
        return new, (Output("market.candles", bar),) * (1 + event.trade_id % 2)

    def step_many(self, batch: Batch[Chain]) -> Stepped[Chain] | None:
        self.batches.append(len(batch.scope_N))
        states, changed, outputs = list(batch.states), [-1] * len(batch.states), []
        for i, scope in enumerate(batch.scope_N.tolist()):
            columns = batch.columns
            fields = {}
            for name, value_N in columns.values.items():
                value = value_N[i].item()
                here = columns.present[name][i] if name in columns.present else True
                fields[name] = None if not here else columns.names[name][value] if name in columns.names else value
            assert fields["symbol"] == batch.scopes[scope]
            try:
                state, out = self.step(states[scope], MarketTrade(**fields))
            except Refused:
                return None
            if state is not states[scope]:
                states[scope], changed[scope] = state, i
            outputs += [(i, output) for output in out]
        return Stepped(states, changed, outputs)


@dataclasses.dataclass
class Message:
    """As a client hands it out."""

    at: int
    key_: bytes | None
    value_: bytes | None
    headers_: Headers = ()

    def offset(self) -> int:
        return self.at

    def key(self) -> bytes | None:
        return self.key_

    def value(self) -> bytes | None:
        return self.value_

    def headers(self) -> Headers:
        return self.headers_

    def incoming(self) -> Incoming:
        return Incoming(self.at, self.key_, self.value_, self.headers_)


@pytest.fixture(autouse=True)
def agents() -> Iterator[None]:
    known: Any = catalogue.AGENTS
    known["chaining"] = AgentIO(name="chaining", reads={"market.trades": "by_scope"}, writes=("market.candles",),
                                direct=True)
    with installed("window"):
        yield
    del known["chaining"]


@pytest.fixture
def inbox() -> None:
    """The agent reads its inbox, and commands with the trades."""
    known: Any = catalogue.AGENTS
    known["chaining"] = dataclasses.replace(known["chaining"], direct=False, reads={
        "market.trades": "by_scope", "policy.commands": "broadcast"})


def trades(rng: random.Random, count: int, strange: float, ordered: bool = False) -> list[Message]:
    """Records with so many strange ones among them; offsets have gaps."""
    out, at, ts_ms = [], rng.randrange(3), T0
    for i in range(count):
        ts_ms += rng.randrange(900)
        symbol = rng.choice(["BTCUSDT", "ETHUSDT", "é", "SOLUSDT" * 4])
        if i % 35 == 0:
            symbol = f"RARE{i}"  # born without a change: see `Chaining.step`
        event = MarketTrade(
            symbol=symbol, trade_id=i, ts_ms=ts_ms if ordered or rng.random() > strange else ts_ms - 30_000,
            price=rng.uniform(1, 2), quantity=rng.choice([UNLUCKY, DEFECT, UNFIT]) if rng.random() < strange / 2 else
            rng.uniform(.1, 9), taker_side=rng.choice([None, "BUY", "SELL"]), source="synthetic:1", origin="SYNTHETIC")
        message = Message(at, symbol.encode(), CODEC.encode("market.trades", event), (("feed", b"x"),))
        if rng.random() < strange:
            _spoil(rng, message, event)
        out.append(message)
        at += 1 + (rng.random() < .1)
    return out


def _spoil(rng: random.Random, message: Message, event: MarketTrade) -> None:
    value = message.value_ or b""
    kind = rng.randrange(8)
    if kind == 0:
        message.value_ = None
    elif kind == 1:
        message.key_ = rng.choice([None, b"", b"BTCUSD", b"\xff\xfe", b"k" * 100])
    elif kind == 2:
        message.value_ = value[:rng.randrange(len(value))]
    elif kind == 3:
        bits = bytearray(value)
        bits[rng.randrange(len(bits))] ^= 1 << rng.randrange(8)
        message.value_ = bytes(bits)
    elif kind == 4:
        message.key_, message.value_ = b"global", CODEC.encode("market.trades", msgspec.structs.replace(
            event, symbol="global"))
    elif kind == 5:  # the codec reads it, the columns do not
        message.value_ = CODEC.encode("market.trades", msgspec.structs.replace(event, trade_id=2**60))
    elif kind == 6:
        message.value_ = value + b"\0"
    else:
        message.value_ = b""


def copied(rng: random.Random, messages: list[Message], strange: float) -> list[Message]:
    """Records as relays copy them into an inbox: of three partitions, by owners that follow and overtake each other."""
    out: list[Message] = []
    ends, at, owner = [0, 10**9, 7], 0, "0" * 32

    def put(key: bytes | None, value: bytes | None, headers: Headers) -> None:
        out.append(Message(len(out) * 2 + rng.randrange(2), key, value, headers))

    def mark(partition: int, offset: int | None) -> Headers:
        end = ((FENCE, b"1"), (TOPIC_ID, b"id")) if offset is None else ((SOURCE_OFFSET, str(offset).encode()),)
        return ((SOURCE_TOPIC, b"market.trades"), (SOURCE_PARTITION, str(partition).encode()),
                (OWNER, owner.encode()), *end)

    while at < len(messages):
        message, partition = messages[at], len(messages[at].key_ or b"") % 3
        ends[partition] += 1 + rng.randrange(2)
        own: Headers = ((f"feed{at % 3}", b"x" * rng.choice([0, 1, 200])),) if rng.random() < .5 else ()
        headers = own + mark(partition, ends[partition])
        if rng.random() < strange:
            headers = _misheaded(rng, headers)
        put(message.key_, message.value_, headers)
        at += 1
        if rng.random() < strange / 4:  # another relay goes on, from what was committed last
            owner = f"{rng.getrandbits(128):032x}"
            for p in range(3):
                put(None, None, mark(p, None))
            out += [dataclasses.replace(m, at=len(out) * 2 + 2 * i) for i, m in enumerate(out[-rng.randrange(1, 90):])]
        if rng.random() < strange:
            put(b"x", b"no command", ((SOURCE_TOPIC, b"policy.commands"), *mark(0, 3 * at)[1:]))
    return [dataclasses.replace(m, at=2 * i + rng.randrange(2)) for i, m in enumerate(out)]


def _misheaded(rng: random.Random, headers: Headers) -> Headers:
    """Headers of no relay of ours, or of one that says something else."""
    i = rng.randrange(len(headers))
    name, value = headers[i]
    return rng.choice([
        headers[:i] + headers[i + 1:], (*headers, headers[i]), (*headers, (name, b"12")), headers[::-1],
        (*headers[:i], (name, b""), *headers[i + 1:]), (*headers[:i], (name, value + b"\xff"), *headers[i + 1:]),
        (*headers[:i], (name, b"9" * 20), *headers[i + 1:]), (*headers[:i], (name, b"0012"), *headers[i + 1:]),
        (*headers, ("x" * 100, b"1")), headers * 5, (*headers[:i], (name, b"-5"), *headers[i + 1:]),
    ])


def told(fold: PartitionFold) -> Any:
    """All that a fold holds and would write."""
    flush = fold.flush()
    return (fold.offset, fold.scopes, fold.counters, fold.made, fold.event_ms, sorted(flush.rows), flush.offset,
            sorted(fold.sticky), fold.fences, fold.topic_ids)


def both(agent: Agent[Any], messages: Sequence[Message], rng: random.Random, batch: int) -> ManyFold:
    """Fold one way and the other, in batches that overlap now and then, and compare after each."""
    rows, many = PartitionFold(agent, 2, CODEC), ManyFold(PartitionFold(agent, 2, CODEC))
    at = 0
    while at < len(messages):
        some = messages[max(0, at - rng.randrange(3)):at + rng.randrange(1, batch)]
        expected: list[Outgoing] = [out for message in some for out in rows.apply(message.incoming())]
        assert many.apply(packed(some)) == expected
        if rng.random() < .5:
            assert told(many.fold) == told(rows)
        at = messages.index(some[-1]) + 1
    assert told(many.fold) == told(rows)
    return many


@pytest.mark.parametrize("strange", [0.0, .01, .2])
@pytest.mark.parametrize("seed", range(4))
def test_equal_to_one_after_the_other(seed: int, strange: float) -> None:
    rng = random.Random(seed)
    agent = Chaining()
    many = both(agent, trades(rng, 1_500, strange), rng, 400)
    assert max(agent.batches) > (4 * FEW if strange < .1 else FEW)
    assert many.fold.counters.emitted > 100
    assert (many.fold.counters.refused > 0) == (strange > 0)


@pytest.mark.usefixtures("inbox")
@pytest.mark.parametrize("strange", [0.0, .01, .06])
@pytest.mark.parametrize("seed", range(6))
def test_an_inbox_is_equal_to_one_after_the_other(seed: int, strange: float) -> None:
    rng = random.Random(seed)
    agent = Chaining()
    many = both(agent, copied(rng, trades(rng, 1_500, strange / 2), strange), rng, 400)
    assert max(agent.batches) > (4 * FEW if strange < .05 else FEW)
    assert many.fold.counters.emitted > 100
    assert (many.fold.counters.repeated > 0) == (strange > 0)
    assert len(many.fold.fences) >= 3


@pytest.mark.usefixtures("inbox")
def test_copies_of_a_relay_that_wakes_up_are_taken_once() -> None:
    """None of the second owner's copies is fresh; nothing of them reaches `step_many` but in few."""
    rng, agent = random.Random(9), Chaining()
    first = copied(rng, trades(rng, 300, 0.0), 0.0)
    again = [dataclasses.replace(m, at=m.at + 10_000, headers_=tuple(
        (k, b"f" * 32 if k == OWNER else v) for k, v in m.headers_)) for m in first]
    fold = ManyFold(PartitionFold(agent, 0, CODEC))
    assert fold.apply(packed(first))
    taken = len(agent.batches)
    assert fold.apply(packed(again)) == []
    assert len(agent.batches) == taken
    assert fold.fold.counters.repeated == 300
    assert {owner for owner, _ in fold.fold.fences.values()} == {"0" * 32}


@pytest.mark.parametrize(("strange", "ordered"), [(0.0, True), (.01, False), (.3, False)])
@pytest.mark.parametrize("seed", range(3))
def test_windows_are_equal(seed: int, strange: float, ordered: bool) -> None:
    rng = random.Random(seed)
    many = both(WindowAgent(), trades(rng, 2_000, strange, ordered), rng, 600)
    assert sum(len(e.state.windows) for e in many.fold.scopes.values()) > 20


def test_nothing_is_taken_for_a_scope_that_is_ahead_of_the_head() -> None:
    rng, agent = random.Random(5), Chaining()
    messages = trades(rng, 200, 0.0)
    folds = [PartitionFold(agent, 0, CODEC) for _ in range(2)]
    for fold in folds:
        for message in messages[:100]:
            fold.apply(message.incoming())
        fold.offset = messages[49].at  # the scopes' records were durable, the head was not
    expected = [out for message in messages[50:] for out in folds[0].apply(message.incoming())]
    assert ManyFold(folds[1]).apply(packed(messages[50:])) == expected
    assert folds[0].scopes == folds[1].scopes
    assert folds[0].counters == folds[1].counters


def test_only_what_is_folded_by_scope() -> None:
    known: Any = catalogue.AGENTS
    assert ManyFold.possible(Chaining(), known["chaining"])
    for direct in (False, True):
        for reads in ({"market.trades": "by_scope", "policy.commands": "broadcast"}, {"market.trades": "by_scope"}):
            io = dataclasses.replace(known["chaining"], direct=direct, reads=reads)
            assert ManyFold.possible(Chaining(), io)
        io = dataclasses.replace(known["chaining"], direct=direct, reads={"market.trades": "broadcast"})
        assert not ManyFold.possible(Chaining(), io)


def test_packed_tells_null_from_empty() -> None:
    rows = packed([Message(4, None, b""), Message(7, b"", None), Message(8, b"ab", b"c")])
    assert rows.key_size_N.tolist() == [-1, 0, 2]
    assert rows.value_size_N.tolist() == [0, -1, 1]
    assert rows.data[rows.key_N[2]:][:2] == b"ab"
    assert rows.data[rows.value_N[2]:][:1] == b"c"
    assert np.array_equal(rows.offset_N, [4, 7, 8])
    assert rows.row(1) == Incoming(7, b"", None, ())


def test_the_suite_for_agents_holds_step_many_to_its_steps() -> None:
    trades = [MarketTrade(symbol=f"S{i % 3}", trade_id=i, ts_ms=T0 + i * 500, price=100.0 + i % 7, quantity=1.0 + i % 5,
                          source="synthetic:1", origin="SYNTHETIC") for i in range(400)]
    check_step_many(WindowAgent, trades)

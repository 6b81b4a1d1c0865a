"""Columns against the row codec: a row that is read has its values, bit for bit; what it refuses is never read."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import columns as module
from schemas import lockstep
from schemas.catalogue import TOPICS
from schemas.codec import Codec
from schemas.columns import ColumnDecoder, Columns
from schemas.events import MarketTrade
from schemas.fast_source import Unsupported
from schemas.lockstep import PAD
from schemas.refused import Refused
from schemas.released import schema_names
from tests.schemas import samples
from tests.schemas.judge import write
from tests.schemas.mutations import mutate

CODEC = Codec()
HOT = ("market.trades", "market.candles")


def flat_topics() -> list[str]:
    found = []
    for topic in schema_names():
        try:
            ColumnDecoder(topic)
        except Unsupported:
            continue
        found.append(topic)
    return found


FLAT = flat_topics()


def decoded(decoder: ColumnDecoder, values: Sequence[bytes], before: bytes = b"") -> Columns:
    """The values one behind the other, perhaps behind something else."""
    sizes = np.array([len(v) for v in values], np.int64)
    ends = len(before) + np.cumsum(sizes)
    return decoder.decode(before + b"".join(values) + b"\xff" * PAD, ends - sizes, ends)


def row(columns: Columns, i: int) -> dict[str, Any]:
    """One row, as the event's fields."""
    found: dict[str, Any] = {}
    for name, value_N in columns.values.items():
        value = value_N[i].item()
        if name in columns.names:
            value = columns.names[name][value] if columns.present.get(name, columns.good_N)[i] else None
        found[name] = value if columns.present.get(name, columns.good_N)[i] else None
    return found


def agree(topic: str, decoder: ColumnDecoder, values: Sequence[bytes]) -> int:
    """Hold every good row against the codec; how many there are."""
    columns = decoded(decoder, values)
    for i in np.flatnonzero(columns.good_N).tolist():
        event = CODEC.decode(topic, values[i])
        fields = {name: getattr(event, name) for name in event.__struct_fields__}
        assert repr(row(columns, i)) == repr(fields), values[i].hex()
    return int(columns.good_N.sum())


@pytest.fixture
def short_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples without numbers of nine bytes, which most longs would have."""
    wide = samples._bounds

    def bounds(kind: str, field: dict[str, Any]) -> tuple[float, float]:
        low, high = wide(kind, field)
        return (low, high) if kind == "double" else (max(low, -(2**50)), min(high, 2**50))

    monkeypatch.setattr(samples, "_bounds", bounds)


def test_hot_topics_are_read_in_columns() -> None:
    assert set(HOT) <= set(FLAT)
    assert "policy.ledger" not in FLAT


@pytest.mark.parametrize("topic", FLAT)
def test_ordinary_records_are_all_read(topic: str) -> None:
    rng, decoder = random.Random(topic), ColumnDecoder(topic)
    for size in (0, 1, 2, 300):
        drawn = [samples.sample(topic, rng) for _ in range(size)]
        good = agree(topic, decoder, [write(topic, value) for value in drawn])
        longs = [sum(abs(v) >= 2**55 for v in value.values() if type(v) is int) for value in drawn]
        assert good == longs.count(0), "a number of nine bytes or more is left to the codec, nothing else"


@pytest.mark.usefixtures("short_numbers")
@pytest.mark.parametrize("topic", FLAT)
def test_damaged_records_are_read_as_the_codec_reads_them_or_not(topic: str) -> None:
    rng, decoder, other = random.Random(f"{topic} damaged"), ColumnDecoder(topic), "system.clock"
    refused = read = 0
    for _ in range(6):
        values = [mutation.value or b"" for mutation in (mutate(topic, other, rng) for _ in range(150))]
        values += [write(topic, samples.sample(topic, rng)) for _ in range(20)]
        rng.shuffle(values)
        read += agree(topic, decoder, values)
        for value in values:
            try:
                CODEC.decode(topic, value)
            except Refused:
                refused += 1
    assert refused > 100
    assert read > 120


@pytest.mark.usefixtures("short_numbers")
@pytest.mark.parametrize("topic", HOT)
def test_every_bit_and_every_length(topic: str) -> None:
    good = write(topic, samples.sample(topic, random.Random(7)))
    flipped = []
    for i in range(8 * len(good)):
        bits = bytearray(good)
        bits[i >> 3] ^= 1 << (i & 7)
        flipped.append(bytes(bits))
    agree(topic, ColumnDecoder(topic), flipped)
    agree(topic, ColumnDecoder(topic), [good[:n] for n in range(len(good))] + [good + b"\0", good])


@settings(max_examples=60)
@given(st.data(), st.sampled_from(HOT))
def test_any_valid_record(data: st.DataObject, topic: str) -> None:
    values = data.draw(st.lists(samples.values(topic), min_size=1, max_size=5))
    agree(topic, ColumnDecoder(topic), [write(topic, value) for value in values])


def trade(symbol: str, **more: Any) -> bytes:
    fields: dict[str, Any] = {"trade_id": 1, "ts_ms": 1, "price": 1.0, "quantity": 1.0, "source": "s",
                              "origin": "CLAIMED"} | more
    return CODEC.encode("market.trades", MarketTrade(symbol=symbol, **fields))


def test_texts_that_share_a_slot_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lockstep, "_MIX", tuple(np.uint64(0) for _ in lockstep._MIX))
    names = [f"S{i}" for i in range(40)] + ["A" * 20, "A" * 21, "A" * 63, "é" * 20]
    decoder = ColumnDecoder("market.trades")
    for _ in range(2):
        columns = decoded(decoder, [trade(name) for name in names])
        assert columns.good_N.all()
        assert [columns.names["symbol"][c] for c in columns.values["symbol"].tolist()] == names


def test_texts_are_forgotten_before_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_NAMES", 300)
    decoder = ColumnDecoder("market.trades")
    for batch in range(4):
        names = [f"{batch}-{i}" for i in range(290)]
        columns = decoded(decoder, [trade(name) for name in names])
        assert [columns.names["symbol"][c] for c in columns.values["symbol"].tolist()] == names
    assert len(columns.names["symbol"]) <= 590


def test_what_stands_before_and_behind_does_not_matter() -> None:
    values = [trade("BTCUSDT", price=2.5), trade("ETHUSDT", ts_ms=1_700_000_000_000)]
    columns = decoded(ColumnDecoder("market.trades"), values, before=b"\x80" * 13)
    assert columns.good_N.all()
    assert [row(columns, i)["symbol"] for i in (0, 1)] == ["BTCUSDT", "ETHUSDT"]
    assert TOPICS["market.trades"].key == "symbol"

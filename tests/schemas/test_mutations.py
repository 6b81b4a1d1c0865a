"""Whatever the independent judge refuses the codec refuses with a reason; whatever it accepts has an equal value."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import msgspec
import pytest

from schemas.catalogue import TOPICS, built_agents
from schemas.codec import Codec
from schemas.refused import Refused
from tests.schemas.judge import Rejected, judge
from tests.schemas.mutations import mutate

INPUTS = sorted({topic for agent in built_agents() for topic in agent.reads})
MUTATIONS = (pytest.param(2_000, id="some"), pytest.param(10_000, id="many", marks=pytest.mark.soak))
REASONS = {"NULL_VALUE", "EMPTY", "NOT_AVRO", "UNKNOWN_SCHEMA", "UNDECODABLE", "TRAILING_BYTES", "NOT_FINITE",
           "OUT_OF_RANGE"}


def plain(value: Any) -> Any:
    """Events and tuples as dicts and lists, the way the judge gives them."""
    if isinstance(value, msgspec.Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    return [plain(v) for v in value] if isinstance(value, (tuple, list)) else value


def verdict(topic: str, data: bytes | None) -> dict[str, Any] | Rejected:
    """What the judge says of a record."""
    try:
        return judge(topic, data)
    except Rejected as rejected:
        return rejected


@pytest.mark.parametrize("mutations", MUTATIONS)
@pytest.mark.parametrize("topic", INPUTS)
def test_codec_and_judge_agree_on_every_mutation(topic: str, mutations: int) -> None:
    rng = random.Random(f"mutations of {topic}")
    codec = Codec()
    others = [t for t in INPUTS if t != topic and TOPICS[t].event != TOPICS[topic].event]
    seen: Counter[tuple[str, bool]] = Counter()
    reasons: Counter[str] = Counter()
    for number in range(mutations):
        kind, data = mutate(topic, rng.choice(others), rng, big=number < 500)
        expected = verdict(topic, data)
        if isinstance(expected, Rejected):
            with pytest.raises(Refused) as refused:
                codec.decode(topic, data)
            assert refused.value.reason in REASONS, (kind, data, expected)
            assert refused.value.detail
            reasons[refused.value.reason] += 1
        else:
            assert plain(codec.decode(topic, data)) == expected, (kind, data)
        seen[kind, not isinstance(expected, Rejected)] += 1
    # the mutations were worth their name: both verdicts came, for these kinds often
    assert seen["good", True] > mutations // 20
    assert seen["good", False] == 0
    assert seen["body flipped", True] > mutations // 500
    assert seen["body flipped", False] > mutations // 100
    assert {"NULL_VALUE", "EMPTY", "NOT_AVRO", "UNKNOWN_SCHEMA", "UNDECODABLE", "TRAILING_BYTES"} <= set(reasons)


def test_every_input_topic_is_covered() -> None:
    assert {"market.candles", "market.instruments", "execution.trade.closed", "policy.commands"} <= set(INPUTS)

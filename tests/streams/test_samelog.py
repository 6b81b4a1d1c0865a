"""Where a relay goes on, judged without a broker: every way in which commit, copies, range and topic id can stand."""

from __future__ import annotations

import pytest
from faust.types import TP

from schemas.codec import Codec
from streams.fold import PartitionFold
from streams.records import FENCE, OWNER, SOURCE_OFFSET, SOURCE_PARTITION, SOURCE_TOPIC, TOPIC_ID, Incoming
from streams.samelog import LogChanged, Seen, begin_of, changed, check_input, state_lost
from tests.streams.counting import CountingFeatures

SOURCE = TP("p.market.candles", 1)
PLACE = ((SOURCE_TOPIC, b"market.candles"), (SOURCE_PARTITION, b"1"), (OWNER, b"me"))


def fold(copied: int | None, topic_id: str | None = "A") -> PartitionFold:
    """An inbox partition that has folded a fence, and copies up to an offset."""
    new = PartitionFold(CountingFeatures(), 0, Codec())
    if copied is not None:
        told = () if topic_id is None else ((TOPIC_ID, topic_id.encode()),)
        new.apply(Incoming(0, None, None, (*PLACE, (FENCE, b"1"), *told)))
        if copied >= 0:
            new.apply(Incoming(1, b"X", b"", (*PLACE, (SOURCE_OFFSET, str(copied).encode()))))
    return new


def begin(bounds: tuple[int, int], committed: int | None, *folds: PartitionFold, topic_id: str = "A",
          may_lose: bool = False) -> tuple[int, str]:
    found = begin_of("features", SOURCE, "market.candles", bounds, committed, folds, topic_id, may_lose=may_lose)
    return found.offset, found.remark or ""


@pytest.mark.parametrize(("bounds", "committed", "copied", "starts"), [
    ((0, 0), None, None, 0),  # the first start
    ((40, 90), None, None, 40),  # the first start on an old topic: an agent may begin where it likes
    ((0, 90), 50, 49, 50),
    ((50, 90), 50, 49, 50),  # all that was deleted was copied
    ((0, 50), 50, 49, 50),  # nothing new
    ((0, 90), 20, 49, 20),  # an old commit: what comes twice is passed over
    ((0, 90), None, 49, 0),  # the commits have expired: everything is copied again, and passed over
])
def test_nothing_to_say(bounds: tuple[int, int], committed: int | None, copied: int | None, starts: int) -> None:
    assert begin(bounds, committed, fold(copied)) == (starts, "")


@pytest.mark.parametrize(("bounds", "committed", "copied", "topic_id", "says"), [
    ((60, 90), 50, 49, "A", "p.market.candles-1@50 to @59 were deleted (retention)"),
    ((0, 20), 50, 49, "A", "holds 0 to 20, but features has copied it up to 50"),
    ((0, 20), None, 49, "A", "holds 0 to 20, but features has copied it up to 50"),  # Kafka deletes commits with topics
    ((0, 90), 50, 49, "B", "another topic than the one that features has copied (topic id B, it was A)"),
    ((0, 90), None, 49, "B", "another topic"),
    ((0, 90), None, -1, "B", "another topic"),  # fenced, and nothing came
])
def test_what_a_relay_cannot_go_on_from(bounds: tuple[int, int], committed: int | None, copied: int, topic_id: str,
                                        says: str) -> None:
    with pytest.raises(LogChanged) as lost:
        begin(bounds, committed, fold(None), fold(copied), topic_id=topic_id)
    assert says in str(lost.value)
    assert "quantum reset features" in str(lost.value)
    assert lost.value.component == "features:p.market.candles-1"


def test_a_clock_may_lose_ticks_but_is_not_another_clock() -> None:
    at, remark = begin((60, 90), 50, fold(49), may_lose=True)
    assert (at, "goes on at @60" in remark) == (60, True)
    with pytest.raises(LogChanged):
        begin((0, 90), 50, fold(49), topic_id="B", may_lose=True)
    with pytest.raises(LogChanged):
        begin((0, 20), 50, fold(49), may_lose=True)


def test_what_cannot_be_told_is_said() -> None:
    at, remark = begin((60, 90), None, fold(70))
    assert (at, "cannot be told" in remark) == (60, True)


def test_an_id_that_nobody_wrote_down_matches_everything() -> None:
    assert begin((0, 90), 50, fold(49, topic_id=None), topic_id="B") == (50, "")
    check_input("features", TP("p.features.inbox", 0), fold(49), "B")


def test_ids_outlive_a_flush() -> None:
    old = fold(49)
    old.input_topic_id = "I"
    new = PartitionFold(CountingFeatures(), 0, Codec())
    new.restore((), old.head())
    assert (new.topic_ids, new.input_topic_id) == ({("market.candles", 1): "A"}, "I")
    with pytest.raises(LogChanged, match=r"was folded from another p\.features\.inbox"):
        check_input("features", TP("p.features.inbox", 0), new, "J")


def test_state_that_is_gone_is_folded_again_only_from_the_very_beginning() -> None:
    tp = TP("p.features.inbox", 3)
    assert "is folded again from p.features.inbox-3@0" in state_lost("features", tp, "p.features.changelog", 9, 0)
    with pytest.raises(LogChanged, match="cannot be folded again"):
        state_lost("features", tp, "p.features.changelog", 9, 4)


def test_between_two_looks() -> None:
    before = Seen("c", {"in": "1", "log": "2"}, {})
    assert changed(before, before, ["in", "log"], "features", "log") is None
    assert changed(before, Seen("c", {"log": "2"}, {}, frozenset({"in"})), ["in", "log"], "features", "log") is None
    assert "cluster is d, it was c" in str(changed(before, Seen("d", {}, {}), ["in"], "features", "log"))
    assert "in (topic id 9, it was 1)" in str(changed(before, Seen("c", {"in": "9", "log": "2"}, {}), ["in", "log"],
                                                      "features", "log"))
    assert "folds the state again" in str(changed(before, Seen("c", {"in": "1", "log": "9"}, {}), ["in", "log"],
                                                  "features", "log"))

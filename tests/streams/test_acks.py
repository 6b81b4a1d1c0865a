"""Which rows of a batch are asked to be acknowledged: enough that nothing which is lost can pass unnoticed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.transport.produce import Row, _last_of_each

ROWS = st.lists(st.builds(
    Row, topic=st.sampled_from(["a", "b"]), key=st.sampled_from([None, b"", b"k", b"l"]), value=st.just(b"v"),
    headers=st.just(()), partition=st.sampled_from([-1, 0, 1]),
), max_size=30)


def share_a_partition(one: Row, other: Row) -> bool:
    """Whether two rows lie in the same partition, whatever the partitioner and the number of partitions."""
    if one.topic != other.topic or one.partition != other.partition:
        return False
    return one.partition >= 0 or (one.key is not None and one.key == other.key)


@given(ROWS)
def test_a_row_that_is_not_told_is_followed_by_one_of_its_partition_that_is(rows: list[Row]) -> None:
    told = _last_of_each(rows)
    for n, row in enumerate(rows):
        assert n in told or any(m > n and m in told and share_a_partition(row, rows[m]) for m in range(len(rows)))


@given(ROWS)
def test_no_two_rows_of_a_partition_are_told(rows: list[Row]) -> None:
    told = sorted(_last_of_each(rows))
    assert not [(n, m) for n in told for m in told if n < m and share_a_partition(rows[n], rows[m])]

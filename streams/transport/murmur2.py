"""Partition of a key as Java's clients choose it: murmur2 of the key's bytes, sign bit off, modulo the partitions.

Apache Kafka, `org.apache.kafka.common.utils.Utils.murmur2` and `BuiltInPartitioner.partitionForKey`.
"""

from __future__ import annotations

from functools import lru_cache

_SEED = 0x9747B28C
_M = 0x5BD1E995
_MASK = 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """32-bit murmur2 as Kafka seeds it, unsigned.

    >>> murmur2(b"21")  # Kafka's own test vector is -973932308
    3321034988
    """
    length = len(data)
    h = (_SEED ^ length) & _MASK
    for at in range(0, length & ~3, 4):
        k = int.from_bytes(data[at:at + 4], "little") * _M & _MASK
        k = (k ^ k >> 24) * _M & _MASK
        h = (h * _M & _MASK) ^ k
    if rest := data[length & ~3:]:
        h = (h ^ int.from_bytes(rest, "little")) * _M & _MASK
    h = (h ^ h >> 13) * _M & _MASK
    return h ^ h >> 15


@lru_cache(maxsize=65_536)
def partition_of(key: bytes, partitions: int) -> int:
    """Partition of a key among so many partitions."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions

"""Records without a Python object each: a partition's own queue in librdkafka, read by ctypes into numpy.

`Consumer.consume` makes an object a record, which costs more than all that columns cost afterwards. Here the same call
of librdkafka (`rd_kafka_consume_batch_queue`) fills an array of pointers to its messages; their fields are gathered
by numpy, and the bytes that the payloads lie in are copied as they lie, some hundred kilobytes at a time. Messages that
have headers live until the batch is dropped, for headers are asked of them only where a record is looked at by itself.
In Kafka's format a value is followed by the count of its headers and by these, so a 0 there means that there are none
(in the formats before, which know no headers, what follows does not matter). Where the copy ends, and where a value is
null, headers are asked of librdkafka at once and put behind the copy, in the same format.

A partition is *diverted*: its queue is no more forwarded to the main one, and read by itself; it holds nothing but its
records and errors. What else the consumer has to say (rebalances, commits, logs) stays in the main queue, which
confluent-kafka polls, as its callbacks may run nowhere else. A partition is diverted before it is assigned for the
first time, and stays so for as long as the consumer lives, over every assignment. If ever it did not, its records
would come by the main queue, which is emptied before the others are read, so that the order is kept. A pipe wakes up
whoever waits for all of these queues.

Messages are given back many at a time, as the batch of a share consumer (`rd_kafka_messages_destroy`): a call for each
took as long as all else together.

The address of librdkafka's handle is read out of confluent-kafka's object. `tests/streams/test_raw.py` holds that place
down for the versions in `HELD`; with any other, `available` is False, and records come as objects as before.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import weakref
from collections.abc import Iterator
from typing import Any

import confluent_kafka as ck
import numpy as np

from schemas.lockstep import PAD
from streams.copies import written
from streams.many import Packed
from streams.records import Headers, Incoming, headers_of

HELD = ("2.16.",)
_HANDLE_AT = object.__basicsize__  # the first field behind Python's own of confluent-kafka's object
_WORDS = 9  # of rd_kafka_message_t, 64 bits: err, topic, partition, payload, its size, key, its size, offset, private
_VALUE, _VALUE_SIZE, _KEY, _KEY_SIZE, _OFFSET = 3, 4, 5, 6, 7
_PAGE = 4_096  # what lies between two payloads that are less than a page apart is mapped memory
_END_OF_PARTITION = -191


class _Library:
    """The librdkafka that confluent-kafka has loaded; what is short keeps Python's lock, what waits gives it up."""

    def __init__(self) -> None:
        path = ck.cimpl.__file__
        short, waiting = ctypes.PyDLL(path), ctypes.CDLL(path)
        p, n = ctypes.c_void_p, ctypes.c_size_t
        self.main_queue = _function(short.rd_kafka_queue_get_consumer, p, p)
        self.partition_queue = _function(short.rd_kafka_queue_get_partition, p, p, ctypes.c_char_p, ctypes.c_int32)
        self.forward = _function(short.rd_kafka_queue_forward, None, p, p)
        self.tell = _function(short.rd_kafka_queue_io_event_enable, None, p, ctypes.c_int, ctypes.c_char_p, n)
        self.length = _function(short.rd_kafka_queue_length, n, p)
        self.destroy_queue = _function(short.rd_kafka_queue_destroy, None, p)
        self.consume = _function(waiting.rd_kafka_consume_batch_queue, ctypes.c_ssize_t, p, ctypes.c_int, p, n)
        self.allocate = _function(short.rd_kafka_mem_malloc, p, p, n)
        self.destroy_all = _function(waiting.rd_kafka_messages_destroy, None, p)
        self.headers = _function(short.rd_kafka_message_headers, ctypes.c_int, p, p)
        self.header_at = _function(short.rd_kafka_header_get_all, ctypes.c_int, p, n, p, p, p)
        self._check(_function(short.rd_kafka_messages_count, n, p), _function(short.rd_kafka_messages_get, p, p, n),
                    _function(short.rd_kafka_mem_free, None, p, p))

    def give_back(self, pointer_N: np.ndarray) -> None:
        """Messages that nobody needs any more: all of them in one call, which takes a batch as a share consumer's."""
        if len(pointer_N):
            self.destroy_all(self._batch(pointer_N))

    def _batch(self, pointer_N: np.ndarray) -> int:
        """A `rd_kafka_messages_t`: their number and the pointers, in memory that librdkafka frees."""
        batch = int(self.allocate(None, 8 * (len(pointer_N) + 1)))
        memory = memoryview((ctypes.c_int64 * (len(pointer_N) + 1)).from_address(batch))
        words = np.ndarray((len(pointer_N) + 1,), np.int64, memory)
        words[0], words[1:] = len(pointer_N), pointer_N
        return batch

    def _check(self, count: Any, get: Any, free: Any) -> None:
        """That a batch looks as we make it is asked of librdkafka, for its layout is no interface.

        Raises:
            AttributeError: it does not; then messages are not read so.
        """
        batch = self._batch(np.array([8, 16, 24]))
        found = [count(batch), *(get(batch, i) for i in range(3))]
        free(None, batch)
        if found != [3, 8, 16, 24]:
            raise AttributeError("rd_kafka_messages_t")


def _function(function: Any, result: Any, *arguments: Any) -> Any:
    function.restype, function.argtypes = result, arguments
    return function


_library: _Library | None = None


def available() -> bool:
    """Whether records can be read so: a version of confluent-kafka whose layout is known, 64 bits, symbols in reach."""
    global _library
    if not str(ck.__version__).startswith(HELD) or ctypes.sizeof(ctypes.c_void_p) != 8:
        return False
    try:
        _library = _library or _Library()
    except (AttributeError, OSError):
        return False
    return True


class Messages:
    """librdkafka's messages that may have headers, by row; given back when nobody needs them, or by `release`."""

    def __init__(self, rows: list[int], pointers: list[int]) -> None:
        self._held = [dict(zip(rows, pointers, strict=True))]

    def headers(self, i: int) -> Headers:
        """Headers of a row.

        Raises:
            RuntimeError: the messages were given back: their consumer is closed.
        """
        assert _library is not None
        if not self._held:
            raise RuntimeError("the consumer of these records is closed")
        held, name, value = ctypes.c_void_p(), ctypes.c_char_p(), ctypes.c_void_p()
        size = ctypes.c_size_t()
        found: list[tuple[str, bytes | None]] = []
        pointer = self._held[0].get(i)
        if pointer is None or _library.headers(pointer, ctypes.byref(held)):
            return ()
        while not _library.header_at(held, len(found), ctypes.byref(name), ctypes.byref(value), ctypes.byref(size)):
            found.append(((name.value or b"").decode("utf-8", "replace"),
                          None if value.value is None else ctypes.string_at(value.value, size.value)))
        return headers_of(found)

    def release(self) -> None:
        """Give them back to librdkafka."""
        assert _library is not None
        try:
            pointers = self._held.pop()  # in one step: two threads may come here
        except IndexError:
            return
        _library.give_back(np.fromiter(pointers.values(), np.int64, len(pointers)))

    __del__ = release


class RawError:
    """An error of a partition, as far as `FetchFailed` asks a message."""

    def __init__(self, topic: str, partition: int, offset: int, code: int) -> None:
        self._place = topic, partition, offset
        self.error = ck.KafkaError(code)

    def topic(self) -> str:
        """Of the partition."""
        return self._place[0]

    def partition(self) -> int:
        """Its number."""
        return self._place[1]

    def offset(self) -> int:
        """Where it is."""
        return self._place[2]


class RawQueues:
    """The queues of a consumer's diverted partitions, all of one topic. All calls in the consumer's thread.

    Args:
        client: the consumer; `close` before it is closed.
        topic: the topic.
        most: records of a partition at a time.
    """

    def __init__(self, client: ck.Consumer, topic: str, most: int) -> None:
        assert _library is not None, "ask `available` first"
        self.topic = topic
        self._lib = _library
        self._handle = ctypes.c_void_p.from_address(id(client) + _HANDLE_AT).value
        self._queues: dict[int, int] = {}
        self._pointers = np.zeros(most, np.int64)
        self._live: weakref.WeakSet[Messages] = weakref.WeakSet()
        self._woken, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._main = self._lib.main_queue(self._handle)
        self._lib.tell(self._main, self._wake, b"m", 1)

    def __bool__(self) -> bool:
        return bool(self._queues)

    def divert(self, *partitions: int) -> None:
        """From now on records of these partitions come here; said before they are assigned, all of them."""
        for partition in set(partitions) - set(self._queues):
            queue = self._queues[partition] = self._lib.partition_queue(self._handle, self.topic.encode(), partition)
            self._lib.tell(queue, self._wake, b"p", 1)
            self._lib.forward(queue, None)

    def close(self) -> None:
        """Give everything back."""
        for queue in (self._main, *self._queues.values()):
            self._lib.tell(queue, -1, None, 0)
            self._lib.destroy_queue(queue)
        self._queues.clear()
        for messages in list(self._live):
            messages.release()
        os.close(self._woken)
        os.close(self._wake)

    def main_waits(self) -> bool:
        """Whether something is in the main queue."""
        return bool(self._lib.length(self._main))

    def wait(self, wait_s: float) -> None:
        """Until something comes into a queue, the main one included, after it was empty; no longer than `wait_s`."""
        if select.select([self._woken], [], [], wait_s)[0]:
            with contextlib.suppress(BlockingIOError):
                while len(os.read(self._woken, 4096)) == 4096:
                    pass

    def take(self) -> Iterator[tuple[int, Packed | RawError]]:
        """What has come, by partition."""
        for partition, queue in self._queues.items():
            count = self._lib.consume(queue, 0, self._pointers.ctypes.data, len(self._pointers))
            if count > 0:
                yield from ((partition, found) for found in self._sorted(partition, self._pointers[:count].copy()))

    def _sorted(self, partition: int, pointer_N: np.ndarray) -> Iterator[Packed | RawError]:
        base, last = int(pointer_N.min()), int(pointer_N.max())
        memory = memoryview((ctypes.c_char * (last - base + 8 * _WORDS)).from_address(base))
        words = np.ndarray(((last - base) // 8 + _WORDS,), np.int64, memory)
        at_N = (pointer_N - base) >> 3
        error_N = words[at_N].astype(np.int32)
        for i in np.flatnonzero(error_N).tolist():
            if error_N[i] != _END_OF_PARTITION:
                yield RawError(self.topic, partition, int(words[at_N[i] + _OFFSET]), int(error_N[i]))
        self._lib.give_back(pointer_N[error_N != 0])
        if not error_N.all():
            yield self._packed(pointer_N[error_N == 0], words, at_N[error_N == 0])

    def _packed(self, pointer_N: np.ndarray, words: np.ndarray, at_N: np.ndarray) -> Packed:
        """Copy what the payloads lie in."""
        offset_N = words[at_N + _OFFSET]
        value_N, value_size_N = words[at_N + _VALUE], words[at_N + _VALUE_SIZE]
        key_N, key_size_N = words[at_N + _KEY], words[at_N + _KEY_SIZE]
        value_size_N[value_N == 0] = -1
        key_size_N[key_N == 0] = -1
        start_M = np.concatenate([key_N, value_N])
        end_M = start_M + np.concatenate([key_size_N, value_size_N]).clip(0)
        moved_M, copy, ends = _copied(start_M, end_M)
        key_N, value_N = moved_M[:len(key_N)], moved_M[len(key_N):]
        headers_N = value_N + value_size_N
        asked_N = np.isin(headers_N, ends) | (value_size_N < 0)
        kept_N = asked_N | (np.frombuffer(copy, np.uint8)[headers_N] != 0)
        self._lib.give_back(pointer_N[~kept_N])
        messages = Messages(np.flatnonzero(kept_N).tolist(), pointer_N[kept_N].tolist())
        self._live.add(messages)
        asked = np.flatnonzero(asked_N).tolist()
        told = [written(messages.headers(i)) for i in asked]
        headers_N[asked] = len(copy) + np.cumsum([0, *map(len, told)])[:-1]
        data = b"".join([copy, *told, bytes(PAD)])

        def row(i: int) -> Incoming:
            k, v = int(key_N[i]), int(value_N[i])
            return Incoming(int(offset_N[i]), None if key_size_N[i] < 0 else data[k:k + int(key_size_N[i])],
                            None if value_size_N[i] < 0 else data[v:v + int(value_size_N[i])], messages.headers(i))

        return Packed(offset_N, data, key_N, key_size_N, value_N, value_size_N, headers_N, row)


def _copied(start_M: np.ndarray, end_M: np.ndarray) -> tuple[np.ndarray, bytes, list[int]]:
    """Where each piece of memory begins in the copy (a null: anywhere), the copy, and where its regions end."""
    order_M = np.argsort(start_M, kind="stable")
    start, end = start_M[order_M], np.maximum.accumulate(end_M[order_M])
    begins = np.flatnonzero(np.append(True, start[1:] - end[:-1] >= _PAGE))
    regions: list[bytes] = []
    moved, size, ends = np.empty_like(start_M), 0, []
    for first, last in zip(begins.tolist(), [*(begins[1:] - 1).tolist(), len(start) - 1], strict=True):
        low, high = int(start[first]), int(end[last])
        moved[order_M[first:last + 1]] = start[first:last + 1] - low + size
        if high > low:
            regions.append(ctypes.string_at(low, high - low))
            size += high - low
        ends.append(size)
    return moved, b"".join([*regions, bytes(PAD)]), ends

"""Arrays by name as bytes, in the safetensors format: nothing in it can be executed.

Layout: u64 length of the header; the header as JSON, name to dtype, shape and [begin, end) behind the header, padded
with spaces so that the numbers begin at a multiple of 8; then the numbers, little-endian, row by row. Two equal sets of
arrays give the same bytes: names stand in their order, and nothing else is in the header.

Source: https://github.com/huggingface/safetensors, README, "Format".
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]

DTYPES: dict[str, str] = {"F32": "<f4", "F64": "<f8"}
_NAMES = {"float32": "F32", "float64": "F64"}
_LENGTH = struct.Struct("<Q")
ALIGNED = 8
MAX_HEADER = 1 << 16


def dumped(arrays: Mapping[str, Array]) -> bytes:
    """Arrays of float32 or float64 as bytes."""
    header: dict[str, dict[str, Any]] = {}
    parts, at = [], 0
    for name, array in arrays.items():
        kind = _NAMES[array.dtype.name]
        raw = np.ascontiguousarray(array, DTYPES[kind]).tobytes()
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [at, at + len(raw)]}
        parts.append(raw)
        at += len(raw)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNED)
    return _LENGTH.pack(len(text)) + text + b"".join(parts)


def loaded(data: bytes) -> dict[str, Array]:
    """The arrays in the bytes, as views that cannot be written to, in the order of their place.

    Raises:
        ValueError: no such bytes: cut short, a dtype that is not known, shapes that do not fill the bytes without gap,
            a number that is not finite.
    """
    if len(data) < _LENGTH.size:
        raise ValueError(f"{len(data)} bytes are no tensors")
    length = _LENGTH.unpack_from(data)[0]
    begin = _LENGTH.size + length
    if length > MAX_HEADER or begin > len(data):
        raise ValueError(f"a header of {length} bytes in {len(data)}")
    try:
        header = json.loads(data[_LENGTH.size:begin])
        rows = sorted((int(h["data_offsets"][0]), int(h["data_offsets"][1]), str(name), str(h["dtype"]),
                       tuple(int(n) for n in h["shape"])) for name, h in header.items() if name != "__metadata__")
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as exc:
        raise ValueError(f"the header cannot be read: {exc}") from exc
    found, at = {}, 0
    for low, high, name, kind, shape in rows:
        if kind not in DTYPES:
            raise ValueError(f"{name} is of {kind}; known are {', '.join(DTYPES)}")
        size = prod(shape) * np.dtype(DTYPES[kind]).itemsize
        if low != at or high - low != size or min(shape, default=0) < 0:
            raise ValueError(f"{name} of {list(shape)} {kind} lies at {low} to {high}, where {at} to {at + size} is "
                             f"expected")
        array: Array = np.frombuffer(data, DTYPES[kind], prod(shape), begin + low).reshape(shape)
        if not np.isfinite(array).all():
            raise ValueError(f"{name} has a number that is not finite")
        found[name] = array
        at = high
    if begin + at != len(data):
        raise ValueError(f"{len(data) - begin - at} bytes follow the last tensor")
    return found

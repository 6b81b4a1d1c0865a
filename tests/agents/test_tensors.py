"""Arrays as safetensors: the same bytes, the same arrays, and nothing that is not one of them."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from agents.algorithms.tensors import dumped, loaded

NAMED = st.dictionaries(
    st.sampled_from(["actor.0.weight", "actor.0.bias", "critic.0.weight", "x"]),
    st.one_of(*(arrays(t, array_shapes(max_dims=2, max_side=4), elements=st.floats(-8, 8, width=32))
                for t in (np.float32, np.float64))))


@given(NAMED)
def test_what_was_written_is_read(tensors: dict[str, np.ndarray]) -> None:
    data = dumped(tensors)
    found = loaded(data)
    assert list(found) == list(tensors)
    assert all(np.array_equal(found[n], tensors[n]) and found[n].dtype == tensors[n].dtype for n in tensors)
    assert dumped(found) == data


def test_the_layout_by_hand() -> None:
    """As the format's own description has it, read without our code."""
    data = dumped({"w": np.array([[1.0, 2.0]], np.float32), "b": np.array([3.0], np.float32)})
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8:8 + length])
    assert length % 8 == 0
    assert header["w"] == {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]}
    assert header["b"] == {"dtype": "F32", "shape": [1], "data_offsets": [8, 12]}
    assert struct.unpack_from("<3f", data, 8 + length) == (1.0, 2.0, 3.0)


def _made(header: Any, numbers: bytes = b"\0" * 8) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + numbers


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize("data", [
    b"", b"\xff" * 20, struct.pack("<Q", 3) + b"{{{", _made([1]), _made({"a": 3}), _made({"a": ENTRY}, b"\0" * 7),
    _made({"a": ENTRY}, b"\0" * 9), _made({"a": ENTRY | {"dtype": "I8"}}), _made({"a": ENTRY | {"shape": [3]}}),
    _made({"a": ENTRY | {"data_offsets": [4, 12]}}, b"\0" * 12), _made({"a": ENTRY | {"shape": [-1, -2]}}),
    _made({"a": ENTRY}, struct.pack("<2f", 1.0, float("nan"))), _made({"a": ENTRY, "b": ENTRY}),
])
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        loaded(data)

"""A learner's bytes: the stated layout, the same numbers back, and what is refused."""

from __future__ import annotations

import struct

import msgspec
import numpy as np
import pytest

from agents.algorithms.learner import (
    from_bytes,
    networks,
    new_learner,
    parameters_from_bytes,
    parameters_to_bytes,
    tensors,
    to_bytes,
)
from agents.algorithms.ppo_settings import PpoSettings

SETTINGS = PpoSettings(features=3, actions=2, hidden=(4,), critic_hidden=(5, 6))


def test_the_layout_is_as_stated() -> None:
    learner = new_learner(SETTINGS, 1, "a")
    data = to_bytes(learner, SETTINGS)
    assert data[:8] == b"qs.ppo.1"
    assert struct.unpack_from("<IIQQIII", data, 8) == (4, 3, 0, 0, 0, 3, 4)
    assert struct.unpack_from("<7I", data, 44) == (3, 4, 2, 3, 5, 6, 1)
    numbers = np.frombuffer(data, "<f4", offset=72)
    assert len(numbers) == 3 * networks(SETTINGS).count == 3 * (16 + 10 + 20 + 36 + 7)
    assert (numbers[: len(learner.parameters)] == learner.parameters).all()
    assert (numbers[:12].reshape(3, 4) == tensors(learner.parameters, SETTINGS)["actor.0.weight"]).all()


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_there_and_back(precision: str) -> None:
    settings = msgspec.structs.replace(SETTINGS, precision=precision)
    learner = new_learner(settings, 1, "a")
    back = from_bytes(to_bytes(learner, settings), settings)
    assert to_bytes(back, settings) == to_bytes(learner, settings)
    assert back.parameters.dtype == precision
    found = parameters_from_bytes(parameters_to_bytes(learner, settings), settings)
    assert (found == learner.parameters).all()


def test_names_cover_every_parameter_once() -> None:
    flat = np.arange(float(networks(SETTINGS).count), dtype=np.float32)
    named = tensors(flat, SETTINGS)
    assert list(named)[:4] == ["actor.0.weight", "actor.0.bias", "actor.1.weight", "actor.1.bias"]
    assert sorted(np.concatenate([a.ravel() for a in named.values()]).tolist()) == flat.tolist()


def test_what_does_not_fit_is_refused() -> None:
    data = to_bytes(new_learner(SETTINGS, 1, "a"), SETTINGS)
    nan = data[:-4] + struct.pack("<f", float("nan"))
    for wrong, why in ((b"", "not a learner"), (b"x" * 200, "not a learner"), (data[:-1], "bytes;"), (nan, "finite")):
        with pytest.raises(ValueError, match=why):
            from_bytes(wrong, SETTINGS)
    for other in ({"hidden": (5,)}, {"precision": "float64"}, {"activation": "relu"}, {"critic_hidden": None}):
        with pytest.raises(ValueError, match="other networks"):
            from_bytes(data, msgspec.structs.replace(SETTINGS, **other))
    with pytest.raises(ValueError, match="other networks"):
        parameters_from_bytes(data, SETTINGS)


def test_learners_of_other_names_differ() -> None:
    a, b = new_learner(SETTINGS, 1, "a"), new_learner(SETTINGS, 1, "b")
    assert to_bytes(a, SETTINGS) == to_bytes(new_learner(SETTINGS, 1, "a"), SETTINGS)
    one, other = (tensors(x.parameters, SETTINGS)["actor.0.weight"] for x in (a, b))
    assert (one != other).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"features": 0}, {"actions": 1}, {"hidden": (0,)}, {"gamma": 1.1}, {"gae_lambda": -0.1}, {"lr": 0.0},
        {"clip": 0.0}, {"value_clip": 0.0}, {"entropy_coefficient": -1.0}, {"epochs": 0}, {"minibatch": 0},
        {"max_kl": 0.0}, {"lr": float("nan")}, {"anneal_updates": 0}, {"lr_end": -1.0},
    ],
)
def test_settings_are_validated(wrong: dict) -> None:
    with pytest.raises(ValueError):
        PpoSettings(**({"features": 3, "actions": 2} | wrong))


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="gama"):
        msgspec.convert({"features": 3, "actions": 2, "gama": 0.9}, PpoSettings)
    with pytest.raises(msgspec.ValidationError, match="gamma"):
        msgspec.convert({"features": 3, "actions": 2, "gamma": 9.0}, PpoSettings)


def test_rates_fall_in_a_line_and_stay_at_their_end() -> None:
    settings = PpoSettings(features=3, actions=2, lr=1.0, lr_end=0.5, clip=0.2, clip_end=0.0, anneal_updates=4)
    assert [settings.rates(n) for n in (0, 2, 4, 9)] == [(1.0, 0.2), (0.75, 0.1), (0.5, 0.0), (0.5, 0.0)]
    assert PpoSettings(features=3, actions=2, lr=1.0).rates(99) == (1.0, 0.2)
    with pytest.raises(ValueError, match="anneal_updates"):
        PpoSettings(features=3, actions=2, lr_end=0.0).rates(0)

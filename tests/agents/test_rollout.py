"""The rollout that fills one at a time: each experience once, any order, episodes cut where they must be."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.algorithms.learner import new_learner
from agents.algorithms.ppo import Batch, evaluate, update
from agents.algorithms.ppo_settings import PpoSettings
from agents.algorithms.rollout import Kept, Rollout, RolloutSettings, added, drained, packed, ready
from schemas.structs import avro_schema_of

SETTINGS = PpoSettings(features=2, actions=3, hidden=(4,), precision="float64", gamma=0.9, gae_lambda=0.8)
LIMITS = RolloutSettings(size=8, max_age=2, remembered=64)
PARAMETERS = new_learner(SETTINGS, 1, "r").parameters
UNIFORM = float(np.log(1 / 3))


def kept(stream: str, place: int, *, terminated: bool = False, **changed: object) -> Kept:
    """An experience whose numbers follow from its name."""
    x = (float(place), float(len(stream)))
    given = Kept(
        id=f"{stream}/{place}", stream=stream, place=place, observation=packed(x, SETTINGS), action=place % 3,
        log_probability=UNIFORM, reward=float(place), version=5, terminated=terminated,
        following=b"" if terminated else packed((x[0] + 1, x[1]), SETTINGS))
    return msgspec.structs.replace(given, **changed)


def filled(*items: Kept, rollout: Rollout | None = None, version: int = 5) -> Rollout:
    rollout = Rollout() if rollout is None else rollout
    for item in items:
        rollout = added(rollout, item, SETTINGS, LIMITS, PARAMETERS, version)
    return rollout


def same(a: Batch, b: Batch) -> bool:
    return all(getattr(a, f).tobytes() == getattr(b, f).tobytes()
               for f in ("observations", "actions", "log_probabilities", "values", "advantages", "returns"))


STREAMS = {"A": range(5), "BB": range(3, 9), "CCC": (1, 2, 4, 7)}
ALL = [kept(s, p, terminated=p == 4) for s, places in STREAMS.items() for p in places]


@given(st.permutations(ALL))
def test_order_of_arrival_makes_no_difference_within_a_round(order: list[Kept]) -> None:
    batch, _ = drained(filled(*order), SETTINGS, PARAMETERS)
    assert same(batch, drained(filled(*ALL), SETTINGS, PARAMETERS)[0])


@given(st.lists(st.sampled_from(ALL), max_size=60), st.randoms(use_true_random=False))
def test_each_is_learned_from_once_however_often_and_in_whatever_order_it_comes(came: list[Kept], rnd: object) -> None:
    rollout, rewards = Rollout(), []
    for item in came:
        rollout = filled(item, rollout=rollout)
        if ready(rollout, LIMITS):
            rewards.append(len(rollout.waiting))
            handed = [k.id for k in rollout.waiting]
            batch, rollout = drained(rollout, SETTINGS, PARAMETERS)
            assert len(batch) == LIMITS.size == len(set(handed))
            assert not rollout.waiting
    assert rollout.used + len(rollout.waiting) == len({k.id for k in came})
    assert rollout.repeated == len(came) - len({k.id for k in came})
    assert rollout.used == sum(rewards)


def value(*x: float) -> float:
    return float(evaluate(SETTINGS, PARAMETERS, np.array([x])).values[0])


def test_what_ended_is_worth_nothing_more_and_what_was_cut_short_is() -> None:
    ended = drained(filled(kept("A", 1, terminated=True)), SETTINGS, PARAMETERS)[0]
    cut = drained(filled(kept("A", 1, truncated=True)), SETTINGS, PARAMETERS)[0]
    assert ended.advantages[0] == pytest.approx(1 - value(1, 1))
    assert cut.advantages[0] == pytest.approx(1 + 0.9 * value(2, 1) - value(1, 1))
    assert ended.returns[0] == pytest.approx(1)


def test_the_advantage_goes_on_in_the_own_stream_only_and_stops_at_a_gap() -> None:
    batch = drained(filled(kept("A", 2), kept("A", 1), kept("B", 3), kept("A", 4)), SETTINGS, PARAMETERS)[0]
    delta = [p + 0.9 * value(p + 1, 1) - value(p, 1) for p in (1, 2, 4, 3)]
    assert batch.advantages == pytest.approx([delta[0] + 0.9 * 0.8 * delta[1], *delta[1:]])


def test_a_stale_experience_is_weighed_and_dropped_with_a_count() -> None:
    """The newest policy is nearly uniform: a log-probability of ln 1/3 still fits, one of ln .9 does not."""
    old, older = kept("A", 1, version=3), kept("A", 2, version=2)
    far = [msgspec.structs.replace(k, log_probability=float(np.log(0.9))) for k in (old, older)]
    fits = filled(old, older)
    assert (len(fits.waiting), fits.stale, fits.dropped) == (2, 1, 0)
    rollout = filled(*far)
    assert ([k.id for k in rollout.waiting], rollout.stale, rollout.dropped) == (["A/1"], 0, 1)
    again = filled(far[1], rollout=rollout)
    assert (again.dropped, again.repeated) == (1, 1)


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(-4, 0)), min_size=1, max_size=30))
def test_every_experience_waits_or_is_counted(drawn: list[tuple[int, float]]) -> None:
    items = [kept("A", i, version=v, log_probability=lp) for i, (v, lp) in enumerate(drawn)]
    rollout = filled(*items)
    assert len(rollout.waiting) + rollout.dropped == len(items)
    assert {k.id for k in rollout.waiting} >= {k.id for k in items if k.version >= 3}
    for k in rollout.waiting:
        if k.version < 3:
            logp = evaluate(SETTINGS, PARAMETERS, np.frombuffer(k.observation)[None]).log_probabilities[0, k.action]
            assert 0.8 <= np.exp(logp - k.log_probability) <= 1.2


def test_masks_reach_the_batch_and_the_learner() -> None:
    items = [kept("A", i, terminated=True, mask=bytes([1, 1, 0]), action=i % 2) for i in range(4)]
    items.append(kept("B", 1, terminated=True))
    batch, _ = drained(filled(*items), SETTINGS, PARAMETERS)
    assert batch.masks is not None
    assert batch.masks.tolist() == [[True, True, False]] * 4 + [[True] * 3]
    update(new_learner(SETTINGS, 1, "r"), batch, SETTINGS, 1, "r")


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"observation": b"x"}, "bytes"),
        ({"following": b""}, "bytes"),
        ({"action": 3}, "actions"),
        ({"mask": b"\1"}, "mask of 1"),
        ({"mask": b"\1\0\1"}, "mask"),
        ({"reward": float("nan")}, "reward nan"),
        ({"log_probability": 0.1}, "at most 0"),
        ({"version": 6}, "newest here is 5"),
        ({"observation": packed((float("inf"), 0.0), SETTINGS)}, "finite"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(changed: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        filled(kept("A", 1, **changed))


def test_contradictions_are_refused() -> None:
    rollout = filled(kept("A", 1))
    with pytest.raises(ValueError, match="another content"):
        filled(kept("A", 1, reward=9.0), rollout=rollout)
    with pytest.raises(ValueError, match="taken by another"):
        filled(kept("A", 1, id="else"), rollout=rollout)
    with pytest.raises(ValueError, match="nothing waits"):
        drained(Rollout(), SETTINGS, PARAMETERS)
    with pytest.raises(ValueError, match="remembered"):
        RolloutSettings(size=8, remembered=4)


def test_an_agents_state_can_hold_it() -> None:
    fields = {f["name"]: f["type"] for f in avro_schema_of(Rollout)["fields"]}
    assert fields["waiting"]["items"]["name"] == "Kept"
    rollout = filled(*ALL)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(rollout), type=Rollout) == rollout

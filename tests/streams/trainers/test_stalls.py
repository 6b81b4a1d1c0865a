"""What keeps the event loop free beside training runs; and the benchmark of it in small: that it measures, not what."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from agents.ppo_trader import PpoTraderAgent, PpoTraderConfig
from benchmarks.worker_stalls import stalls
from schemas import pages
from schemas.catalogue import AGENTS, TOPICS
from schemas.codec import Codec, event_class
from streams.settings import Settings
from streams.worker import make_hosts
from tests.streams.hosting import in_loop, trainers


def test_the_loop_is_watched_without_runs_and_with_them(prefix: Settings) -> None:
    config = PpoTraderConfig(synthetic=True, window_rows=32, min_rows=8, episode_bars=16, epochs=1, hidden=(8,))
    found = asyncio.run(stalls(prefix, config, seconds=2.0, rate=4.0, agents=("features", "ppo_trader")))
    for name, part in found.items():
        assert part["callbacks"] > 10, name
        assert part["late max"] >= part["less waiting max"] >= 0.0
        assert part["own max"] >= 0.0
    assert (list(found), found["nothing"]["runs"]) == (["nothing", "runs"], 0)
    assert trainers() == []


@in_loop
async def test_a_workers_codec_has_its_functions_before_the_first_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first result of a run would else be read and answered in 30 ms, most of it spent on generating."""
    made: list[Codec] = []
    monkeypatch.setattr("streams.worker.codec_for", lambda settings, writes: made.append(Codec()) or made[0])
    agent, io = PpoTraderAgent(), AGENTS["ppo_trader"]
    make_hosts(Settings(), {agent.name: agent})
    for name in ("fast_reader", "fast_writer"):
        monkeypatch.setattr(f"schemas.codec.{name}", lambda *a, **k: pytest.fail("generated at a record"))
    (codec,) = made
    for topic in (*io.reads, *io.writes, "policy.current"):
        event = msgspec.convert(pages.example_of(topic), event_class(TOPICS[topic].event or ""), strict=False)
        assert codec.decode(topic, codec.encode(topic, event)) == event
    assert codec.decode_state(agent.state_type, codec.encode_state(agent.new("A"))) == agent.new("A")

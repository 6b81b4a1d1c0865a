"""The demo's schedule of the PPO trader, and what its last screen says of it."""

from __future__ import annotations

import json
from typing import Any

import click
import confluent_kafka as ck
import pytest

from agents.ppo_trader import PpoTraderAgent, PpoTraderConfig
from streams.cli import demo_trader
from streams.configuring import standing
from streams.ingest.synthetic import synthetic_market
from streams.log import LogReader
from streams.settings import Settings
from tests.streams.hosting import read
from tests.streams.log_fixtures import CODEC

HOUR_MIN = 60


@pytest.mark.parametrize(("bars", "minutes"), [(601, 200 * HOUR_MIN), (2, 30), (1, 30)])
def test_the_time_of_the_candles_has_three_slots(bars: int, minutes: int) -> None:
    values = demo_trader.schedule(synthetic_market(1, ["AUSDT"], bars)[0])
    now = PpoTraderAgent().configured(values)
    assert isinstance(now, PpoTraderConfig)
    assert (now.training_interval_minutes, now.valid_for_ms) == (minutes, 2 * minutes * 60_000)
    assert now.mode == "SHADOW"


@pytest.mark.topics("policy.config", "system.clock", "rl_v3.training.completed", "rl_v3.decision")
def test_it_is_written_once_and_not_over_what_somebody_wrote(prefix: Settings) -> None:
    loaded = synthetic_market(1, ["AUSDT"], 601)[0]
    demo_trader.configure(prefix, loaded)
    demo_trader.configure(prefix, loaded)
    (written,) = read(prefix, "policy.config")
    assert written.key == b"ppo_trader"
    with LogReader(prefix) as log:
        found = standing(log, CODEC, PpoTraderAgent())
    assert json.loads(found.event.values if found.event else "") == dict(found.values)
    told = demo_trader.told(prefix, ["AUSDT"])
    assert (told["interval_minutes"], told["config"], told["runs"], told["skipped"]) == (
        200 * HOUR_MIN, "policy.config-0@0", [], {})


@pytest.mark.topics("policy.config")
def test_candles_wait_until_the_schedule_is_taken(prefix: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    demo_trader.await_taken(prefix, lambda: pytest.fail("nothing stands on the log"))
    demo_trader.configure(prefix, synthetic_market(1, ["AUSDT"], 601)[0])
    client = ck.Consumer({**prefix.client(), "group.id": prefix.group("ppo_trader")})

    def take() -> None:
        client.commit(offsets=[ck.TopicPartition(prefix.topic("policy.config"), 0, 1)], asynchronous=False)

    with monkeypatch.context() as hasty:
        hasty.setattr(demo_trader, "TAKEN_S", 0.0)
        with pytest.raises(click.ClickException, match=r"policy\.config-0 up to 1"):
            demo_trader.await_taken(prefix, lambda: None)
    demo_trader.await_taken(prefix, take)
    client.close()


def test_the_screen_says_how_many_runs_and_what_came_out() -> None:
    run = {"symbol": "AUSDT", "slot_end_ms": 1, "rows": 10, "steps": 20, "avg_reward": -1.23, "entropy": 1.05,
           "approx_kl": 0.0042, "explained_variance": 0.1}
    account = {"equity": 9_876.0, "action": "HOLD", "forced_reason": "low_confidence", "policy_version": 1}
    trader: dict[str, Any] = {
        "interval_minutes": 14_400, "config": "policy.config-0@0", "mode": "SHADOW", "runs": [run], "failed": 0,
        "skipped": {"synthetic": 12, "warm_up": 1}, "accounts": {"AUSDT": account}}
    text = "\n".join(demo_trader.lines(trader))
    for part in ("trained 1 times, a slot being 10.0 days", "policy.config has it at policy.config-0@0",
                 "mode SHADOW, in which nothing is applied", "percent: -1.2;", "entropy 1.05 nats, KL 0.0042",
                 "AUSDT: its account on paper stands at 9,876, last action HOLD (low_confidence)",
                 "synthetic 12, warm_up 1; failed attempts: 0"):
        assert part in text
    assert "its default" in demo_trader.lines(trader | {"config": None, "runs": []})[0]

"""The driver: order, partitions, codecs; and the golden run of the whole roster."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy
import pytest

from agents.algorithms.market import generate
from agents.ppo_trader import PpoTraderAgent, PpoTraderConfig
from agents.roster import ROSTER
from schemas.codec import Codec
from schemas.events import (
    Candle,
    Decision,
    Event,
    Experience,
    PolicyRecord,
    Tick,
    TradeClosed,
    TraderDecision,
    TrainingCompleted,
)
from streams.driver import Driver, ObjectCodec
from streams.identity import floats_print

GOLDEN = Path(__file__).with_name("golden") / "roster.json"
HOUR_MS = 3_600_000
SYMBOLS = ("ALPHA", "BETA", "GAMMA")
BARS = 700


def market() -> Iterator[tuple[str, Event]]:
    """Three made symbols, bar by bar, with a tick behind each."""
    made = {symbol: generate(seed, BARS) for seed, symbol in enumerate(SYMBOLS)}
    for t in range(BARS):
        for symbol, m in made.items():
            yield "market.candles", Candle(
                symbol=symbol, interval_ms=HOUR_MS, open_time_ms=t * HOUR_MS, ts_ms=(t + 1) * HOUR_MS,
                open=float(m.open[t]), high=float(m.high[t]), low=float(m.low[t]), close=float(m.close[t]),
                source="synthetic:0", origin="SYNTHETIC",
            )
        yield "system.clock", Tick(ts_ms=(t + 1) * HOUR_MS, writer="test")


def run(partitions: int = 1, codec: Codec | None = None) -> Driver:
    driver = Driver({name: agent() for name, agent in ROSTER.items()}, partitions=partitions, codec=codec)
    driver.run(market())
    return driver


@pytest.fixture(scope="module")
def once() -> Driver:
    return run()


def test_two_folds_of_one_log_are_the_same(once: Driver) -> None:
    again = run()
    assert again.scope_hashes() == once.scope_hashes()
    assert {t: [r.value for r in rs] for t, rs in again.log.items()} == {
        t: [r.value for r in rs] for t, rs in once.log.items()}


def test_scopes_are_the_same_for_one_and_for_eight_partitions(once: Driver) -> None:
    assert run(partitions=8).scope_hashes() == once.scope_hashes()


def test_objects_and_avro_give_the_same(once: Driver) -> None:
    assert run(codec=ObjectCodec()).scope_hashes() == once.scope_hashes()


def test_the_golden_run(once: Driver) -> None:
    """Fails when any agent computes anything else than it did; then say why in the changelog and write it anew.

    python -m tests.streams.test_driver

    Another libm, NumPy or processor may round a last digit differently: there only what does not hang on it is
    compared.
    """
    golden, now = json.loads(GOLDEN.read_text()), digest_of(once)
    if golden["platform"] != now["platform"]:
        golden["digest"], golden["platform"] = now["digest"], now["platform"]
    assert now == golden


def digest_of(driver: Driver) -> dict[str, object]:
    last = driver.events("policy.ledger")[-1]
    assert isinstance(last, PolicyRecord)
    return {
        "platform": [platform.machine(), *platform.libc_ver(), numpy.__version__, floats_print()],
        "digest": driver.digest(),
        "records": {topic: len(records) for topic, records in sorted(driver.log.items())},
        "last_policy": [last.policy_id, last.version, last.outcomes],
    }


def test_nothing_is_refused_and_every_decision_but_the_open_ones_has_one_experience(once: Driver) -> None:
    assert not [t for t in once.log if t.endswith(".dlq")]
    decided = [e.decision_id for e in once.events("rl.meta.strategy_selected") if isinstance(e, Decision)]
    learned = [e.decision_id for e in once.events("learning.experience") if isinstance(e, Experience)]
    assert len(decided) == len(set(decided))
    assert len(learned) == len(set(learned))
    assert set(learned) <= set(decided)
    assert len(decided) - len(learned) <= 2 * len(SYMBOLS)


def test_each_trade_belongs_to_one_decision(once: Driver) -> None:
    trades = [e for e in once.events("execution.trade.closed") if isinstance(e, TradeClosed)]
    assert len({t.decision_id for t in trades}) == len(trades) > 20


def test_policy_versions_have_no_gap_and_decisions_never_use_one_before_it_is_valid(once: Driver) -> None:
    versions: dict[str, list[PolicyRecord]] = {}
    for event in once.events("policy.ledger"):
        assert isinstance(event, PolicyRecord)
        versions.setdefault(event.policy_id, []).append(event)
    for records in versions.values():
        assert [r.version for r in records] == list(range(1, len(records) + 1))
    valid = {(r.policy_id, r.version): r.valid_from_ms for records in versions.values() for r in records}
    used = [d for d in once.events("rl.meta.strategy_selected") if isinstance(d, Decision) and d.policy_version]
    assert used
    for decision in used:
        assert valid[decision.policy_id or "", decision.policy_version or 0] <= decision.ts_ms


def test_a_decision_at_a_close_uses_the_policy_learned_from_that_close(once: Driver) -> None:
    """In the driver the loop is closed without delay: rank puts the new policy before the features."""
    newest: dict[str, list[tuple[int, int]]] = {}
    for event in once.events("policy.ledger"):
        assert isinstance(event, PolicyRecord)
        newest.setdefault(event.policy_id, []).append((event.ts_ms, event.version))
    for decision in once.events("rl.meta.strategy_selected"):
        assert isinstance(decision, Decision)
        versions = newest.get(f"{decision.decider}/{decision.symbol}", ())
        known = [version for ts_ms, version in versions if ts_ms <= decision.ts_ms]
        assert decision.policy_version == (max(known) if known else None)


def test_records_of_a_topic_are_in_order_of_event_time(once: Driver) -> None:
    for topic in ("market.features", "rl.meta.strategy_selected", "policy.ledger", "execution.equity.marked"):
        times = [e.ts_ms for e in once.events(topic)]  # type: ignore[attr-defined]
        assert all(a <= b for a, b in pairwise(times)), topic


def test_runs_of_the_trader_are_performed_in_memory_and_their_policies_decide() -> None:
    trader = PpoTraderAgent(PpoTraderConfig(synthetic=True, training_interval_minutes=2400, episode_bars=30, epochs=1,
                                            min_rows=16, window_rows=64, hidden=(8,)))
    driver = Driver({"features": ROSTER["features"](), "ppo_trader": trader})
    driver.run(market())
    done = [e for e in driver.events("rl_v3.training.completed") if isinstance(e, TrainingCompleted) and e.success]
    policies = [e for e in driver.events("policy.ledger") if isinstance(e, PolicyRecord)]
    asked = [e for e in driver.events("rl_v3.decision") if isinstance(e, TraderDecision) and e.policy_version]
    assert {e.symbol for e in done} == {e.scope for e in policies} == {e.symbol for e in asked} == set(SYMBOLS)
    assert len(done) == len(policies) == len(driver.log["rl_v3.training.started"])
    assert not [t for t in driver.log if t.endswith(".dlq")]


if __name__ == "__main__":
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps(digest_of(run()), indent=2) + "\n")

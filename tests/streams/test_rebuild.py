"""`quantum refold` and `quantum reset` over a broker: state made anew, and workers that go on from it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from typing import Any

import pytest
from click.testing import CliRunner

from agents.q_learning import QLearningAgent
from schemas.catalogue import AGENTS
from schemas.events import STRATEGY_SYMBOLS, Experience, PolicyRecord
from streams.cli.main import cli
from streams.held import wiped
from streams.settings import Settings
from streams.worker import run_agents
from tests.patience import PATIENCE_S
from tests.streams.hosting import CODEC, count, folds, in_loop, made_anew, produce, read, send, until

TOPICS = ("learning.experience", "learning.experience.dlq", "policy.commands", "policy.commands.dlq",
          "q_learning.inbox", "q_learning.changelog", "rl.q_learning.updated", "learning.drift.detected",
          "policy.ledger", "policy.current", "system.health.alert")
SYMBOLS = ("AAAUSDT", "BBBUSDT")
WARM = 25


def experiences(n: int, since: int = 0) -> list[Experience]:
    out = []
    for i in range(since, since + n):
        for symbol in SYMBOLS:
            learnable = i >= WARM
            out.append(Experience(
                decision_id=f"{symbol}/{i}", symbol=symbol, book_id="q_learning", ts_ms=1000 * (i + 1),
                decided_ms=1000 * i, status="TRADED", learnable=learnable, forced=not learnable,
                action=STRATEGY_SYMBOLS[i % 4], propensity=0.25, regime="bull", volatility=0.01 + 0.001 * (i % 7),
                state_key=f"bull|vol:{i % 3}", policy_version=1 if learnable else None, reward_r=(i % 5 - 2) / 2,
                pnl_usd=1.0, size_multiplier=1.0, source="x", origin="CLAIMED"))
    return out


def quantum(settings: Settings, *args: str) -> tuple[int, Any]:
    done = CliRunner().invoke(cli, [*args, "--broker", settings.broker, "--topic-prefix", settings.topic_prefix,
                                    "--app-id", settings.app_id, "--json"])
    text = f"{done.output} {done.exception!r}"
    return done.exit_code, json.loads(done.stdout) if done.stdout.startswith("{") else text


def versions(settings: Settings, symbol: str) -> list[int]:
    found = []
    for r in read(settings, "policy.ledger"):
        event = CODEC.decode("policy.ledger", r.value)
        assert isinstance(event, PolicyRecord)
        found += [event.version] if event.scope == symbol else []
    return found


def states(settings: Settings) -> dict[str, Any]:
    return {s: e.state for fold in folds(settings, QLearningAgent()).values() for s, e in fold.scopes.items()}


@pytest.mark.topics(*TOPICS)
@in_loop
async def test_state_that_is_lost_is_folded_again_and_state_that_is_reset_begins_from_nothing(prefix: Settings) -> None:
    produce(prefix, "learning.experience", experiences(60))
    async with run_agents(prefix, {"q_learning": QLearningAgent()}):
        await until(lambda: count(prefix, "rl.q_learning.updated") >= 2 * (60 - WARM), "updates")
        for action in ("refold", "reset"):
            code, text = quantum(prefix, action, "q_learning", "--reason", "too early")
            assert (code, "RUNNING" in str(text)) == (1, True)
            assert quantum(prefix, action, "q_learning", "--dry-run")[0] == 0, "workers may run"
    before, written = states(prefix), count(prefix, "q_learning.changelog")
    for action, same in (("refold", True), ("reset", None)):
        code, plan = quantum(prefix, action, "q_learning", "--dry-run")
        assert (code, plan["written"], {p["same"] for p in plan["partitions"]}) == (0, False, {same})
        assert plan["partitions"], "it says what would come out"
    assert count(prefix, "q_learning.changelog") == written, "a dry run writes nothing"
    assert states(prefix) == before

    hit = next(p for p, fold in folds(prefix, QLearningAgent()).items() if SYMBOLS[0] in fold.scopes)
    send(prefix, [("q_learning.changelog", f"scope:{SYMBOLS[0]}".encode(), None, wiped("a test"))], hit)
    code, done = quantum(prefix, "refold", "q_learning", "--reason", "a scope is gone", "--actor", "anna")
    assert (code, done["written"]) == (0, True)
    assert next(p["changed"] for p in done["partitions"] if p["partition"] == hit) == [SYMBOLS[0]]
    assert states(prefix) == before

    code, done = quantum(prefix, "reset", "q_learning", "--scope", SYMBOLS[0], "--reason", "start over")
    assert (code, done["written"]) == (0, True)
    after = states(prefix)
    assert after[SYMBOLS[1]] == before[SYMBOLS[1]]
    assert (after[SYMBOLS[0]].outcomes, after[SYMBOLS[0]].version) == (0, before[SYMBOLS[0]].version)

    produce(prefix, "learning.experience", experiences(10, since=60))
    async with run_agents(prefix, {"q_learning": QLearningAgent()}):
        await until(lambda: count(prefix, "rl.q_learning.updated") >= 2 * (70 - WARM), "more updates")
    for symbol in SYMBOLS:
        own = versions(prefix, symbol)
        assert own == list(range(1, len(own) + 1)), "version numbers go on"
    assert states(prefix)[SYMBOLS[0]].outcomes == 10


@pytest.mark.topics(*TOPICS)
def test_what_cannot_be_made_anew_is_said(prefix: Settings) -> None:
    assert quantum(prefix, "refold", "q_learning")[0] == 2, "a reason is needed"
    code, done = quantum(prefix, "refold", "q_learning", "--reason", "nothing there")
    assert isinstance(done, dict), done
    assert (code, done["partitions"], done["written"]) == (0, [], False)
    for action in ("refold", "reset"):
        for agent in ("trees", "nobody"):
            code, text = quantum(prefix, action, agent, "--reason", "not built, or no agent")
            assert (code, "q_learning" in str(text)) == (2, True), "it names those that there are"
    code, text = quantum(prefix, "reset", "q_learning", "--scope", "ZZZ", "--reason", "no such symbol")
    assert (code, "no scope ZZZ" in str(text)) == (1, True)


@pytest.mark.topics(*TOPICS)
@in_loop
async def test_an_agent_that_is_reset_goes_on_with_a_source_that_was_made_anew(prefix: Settings) -> None:
    produce(prefix, "learning.experience", experiences(40))
    async with run_agents(prefix, {"q_learning": QLearningAgent()}):
        await until(lambda: count(prefix, "rl.q_learning.updated") >= 2 * (40 - WARM), "updates")
    await made_anew(prefix, "learning.experience")
    async with run_agents(prefix, {"q_learning": QLearningAgent()}) as worker:
        async with asyncio.timeout(PATIENCE_S):
            await worker.wait_failed()
        assert "quantum reset q_learning" in str(worker.hosts[0].app.crash_reason)
    code, done = quantum(prefix, "reset", "q_learning", "--reason", "the topic is another one")
    assert isinstance(done, dict), done
    assert code == 0
    assert any("is another one" in text for p in done["partitions"] for text in p["fitted"])
    produce(prefix, "learning.experience", experiences(40, since=100))
    async with run_agents(prefix, {"q_learning": QLearningAgent()}) as worker:
        await until(lambda: count(prefix, "rl.q_learning.updated") >= 2 * (80 - WARM), "what was learned anew")
        assert not worker.failed
    assert {s.outcomes for s in states(prefix).values()} == {40}


@pytest.mark.topics(*TOPICS)
@in_loop
async def test_state_that_was_folded_from_another_topic_is_begun_anew_above_the_ids_on_the_log(
    prefix: Settings, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`q_learning` once folded `learning.experience` itself; since it takes commands, it has an inbox."""
    produce(prefix, "learning.experience", experiences(40))
    with monkeypatch.context() as earlier:
        io = dataclasses.replace(AGENTS["q_learning"], reads={"learning.experience": "by_scope"}, direct=True)
        earlier.setitem(AGENTS, "q_learning", io)  # type: ignore[arg-type]
        async with run_agents(prefix, {"q_learning": QLearningAgent()}):
            await until(lambda: count(prefix, "rl.q_learning.updated") >= 2 * (40 - WARM), "updates")
    assert count(prefix, "q_learning.inbox") == 0
    old = ids(prefix)
    async with run_agents(prefix, {"q_learning": QLearningAgent()}) as worker:
        async with asyncio.timeout(PATIENCE_S):
            await worker.wait_failed()
        assert "quantum reset q_learning" in str(worker.hosts[0].app.crash_reason)
    for args in (["refold"], ["reset", "--scope", SYMBOLS[0]]):
        code, text = quantum(prefix, args[0], "q_learning", *args[1:], "--reason", "an older version")
        assert (code, "OTHER_INPUT" in str(text), "learning.experience-" in str(text)) == (6, True, True), text
    code, plan = quantum(prefix, "reset", "q_learning", "--dry-run")
    assert (code, count(prefix, "q_learning.inbox")) == (0, 0)
    code, done = quantum(prefix, "reset", "q_learning", "--reason", "an older version")
    assert isinstance(done, dict), done
    assert (code, done["written"], done["moved"]) == (0, True, [])
    assert [p["fences"] for p in done["partitions"]] == [p["fences"] for p in plan["partitions"]]
    assert count(prefix, "q_learning.inbox") == sum(p["fences"] for p in done["partitions"]) > 0

    produce(prefix, "learning.experience", experiences(10, since=40))
    async with run_agents(prefix, {"q_learning": QLearningAgent()}) as worker:
        await until(lambda: count(prefix, "rl.q_learning.updated") >= 2 * (50 - WARM), "what was learned anew")
        assert not worker.failed
    assert {s.outcomes for s in states(prefix).values()} == {10}, "nothing is taken twice, nothing left out"
    for symbol in SYMBOLS:
        own = versions(prefix, symbol)
        assert own == list(range(1, len(own) + 1)), "version numbers go on"
    for place, offsets in ids(prefix).items():
        assert offsets[:len(old.get(place, ()))] == old.get(place, []), place
        assert offsets == sorted(offsets), f"readers of {place} would drop what does not rise"


def ids(settings: Settings) -> dict[str, list[int]]:
    """Input offsets in the ids of the policies, in the order of the ledger, by its partition and that of the input."""
    found: dict[str, list[int]] = {}
    for r in read(settings, "policy.ledger"):
        where, offset, _ = dict(r.headers)["ce_id"].decode().replace(":", "-", 1).replace(":", "-").rsplit("-", 2)
        found.setdefault(f"{r.partition} {where}", []).append(int(offset))
    return found


@pytest.mark.topics(*TOPICS)
@in_loop
async def test_an_inbox_that_was_made_anew_begins_above_the_ids_on_the_log(prefix: Settings) -> None:
    produce(prefix, "learning.experience", experiences(40))
    async with run_agents(prefix, {"q_learning": QLearningAgent()}):
        await until(lambda: count(prefix, "rl.q_learning.updated") >= 2 * (40 - WARM), "updates")
    await made_anew(prefix, "q_learning.inbox")
    code, done = quantum(prefix, "reset", "q_learning", "--reason", "the inbox is another one")
    assert isinstance(done, dict), done
    assert code == 0
    assert any("so that readers take what comes" in text for p in done["partitions"] for text in p["fitted"])
    produce(prefix, "learning.experience", experiences(10, since=40))
    async with run_agents(prefix, {"q_learning": QLearningAgent()}) as worker:
        await until(lambda: count(prefix, "rl.q_learning.updated") >= 2 * (50 - WARM), "what was learned anew")
        assert not worker.failed
    assert {s.outcomes for s in states(prefix).values()} == {10}
    assert all(offsets == sorted(offsets) for offsets in ids(prefix).values())

"""`quantum why` of the PPO trader's decisions: a run of the real agents, its log put on a broker record by record."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from confluent_kafka import Producer
from msgspec.structs import replace

from agents.algorithms.trading_view import COLUMNS, POSITION
from agents.ppo_trader import PpoTraderAgent, PpoTraderConfig
from agents.roster import ROSTER
from schemas import pages
from schemas.events import Command, Event, Orphan, PolicyApplied, PolicyCommand, TradeClosed, TraderDecision
from streams.cli.exits import Exit
from streams.cli.main import main
from streams.driver import Driver
from streams.log import LogReader
from streams.settings import Settings
from streams.story import Reach, TraderStory, trace_trader, trader_steps
from streams.story.trader_telling import TRADER_FIELDS
from streams.verify.planted.stage import CODEC, CONFIGS, HOUR_MS, identities, made
from streams.verify.tape import Tape
from tests.streams.log_fixtures import flags, own_names, produce, record

TRADER, LEDGER, COMPLETED, STARTED = (
    "rl_v3.decision", "policy.ledger", "rl_v3.training.completed", "rl_v3.training.started")
TRADES, COMMANDS = "execution.trade.closed", "policy.commands"
TOPICS = (COMMANDS, "market.candles", "features.inbox", "market.features", "ppo_trader.inbox", STARTED, COMPLETED,
          LEDGER, TRADER, TRADES, "policy.applied", "learning.orphan", "rl.meta.strategy_selected")
"""In the order in which they are filled: a command stands on the log before what obeyed it."""
FREEZE_MS, HALT_MS = 330 * HOUR_MS + 1, 350 * HOUR_MS + 1
BARS = 360


def command(kind: Command, ts_ms: int) -> tuple[str, Event]:
    of = None if kind == "HALT" else "ppo_trader/MADE"
    return COMMANDS, PolicyCommand(command_id=f"{kind}-1", ts_ms=ts_ms, command=kind, policy_id=of, actor="ann",
                                   reason="because")


class Played:
    """A broker with the log of a run on which the trader's decisions bind; frozen by a person, and later halted."""

    def __init__(self, settings: Settings) -> None:
        config = CONFIGS["ppo_trader"]
        assert isinstance(config, PpoTraderConfig)
        bold = PpoTraderAgent(replace(config, mode="PRIMARY", min_confidence=0.0))
        tape = Tape()
        driver = Driver({"features": ROSTER["features"](), "ppo_trader": bold}, codec=CODEC, tap=tape,
                        identities=identities())
        driver.run(sorted([*made(bars=BARS), command("FREEZE", FREEZE_MS), command("HALT", HALT_MS)],
                          key=lambda pair: pair[1].ts_ms))  # type: ignore[attr-defined]
        self.settings = settings
        self.rows = {topic: tape.log.records[topic][0] for topic in TOPICS}
        producer = Producer(settings.producer())
        for topic, rows in self.rows.items():
            for row in rows:
                producer.produce(settings.topic(topic), row.value, row.key, 0, headers=list(row.headers))
                producer.poll(0)
            assert producer.flush(30) == 0
        self.decisions = [d for _, d in self.of(TRADER)]

    def of(self, topic: str) -> list[tuple[str, Any]]:
        """Place and event of every record of a topic."""
        return [(row.place, CODEC.decode(topic, row.value)) for row in self.rows[topic]]

    def place(self, topic: str, **fields: Any) -> str:
        """Of the first record whose event says so."""
        return next(p for p, e in self.of(topic) if all(getattr(e, n) == v for n, v in fields.items()))

    def told(self, asked: str, reach: Reach | None = None) -> TraderStory:
        with LogReader(self.settings) as log:
            found = trace_trader(log, CODEC, asked, reach or Reach())
        assert found is not None
        return found


@pytest.fixture(scope="module")
def log(broker: Settings) -> Played:
    return Played(own_names(broker, *TOPICS))


def places(story: TraderStory) -> dict[str, str]:
    return {s.what: s.place for s in trader_steps(story)}


def text(story: TraderStory, what: str) -> str:
    return next(s.text for s in trader_steps(story) if s.what == what)


def opening(log: Played) -> tuple[TraderDecision, TraderDecision, TraderDecision]:
    """A decision under version 2 that opened a position held over a close, the one behind it, and where it was over."""
    for d, after in zip(log.decisions, log.decisions[1:], strict=False):
        side = {"LONG": 1, "SHORT": -1}.get(d.action)
        if d.policy_version == 2 and d.side == 0 and side == after.side:
            return d, after, next(x for x in log.decisions if x.ts_ms > after.ts_ms and x.side != side)
    raise AssertionError("none was opened")


def test_a_decision_leads_to_its_bar_its_version_and_the_run_that_made_it(log: Played) -> None:
    d, after, over = opening(log)
    story = log.told(d.decision_id)
    started = next(e for _, e in log.of(STARTED) if e.parent_version == 1)
    expected = {
        "candle": log.place("market.candles", ts_ms=d.ts_ms), "features": log.place("market.features", ts_ms=d.ts_ms),
        "policy in force": log.place(LEDGER, policy_id=d.policy_id, version=2),
        "its run": log.place(COMPLETED, job_id=started.job_id), "its start": log.place(STARTED, job_id=started.job_id),
        "decision": log.place(TRADER, decision_id=d.decision_id),
        "next close": log.place(TRADER, decision_id=after.decision_id),
        "its position": log.place(TRADER, decision_id=over.decision_id)}
    assert places(story) | expected == places(story)
    assert [s.what for s in trader_steps(story)][:3] == ["candle", "features", "what it was given"]
    p = max(d.probabilities)
    assert f"{d.action} under version 2, mode PRIMARY, binding; recommended {d.action} (" in text(story, "decision")
    assert f"{d.action} {p:.3f}" in text(story, "decision")
    assert f"confidence {d.confidence:.3f}" in text(story, "decision")
    assert "from the weights of version 1; reward" in text(story, "its run")
    assert f"{over.equity - d.equity:+.2f} since the decision" in text(story, "its position")
    assert text(story, "what it was given").startswith(f"return_1 {d.observation[0]:.4g}, return_5 ")
    assert "1 earlier versions that it goes on from (--depth)" in text(story, "not shown")
    assert "not shown" not in places(log.told(d.decision_id, Reach(depth=5)))
    assert [t.run is not None for t in log.told(d.decision_id, Reach(depth=5)).trained] == [True, True]
    assert log.told(d.decision_id, Reach(depth=0)).trained == []


def test_before_the_first_version_there_is_nothing_to_lead_to(log: Played) -> None:
    first = log.decisions[0]
    told = places(log.told(first.decision_id))
    assert not {"policy in force", "its run", "what it was given", "its position"} & set(told)
    assert "HOLD under no policy, mode PRIMARY, binding; not asked, forced: no_policy" in text(
        log.told(first.decision_id), "decision")
    last = log.told(log.decisions[-1].decision_id)
    assert (last.next, places(last)["next close"]) == (None, "-")


def test_under_a_version_that_a_command_made_the_run_is_that_of_its_weights(log: Played) -> None:
    frozen = next(e for _, e in log.of(LEDGER) if e.status == "FROZEN")
    story = log.told(next(d.decision_id for d in log.decisions if d.policy_version == frozen.version))
    assert places(story)["policy in force"] == log.place(LEDGER, version=frozen.version)
    assert "FROZEN by ann (freeze: because)" in text(story, "policy in force")
    assert places(story)["its weights"] == log.place(LEDGER, version=frozen.version - 1)
    job_id = log.of(LEDGER)[frozen.version - 2][1].reason.removeprefix("update: ")
    assert places(story)["its run"] == log.place(COMPLETED, job_id=job_id)


def test_a_decision_that_a_person_forced_names_the_command(log: Played) -> None:
    story = log.told(next(d.decision_id for d in log.decisions if d.forced_reason == "halt"))
    assert places(story)["command"] == log.place(COMMANDS, command="HALT")
    assert "HALT of all symbols by ann" in text(story, "command")


def test_an_executors_trade_leads_to_its_decision(log: Played) -> None:
    d = opening(log)[0]
    trade = msgspec.convert(pages.example_of(TRADES), TradeClosed)
    trade = replace(trade, trade_id=f"engine/{d.decision_id}", decision_id=d.decision_id, symbol=d.symbol)
    applied = PolicyApplied(
        decision_id=d.decision_id, symbol=d.symbol, ts_ms=d.ts_ms, policy_id=d.policy_id or "", policy_version=2,
        recommended_action=d.action, executed_action=d.action, baseline_action="HOLD", applier="engine",
        source=d.source, origin=d.origin)
    lost = Orphan(orphan_id=trade.trade_id, symbol=d.symbol, ts_ms=d.ts_ms, reason="UNKNOWN_DECISION",
                  trade_id=trade.trade_id, decision_id=d.decision_id, pnl_usd=1.0, source=d.source, origin=d.origin)
    sent = produce(log.settings, [record(t, e) for t, e in (
        (TRADES, trade), ("policy.applied", applied), ("learning.orphan", lost))], partition=0)
    for asked, kind in ((trade.trade_id, "trade"), (d.decision_id, "decision")):
        story = log.told(asked)
        assert (story.kind, story.said.decision_id) == (kind, d.decision_id)
        assert [places(story)[what] for what in ("trade", "applied", "orphan")] == sent


def test_the_command_has_text_and_json(log: Played, capsys: pytest.CaptureFixture[str]) -> None:
    d = opening(log)[0]
    assert main(["why", d.decision_id, "--json", *flags(log.settings)]) == Exit.GOOD
    told = json.loads(capsys.readouterr().out)
    assert set(told) == {name for names in TRADER_FIELDS for name in names.split(", ")}
    assert (told["schema"], told["kind"]) == ("quantum.why.trader/1", "decision")
    assert told["observation"] == dict(zip((*COLUMNS, *POSITION), d.observation, strict=True))
    assert set(told["probabilities"]) == set(d.valid)
    assert told["policy"]["version"] == told["trained"][0]["version"] == 2
    run = told["trained"][0]["run"]
    assert (run["event"], run["value"]["parent_version"]) == ("TrainingCompleted", 1)
    assert run["value"]["learner_bytes"] > 0
    assert "learner" not in run["value"]
    assert main(["why", d.decision_id, *flags(log.settings)]) == Exit.GOOD
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"decision {d.decision_id}"
    assert f"its run\t{run['place']}\t" in "\n".join(out)


def test_an_id_that_is_almost_one_is_unknown_and_the_nearest_are_named(
    log: Played, capsys: pytest.CaptureFixture[str],
) -> None:
    name = log.decisions[5].decision_id
    assert main(["why", name[:-3], *flags(log.settings)]) == Exit.FAILED
    assert "near: MADE/ppo_trader/" in capsys.readouterr().err

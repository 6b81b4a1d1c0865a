"""`quantum why`: one log with a case for each verdict, told by the library and by the command."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from confluent_kafka import Producer

from agents.algorithms.market import generate
from agents.roster import ROSTER
from schemas.events import (
    Candle,
    Decision,
    DecisionOutcome,
    Event,
    Experience,
    Orphan,
    PolicyApplied,
    PolicyCommand,
    PolicyRecord,
    QUpdated,
    TradeClosed,
)
from schemas.pages import example_of
from streams.cli.main import main
from streams.driver import Driver
from streams.log import LogReader
from streams.records import Outgoing
from streams.settings import Settings
from streams.story import Story, Unknown, as_dict, steps, trace
from streams.story.arithmetic import agrees, check_trade
from streams.story.gathering import mentions
from streams.story.telling import FIELDS
from streams.transport.logs import LIBRDKAFKA
from tests.streams.log_fixtures import (
    CODEC,
    HOUR_MS,
    T0_MS,
    candle,
    candles,
    features,
    flags,
    own_names,
    policy,
    produce,
    record,
    refused,
    relayed,
)

TRADES, DECISIONS = "execution.trade.closed", "rl.meta.strategy_selected"
TOPICS = ("market.candles", "market.features", DECISIONS, TRADES, f"{TRADES}.dlq", "decision.outcome",
          "policy.applied", "learning.experience", "learning.experience.dlq", "learning.orphan",
          "rl.q_learning.updated", "policy.ledger", "policy.commands", "decision.inbox")
PAPER = "paper:test fee_bps=10 half_spread_bps=50 slippage_bps=50 funding_bps=0 fill=next_open"
FROM: dict[str, Any] = {"source": "binance", "origin": "CLAIMED"}


def name_of(n: int) -> str:
    return f"BTCUSDT/q_learning/{T0_MS + n * HOUR_MS}"


def decision(n: int, version: int = 1, **changes: Any) -> Decision:
    """The decision at the close of bar n - 1."""
    ts_ms = T0_MS + n * HOUR_MS
    values: dict[str, Any] = {
        "decision_id": name_of(n), "symbol": "BTCUSDT", "book_id": "q_learning", "decider": "q_learning",
        "ts_ms": ts_ms, "interval_ms": HOUR_MS, "next_ts_ms": ts_ms + 4 * HOUR_MS, "action": "breakout",
        "greedy_action": "neutral", "baseline_action": "neutral", "propensity": 0.25, "forced": False,
        "policy_id": "q_learning/BTCUSDT", "policy_version": version, "state_key": "bull|vol:1", "regime": "bull",
        "volatility": 0.01, "close": 100.0, "atr_pct": 0.02, "signals": (1, -1, 1, 0), "size_multiplier": 1.0, **FROM}
    return Decision(**(values | changes))


def trade(n: int, **changes: Any) -> TradeClosed:
    """Long 2 at 100 plus 1 %, out at 100.5 less 1 % four bars later, a tenth of a percent of fees on each fill.

    Result by hand: 2 x (99.495 - 101) - 0.40099 = -3.41099, on a risk of 2 x (101 - 96) = 10.
    """
    ts_ms = T0_MS + n * HOUR_MS
    values: dict[str, Any] = {
        "trade_id": f"{name_of(n)}/t", "decision_id": name_of(n), "book_id": "q_learning", "symbol": "BTCUSDT",
        "side": "LONG", "ts_ms": ts_ms + 4 * HOUR_MS, "opened_ms": ts_ms, "entry_price": 101.0, "exit_price": 99.495,
        "quantity": 2.0, "size_multiplier": 1.0, "leverage": 0.0202, "equity_at_open": 10_000.0,
        "notional_at_open": 202.0, "risk_at_open": 10.0, "stop_price": 96.0, "fees": 0.40099, "funding": 0.0,
        "spread_cost": 2.005, "slippage": 2.005, "pnl_usd": -3.41099, "pnl_pct": -0.000341099,
        "r_multiple": -0.341099, "exit_reason": "HORIZON", "strategy": "breakout", "execution": PAPER, **FROM}
    return TradeClosed(**(values | changes))


def experience(n: int, **changes: Any) -> Experience:
    ts_ms = T0_MS + n * HOUR_MS
    values: dict[str, Any] = {
        "decision_id": name_of(n), "symbol": "BTCUSDT", "book_id": "q_learning", "ts_ms": ts_ms + 4 * HOUR_MS,
        "decided_ms": ts_ms, "status": "TRADED", "learnable": True, "forced": False, "action": "breakout",
        "propensity": 0.25, "policy_version": 1, "state_key": "bull|vol:1", "regime": "bull", "volatility": 0.01,
        "trade_id": f"{name_of(n)}/t", "reward_r": -0.341099, "pnl_usd": -3.41099, "size_multiplier": 1.0, **FROM}
    return Experience(**(values | changes))


def outcome(n: int, status: str = "TRADED", **changes: Any) -> DecisionOutcome:
    values: dict[str, Any] = {
        "decision_id": name_of(n), "symbol": "BTCUSDT", "book_id": "q_learning", "status": status,
        "ts_ms": T0_MS + (n + 4) * HOUR_MS, "trade_id": f"{name_of(n)}/t" if status == "TRADED" else None, **FROM}
    return DecisionOutcome(**(values | changes))


def orphan(orphan_id: str, reason: str, decision_id: str | None) -> Orphan:
    return Orphan(orphan_id=orphan_id, symbol="BTCUSDT", ts_ms=T0_MS, reason=reason, trade_id=orphan_id,
                  decision_id=decision_id, pnl_usd=1.0, **FROM)


def sharper(version: int, probabilities: tuple[float, ...]) -> PolicyRecord:
    """A version whose cell bull|vol:1 has these probabilities."""
    old = policy(version)
    assert old.tabular is not None
    cells = tuple(msgspec.structs.replace(c, probabilities=probabilities) if c.state_key == "bull|vol:1" else c
                  for c in old.tabular.cells)
    return msgspec.structs.replace(old, tabular=msgspec.structs.replace(old.tabular, cells=cells))


class Log:
    """What the tests read: the settings, and where each record went."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._producer = Producer(settings.producer(), logger=LIBRDKAFKA)

    def put(self, event: Event, topic: str, partition: int | None = None, ce_id: str = "test:0") -> str:
        return self.send(record(topic, event, ce_id), partition)

    def send(self, sent: Outgoing, partition: int | None = None) -> str:
        """Send a record and wait for it; returns its place."""
        places: list[str] = []

        def done(error: Any, message: Any) -> None:
            assert error is None, error
            places.append(f"{sent.topic}-{message.partition()}@{message.offset()}")

        where = {} if partition is None else {"partition": partition}
        self._producer.produce(self.settings.topic(sent.topic), key=sent.key, value=sent.value,
                               headers=list(sent.headers), on_delivery=done, **where)
        assert self._producer.flush(20) == 0
        return places[0]

    def refuse(self, sent: Outgoing, reason: str, by: str, partition: int | None = None) -> tuple[str, str]:
        """A record and its dead letter; returns both places."""
        place = self.send(sent, partition)
        at, _, offset = place.rpartition("@")
        letter = refused(sent, int(offset), reason, by, int(at.rpartition("-")[2]))
        return place, self.send(letter, 0)

    def trace(self, asked: str) -> Story:
        with LogReader(self.settings) as log:
            return trace(log, CODEC, asked)


@pytest.fixture(scope="module")
def log(broker: Settings) -> Log:
    """Candles and two policy versions, on their usual partitions; each test adds a decision of its own."""
    log = Log(own_names(broker, *TOPICS))
    produce(log.settings, candles(400))
    for version, probabilities in ((1, (0.25,) * 4), (2, (0.4, 0.3, 0.2, 0.1))):
        log.put(sharper(version, probabilities), "policy.ledger")
    return log


def words(story: Story) -> list[str]:
    return [v.word for v in story.verdicts]


def step(story: Story, what: str) -> Any:
    return next(s for s in steps(story) if s.what == what)


# ---------------------------------------------------------------------- verdicts
def test_an_accepted_trade_is_told_from_its_candle_to_the_first_decision_under_the_new_policy(log: Log) -> None:
    bar = log.put(features(bar=9), "market.features")
    copy = log.put(features(bar=9), "market.features")  # the one that the decision was made on, by its output id
    at, _, offset = copy.rpartition("@")
    inbox = log.send(relayed("decision", record("market.features", features(bar=9)), int(at[-1]), int(offset)), 2)
    decided = log.put(decision(10), DECISIONS, ce_id=f"decision:2-{inbox.rpartition('@')[2]}:0")
    applied = log.put(PolicyApplied(
        decision_id=name_of(10), symbol="BTCUSDT", ts_ms=T0_MS, policy_id="q_learning/BTCUSDT", policy_version=1,
        recommended_action="breakout", executed_action="breakout", baseline_action="neutral", applier="paper_execution",
        **FROM), "policy.applied")
    closed = log.put(trade(10), TRADES, partition=3)
    log.put(outcome(10), "decision.outcome")
    learned = log.put(experience(10), "learning.experience")
    update = log.put(QUpdated(
        symbol="BTCUSDT", ts_ms=T0_MS, decision_id=name_of(10), policy_version=2, state_key="bull|vol:1",
        action="breakout", reward_r=-0.341099, q_before=0.0, q_after=-0.341099, visits=1, step_size=1.0,
        residual=-0.341099, drift=False, **FROM), "rl.q_learning.updated")
    later = log.put(decision(14, version=2), DECISIONS)
    log.put(decision(18, version=2), DECISIONS)

    for asked in (f"{name_of(10)}/t", name_of(10)):
        story = log.trace(asked)
        assert words(story) == ["accepted"]
        assert story.verdicts[0].places == (learned,)
        assert bar != copy
        places = {s.what: s.place for s in steps(story)}
        assert places | {"features": copy, "decision": decided, "applied": applied, "trade": closed,
                         "experience": learned, "update": update, "first decision with it": later} == places
        assert places["candle"].startswith("market.candles-")
        assert "closes at 100.5" in step(story, "candle").text
        assert step(story, "arithmetic").text.startswith("agrees in 18 checks")
        assert "the policy changed it" in step(story, "applied").text
        told = as_dict(story)
        assert told["learning"]["before"]["cell"]["probabilities"]["trend_following"] == 0.25
        assert told["learning"]["after"]["cell"]["probabilities"] == {
            "trend_following": 0.4, "mean_reversion": 0.3, "breakout": 0.2, "neutral": 0.1}
        assert told["learning"]["other_cells_changed"] == 0
        assert told["policy"]["version"] == 1
        assert told["applied"][0]["changed"] is True
        assert [b["value"]["open_time_ms"] for b in told["bars"]] == [T0_MS + 10 * HOUR_MS, T0_MS + 13 * HOUR_MS]


def test_identical_copies_are_duplicates_whatever_partition_they_stand_on(log: Log) -> None:
    log.put(decision(20), DECISIONS)
    log.put(trade(20), TRADES, partition=0)
    copies = [log.put(trade(20), TRADES, partition=p) for p in (0, 3)]
    log.put(experience(20), "learning.experience")
    story = log.trace(f"{name_of(20)}/t")
    assert words(story) == ["accepted", "duplicate"]
    assert sorted(story.verdicts[1].places) == sorted(copies)


def test_another_content_under_a_known_id_is_a_conflict(log: Log) -> None:
    log.put(decision(24), DECISIONS)
    first = log.put(trade(24), TRADES)
    place, letter = log.refuse(record(TRADES, trade(24, fees=0.5)), "CONFLICT", "experience")
    log.put(experience(24), "learning.experience")
    story = log.trace(f"{name_of(24)}/t")
    assert words(story) == ["accepted", "conflict"]
    assert story.verdicts[1].places == (letter, place)
    assert step(story, "trade").place == first
    fresh = log.put(trade(24, fees=0.6), TRADES)
    assert log.trace(f"{name_of(24)}/t").verdicts[-1][::2] == ("conflict", (fresh,))


def test_the_copy_that_counts_is_the_one_that_the_experience_was_made_of(log: Log) -> None:
    log.put(decision(28), DECISIONS)
    log.put(trade(28, pnl_usd=9.0, r_multiple=0.9), TRADES, partition=0)
    second = log.put(trade(28), TRADES, partition=1)
    log.put(experience(28), "learning.experience")
    assert step(log.trace(f"{name_of(28)}/t"), "trade").place == second


@pytest.mark.parametrize(("n", "reason", "named"), [
    (40, "NO_DECISION_ID", None), (41, "UNKNOWN_DECISION", "BTCUSDT/q_learning/1"), (42, "LATE", name_of(42))])
def test_a_trade_that_nobody_learns_from_is_unattributed(log: Log, n: int, reason: str, named: str | None) -> None:
    if reason == "LATE":
        log.put(decision(n), DECISIONS)
        log.put(experience(n), "learning.experience")
    log.put(trade(n, trade_id=f"foreign-{n}", decision_id=named, execution="exchange:test"), TRADES)
    lost = log.put(orphan(f"foreign-{n}", reason, named), "learning.orphan")
    story = log.trace(f"foreign-{n}")
    assert words(story) == ["unattributed"]
    assert story.verdicts[0].text.startswith(reason)
    assert story.verdicts[0].places == (lost,)
    assert step(story, "orphan").place == lost
    if reason == "LATE":  # the decision itself was accepted, by another trade
        assert words(log.trace(name_of(n))) == ["accepted", "unattributed"]


def test_what_a_trade_waits_for(log: Log) -> None:
    log.put(trade(50), TRADES)
    story = log.trace(f"{name_of(50)}/t")
    assert words(story) == ["waiting"]
    assert (f"for its decision {name_of(50)}, until a decision of the symbol is there that was taken after "
            f"2022-01-11T18:00:00Z (204 bars)") in story.verdicts[0].text
    log.put(decision(50), DECISIONS)
    assert "for the agent experience" in log.trace(f"{name_of(50)}/t").verdicts[0].text
    log.put(experience(50, status="NOT_EXECUTED", reason="no_outcome", trade_id=None, learnable=False),
            "learning.experience")
    story = log.trace(f"{name_of(50)}/t")
    assert words(story) == ["waiting"]
    assert "it will be LATE" in story.verdicts[0].text


def test_what_a_decision_waits_for(log: Log) -> None:
    log.put(decision(54), DECISIONS)
    assert ("for its trade or outcome, until the outcome of a decision of its book is there that was taken after "
            "2022-01-11T18:00:00Z") in log.trace(name_of(54)).verdicts[0].text
    log.put(outcome(54), "decision.outcome")
    story = log.trace(name_of(54))
    assert words(story) == ["waiting"]
    assert f"for its trade {name_of(54)}/t, which its outcome promises" in story.verdicts[0].text
    story = log.trace(f"{name_of(54)}/t")
    assert (story.named.kind, words(story)) == ("trade", ["waiting"])
    log.put(trade(54), TRADES)
    assert "for the agent experience" in log.trace(name_of(54)).verdicts[0].text


@pytest.mark.parametrize(("n", "value"), [
    (60, lambda name: json.dumps({"trade_id": name, "pnl": "7"}).encode()),
    (61, lambda name: record(TRADES, trade(61)).value[:-3]),
])
def test_a_trade_that_the_decoder_refused_is_dead_lettered(log: Log, n: int, value: Any) -> None:
    asked = f"{name_of(n)}/t"
    sent = Outgoing(TRADES, b"BTCUSDT", value(asked), ())
    unread = log.send(sent)
    story = log.trace(asked)
    assert words(story) == ["waiting"]
    assert story.verdicts[0].places == (unread,)
    place, letter = log.refuse(sent, "NOT_AVRO", "experience")
    at, _, offset = unread.rpartition("@")
    log.send(refused(sent, int(offset), "NOT_AVRO", "experience", int(at[-1])), 0)
    story = log.trace(asked)
    assert words(story) == ["dead-lettered", "dead-lettered"]
    assert story.verdicts[0].places == (letter, place)
    assert story.verdicts[0].text.startswith("NOT_AVRO by experience")


def test_a_trade_that_an_agent_refused_is_dead_lettered_and_accepted_once_it_is_redriven(log: Log) -> None:
    log.put(decision(64), DECISIONS)
    sent = record(TRADES, trade(64))
    place, letter = log.refuse(sent, "TOO_MANY_WAITING", "experience")
    story = log.trace(f"{name_of(64)}/t")
    assert words(story) == ["dead-lettered"]
    assert story.verdicts[0].places == (letter, place)
    assert words(log.trace(name_of(64))) == ["waiting"]
    assert "one was refused (TOO_MANY_WAITING)" in log.trace(name_of(64)).verdicts[0].text
    log.send(sent)
    log.put(experience(64), "learning.experience")
    assert words(log.trace(f"{name_of(64)}/t")) == ["accepted", "dead-lettered"]


def test_a_mended_trade_is_the_one_that_the_story_tells(log: Log) -> None:
    """A refused trade leaves its id free: the same id comes again, mended."""
    log.put(decision(65), DECISIONS)
    log.refuse(record(TRADES, trade(65, strategy="neutral")), "INCONSISTENT", "experience")
    mended = log.put(trade(65), TRADES)
    log.put(experience(65), "learning.experience")
    story = log.trace(f"{name_of(65)}/t")
    assert words(story) == ["accepted", "dead-lettered"]
    assert step(story, "trade").place == as_dict(story)["trade"]["place"] == mended
    assert "DOES NOT AGREE" not in step(story, "arithmetic").text


def test_dead_letters_of_other_trades_of_the_decision_name_them(log: Log) -> None:
    log.put(decision(66), DECISIONS)
    log.put(trade(66), TRADES)
    log.put(experience(66), "learning.experience")
    log.refuse(record(TRADES, trade(66, trade_id="another")), "INCONSISTENT", "experience")
    story = log.trace(f"{name_of(66)}/t")
    assert step(story, "dead letter").text.startswith("trade another: INCONSISTENT by experience")
    assert step(story, "other trade").text.startswith("another: ")


def test_a_report_that_its_decision_contradicts_is_told_so(log: Log) -> None:
    its = decision(67)
    log.put(its, DECISIONS)
    report = msgspec.structs.replace(
        msgspec.convert(example_of("policy.applied"), PolicyApplied), decision_id=its.decision_id, symbol=its.symbol,
        recommended_action=its.action, executed_action=its.action, baseline_action=its.baseline_action)
    log.put(report, "policy.applied")
    assert "DOES NOT AGREE" not in step(log.trace(its.decision_id), "applied").text
    other = "breakout" if its.action != "breakout" else "neutral"
    log.put(msgspec.structs.replace(report, recommended_action=other, applier="liar"), "policy.applied")
    told = [s.text for s in steps(log.trace(its.decision_id)) if s.what == "applied"]
    assert ["DOES NOT AGREE: the decision is for" in text for text in told] == [False, True]


def test_a_conflict_that_waits_is_first_of_all_waiting(log: Log) -> None:
    log.put(trade(68), TRADES)
    log.refuse(record(TRADES, trade(68, fees=0.5)), "CONFLICT", "experience")
    assert words(log.trace(f"{name_of(68)}/t")) == ["waiting", "conflict"]


def test_a_trade_whose_sums_are_wrong_is_told_so(log: Log) -> None:
    log.put(decision(70), DECISIONS)
    log.put(trade(70, pnl_usd=3.41099, r_multiple=0.341099, pnl_pct=0.000341099), TRADES)
    log.put(experience(70, pnl_usd=3.41099, reward_r=0.341099), "learning.experience")
    story = log.trace(f"{name_of(70)}/t")
    assert "DOES NOT AGREE: sign says +3.81198" in step(story, "arithmetic").text
    told = as_dict(story)["arithmetic"]
    assert told["agrees"] is False
    assert {c["check"] for c in told["checks"] if c["agrees"] is False} == {"sign", "pnl_usd"}


# ---------------------------------------------------------------------- learning
def test_why_nothing_was_learned(log: Log) -> None:
    for n in (80, 81, 82):
        log.put(decision(n, forced=n == 80, forced_reason="missing_feature" if n == 80 else None), DECISIONS)
    log.put(experience(80, status="NEUTRAL", trade_id=None, learnable=False, forced=True), "learning.experience")
    log.put(experience(81, status="NOT_EXECUTED", reason="halt", trade_id=None, learnable=False), "learning.experience")
    log.refuse(record("learning.experience", experience(82)), "OUT_OF_RANGE", "q_learning")
    got = [log.trace(name_of(n)).learning for n in (80, 81, 82)]
    assert [g.state for g in got] == ["not learnable", "not learnable", "refused"]
    assert ("forced" in got[0].text, "halt" in got[1].text, "q_learning" in got[2].text) == (True, True, True)
    assert log.trace(name_of(81)).verdicts[0].text.startswith("its decision ended NOT_EXECUTED (halt)")


@pytest.mark.parametrize(("reason", "kind", "of"), [
    ("policy_rolled_back", "ROLLBACK", {"policy_id": "q_learning/BTCUSDT", "version": 1, "state": b"x" * 99}),
    ("policy_retired", "RETIRE", {"policy_id": "q_learning/BTCUSDT"}), ("halt", "HALT", {"symbol": "BTCUSDT"})])
def test_a_decision_that_a_command_forced_names_it(log: Log, reason: str, kind: Any, of: dict[str, Any]) -> None:
    n = {"ROLLBACK": 83, "RETIRE": 84, "HALT": 85}[kind]
    others: dict[str, Any] = {"policy_id": "q_learning/OTHER", "symbol": "OTHER"}
    for changes in ({f: others[f] for f in of if f in others}, of):
        place = log.put(PolicyCommand(command_id=f"{kind}-{len(changes)}", ts_ms=T0_MS, command=kind, actor="ann",
                                      reason="a bad week", **changes), "policy.commands")
    log.put(decision(n, version=2, forced=True, forced_reason=reason, propensity=1.0), DECISIONS)
    story = log.trace(name_of(n))
    assert step(story, "command").place == place
    assert f"{kind} of " in step(story, "command").text
    assert "by ann" in step(story, "command").text
    value = as_dict(story)["command"]["value"]
    assert ("state" in value, value["state_bytes"]) == (False, 99 if kind == "ROLLBACK" else None)


# ---------------------------------------------------------------------- ids
def test_an_id_that_is_part_of_another_one_is_not_it(log: Log) -> None:
    for name in ("x-1", "x-12"):
        log.put(trade(90, trade_id=name, decision_id=None, execution="exchange:x"), TRADES)
    log.put(orphan("x-12", "NO_DECISION_ID", None), "learning.orphan")
    assert words(log.trace("x-1")) == ["waiting"]
    assert words(log.trace("x-12")) == ["unattributed"]
    with pytest.raises(Unknown) as unknown:
        log.trace("x-")
    assert unknown.value.near[:2] == ["x-1", "x-12"]


def test_a_trade_id_that_has_nothing_of_its_decisions(log: Log) -> None:
    decided = log.put(decision(94), DECISIONS)
    log.put(trade(94, trade_id="order-7", execution="exchange:x"), TRADES)
    log.put(experience(94, trade_id="order-7"), "learning.experience")
    story = log.trace("order-7")
    assert words(story) == ["accepted"]
    assert step(story, "decision").place == decided
    assert log.trace(name_of(94)).named.trade_id == "order-7"


@pytest.mark.parametrize(("value", "there"), [
    (b'{"id":"a/1"}', True), (b'{"id":"a/12"}', False), (b"\x06a/1x", True), (b"za/1x", False), (b"a/1", True)])
def test_bytes_that_nobody_can_decode_mention_whole_ids_only(value: bytes, there: bool) -> None:
    assert mentions(value, "a/1") is there


# ---------------------------------------------------------------------- arithmetic
BARS = [candle(bar=b) for b in (10, 13)]


def test_every_check_of_a_right_trade_agrees() -> None:
    checks = check_trade(trade(10), decision(10), experience(10), BARS)
    assert {c.name: c.agrees for c in checks} == dict.fromkeys([c.name for c in checks], True)
    assert len(checks) == 18


@pytest.mark.parametrize(("changes", "wrong"), [
    ({"side": "SHORT"}, "sign"), ({"pnl_usd": -3.4}, "pnl_usd"), ({"r_multiple": 0.341099}, "r_multiple"),
    ({"fees": 0.5}, "fees"), ({"funding": 0.1}, "funding"), ({"notional_at_open": 200.0}, "notional_at_open"),
    ({"leverage": 2.0}, "leverage"), ({"pnl_pct": 0.1}, "pnl_pct"), ({"risk_at_open": 5.0}, "risk_at_open"),
    ({"spread_cost": 1.0}, "spread_cost"), ({"slippage": 1.0}, "slippage"),
    ({"entry_price": 101.1}, "entry inside its bar"), ({"exit_price": 99.6}, "exit inside its bar"),
    ({"opened_ms": T0_MS}, "opened after decision"), ({"ts_ms": T0_MS}, "closed after it opened"),
    ({"strategy": "neutral"}, "strategy is the one decided"),
])
def test_each_wrong_field_is_found(changes: dict[str, Any], wrong: str) -> None:
    checks = check_trade(trade(10, **changes), decision(10), experience(10), BARS)
    assert wrong in {c.name for c in checks if c.agrees is False}
    assert agrees(checks) is False


def test_fills_of_an_exchange_are_not_held_against_candles() -> None:
    checks = check_trade(trade(10, execution="exchange:x", entry_price=101.0), decision(10), experience(10), [])
    assert {c.name for c in checks if c.agrees is None} == {
        "entry inside its bar", "exit inside its bar", "fees", "spread_cost", "slippage"}
    assert agrees(checks) is True


def test_the_sums_of_all_trades_of_paper_execution_agree() -> None:
    """The agent that made them shares no formula with the checks."""
    found: list[TradeClosed] = []
    bars: dict[int, Candle] = {}
    driver = Driver({name: agent() for name, agent in ROSTER.items()}, keep=(TRADES,))
    market = generate(3, 2500)
    for t in range(2500):
        bars[t] = Candle(symbol="M", interval_ms=HOUR_MS, open_time_ms=t * HOUR_MS, ts_ms=(t + 1) * HOUR_MS,
                         open=float(market.open[t]), high=float(market.high[t]), low=float(market.low[t]),
                         close=float(market.close[t]), source="synthetic:3", origin="SYNTHETIC")
    driver.run(("market.candles", bar) for bar in bars.values())
    found = [e for e in driver.events(TRADES) if isinstance(e, TradeClosed)]
    for t in found:
        around = [bars[h // HOUR_MS + d] for h in (t.opened_ms, t.ts_ms) for d in (-1, 0) if h // HOUR_MS + d in bars]
        checks = check_trade(t, None, None, around)
        assert [c for c in checks if c.agrees is False] == []
        assert [c.name for c in checks if c.agrees is None] == ["opened after decision"]
    assert len({t.exit_reason for t in found}) >= 3
    assert len({t.side for t in found}) == 2


def test_a_trade_id_that_holds_its_decisions_id_leads_to_the_decision(log: Log) -> None:
    decided = log.put(decision(96), DECISIONS)
    log.put(trade(96, trade_id=f"engine-7/{name_of(96)}", execution="exchange:x"), TRADES)
    assert step(log.trace(f"engine-7/{name_of(96)}"), "decision").place == decided


# ---------------------------------------------------------------------- the command
def test_the_json_has_the_keys_that_the_help_explains(log: Log, capsys: pytest.CaptureFixture[str]) -> None:
    log.put(decision(100), DECISIONS)
    log.put(trade(100), TRADES)
    log.put(experience(100), "learning.experience")
    assert main(["why", f"{name_of(100)}/t", "--json", *flags(log.settings)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told) == {name for names in FIELDS for name in names.split(", ")}
    assert (told["schema"], told["kind"], told["verdict"]) == ("quantum.why/1", "trade", "accepted")
    assert set(told["trade"]) == {"place", "timestamp_ms", "event", "value"}
    assert set(told["learning"]) == {"state", "text", "update", "before", "after", "other_cells_changed",
                                     "first_decision"}
    assert told["learning"]["state"] == "waiting"
    assert set(told["arithmetic"]["checks"][0]) == {"check", "agrees", "said", "follows", "how"}
    assert told["looked_at"][TRADES] > 0
    assert main(["why", "--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ("quantum.why/1", "dead-lettered", "looked_at"))


def test_text_off_a_terminal_is_one_plain_line_a_step(log: Log, capsys: pytest.CaptureFixture[str]) -> None:
    log.put(trade(104, trade_id="evil\x1b[31m", decision_id=None, execution="exchange:x"), TRADES)
    assert main(["why", "evil\x1b[31m", *flags(log.settings)]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == "trade evil\\x1b[31m"
    assert [line.split("\t")[0] for line in lines[1:]] == ["WAITING", "trade", "arithmetic"]
    assert "\x1b" not in out
    assert "records in" in err


def test_an_unknown_id_exits_1_with_what_is_near(log: Log, capsys: pytest.CaptureFixture[str]) -> None:
    log.put(decision(110), DECISIONS)
    almost = name_of(110)[:-1]
    assert main(["why", almost, *flags(log.settings)]) == 1
    out, err = capsys.readouterr()
    assert (out, f"near: {name_of(110)}" in err, "rl.meta.strategy_selected" in err) == ("", True, True)
    assert main(["why", almost, "--json", *flags(log.settings)]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["error"], told["near"][0], told["id"]) == ("unknown", name_of(110), almost)


def test_a_broker_without_our_topics_exits_1_and_no_broker_exits_4(
        log: Log, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["why", "x", *flags(log.settings.replace(topic_prefix="nobody."))]) == 1
    assert "quantum topics apply" in capsys.readouterr().err
    assert main(["why", "x", "--broker", "127.0.0.1:9"]) == 4
    assert main(["why"]) == 2

"""The programs of `examples/` in four languages, between them all that an engine and a trading service do.

Subscribers act on decisions and report; producers send the trades of what was reported; the agents learn from each
once; and what one language wrote is read by every other.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agents.experience.records import inconsistency
from agents.q_learning.config import QLearningConfig
from schemas.events import Decision, Experience, PolicyApplied, TradeClosed
from schemas.released import fingerprint_of, history_texts
from streams import topics
from streams.cli.main import main
from streams.log import LogReader
from streams.records import Outgoing
from streams.settings import Settings
from streams.transport.murmur2 import partition_of
from tests.examples.programs import LANGUAGES, Tree, missing
from tests.streams.log_fixtures import CODEC, flags, own_names, policy, produce, record
from tests.streams.rostered import until_done, worker
from tests.streams.test_why import decision, experience

DECISIONS, TRADES, APPLIED, CURRENT = (
    "rl.meta.strategy_selected", "execution.trade.closed", "policy.applied", "policy.current")
HERE = [language for language in LANGUAGES if missing(language) is None]
languages = pytest.mark.parametrize("language", [
    pytest.param(x, marks=pytest.mark.skipif(x not in HERE, reason=str(missing(x)))) for x in LANGUAGES])
CASES = {  # what a subscriber holds of a symbol's policy, and what it must execute of the decision for breakout
    "OK": "breakout", "RETIRED": "neutral", "ENDED": "neutral", "FREED": "mean_reversion", "LATER": "breakout",
    "OLD": "breakout", "NONE": None, "FLAT": "neutral",
}
ENDS = {  # how the decision ends that leads to no trade
    "RETIRED": ("NOT_EXECUTED", "its policy is retired"), "ENDED": ("NOT_EXECUTED", "its policy is past its end"),
    "FREED": ("NOT_EXECUTED", "its policy is unknown"), "FLAT": ("NEUTRAL", None),
}


def decided(language: str, case: str) -> Decision:
    symbol = f"{language}-{case}"
    one = decision(10, symbol=symbol, baseline_action="mean_reversion")
    more: dict[str, Any] = {"policy_id": f"q_learning/{symbol}"}
    if case == "NONE":
        more = {"policy_id": None, "policy_version": None}
    if case in ("FLAT", "OK"):
        more["signals"] = (1, -1, 0 if case == "FLAT" else -1, 0)  # OK is sold
    return msgspec.structs.replace(one, decision_id=f"{symbol}/q_learning/{one.ts_ms}", **more)


def held(language: str, case: str) -> list[Outgoing]:
    """Records of policy.current about a symbol, before its decision."""
    first = policy(1, f"{language}-{case}")
    retired = msgspec.structs.replace(first, status="RETIRED", tabular=None)
    if case == "OK":  # an older version that comes late is not taken
        return [record(CURRENT, msgspec.structs.replace(first, version=2)), record(CURRENT, retired)]
    if case == "RETIRED":
        return [record(CURRENT, first), record(CURRENT, msgspec.structs.replace(retired, version=2))]
    if case == "ENDED":
        end_ms = decided(language, case).ts_ms - 1
        return [record(CURRENT, msgspec.structs.replace(first, valid_until_ms=end_ms))]
    if case == "FLAT":
        return [record(CURRENT, first)]
    if case == "FREED":
        sent = record(CURRENT, first)
        return [sent, sent._replace(value=None)]
    if case == "OLD":
        return [record(CURRENT, first)._replace(value=by_an_old_release(msgspec.to_builtins(first)))]
    return []


def by_an_old_release(values: dict[str, Any]) -> bytes:
    """A policy as the first release wrote it."""
    import io

    import fastavro

    schema = json.loads(history_texts(CURRENT)[0])
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(json.loads(json.dumps(schema))), values)
    assert b"\xc3\x01" + fingerprint_of(schema) != CODEC.encode(CURRENT, policy())[:10]
    return b"\xc3\x01" + fingerprint_of(schema) + out.getvalue()


@pytest.fixture(scope="module")
def tree(broker: Settings) -> Tree:
    tree = Tree()
    for language in HERE:
        tree.build(language)
    return tree


@pytest.fixture(scope="module")
def settings(broker: Settings) -> Iterator[Settings]:
    own = own_names(broker)
    topics.apply(own)
    yield own
    client, there = topics.connect(own)
    for future in client.delete_topics([t for t in there if t.startswith(own.topic_prefix)]).values():
        future.exception()


@pytest.fixture(scope="module")
def printed(tree: Tree, settings: Settings) -> dict[str, list[str]]:
    """What each subscriber printed until it had acted on all decisions; one came before it started."""
    produce(settings, [r for language in HERE for case in CASES for r in held(language, case)])
    early = [msgspec.structs.replace(decided(language, "OK"), decision_id=f"{language}/early") for language in HERE]
    produce(settings, [record(DECISIONS, d) for d in early])
    with ExitStack() as stack:
        running = {}
        for language in HERE:
            symbols = [f"{language}-{case}" for case in CASES]
            running[language] = stack.enter_context(
                tree.started(language, "subscriber", settings, f"engine-{language}", *symbols))
        for program in running.values():
            program.until(lambda lines: any(line.startswith("ready") for line in lines))
        other_book = msgspec.structs.replace(decided(HERE[0], "OK"), book_id="other", decision_id="other")
        now = [record(DECISIONS, decided(language, case)) for language in HERE for case in CASES]
        later = [record(CURRENT, policy(1, f"{language}-LATER")) for language in HERE]
        produce(settings, [record(DECISIONS, other_book), *now, *later])
        return {language: program.until(lambda lines: sum("/q_learning/" in line for line in lines) == len(CASES))
                for language, program in running.items()}


def values(settings: Settings, topic: str) -> list[Any]:
    """Records of a topic, decoded by us."""
    with LogReader(settings) as log:
        return [CODEC.decode(topic, r.value) for r in log.read(topic) if r.value is not None]


@pytest.fixture(scope="module")
def reports(printed: dict[str, list[str]], settings: Settings) -> dict[str, PolicyApplied]:
    return {e.decision_id: e for e in values(settings, APPLIED)}


@languages
def test_a_subscriber_reads_the_policies_before_it_acts(language: str, printed: dict[str, list[str]]) -> None:
    """OK, RETIRED, ENDED, OLD and FLAT of each language; FREED's key is free."""
    assert f"ready with {5 * len(HERE)} policies" in printed[language][:2]  # the JVM greets first
    assert not any("early" in line or "other" in line for line in printed[language])


@languages
@pytest.mark.parametrize("case", CASES)
def test_a_subscriber_follows_the_contract(language: str, case: str, reports: dict[str, PolicyApplied]) -> None:
    asked = decided(language, case)
    if CASES[case] is None:
        assert asked.decision_id not in reports, "no policy, nothing to report"
        return
    assert msgspec.to_builtins(reports[asked.decision_id]) == {
        "decision_id": asked.decision_id, "symbol": asked.symbol, "ts_ms": asked.ts_ms,
        "policy_id": f"q_learning/{asked.symbol}", "policy_version": 1, "recommended_action": "breakout",
        "executed_action": CASES[case], "baseline_action": "mean_reversion", "applier": f"engine-{language}",
        "source": "binance", "origin": "CLAIMED"}


@languages
def test_a_subscriber_ends_the_decisions_that_lead_to_no_trade(language: str, reports: dict[str, PolicyApplied],
                                                               settings: Settings) -> None:
    mine = {e.symbol.partition("-")[2]: e for e in values(settings, "decision.outcome") if language in e.symbol}
    assert {case: (e.status, e.reason) for case, e in mine.items()} == ENDS
    assert {e.decision_id for e in mine.values()} == {decided(language, case).decision_id for case in ENDS}


@pytest.fixture(scope="module")
def sent(reports: dict[str, PolicyApplied], tree: Tree, settings: Settings) -> dict[str, list[str]]:
    """Places of the trades that each producer sent: one of what its subscriber reported, twice."""
    return {language: tree.run(language, "producer", settings, stdin=2 * fill(language, tree, settings))
            for language in HERE}


def trade_id(language: str) -> str:
    return f"engine-{language}/{decided(language, 'OK').decision_id}"


def fill(language: str, tree: Tree, settings: Settings) -> str:
    """A fill of the decision that the language's own program reads off policy.applied."""
    lines = [json.loads(line) for line in tree.run(language, "show", settings, APPLIED)]
    (report,) = [x for x in lines if x["symbol"] == f"{language}-OK"]
    same = {k: report[k] for k in ("decision_id", "symbol", "policy_id", "policy_version", "source", "origin")}
    return json.dumps(same | {
        "trade_id": trade_id(language), "book_id": "q_learning", "side": "SHORT", "opened_ms": report["ts_ms"],
        "ts_ms": report["ts_ms"] + 4 * 3_600_000, "entry_price": 101.3, "exit_price": 99.7, "quantity": 0.7,
        "size_multiplier": 1.0, "equity_at_open": 10_000.0, "stop_price": 104.1, "fees": 0.141, "funding": -0.003,
        "spread_cost": 0.01, "slippage": 0.02, "exit_reason": "HORIZON", "strategy": report["executed_action"],
        "execution": f"exchange:{language}"}) + "\n"


@languages
def test_a_producers_trade_is_whole_and_on_the_partition_of_its_symbol(language: str, sent: dict[str, list[str]],
                                                                       settings: Settings) -> None:
    with LogReader(settings) as log:
        mine = [r for r in log.read(TRADES) if r.key == f"{language}-OK".encode()]
    assert [f"{settings.topic(TRADES)}-{r.partition}@{r.offset}" for r in mine] == \
        [line for line in sent[language] if line.startswith(settings.topic_prefix)]
    first, second = (CODEC.decode(TRADES, r.value) for r in mine)
    assert first == second
    assert isinstance(first, TradeClosed)
    assert inconsistency(first) is None
    assert first.pnl_usd == pytest.approx(0.7 * 1.6 - 0.141 + 0.003)
    assert mine[0].partition == partition_of(f"{language}-OK".encode(), 4)


@languages
def test_every_language_reads_what_every_other_wrote(language: str, sent: dict[str, list[str]], tree: Tree,
                                                     settings: Settings) -> None:
    read = (TRADES, APPLIED, CURRENT, "decision.outcome")
    theirs = [json.loads(x) for x in tree.run(language, "show", settings, *read)]
    ours = [msgspec.to_builtins(e) for topic in read for e in values(settings, topic)]
    assert lines_of(theirs) == lines_of(ours)
    assert len(theirs) >= 10 * len(HERE)


def lines_of(rows: list[dict[str, Any]]) -> Counter[str]:
    """Rows without order; what is null and what is left out, 1 and 1.0, are the same."""
    def plain(x: Any) -> Any:
        if isinstance(x, dict):
            return {k: plain(v) for k, v in x.items() if v is not None}
        if isinstance(x, (list, tuple)):
            return [plain(v) for v in x]
        return float(x) if isinstance(x, int) and not isinstance(x, bool) else x

    return Counter(json.dumps(plain(row), sort_keys=True) for row in rows)


@pytest.fixture(scope="module")
def learned(sent: dict[str, list[str]], settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Experiences, after the real agents have taken everything; the learner had warmed up before."""
    forced = {"status": "NOT_EXECUTED", "reason": "warm-up", "learnable": False, "forced": True, "trade_id": None,
              "policy_version": None, "state_key": None, "reward_r": 0.0, "pnl_usd": 0.0}
    produce(settings, [
        record("learning.experience", experience(n - 100, symbol=f"{language}-OK", **forced), f"warm-up:{language}:{n}")
        for language in HERE for n in range(QLearningConfig().warmup_decisions)])
    log = Path(tmp_path_factory.mktemp("worker")) / "worker.log"
    only = ("experience", "q_learning")
    with worker(settings, log, ",".join(only)) as process:
        until_done(settings, process, log, only)
    return values(settings, "learning.experience")


@languages
def test_a_trade_is_credited_once(language: str, learned: list[Any]) -> None:
    (one,) = [e for e in learned if isinstance(e, Experience) and e.symbol == f"{language}-OK"
              and e.trade_id is not None]
    assert (one.trade_id, one.status, one.learnable) == (trade_id(language), "TRADED", True)
    assert one.reward_r == pytest.approx((0.7 * 1.6 - 0.138) / (0.7 * 2.8))


@languages
def test_why_tells_its_story(language: str, learned: list[Any], settings: Settings,
                             capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["why", trade_id(language), "--json", *flags(settings)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [v["verdict"] for v in told["verdicts"]] == ["accepted", "duplicate"]
    assert told["decision"]["value"]["action"] == "breakout"
    assert told["learning"]["state"] == "learned"
    assert told["applied"][0]["record"]["value"]["applier"] == f"engine-{language}"

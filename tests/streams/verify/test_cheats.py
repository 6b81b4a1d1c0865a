"""What verify must not let pass. Each cheat runs in place of the honest agent and stamps its identity.

A learner that cheats is judged twice: by who folds with the honest code, and by who was given the cheat's own code.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from schemas.catalogue import AGENTS
from schemas.events import Candle, Event, Experience, Instrument, PolicyApplied, PolicyRecord, Tick, TradeClosed
from streams.verify.cells import Cell
from streams.verify.claims import with_claims
from streams.verify.decided import beyond_chance
from streams.verify.evidence import Evidence
from streams.verify.planted import actors, learners, records
from streams.verify.planted.records import one_trade
from streams.verify.planted.stage import CODEC, HOUR_MS, Stage, at, honest, made, red, stage


@pytest.fixture(scope="module")
def healthy() -> Stage:
    return stage()


LEARNERS = [learners.Constant, learners.NeverUpdates, learners.Hashed, learners.HashedDraws, learners.OutcomesUnseen]


@pytest.mark.parametrize("cheat", LEARNERS, ids=lambda c: c.__name__)
def test_a_learner_that_does_not_learn_fails_against_the_honest_code(cheat: type) -> None:
    report = stage({"q_learning": cheat()}).judge()
    assert at(report, "q_learning", "LEARNS").state == "FAIL", at(report, "q_learning", "LEARNS")
    assert at(report, "q_learning", "PERSISTS").state == "FAIL"
    assert report.exit_code == 1


@pytest.mark.parametrize("cheat", LEARNERS, ids=lambda c: c.__name__)
def test_a_learner_that_does_not_learn_fails_by_its_own_code(cheat: type) -> None:
    """As if the cheat stood in the roster: folding again gives the same bytes, so only other rewards can tell."""
    cell = at(stage({"q_learning": cheat()}).judge_by_its_own_code(), "q_learning", "LEARNS")
    assert cell.state == "FAIL", cell


CLAIMERS = [learners.AlwaysClaims(), learners.AlwaysClaims({"lower_r": 0.2}), learners.AlwaysClaims({"mean_r": 0.4}),
            learners.ClaimsEarly()]


@pytest.mark.parametrize("cheat", CLAIMERS, ids=["always", "bound", "mean", "early"])
def test_a_claim_that_the_outcomes_do_not_give_fails_by_its_own_code_too(cheat: Any) -> None:
    """Nothing else is wrong with it: folding again gives the same bytes, and it learns."""
    run = stage({"q_learning": cheat})
    cell = at(run.judge_by_its_own_code(), "q_learning", "LEARNS")
    assert cell.state == "FAIL", cell
    assert "edge_claim = True" in cell.why
    assert at(run.judge(), "q_learning", "LEARNS").state == "FAIL"


def test_figures_that_are_wrong_beside_an_honest_answer_fail() -> None:
    def embellish(topic: str, event: Event) -> Event:
        if isinstance(event, PolicyRecord) and event.edge is not None:
            return replace(event, edge=replace(event.edge, smallest_r=event.edge.smallest_r / 2))
        return event

    run = stage(tamper=embellish)
    cell = with_claims(Evidence(run.log, honest(), CODEC), AGENTS["q_learning"], Cell("PASS", "so far"))
    assert cell.state == "FAIL"
    assert "smallest_r" in cell.why


def test_policies_of_other_code_are_not_proven_never_passed() -> None:
    def relabel(topic: str, event: Event) -> Event:
        if isinstance(event, PolicyRecord) and event.provenance is not None:
            return replace(event, provenance=replace(event.provenance, code_hash="0" * 64))
        return event

    cell = at(stage(tamper=relabel).judge(), "q_learning", "LEARNS")
    assert cell.state == "NOT PROVEN"
    assert "another code" in cell.why


def test_a_policy_that_nobody_learned_fails() -> None:
    run = stage()
    last = run.log.records["policy.ledger"][0][-1]
    run.log.append("policy.ledger", 0, last.key, last.value, (("ce_id", b"someone"),), run.log.now_ms)
    cell = at(run.judge(), "q_learning", "LEARNS")
    assert cell.state == "FAIL"
    assert "does not follow from its input" in cell.why


def test_policies_acknowledged_at_weight_zero() -> None:
    report = stage({"paper_execution": actors.WeightZero()}).judge()
    cell = at(report, "q_learning", "APPLIED")
    assert cell.state == "FAIL"
    assert cell.why.startswith("changed 0 of ")
    assert at(report, "paper_execution", "PERSISTS").state == "FAIL"


def test_executions_that_were_only_said() -> None:
    cell = at(stage({"paper_execution": actors.SaysItExecuted()}).judge(), "q_learning", "APPLIED")
    assert cell.state == "FAIL"
    assert "no trade of it was ever closed" in cell.why


def test_nobody_acknowledges() -> None:
    cell = at(stage(tamper=lambda topic, e: None if isinstance(e, PolicyApplied) else e).judge(),
              "q_learning", "APPLIED")
    assert cell.state == "FAIL"
    assert "nobody says" in cell.why


def test_nobody_decides_by_the_policy() -> None:
    """Forced decisions teach volatilities only, so there is a genesis policy and never another."""
    report = stage({"decision": actors.IgnoresPolicies()}).judge()
    cell = at(report, "q_learning", "APPLIED")
    assert cell.state == "FAIL"
    assert "none used it" in cell.why
    assert at(report, "decision", "PERSISTS").state == "FAIL"


def test_a_feed_that_stopped_while_time_went_on() -> None:
    report = stage(ticks_more=24, bars=600).judge()
    cell = at(report, "features", "RECEIVES")
    assert (cell.state, cell.place) == ("STALE", "market.candles-0@599")
    assert "the feed stopped" in cell.why
    assert report.exit_code == 1


def test_a_feed_that_stopped_together_with_the_clock_is_idle(healthy: Stage) -> None:
    now_ms = healthy.log.now_ms
    try:
        healthy.log.now_ms += HOUR_MS
        report = healthy.judge()
    finally:
        healthy.log.now_ms = now_ms
    assert at(report, "features", "RECEIVES").state == at(report, "features", "RUNS").state == "IDLE"
    assert report.exit_code == 0


@pytest.mark.parametrize("agent", ["features", "decision", "paper_execution", "experience", "q_learning"])
def test_an_agent_that_died_at_start(agent: str) -> None:
    """It wrote nothing, copied nothing and committed nothing; its topics wait."""
    run = stage(bars=400)
    died(run, agent)
    report = run.judge()
    assert {f"{agent}/RUNS", f"{agent}/RECEIVES"} <= red(report)
    assert at(report, agent, "RUNS").place is None


def died(run: Stage, agent: str) -> None:
    from schemas.catalogue import AGENTS

    io, log = AGENTS[agent], run.log
    log.commits[agent] = {}
    for topic in (io.changelog, *io.writes, *(() if io.direct else (io.input_topic,))):
        log.records[topic] = {p: [] for p in log.records[topic]}
    if agent == "q_learning":  # nothing was decided by a policy either, but forced decisions have outcomes
        assert log.records["learning.experience"][0]
    log.now_ms += 60_000


def test_an_agent_that_died_in_the_middle_is_stale() -> None:
    run = stage(bars=500)
    run.driver.run(made(bars=520, start=500))
    for agent in ("decision", "paper_execution", "experience", "q_learning"):
        for io_topic in run.log.commits[agent]:
            run.log.commits[agent][io_topic] = len(run.log.records[io_topic[0]][io_topic[1]])
    for record in run.log.records["market.features"][0][500:]:
        run.log.records["market.features"][0].remove(record)
    report = run.judge()
    assert at(report, "features", "RUNS").state == "STALE"
    assert at(report, "features", "RECEIVES").state == "STALE"


def test_state_behind_the_commit() -> None:
    run = stage(bars=300)
    run.log.commits["features"]["features.inbox", 0] += 1
    cell = at(run.judge(), "features", "PERSISTS")
    assert cell.state == "FAIL"
    assert "a restart would lose" in cell.why


def test_no_state_at_all() -> None:
    run = stage(bars=300)
    run.log.records["decision.changelog"] = {0: []}
    assert at(run.judge(), "decision", "PERSISTS").state == "FAIL"


@pytest.mark.parametrize("topic", ["policy.ledger", "market.features", "learning.experience",
                                   "rl.meta.strategy_selected", "execution.trade.closed"])
def test_synthetic_data_under_a_real_label(topic: str) -> None:
    def relabel(name: str, event: Event) -> Event:
        return replace(event, source="binance", origin="CLAIMED") if name == topic else event  # type: ignore[call-arg]

    from schemas.catalogue import AGENTS

    writer = next(a.name for a in AGENTS.values() if a.built and topic in a.writes)
    cell = at(stage(tamper=relabel, bars=500).judge(), writer, "ORIGIN")
    assert cell.state == "FAIL"
    assert "all its candles are synthetic" in cell.why
    assert (cell.place or "").startswith(topic)


def test_a_candle_whose_source_and_origin_contradict_each_other() -> None:
    cell = at(stage(bars=60, source="synthetic:7", origin="CHECKED").judge(), "features", "ORIGIN")
    assert cell.state == "FAIL"
    assert "contradicts itself" in cell.why


def walk(bars: int, seed: int) -> list[tuple[str, Event]]:
    """Independent normal steps: what the predecessor fed its learners."""
    random = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(random.normal(0, 0.01, bars)))
    out: list[tuple[str, Event]] = []
    for t in range(bars):
        opened = float(close[t - 1]) if t else 100.0
        closed = float(close[t])
        out += [("market.candles", Candle(
            symbol="BTCUSDT", interval_ms=HOUR_MS, open_time_ms=t * HOUR_MS, ts_ms=(t + 1) * HOUR_MS, open=opened,
            high=max(opened, closed) * 1.001, low=min(opened, closed) * 0.999, close=closed, source="binance",
            origin="CLAIMED")), ("system.clock", Tick(ts_ms=(t + 1) * HOUR_MS, writer="test"))]
    return out


def test_a_gaussian_walk_under_a_real_label() -> None:
    run = stage(bars=1)
    run.driver.run(walk(1300, 42))
    run.tape.flush(run.driver)
    cell = at(run.judge(), "features", "ORIGIN")
    assert cell.state == "FAIL"
    assert "independent normal steps" in cell.why


def test_a_made_market_with_fat_tails_under_a_real_label_is_not_seen() -> None:
    """The limit of what prices alone can tell; docs/proof.md says so."""
    cell = at(stage(bars=1200, source="binance", origin="CLAIMED").judge(), "features", "ORIGIN")
    assert cell.state == "PASS"
    assert "CLAIMED is the producer's word" in cell.why


def change_trade(**changes: Any) -> Any:
    """Change the tenth trade."""
    count = 0

    def tamper(topic: str, event: Event) -> Event:
        nonlocal count
        if isinstance(event, TradeClosed):
            count += 1
            if count == 10:
                return replace(event, **{k: v(event) if callable(v) else v for k, v in changes.items()})
        return event

    return tamper


@pytest.mark.parametrize(("changes", "says"), [
    ({"pnl_usd": lambda t: -t.pnl_usd}, "pnl_usd is"),
    ({"pnl_usd": lambda t: t.pnl_usd + 1, "r_multiple": lambda t: (t.pnl_usd + 1) / t.risk_at_open}, "pnl_usd is"),
    ({"r_multiple": lambda t: t.r_multiple + 0.1}, "r_multiple is"),
    ({"fees": 0.0, "pnl_usd": lambda t: t.pnl_usd + t.fees,
      "r_multiple": lambda t: (t.pnl_usd + t.fees) / t.risk_at_open,
      "pnl_pct": lambda t: (t.pnl_usd + t.fees) / t.equity_at_open}, "fees are 0"),
    ({"opened_ms": lambda t: t.opened_ms - 8 * HOUR_MS}, "before its decision"),
    ({"ts_ms": lambda t: t.ts_ms + 1}, "there is no candle at its exit"),
    ({"decision_id": "MADE/q_learning/1"}, "is not on the log"),
])
def test_an_invented_trade(changes: dict[str, Any], says: str) -> None:
    cell = at(stage(tamper=change_trade(**changes)).judge(), "paper_execution", "ORIGIN")
    assert cell.state == "FAIL"
    assert says in cell.why


def test_a_fill_outside_of_its_bar_with_everything_else_consistent() -> None:
    def pnl(t: TradeClosed) -> float:
        return t.quantity * (price(t) - t.entry_price) * (1 if t.side == "LONG" else -1) - t.fees - t.funding

    def price(t: TradeClosed) -> float:
        return t.exit_price * (1.05 if t.side == "LONG" else 0.95)

    cell = at(stage(tamper=change_trade(
        exit_price=price, pnl_usd=pnl, r_multiple=lambda t: pnl(t) / t.risk_at_open,
        pnl_pct=lambda t: pnl(t) / t.equity_at_open)).judge(), "paper_execution", "ORIGIN")
    assert cell.state == "FAIL"
    assert "its exit at" in cell.why


def test_a_fill_that_is_only_too_good_shows_when_the_book_is_folded_again() -> None:
    def pnl(t: TradeClosed) -> float:
        return t.pnl_usd + t.quantity * t.exit_price * 1e-5

    report = stage(tamper=change_trade(
        exit_price=lambda t: t.exit_price * (1 + 1e-5 * (1 if t.side == "LONG" else -1)), pnl_usd=pnl,
        r_multiple=lambda t: pnl(t) / t.risk_at_open, pnl_pct=lambda t: pnl(t) / t.equity_at_open)).judge()
    assert at(report, "paper_execution", "PERSISTS").state == "FAIL"


def test_a_reward_that_is_not_its_trades() -> None:
    def tamper(topic: str, event: Event) -> Event:
        return replace(event, reward_r=event.reward_r + 1) if isinstance(event, Experience) and event.trade_id \
            else event

    report = stage(tamper=tamper, bars=500).judge()
    assert "but its trade made" in at(report, "experience", "ORIGIN").why
    assert at(report, "experience", "ORIGIN").state == "FAIL"


# ---------------------------------------------------------------------- what was added to what each cell sees
@pytest.mark.parametrize("source", ["features.inbox", "paper_execution.inbox", "experience.inbox"])
def test_a_copy_that_was_never_sent(source: str) -> None:
    """A relay, or anyone who may write to an inbox, makes a record up."""
    run = stage(bars=300)
    rows = run.log.records[source][0]
    last = rows[-1]
    headers = tuple((k, b"999999" if k == "src_offset" else v) for k, v in last.headers)
    run.log.append(source, 0, last.key, last.value, headers, run.log.now_ms)
    cell = at(run.judge(), source.removesuffix(".inbox"), "RECEIVES")  # type: ignore[arg-type]
    assert cell.state == "FAIL"
    assert "which is not there" in cell.why


def test_a_copy_that_names_no_source_offset_is_taken_by_nobody() -> None:
    run = stage(bars=100)
    last = run.log.records["features.inbox"][0][-1]
    headers = tuple((k, v) for k, v in last.headers if k != "src_offset")
    run.log.append("features.inbox", 0, last.key, last.value, headers, run.log.now_ms)
    cell = at(run.judge(), "features", "RECEIVES")
    assert "100 copies are what was sent" in cell.why


def test_a_command_that_one_inbox_partition_did_not_get() -> None:
    run = stage(bars=100, partitions=4, symbols=("ALPHA", "BETA"))
    for kind in ("HALT", "RESUME", "HALT"):
        records.command(run, kind, None)
    run.tape.flush(run.driver)
    rows = run.log.records["decision.inbox"][2]
    at_row = next(i for i, r in enumerate(rows) if dict(r.headers)["src_topic"] == b"policy.commands"
                  and dict(r.headers)["src_offset"] == b"1")
    del rows[at_row]
    cell = at(run.judge(), "decision", "RECEIVES")
    assert (cell.state, cell.place) == ("FAIL", "policy.commands-0@1")


def test_copies_whose_sources_are_deleted_prove_nothing_and_accuse_nobody() -> None:
    run = stage(bars=300)
    del run.log.records["market.candles"][0][:250]
    assert at(run.judge(), "features", "RECEIVES").state == "PASS"


@pytest.mark.parametrize("seed", range(3))
def test_an_honest_decider_is_neither_frozen_nor_biased(seed: int) -> None:
    cell = at(stage(bars=900, seed=40 + seed).judge(), "q_learning", "APPLIED")
    assert cell.state == "PASS"


def test_an_engine_that_trades_against_the_signal() -> None:
    """Not on paper: nothing binds its fills but the bar, and still the side must not be the signal's opposite."""
    def engine(t: TradeClosed) -> TradeClosed:
        side = -1 if t.side == "LONG" else 1
        stop = t.entry_price - side * abs(t.entry_price - (t.stop_price or 0.0))
        pnl = side * (t.exit_price - t.entry_price) * t.quantity - t.fees - t.funding
        return replace(t, side="SHORT" if side < 0 else "LONG", stop_price=stop, execution="exchange:x", pnl_usd=pnl,
                       r_multiple=pnl / t.risk_at_open, pnl_pct=pnl / t.equity_at_open)

    cell = at(stage(tamper=one_trade(engine)).judge(), "paper_execution", "ORIGIN")
    assert cell.state == "FAIL"
    assert "but the signal of" in cell.why


def test_an_engine_that_fills_at_the_best_price_of_its_bar_is_not_seen() -> None:
    """The limit that docs/proof.md names."""
    def engine(t: TradeClosed) -> TradeClosed:
        return replace(t, execution="exchange:x", fees=0.0, pnl_usd=t.pnl_usd + t.fees,
                       r_multiple=(t.pnl_usd + t.fees) / t.risk_at_open,
                       pnl_pct=(t.pnl_usd + t.fees) / t.equity_at_open)

    assert at(stage(tamper=one_trade(engine), bars=500).judge(), "paper_execution", "ORIGIN").state == "PASS"


def test_a_loss_that_was_refused_is_a_dead_letter_and_no_lost_one() -> None:
    run = stage(bars=500)
    trade = run.log.records["execution.trade.closed"][0][3]
    taken = CODEC.decode("execution.trade.closed", trade.value)
    assert isinstance(taken, TradeClosed)
    rows = run.log.records["learning.experience"][0]
    rows[:] = [r for r in rows for e in [CODEC.decode("learning.experience", r.value)]
               if isinstance(e, Experience) and e.trade_id != taken.trade_id]
    assert "became neither experience nor orphan" in at(run.judge(), "experience", "ORIGIN").why
    run.log.append("execution.trade.closed.dlq", 0, trade.key, trade.value, (
        ("__streams.errors.partition", b"0"), ("__streams.errors.offset", b"3")), run.log.now_ms)
    assert at(run.judge(), "experience", "ORIGIN").state == "PASS"


def test_paper_costs_follow_the_instrument_record_that_holds() -> None:
    """Costs that change while a position is open: entry by the old record, exit by the new one."""
    def with_costs() -> Any:
        for i, (topic, event) in enumerate(made(bars=500)):
            if i in (0, 700, 701, 702):
                yield "market.instruments", Instrument(
                    symbol="MADE", ts_ms=event.ts_ms,  # type: ignore[attr-defined]
                    fee_bps=3.0 + i / 100, half_spread_bps=1.0, slippage_bps=0.5, days_per_year=365,
                    source="x", origin="SYNTHETIC")
            yield topic, event

    run = stage(bars=0)
    run.driver.run(with_costs())
    run.tape.flush(run.driver)
    cell = at(run.judge(), "paper_execution", "ORIGIN")
    assert cell.state == "PASS", cell
    assert cell.figures["trades"] > 5


def test_a_rare_excess_of_draws_that_chance_gives_in_a_thousand_runs_is_not_red() -> None:
    """Run 847 of benchmarks.healthy_runs: 26 too many in 91 draws of variance 14.6, 6.8 standard deviations."""
    assert not beyond_chance(26.0, 14.6)
    assert beyond_chance(-60.0, 60.0)

"""`quantum verify --self-test`: planted cheats judged, and one honest run. No broker is needed.

A cheat counts as caught where the cell that must see it is red. Most are judged by their own code, as if they stood in
the roster: folding again then gives the same bytes, so the cell must see it by what the records say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

from agents.contract import Agent
from agents.roster import ROSTER
from streams.verify.cells import RED, Kind, Report
from streams.verify.judge import uncollected
from streams.verify.planted import actors, learners, networks, records, trainers
from streams.verify.planted.stage import Stage, at, red, stage

SCHEMA = "quantum.selftest/1"
BARS = 450
TRAINED_BARS = 330  # its first run is behind 280
SAMPLE = 16
APART = frozenset({"meta_strategy", "ppo_trader", "risk_controller"})
"""Agents that the others do without: they only run where a cheat concerns them, which halves the time."""
NOT_TRAINING = frozenset(ROSTER) - {"features", "ppo_trader"}
_REAL: dict[str, Any] = {"source": "made", "origin": "CLAIMED"}
"""A label under which the limits bind: they bind no SYNTHETIC symbol."""


@dataclass(frozen=True)
class Plant:
    """A cheat.

    Attributes:
        what: in a few words.
        run: makes its log.
        agent, kind: the cell that must be red.
        own: whether it is judged by its own code; else by the honest one.
    """

    name: str
    what: str
    run: Callable[[], Stage]
    agent: str
    kind: Kind
    own: bool = False


@dataclass(frozen=True)
class Caught:
    """A cheat as it was judged."""

    name: str
    what: str
    cell: str
    state: str
    why: str
    place: str | None

    @property
    def caught(self) -> bool:
        """Whether its cell is red."""
        return self.state in RED


@dataclass(frozen=True)
class SelfTest:
    """All cheats, and the red cells of an honest run, of which there must be none."""

    items: tuple[Caught, ...]
    honest_red: tuple[str, ...]

    @property
    def caught(self) -> int:
        """Cheats that were caught."""
        return sum(i.caught for i in self.items)

    @property
    def exit_code(self) -> int:
        """0: every cheat was caught and the honest run has no red; else 1."""
        return 0 if self.caught == len(self.items) and not self.honest_red else 1

    def as_dict(self) -> dict[str, Any]:
        """As JSON takes it; schema `quantum.selftest/1`."""
        return {"schema": SCHEMA, "exit_code": self.exit_code, "caught": self.caught, "planted": len(self.items),
                "honest_red": list(self.honest_red),
                "items": [{"name": i.name, "what": i.what, "caught": i.caught, "cell": i.cell, "state": i.state,
                           "why": i.why, "place": i.place} for i in self.items]}


def _in(cheat: type[Agent[Any]], what: str, agent: str, kind: Kind, own: bool = True, **market: Any) -> Plant:
    """A cheat that runs in place of an agent."""
    return Plant(cheat.__name__, what,
                 lambda: stage({cheat.name: cheat()}, without=APART - {agent}, **{"bars": BARS} | market), agent, kind,
                 own)


def _log(name: str, what: str, agent: str, kind: Kind, change: Callable[[Stage], Stage], **market: Any) -> Plant:
    """A log that was changed afterwards."""
    return Plant(name, what, lambda: change(stage(without=APART, **{"bars": BARS} | market)), agent, kind)


def _on_a_walk() -> Stage:
    run = stage(bars=1, without=APART)
    run.driver.run(records.walk(1100, 42))
    run.tape.flush(run.driver)
    return run


_LEARNS: tuple[tuple[type[Agent[Any]], str], ...] = (
    (learners.Constant, "one table for ever"),
    (learners.NeverUpdates, "takes every outcome, learns from none"),
    (learners.Hashed, "tables made of a hash of the events"),
)
PLANTS: tuple[Plant, ...] = (
    *(Plant(f"{c.__name__}-against-honest-code", f"{what}; under the hash of the honest code",
            lambda c=c: stage({c.name: c()}, without=APART, bars=BARS),  # type: ignore[misc]
            "q_learning", "LEARNS") for c, what in _LEARNS),
    *(_in(c, what, "q_learning", "LEARNS") for c, what in _LEARNS),
    _in(learners.HashedDraws, "honest estimates, probabilities made of a hash", "q_learning", "LEARNS"),
    _in(learners.OutcomesUnseen, "rewards of its own making", "q_learning", "LEARNS"),
    _in(learners.FlippedSign, "learns to do what loses", "q_learning", "LEARNS"),
    _in(learners.OnlyWins, "forgets every loss", "q_learning", "LEARNS"),
    _in(learners.ClippedRewards, "a loss counts half an R at most", "q_learning", "LEARNS"),
    _in(learners.WideClip, "a loss counts five R at most", "q_learning", "LEARNS"),
    _in(learners.LossesHalved, "every loss counts half", "q_learning", "LEARNS"),
    _in(learners.OldTables, "new versions, old tables", "q_learning", "LEARNS"),
    _in(learners.CopiesAnother, "the table of another symbol", "q_learning", "LEARNS", own=False,
        symbols=("MADE", "SECOND")),
    _in(learners.AlwaysClaims, "claims an edge, whatever it earned", "q_learning", "LEARNS", bars=900),
    _in(networks.HashedNetworks, "weights made of a hash", "meta_strategy", "LEARNS", bars=800),
    _in(networks.SameNetwork, "one network for ever", "meta_strategy", "LEARNS", bars=800),
    _in(networks.RewardsNegated, "a network that learns to do what loses", "meta_strategy", "LEARNS", bars=1100),
    _in(networks.RewardsUnseen, "a network of rewards of its own making", "meta_strategy", "LEARNS", bars=800),
    Plant("WrongPropensity-of-a-network", "propensities that no network gave",
          lambda: stage({"decision": actors.WrongPropensity()}, without=APART - {"meta_strategy"}, bars=BARS),
          "meta_strategy", "APPLIED", True),
    Plant("NeverTrains", "training runs that leave the weights as they were",
          lambda: stage({"ppo_trader": trainers.NeverTrains()}, without=NOT_TRAINING, bars=TRAINED_BARS),
          "ppo_trader", "LEARNS", True),
    Plant("made-up-result", "a training result that no run gave",
          lambda: stage(tamper=trainers.made_up, without=NOT_TRAINING, bars=TRAINED_BARS), "ppo_trader", "LEARNS"),
    Plant("made-up-decisions", "decisions that no weights gave",
          lambda: stage(tamper=trainers.sure, without=NOT_TRAINING, bars=TRAINED_BARS), "ppo_trader", "APPLIED"),
    _in(learners.FreezesItself, "frozen by nobody's command", "q_learning", "LEARNS"),
    _log("rolled-back-to-richer", "a rollback to a state that was never learned", "q_learning", "LEARNS",
         lambda run: records.rolled_back(run, records.richer_state)),
    _log("command-unsaid", "a version that answers no command", "q_learning", "LEARNS", records.unsaid),
    _in(actors.IgnoresPolicies, "nobody applies a policy", "q_learning", "APPLIED"),
    _in(actors.WeightZero, "acknowledged, at weight zero", "q_learning", "APPLIED"),
    _in(actors.SaysItExecuted, "executions that were only said", "q_learning", "APPLIED"),
    Plant("unacknowledged", "nobody acknowledges a policy",
          lambda: stage(tamper=records.unacknowledged, without=APART, bars=BARS),
          "q_learning", "APPLIED"),
    _in(actors.OldPolicy, "the first policy for ever", "q_learning", "APPLIED", bars=600),
    _in(actors.WrongPropensity, "propensities that nothing was drawn from", "q_learning", "APPLIED"),
    _in(actors.WrongGreedy, "exploration that is called greedy", "q_learning", "APPLIED"),
    _in(actors.AlwaysLarge, "sizes that no rule gives", "q_learning", "APPLIED"),
    Plant("AlwaysLarge-by-a-network", "sizes beyond what the critic expects",
          lambda: stage({"decision": actors.AlwaysLarge()}, without=APART - {"meta_strategy"}, bars=BARS),
          "meta_strategy", "APPLIED", True),
    _in(actors.WrongCell, "decisions booked into another cell", "q_learning", "APPLIED"),
    _in(actors.SaysHalt, "halted by nobody's command", "q_learning", "APPLIED"),
    Plant("Disobeys", "decides on under a halt", lambda: records.go_on(records.command(
        stage({"decision": actors.Disobeys()}, without=APART, bars=BARS), "HALT", None), 20),
          "q_learning", "APPLIED", True),
    _in(actors.AlwaysTurbo, "limits that no rule gives", "risk_controller", "LEARNS", own=False, **_REAL),
    _in(actors.IgnoresLimits, "limits that no decision keeps", "risk_controller", "APPLIED", **_REAL),
    _in(actors.TooLarge, "twice the size that the limits allow", "risk_controller", "APPLIED", **_REAL),
    _in(actors.Unlimited, "trades beyond the limits of their decisions", "risk_controller", "APPLIED",
        **_REAL | {"bars": 900}),
    _in(actors.DrawsByItself, "actions that were not drawn", "q_learning", "APPLIED", bars=700),
    _in(actors.OppositeSide, "buys where the signal says sell", "paper_execution", "ORIGIN"),
    _in(actors.FillsAtClose, "enters at the close of its bar", "paper_execution", "ORIGIN"),
    _in(actors.FillsAtExtremes, "leaves at the best price of its bar", "paper_execution", "ORIGIN"),
    _in(actors.NoStops, "a stop that is never hit", "paper_execution", "ORIGIN"),
    _in(actors.NoFees, "no fees", "paper_execution", "ORIGIN"),
    _in(actors.HiddenNoFees, "no fees, and says that it paid", "paper_execution", "ORIGIN"),
    _in(actors.WrongCredit, "trades credited to another decision", "paper_execution", "ORIGIN"),
    Plant("invented-pnl", "a result of its own",
          lambda: stage(tamper=records.one_trade(records.richer), without=APART, bars=BARS),
          "paper_execution", "ORIGIN"),
    _log("traded-again", "one trade under two ids", "paper_execution", "ORIGIN", records.traded_again),
    _in(actors.LossesLost, "losses that never become experience", "experience", "ORIGIN"),
    Plant("real-label", "synthetic candles, a policy that says real",
          lambda: stage(tamper=records.relabelled("policy.ledger"), without=APART, bars=BARS), "q_learning", "ORIGIN"),
    Plant("random-walk", "a random walk under a feed's name", _on_a_walk, "features", "ORIGIN"),
    _log("candle-edited", "a bar edited afterwards", "features", "ORIGIN", records.candle_edited),
    _log("made-up-policy", "a policy that nobody learned", "q_learning", "LEARNS", records.made_up_policy),
    _log("stopped-feed", "the feed stopped, the clock goes on", "features", "RECEIVES", lambda run: run, ticks_more=24),
    _log("relay-changed", "a bar changed on its way into the inboxes", "features", "RECEIVES", records.relay_changed),
    _log("relay-left-out", "a bar that was never copied", "paper_execution", "RECEIVES", records.relay_left_out),
    _log("died-at-start", "an agent that died at start", "experience", "RUNS",
         lambda run: records.died(run, "experience")),
    _log("frozen-state", "publishes on, stores nothing", "features", "RECEIVES",
         lambda run: records.frozen(run, "features"), bars=300),
    _log("committed-ahead", "commits what it did not store", "decision", "PERSISTS",
         lambda run: records.committed_ahead(run, "decision"), bars=300),
)


def judged(plant: Plant, sample_seed: int) -> Caught:
    """Run a cheat and judge it."""
    options: dict[str, Any] = {"sample": SAMPLE, "fits": 1, "sample_seed": sample_seed, "only": (plant.agent,)}
    if plant.kind not in ("PERSISTS", "RECEIVES"):
        options["budget"] = 0  # only these cells read everything again
    with uncollected():
        run = plant.run()
        report = run.judge_by_its_own_code(**options) if plant.own else run.judge(**options)
    found = at(report, plant.agent, plant.kind)
    return Caught(plant.name, plant.what, f"{plant.agent} {plant.kind}", found.state, found.why, found.place)


def self_test(plants: tuple[Plant, ...] = PLANTS, sample_seed: int = 0) -> Iterator[Caught]:
    """Judge each cheat, one after the other."""
    for plant in plants:
        yield judged(plant, sample_seed)


def self_test_of_two(sample_seed: int = 0) -> Iterator[Caught]:
    """The same with a second process, which judges the later cheats meanwhile."""
    mine = len(PLANTS) * 2 // 5  # the earlier ones are the longer ones
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        others = [pool.submit(_judged_there, i, sample_seed) for i in range(mine, len(PLANTS))]
        yield from self_test(PLANTS[:mine], sample_seed)
        for other in others:
            yield other.result()


def _judged_there(index: int, sample_seed: int) -> Caught:
    return judged(PLANTS[index], sample_seed)


def honest_red(sample_seed: int = 0) -> tuple[str, ...]:
    """Red cells of an honest run."""
    report: Report = stage(bars=BARS).judge(sample_seed=sample_seed)
    return tuple(sorted(red(report)))

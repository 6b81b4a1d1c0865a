"""The agent: bars to slots, runs and decisions; results to versions of the policy. See the package's docstring."""

from __future__ import annotations

from hashlib import sha256
from math import sqrt
from typing import Any, ClassVar

from msgspec.structs import replace

from agents.algorithms.learner import from_bytes, tensors
from agents.algorithms.lineage import merge_origin, merge_source
from agents.algorithms.tensors import dumped
from agents.algorithms.trading import ACTIONS, Action
from agents.algorithms.trading_fit import packed, unpacked
from agents.algorithms.trading_view import COLUMNS, INPUTS, LIMIT, POSITION, row
from agents.contract import Config, Job, Output, Refused
from agents.obeying import ObedientLearner
from agents.ppo_trader import live, training
from agents.ppo_trader.config import HOUR_MS, LIVE, MINUTE_MS, PpoTraderConfig
from agents.ppo_trader.schedule import ended, recut, slot_of
from agents.ppo_trader.state import Limits, Run, Slot, TraderState
from schemas.events import (
    Event,
    Features,
    Network,
    PolicyCommand,
    PolicyConfig,
    PolicyRecord,
    TrainingCompleted,
)

Step = tuple[TraderState, tuple[Output, ...]]
LEARNED = ("learner", "trained_version", "trained_ms", "valid_for_ms", "runs", "residual", "mask", "source", "origin")
"""What a rollback takes back; all else is of now."""
LIMITS_KEPT = 64  # versions of the risk policy ahead of the bars
COMMANDED = ("version", "symbol", "now_ms", "retired_ms", "obeyed", "early", "status")
"""What `ObedientLearner` sets itself."""


class PpoTraderAgent(ObedientLearner[TraderState]):
    """Trains a policy of each symbol on a schedule, and trades on paper by it. Config: `PpoTraderConfig`."""

    name: ClassVar[str] = "ppo_trader"
    state_type = TraderState
    config_type: ClassVar[type[Config]] = PpoTraderConfig
    format_version: ClassVar[int] = 1
    heavy: ClassVar[tuple[str, ...]] = ("window", "learner")
    live: ClassVar[frozenset[str]] = LIVE
    fit_latency_ms: ClassVar[int] = MINUTE_MS
    fit_timeout_s: ClassVar[float] = 600.0
    config: PpoTraderConfig

    def new(self, scope: str) -> TraderState:
        """Nothing seen."""
        return TraderState(symbol=scope)

    def sticky_key(self, event: Event) -> str | None:
        """A configuration, limits, a halt or a resume also concern symbols born later."""
        if isinstance(event, PolicyRecord) and event.policy_id == live.RISK_POLICY:
            return "limits"
        if isinstance(event, PolicyCommand) and event.command in ("HALT", "RESUME"):
            return f"{event.command}:{event.symbol or '*'}"
        return "config" if isinstance(event, PolicyConfig) and self.takes(event) else None

    def step(self, state: TraderState, event: Event) -> Step:
        """Fold a bar, a result, a configuration or a command.

        Raises:
            Refused: LATE or CONTRADICTORY for a bar, BAD_CONFIG, UNUSABLE_POLICY, TOO_EARLY for a command.
        """
        if isinstance(event, Features):
            return self._bar(state, event)
        if isinstance(event, TrainingCompleted):
            return self._result(state, event)
        if isinstance(event, PolicyConfig):
            return self._config(state, event), ()
        if isinstance(event, PolicyRecord):
            return self._limits(state, event), ()
        if isinstance(event, PolicyCommand):
            if event.command in ("HALT", "RESUME"):
                return self._halt(state, event), ()
            return self.rolled_back(state, Refused("NO_STATE", "its state was not read"), event)
        return state, ()

    def _now(self, state: TraderState) -> PpoTraderConfig:
        return self._by(state.values)

    def _by(self, values: str) -> PpoTraderConfig:
        found = self.configured(values)
        assert isinstance(found, PpoTraderConfig)
        return found

    # ------------------------------------------------------------------ bars
    def _bar(self, state: TraderState, bar: Features) -> Step:
        if state.interval_ms not in (0, bar.interval_ms) or bar.open_time_ms == state.open_ms:
            return state, ()
        if bar.open_time_ms < state.open_ms:
            raise Refused("LATE", f"bar {bar.open_time_ms} came after bar {state.open_ms}")
        if bar.ts_ms != bar.open_time_ms + bar.interval_ms:
            raise Refused("CONTRADICTORY", f"ts_ms {bar.ts_ms} is not open_time_ms + interval_ms")
        before = state.bar
        state, freed = self.freed(state, bar.ts_ms)
        state = self._reached(state, bar)
        state, out = self._slots(state, bar.ts_ms)
        state, more = self._opened(state)
        state = self._counted(state, bar)
        state, decision = self._traded(state, bar, before)
        if not any(isinstance(o.event, PolicyRecord) for o in (*out, *more)):
            state, answer = self.late_answer(state)
        else:
            answer = ()
        return state, (*freed, *out, *more, *decision, *answer)

    def _reached(self, state: TraderState, bar: Features) -> TraderState:
        """The state with a new bar's time, and the configuration that holds by then."""
        first = state.interval_ms == 0
        state = replace(
            state, interval_ms=bar.interval_ms, now_ms=max(state.now_ms, bar.ts_ms), open_ms=bar.open_time_ms,
            source=bar.source if first or not state.source else merge_source(state.source, bar.source),
            origin=bar.origin if state.origin is None else merge_origin(state.origin, bar.origin),
        )
        changed = bool(state.next_values) and bar.ts_ms >= state.next_ms
        if changed:
            state = replace(state, values=state.next_values, values_ms=state.next_ms, next_values="", next_ms=-1)
        slot_ms = self._now(state).slot_ms
        if first:
            start, end = slot_of(bar.ts_ms, slot_ms)
        elif changed and bar.ts_ms < state.slot_end_ms:
            start, end = recut(state.slot_start_ms, bar.ts_ms, slot_ms)
        else:
            return state
        return replace(state, slot_start_ms=start, slot_end_ms=end)

    def _slots(self, state: TraderState, ts_ms: int) -> Step:
        """The slots that are over by now: those with bars wait for a run."""
        config = self._now(state)
        over = ended(state.slot_start_ms, state.slot_end_ms, state.slot_bars, state.slot_rows, ts_ms, config.slot_ms)
        if not over:
            return state, ()
        out, waiting = [], list(state.waiting)
        for slot in over:
            if slot.bars == 0:
                out.append(training.skipped(state, slot.start_ms, slot.end_ms, slot.slots, "no_new_data"))
            else:
                waiting.append(Slot(start_ms=slot.start_ms, end_ms=slot.end_ms, new_rows=slot.rows))
        while len(waiting) > config.max_waiting:
            oldest = waiting.pop(0)
            out.append(training.skipped(state, oldest.start_ms, oldest.end_ms, 1, "backlog"))
        start, end = slot_of(ts_ms, config.slot_ms)
        return replace(state, waiting=tuple(waiting), slot_start_ms=max(start, over[-1].end_ms), slot_end_ms=end,
                       slot_bars=0, slot_rows=0), tuple(out)

    def _counted(self, state: TraderState, bar: Features) -> TraderState:
        """The bar in its slot and, where it can be learned from, in the tail."""
        if bar.open is None or bar.high is None or bar.low is None or self._left_out(state):
            return replace(state, slot_bars=state.slot_bars + 1, bar=b"")
        values = {name: getattr(bar, name) for name in INPUTS}
        new = packed([row(bar.open_time_ms, bar.interval_ms, bar.open, bar.high, bar.low, bar.close, bar.regime,
                          values)])
        tail = (*state.tail, new)[-self.config.window_rows:] if bar.ready else state.tail
        return replace(state, slot_bars=state.slot_bars + 1, slot_rows=state.slot_rows + bar.ready, bar=new, tail=tail)

    # ------------------------------------------------------------------ runs
    def _opened(self, state: TraderState) -> Step:
        """Open what may be opened: the next attempt of the open run, or the run of the slot that waits longest."""
        out: list[Output] = []
        run = state.run
        if run is not None and 0 <= run.retry_ms <= state.now_ms:
            run = replace(run, attempt=run.attempt + 1, opened_ms=state.now_ms, retry_ms=-1)
            state = replace(state, run=run)
            out.append(training.started(state, run, self._by(run.values)))
        config = self._now(state)
        while state.run is None and state.waiting:
            slot, *rest = state.waiting
            state = training.merged(replace(state, waiting=tuple(rest)), slot.end_ms, config.window_rows)
            why = self._why_not(state, slot, config)
            if why is not None:
                out.append(training.skipped(state, slot.start_ms, slot.end_ms, 1, why))
                continue
            run = Run(slot=slot, attempt=1, opened_ms=state.now_ms, retry_ms=-1, parent_version=state.trained_version,
                      values=state.values, mask=training.absent(state))
            state = replace(state, run=run)
            out.append(training.started(state, run, config))
        return state, tuple(out)

    def _why_not(self, state: TraderState, slot: Slot, config: PpoTraderConfig) -> str | None:
        if state.status != "ACTIVE":
            return state.status.lower()
        if not config.training_enabled:
            return "disabled"
        if self._left_out(state):
            return "synthetic"
        return "warm_up" if slot.new_rows == 0 or state.window_rows < config.min_rows else None

    def _left_out(self, state: TraderState) -> bool:
        """Whether the symbol is a made one that is not to be traded."""
        return state.origin == "SYNTHETIC" and not self._now(state).synthetic

    def jobs(self, state: TraderState) -> tuple[Job, ...]:
        """The attempt that is under way."""
        run = state.run
        if run is None or run.retry_ms >= 0:
            return ()
        return (training.job(state, run, self._by(run.values), self.fit_latency_ms),)

    def perform(self, job: Job) -> Output:
        """Train."""
        return training.performed(job)

    def failed(self, job: Job, reason: str, ts_ms: int) -> Output:
        """An attempt that failed."""
        return training.failure(job, reason, ts_ms)

    def _result(self, state: TraderState, result: TrainingCompleted) -> Step:
        """Take the first result of the open attempt; any other changes nothing."""
        run = state.run
        if run is None or run.retry_ms >= 0 or result.job_id != training.job_id(state, run):
            return state, ()
        state = replace(state, now_ms=max(state.now_ms, result.ts_ms))
        if result.status != "SUCCEEDED" or not self._usable(result, run):
            config = self._now(state)
            if run.attempt < config.max_attempts:
                return replace(state, run=replace(run, retry_ms=state.now_ms + config.retry_after_ms)), ()
            return self._opened(replace(state, run=None))
        assert result.learner is not None
        state = replace(
            state, run=None, learner=result.learner, mask=run.mask, runs=state.runs + 1, version=state.version + 1,
            trained_version=state.version + 1, trained_ms=state.now_ms,
            valid_for_ms=self._now(state).valid_for_ms, residual=sqrt(result.value_loss or 0.0),
        )
        policy = self.published(state, state.now_ms, state.now_ms, f"update: {result.job_id}")
        state, more = self._opened(state)
        return state, (policy, *more)

    def _usable(self, result: TrainingCompleted, run: Run) -> bool:
        """Whether a result holds a learner of the networks that were asked for, whole."""
        if result.learner is None or sha256(result.learner).hexdigest() != result.learner_sha256:
            return False
        try:
            from_bytes(result.learner, self._by(run.values).settings())
        except ValueError:
            return False
        return True

    # ------------------------------------------------------------------ policies
    def published(self, state: TraderState, ts_ms: int, valid_from_ms: int, reason: str) -> Output:
        """The state as a version of the policy."""
        assert state.origin is not None
        until = max(state.trained_ms, 0) + state.valid_for_ms if state.status == "ACTIVE" else None
        return Output("policy.ledger", PolicyRecord(
            policy_id=self.policy_id(state), version=state.version, agent=self.name, scope=state.symbol, ts_ms=ts_ms,
            valid_from_ms=valid_from_ms, valid_until_ms=until, fallback="HOLD", status=state.status,
            reason=reason[:512], outcomes=state.runs, mask=state.mask, actions=ACTIONS,
            network=self._network(state), source=state.source, origin=state.origin,
        ))

    def _network(self, state: TraderState) -> Network | None:
        if not state.learner or state.status == "RETIRED":
            return None
        settings = self._now(state).settings()
        weights = dumped(tensors(from_bytes(state.learner, settings).parameters, settings))
        names = (*COLUMNS, *POSITION)
        return Network(
            inputs=names, means=(0.0,) * len(names), deviations=(1.0,) * len(names), clip=LIMIT,
            activation=settings.activation, residual_deviation=state.residual, weights=weights,
            weights_sha256=sha256(weights).hexdigest(),
        )

    def rolled_back(self, current: TraderState, old: TraderState | Refused, command: PolicyCommand) -> Step:
        """Answer a command; a run that rests on what it changed is given up."""
        if isinstance(old, TraderState) and old.learner and not self._whole(old):
            old = Refused("NO_WEIGHTS", f"the weights of version {command.version} do not come with the command")
        after, outputs = super().rolled_back(current, old, command)
        run = current.run
        if run is None or (after.status == "ACTIVE" and after.learner == current.learner):
            return after, outputs
        why = after.status.lower() if after.status != "ACTIVE" else "rolled_back"
        given_up = training.skipped(after, run.slot.start_ms, run.slot.end_ms, 1, why)
        after, more = self._opened(replace(after, run=None))
        return after, (*outputs, given_up, *more)

    def _whole(self, old: TraderState) -> bool:
        try:
            from_bytes(old.learner, self._now(old).settings())
        except ValueError:
            return False
        return True

    def restored(self, state: TraderState, old: TraderState) -> dict[str, Any]:
        """All but what was learned."""
        return {f: getattr(state, f) for f in state.__struct_fields__ if f not in (*LEARNED, *COMMANDED)}

    # ------------------------------------------------------------------ configuration, commands
    def _config(self, state: TraderState, event: PolicyConfig) -> TraderState:
        """Keep a configuration for the first bar at or after its time; of several the newest by event time counts."""
        if event.agent != self.name or event.ts_ms <= max(state.values_ms, state.next_ms):
            return state
        self.configured(event.values)
        return replace(state, next_values=event.values, next_ms=event.ts_ms)

    def _halt(self, state: TraderState, command: PolicyCommand) -> TraderState:
        """Obey at once; of halt and resume the newest by event time counts, and a halt wins over a resume."""
        halt = command.command == "HALT"
        if (command.ts_ms, halt) <= (state.halt_ms, state.halted):
            return state
        return replace(state, halted=halt, halt_ms=command.ts_ms)

    # ------------------------------------------------------------------ trading
    def _traded(self, state: TraderState, bar: Features, before: bytes) -> Step:
        """Execute the last order in this bar, and decide the next."""
        config = self._now(state)
        off = config.mode == "OFF" or self._left_out(state)
        if off or not state.bar:
            return replace(state, account=None if off else state.account, order=int(Action.HOLD)), ()
        now = unpacked(state.bar)[0]
        assert state.origin is not None
        rules = live.bound(config, state.limits, bar.open_time_ms, state.origin).rules
        account, entered, ruined = live.lived(
            state.account, state.order, rules, now, unpacked(before)[0] if before else None, bar.interval_ms)
        recent = tuple(t for t in state.trades_ms if t > bar.ts_ms - HOUR_MS)
        state = replace(state, account=account, order=int(Action.HOLD),
                        trades_ms=(*recent, bar.open_time_ms) if entered else recent)
        if not bar.ready:
            return state, ()
        order, decision = live.decided(state, config, bar, now, ruined)
        return replace(state, order=order), (decision,)

    def _limits(self, state: TraderState, record: PolicyRecord) -> TraderState:
        """Keep a newer version of the risk policy, as long as a bar may still go by it.

        Raises:
            Refused: UNUSABLE_POLICY.
        """
        held = state.limits
        if record.policy_id != live.RISK_POLICY or (held and record.version <= held[-1].version):
            return state
        if record.limits is None:
            raise Refused("UNUSABLE_POLICY", f"{record.policy_id} version {record.version} has no limits")
        new = Limits(version=record.version, valid_from_ms=record.valid_from_ms, valid_until_ms=record.valid_until_ms,
                     policy=record.limits)
        kept = [x for x in held if x.valid_from_ms < new.valid_from_ms]
        past = [x for x in kept if x.valid_from_ms <= state.open_ms][:-1]
        return replace(state, limits=(*kept[len(past):], new)[-LIMITS_KEPT:])

"""The risk controller; see the package's docstring."""

from __future__ import annotations

from hashlib import blake2b
from typing import ClassVar

import msgspec
from msgspec.structs import replace

from agents.algorithms.lineage import merge_origin, merge_source
from agents.contract import Agent, Config, Output, Refused
from agents.risk_controller import forcing
from agents.risk_controller.account import books_of, day_loss, full_books, marked, span
from agents.risk_controller.config import DAY_MS, RiskConfig
from agents.risk_controller.records import NAME, POLICY_ID, changed, policy
from agents.risk_controller.score import Score, scored
from agents.risk_controller.state import FirstState, Label, RiskState, Told, Trade, from_first
from agents.risk_controller.table import LIMITS, Forced, in_force, signal, stepped
from schemas.events import (
    REGIME_SYMBOLS,
    BookMark,
    EquityMarked,
    Event,
    HealthAlert,
    Origin,
    PolicyCommand,
    RegimeChanged,
    RiskMode,
    Tick,
    TradeClosed,
)

BASELINE = "baseline:"
REMEMBERED = 64  # trades and ids of commands: nobody sends one again after so many others
OF_MODE = ("OVERRIDE", "CLEAR")
Step = tuple[RiskState, tuple[Output, ...]]


class RiskControllerAgent(Agent[RiskState]):
    """Judges the account, and says how much may be risked. Config: `RiskConfig`."""

    name: ClassVar[str] = NAME
    state_type = RiskState
    format_version: ClassVar[int] = 2  # 2: sums beside what they are of
    former = {1: (FirstState, from_first)}  # noqa: RUF012
    config_type: ClassVar[type[Config]] = RiskConfig
    config: RiskConfig

    def new(self, scope: str) -> RiskState:
        """Nothing seen."""
        return RiskState(mode=self.config.initial)

    def numbered(self, state: RiskState, version: int) -> RiskState:
        """The next version will be above `version`."""
        return state if state.version >= version else replace(state, version=version)

    def step(self, state: RiskState, event: Event) -> Step:
        """Fold one event.

        Raises:
            Refused: CONFLICT for a trade that was taken with other numbers, TOO_EARLY for a command.
        """
        if isinstance(event, EquityMarked):
            return self._mark(state, event)
        if isinstance(event, Tick):
            if event.symbol is not None or event.ts_ms <= state.now_ms:
                return state, ()  # the clock of one symbol is not ours
            return self._settled(self._at(state, event.ts_ms), event.ts_ms)
        if isinstance(event, TradeClosed):
            return self._trade(state, event), ()
        if isinstance(event, RegimeChanged):
            return self._regime(state, event), ()
        if isinstance(event, HealthAlert):
            return self._alert(state, event)
        if isinstance(event, PolicyCommand):
            return self.rolled_back(state, Refused("NO_STATE", "it carries none"), event)
        return state, ()

    # ------------------------------------------------------------------ what comes in
    def _judges(self, symbol: str, origin: Origin) -> bool:
        config = self.config
        return (config.synthetic or origin != "SYNTHETIC") and (not config.symbols or symbol in config.symbols)

    def _judges_book(self, book_id: str | None) -> bool:
        books = self.config.books
        return book_id is not None and (book_id in books if books else not book_id.startswith(BASELINE))

    def _mark(self, state: RiskState, mark: EquityMarked) -> Step:
        """Equity of the books of a symbol: the account moves, and its points may move the mode."""
        judged: tuple[BookMark, ...] = ()
        if self._judges(mark.symbol, mark.origin):
            judged = tuple([b for b in mark.books if self._judges_book(b.book_id)])
        if not judged:
            if state.origin is not None or not mark.books:
                return state, ()
            return self._settled(replace(state, source=mark.source, origin=mark.origin), state.now_ms)
        if any(b.ts_ms >= mark.ts_ms for b in books_of(state.account, mark.symbol)):
            return state, ()
        known = state.account.books > 0
        assert state.origin is not None or not known
        state = replace(
            self._at(state, mark.ts_ms), account=marked(state.account, mark, judged, self.config),
            source=merge_source(state.source, mark.source) if known else mark.source,
            origin=merge_origin(state.origin, mark.origin) if known and state.origin else mark.origin,
        )
        score = scored(state, self.config)
        return self._settled(self._judged(state, score, mark.ts_ms), mark.ts_ms, score)

    def _trade(self, state: RiskState, trade: TradeClosed) -> RiskState:
        if not self._judges(trade.symbol, trade.origin) or not self._judges_book(trade.book_id):
            return state
        digest = blake2b(msgspec.msgpack.encode(trade), digest_size=8).digest()
        for known in state.trades:
            if known.trade_id == trade.trade_id:
                if known.digest != digest:
                    raise Refused("CONFLICT", f"trade {trade.trade_id} was taken before with other numbers")
                return state
        keep = max(REMEMBERED, self.config.trades_window)
        taken = Trade(trade_id=trade.trade_id, pnl_usd=trade.pnl_usd, digest=digest)
        return replace(
            state, trades=(*state.trades, taken)[-keep:], n_trades=state.n_trades + 1,
            losses=state.losses + 1 if trade.pnl_usd < 0 else 0,
            account=replace(state.account, day_trades=state.account.day_trades + 1),
        )

    def _regime(self, state: RiskState, e: RegimeChanged) -> RiskState:
        low, high = span(state.labels, e.symbol)
        known = state.labels[low] if low < high else None
        if not self._judges(e.symbol, e.origin) or (
                known is not None and (e.interval_ms != known.interval_ms or e.ts_ms <= known.ts_ms)):
            return state
        label = Label(symbol=e.symbol, interval_ms=e.interval_ms, regime=e.current, ts_ms=e.ts_ms)
        regimes = list(state.regimes)
        regimes[REGIME_SYMBOLS.index(label.regime)] += 1
        if known is not None:
            regimes[REGIME_SYMBOLS.index(known.regime)] -= 1
        return replace(state, labels=(*state.labels[:low], label, *state.labels[high:]), regimes=tuple(regimes))

    def _alert(self, state: RiskState, alert: HealthAlert) -> Step:
        after = forcing.alerted(state, alert)
        if after is state:
            return state, ()
        if after.sick and alert.status == "CRITICAL":
            mode = stepped(after.mode, "CRITICAL", dwelt=False, turbo=False)
            after = replace(after, mode=mode, changed_ms=max(after.changed_ms, after.now_ms))
        return self._settled(after, after.now_ms)

    def _at(self, state: RiskState, ts_ms: int) -> RiskState:
        """The state at a time: what is over by then is gone."""
        if ts_ms <= state.now_ms:
            return state
        state = replace(state, now_ms=ts_ms)
        sick = len(state.sick)
        state = forcing.recovered(state, self.config.health_hold_ms)
        if len(state.sick) < sick:  # the dwell time begins when all is well
            state = replace(state, changed_ms=max(state.changed_ms, ts_ms))
        return forcing.expired(state)

    # ------------------------------------------------------------------ the mode
    def _judged(self, state: RiskState, score: Score, ts_ms: int) -> RiskState:
        """The state after a bar's points: down at once, one mode a bar; up after the dwell time, and under no override.
        """
        config, says = self.config, signal(bool(state.sick), score.defensive, score.aggressive)
        if says == "DOWN":
            state = replace(state, down_ms=max(state.down_ms, ts_ms))
            if ts_ms <= state.stepped_ms:
                return state
        dwelt = ts_ms - max(state.changed_ms, state.down_ms) >= config.dwell_ms and state.override is None
        if state.changed_ms < 0:  # the first bar: the initial mode begins here
            state, dwelt = replace(state, changed_ms=ts_ms), False
        mode = stepped(state.mode, says, dwelt=dwelt, turbo=config.allow_turbo)
        if mode != state.mode:
            state = replace(state, mode=mode, changed_ms=max(ts_ms, state.changed_ms),
                            stepped_ms=ts_ms if says == "DOWN" else state.stepped_ms)
        return self._day(state, ts_ms)

    def _day(self, state: RiskState, ts_ms: int) -> RiskState:
        """The account's own breaker: from the daily loss on, nothing is opened until the UTC day ends."""
        mode, _ = self._in_force(state)
        if day_loss(state.account) < LIMITS[mode].daily_loss_limit:
            return state
        end_ms = ((ts_ms - 1) // DAY_MS + 1) * DAY_MS
        return replace(state, closed_until_ms=max(end_ms, state.closed_until_ms or 0))

    def _in_force(self, state: RiskState) -> tuple[RiskMode, Forced | None]:
        return in_force(state.mode, bool(state.sick), None if state.override is None else state.override.mode)

    # ------------------------------------------------------------------ people's commands
    def rolled_back(self, current: RiskState, old: RiskState | Refused, command: PolicyCommand) -> Step:
        """Answer a command about the risk policy by one version; only OVERRIDE and CLEAR can be obeyed."""
        if command.policy_id != POLICY_ID or command.command in ("HALT", "RESUME") or \
                command.command_id in current.obeyed:
            return current, ()
        if current.version == 0:
            raise Refused("TOO_EARLY", f"{POLICY_ID} has no version yet")
        state, what = current, command.command.lower()
        if command.command in OF_MODE:
            found = forcing.overridden(current, command)
            why_not, state = (found, current) if isinstance(found, str) else (None, found)
        else:
            why_not = "limits are rules, they learn nothing; override the mode instead"
        state = replace(state, obeyed=(*state.obeyed, command.command_id)[-REMEMBERED:])
        if command.mode is not None:
            what += f" {command.mode}"
        reason = f"{what}: {command.reason}" if why_not is None else f"refused: {what}: {why_not}; {command.reason}"
        return self._settled(state, state.now_ms, command=command, obeyed=why_not is None, reason=reason)

    # ------------------------------------------------------------------ what goes out
    def _settled(self, state: RiskState, ts_ms: int, score: Score | None = None, *,
                 command: PolicyCommand | None = None, obeyed: bool | None = None, reason: str = "") -> Step:
        """The state with a new version, where there is something to say: nothing before clock and first mark."""
        before = state.told
        if state.now_ms < 0 or state.origin is None:
            return state, ()
        mode, forced = self._in_force(state)
        now = Told(mode=mode, forced=forced, full_books=full_books(state.account, LIMITS[mode].max_positions),
                   closed_until_ms=state.closed_until_ms, origin=state.origin)
        reason = reason or self._news(before, now, state, ts_ms)
        if not reason:
            return state, ()
        state = replace(state, version=state.version + 1, told=now, told_ms=max(ts_ms, state.told_ms))
        out = policy(state, now, self.config, ts_ms, reason, command, obeyed)
        if before is not None and (before.mode, before.forced) == (now.mode, now.forced) and not obeyed:
            return state, (out,)
        event = changed(state, before, now, scored(state, self.config) if score is None else score, ts_ms, command)
        return state, (event, out)

    def _news(self, before: Told | None, now: Told, state: RiskState, ts_ms: int) -> str:
        """Why there is a new version, in a word; empty: there is none."""
        if before is None:
            return "genesis"
        if (before.mode, before.forced) != (now.mode, now.forced):
            return "mode"
        if before.closed_until_ms != now.closed_until_ms:
            return "daily_loss"
        if before.full_books != now.full_books:
            return "positions"
        if before.origin != now.origin:
            return "basis"
        return "renewal" if ts_ms - state.told_ms >= self.config.renew_ms else ""

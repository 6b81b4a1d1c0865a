"""State of the risk controller: the account that it judges, what forces the mode, what the newest version says."""

from __future__ import annotations

from agents.contract import State
from schemas.events import Origin, Regime, RiskMode


class BookNow(State, frozen=True, kw_only=True):
    """A judged book at its newest mark. `equity`: quote currency. `open`: it holds a position."""

    symbol: str
    book_id: str
    equity: float
    open: bool
    ts_ms: int


class Sample(State, frozen=True, kw_only=True):
    """Value of a unit of the account at a mark."""

    ts_ms: int
    nav: float


class Account(State, frozen=True, kw_only=True):
    """All judged books together.

    Attributes:
        books: in order of symbol and book.
        nav: value of a unit, 1 at the first mark: equity as a multiple of what it was, newcomers left out.
        peak: its running peak.
        peak_mark: symbol and event time of the mark that set it.
        mark_ms: event time of the newest mark.
        last_mark: that mark.
        day: UTC day of the newest mark; -1 before the first.
        day_nav: value of a unit at the start of the day.
        day_trades: trades closed since.
        bad_days: UTC days in a row that ended without profit.
        samples: values on the grid that the slope is fitted to, oldest first.
    """

    books: tuple[BookNow, ...] = ()
    nav: float = 1.0
    peak: float = 1.0
    peak_mark: str = ""
    mark_ms: int = -1
    last_mark: str = ""
    day: int = -1
    day_nav: float = 1.0
    day_trades: int = 0
    bad_days: int = 0
    samples: tuple[Sample, ...] = ()


class Trade(State, frozen=True, kw_only=True):
    """A trade that was taken; the digest tells a repeat from a conflict."""

    trade_id: str
    pnl_usd: float
    digest: bytes


class Label(State, frozen=True, kw_only=True):
    """Regime of a symbol, of the first interval seen."""

    symbol: str
    interval_ms: int
    regime: Regime
    ts_ms: int


class Sick(State, frozen=True, kw_only=True):
    """A component that was CRITICAL. `ts_ms`: of its newest alert. `well_ms`: our clock when it became HEALTHY."""

    component: str
    ts_ms: int
    well: bool = False
    well_ms: int = -1


class Override(State, frozen=True, kw_only=True):
    """A mode by command, until an event time."""

    mode: RiskMode
    until_ms: int
    command_id: str
    actor: str
    reason: str


class Told(State, frozen=True, kw_only=True):
    """What the newest version says."""

    mode: RiskMode
    forced: str | None = None
    full_books: tuple[str, ...] = ()
    closed_until_ms: int | None = None
    origin: Origin


class RiskState(State, frozen=True, kw_only=True):
    """State of the scope `global`.

    Attributes:
        mode: as the scores give it.
        changed_ms: event time of its last change, or of what last forced it.
        down_ms: event time of the newest signal to step down; `stepped_ms`: of the newest step down.
        now_ms: our clock: the newest tick or judged mark.
        trades: newest trades, oldest first.
        n_trades: trades taken so far.
        losses: newest trades in a row that lost.
        labels: in order of symbol.
        sick: in order of component.
        source, origin: of what was judged, or of what was seen where nothing was; None before the first mark.
        version: newest policy version; `told`, `told_ms`: what it says, and its event time.
        obeyed: ids of the commands last answered, oldest first.
    """

    mode: RiskMode
    changed_ms: int = -1
    down_ms: int = -1
    stepped_ms: int = -1
    now_ms: int = -1
    account: Account = Account()
    trades: tuple[Trade, ...] = ()
    n_trades: int = 0
    losses: int = 0
    labels: tuple[Label, ...] = ()
    sick: tuple[Sick, ...] = ()
    override: Override | None = None
    closed_until_ms: int | None = None
    source: str = ""
    origin: Origin | None = None
    version: int = 0
    told: Told | None = None
    told_ms: int = -1
    obeyed: tuple[str, ...] = ()

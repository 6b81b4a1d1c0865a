"""State of the risk controller: the account that it judges, what forces the mode, what the newest version says."""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from operator import attrgetter

from msgspec.structs import replace

from agents.contract import State
from schemas.events import REGIME_SYMBOLS, Origin, Regime, RiskMode


class FirstBook(State, frozen=True, kw_only=True):
    """A judged book of format 1."""

    symbol: str
    book_id: str
    equity: float
    open: bool
    ts_ms: int


class BookNow(State, frozen=True, kw_only=True):
    """A judged book of a symbol at its newest mark. `equity`: quote currency. `open`: it holds a position."""

    book_id: str
    equity: float
    open: bool
    ts_ms: int


class Books(State, frozen=True, kw_only=True):
    """The judged books of a symbol, in order of their names; one or more."""

    symbol: str
    books: tuple[BookNow, ...]


class Shelf(State, frozen=True, kw_only=True):
    """Some neighbours in the order of symbols: a mark makes one shelf anew, and none of the others."""

    symbols: tuple[Books, ...]


class Held(State, frozen=True, kw_only=True):
    """In how many symbols the books of a name hold a position; 1 or more."""

    book_id: str
    symbols: int


class Sample(State, frozen=True, kw_only=True):
    """Value of a unit of the account at a mark."""

    ts_ms: int
    nav: float


class FirstAccount(State, frozen=True, kw_only=True):
    """The account of format 1: all books in a row, without sums of what they hold."""

    books: tuple[FirstBook, ...] = ()
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


class Account(State, frozen=True, kw_only=True):
    """All judged books together.

    Attributes:
        shelves: all symbols with books, in order; see `account.put`.
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
        books: how many there are.
        total: their equity; moved by each mark, and summed up anew on each UTC day.
        held: names of books with open positions, in order.
    """

    shelves: tuple[Shelf, ...] = ()
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
    books: int = 0
    total: float = 0.0
    held: tuple[Held, ...] = ()


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


class FirstState(State, frozen=True, kw_only=True):
    """The state of format 1: without sums of the account, and regimes uncounted."""

    mode: RiskMode
    changed_ms: int = -1
    down_ms: int = -1
    stepped_ms: int = -1
    now_ms: int = -1
    account: FirstAccount = FirstAccount()
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
        labels: in order of symbol; `regimes`: how many there are of each regime, as `REGIME_SYMBOLS` has them.
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
    regimes: tuple[int, ...] = (0,) * len(REGIME_SYMBOLS)
    sick: tuple[Sick, ...] = ()
    override: Override | None = None
    closed_until_ms: int | None = None
    source: str = ""
    origin: Origin | None = None
    version: int = 0
    told: Told | None = None
    told_ms: int = -1
    obeyed: tuple[str, ...] = ()


def symbols_of(account: Account) -> list[Books]:
    """All symbols with books, in order."""
    return [here for shelf in account.shelves for here in shelf.symbols]


def summed(account: Account) -> Account:
    """The account with the sums of its books reckoned from them all."""
    books = [book for here in symbols_of(account) for book in here.books]
    held = Counter([book.book_id for book in books if book.open])
    return replace(account, books=len(books), total=sum([book.equity for book in books]),
                   held=tuple([Held(book_id=name, symbols=n) for name, n in sorted(held.items())]))


def from_first(former: FirstState) -> RiskState:
    """The state of format 1 as it is today."""
    of = Counter([label.regime for label in former.labels])
    symbols = tuple([
        Books(symbol=symbol, books=tuple([BookNow(book_id=b.book_id, equity=b.equity, open=b.open, ts_ms=b.ts_ms)
                                          for b in books]))
        for symbol, books in groupby(former.account.books, attrgetter("symbol"))])
    kept = {f: getattr(former.account, f) for f in FirstAccount.__struct_fields__ if f != "books"}
    account = summed(Account(shelves=(Shelf(symbols=symbols),) if symbols else (), **kept))
    values = {f: getattr(former, f) for f in FirstState.__struct_fields__}
    return RiskState(**values | {"account": account, "regimes": tuple([of[name] for name in REGIME_SYMBOLS])})

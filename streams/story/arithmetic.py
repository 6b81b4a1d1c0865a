"""The arithmetic of a trade, done again from what its record and the candles say.

Nothing of `agents/` is used: a formula that is wrong there must not be right here. Each check has what the record says,
what follows, and whether they agree; a check that cannot be made says why, and counts neither way.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from schemas.events import Candle, Decision, Experience, TradeClosed

RELATIVE = 1e-6  # producers round their amounts
OF_NOTIONAL = 1e-9  # of prices x quantity: what rounding leaves where large amounts cancel out
BPS = 1e-4


class Check(NamedTuple):
    """One check.

    Attributes:
        name: what is checked.
        agrees: None where it cannot be checked.
        said: what the record says.
        follows: what follows from its other fields or from the candles.
        how: the formula, or why it cannot be checked.
    """

    name: str
    agrees: bool | None
    said: float | str | None
    follows: float | str | None
    how: str


class Terms(NamedTuple):
    """What a paper trade says it paid, basis points."""

    fee_bps: float
    half_spread_bps: float
    slippage_bps: float
    funding_bps: float

    @property
    def against(self) -> float:
        """Share of the reference price by which a fill is worse than it."""
        return (self.half_spread_bps + self.slippage_bps) * BPS


def agrees(checks: list[Check]) -> bool | None:
    """False where one check does not agree; None where none could be made."""
    known = [c.agrees for c in checks if c.agrees is not None]
    return all(known) if known else None


def check_trade(trade: TradeClosed, decision: Decision | None, experience: Experience | None,
                bars: list[Candle]) -> list[Check]:
    """Every check of a trade.

    Args:
        decision: the one it names, if it is known.
        experience: the one made of it, if there is one.
        bars: candles of its symbol around its entry and exit, as far as they are known.
    """
    return [*_result(trade), *_times(trade, decision), *_reward(trade, experience), *_fills(trade, bars)]


def _close(said: float, follows: float, slack: float = 0.0) -> bool:
    return abs(said - follows) <= RELATIVE * max(abs(said), abs(follows)) + slack


def _equal(name: str, said: float, follows: float, how: str, slack: float = 0.0) -> Check:
    return Check(name, _close(said, follows, slack), said, follows, how)


def _result(t: TradeClosed) -> list[Check]:
    side = 1 if t.side == "LONG" else -1
    notional = t.entry_price * t.quantity
    slack = OF_NOTIONAL * abs(notional)
    gross = side * (t.exit_price - t.entry_price) * t.quantity
    left = t.pnl_usd + t.fees + t.funding
    out = [
        Check("sign", left * gross > 0 or abs(left - gross) <= slack, f"{left:+g}", f"{gross:+g}",
              "pnl_usd + fees + funding has the sign of side x (exit - entry)"),
        _equal("pnl_usd", t.pnl_usd, gross - t.fees - t.funding,
               "side x (exit_price - entry_price) x quantity - fees - funding", slack),
        _equal("r_multiple", t.r_multiple, t.pnl_usd / t.risk_at_open, "pnl_usd / risk_at_open",
               slack / t.risk_at_open),
        _equal("notional_at_open", t.notional_at_open, notional, "entry_price x quantity", slack),
        _equal("leverage", t.leverage, notional / t.equity_at_open, "notional / equity_at_open"),
        _equal("pnl_pct", t.pnl_pct, t.pnl_usd / t.equity_at_open, "pnl_usd / equity_at_open",
               slack / t.equity_at_open),
    ]
    if t.stop_price is None:
        return [*out, Check("risk_at_open", None, t.risk_at_open, None, "the trade names no stop")]
    risk = abs(t.entry_price - t.stop_price) * t.quantity
    return [*out, _equal("risk_at_open", t.risk_at_open, risk, "|entry_price - stop_price| x quantity", slack)]


def _times(t: TradeClosed, decision: Decision | None) -> list[Check]:
    held = Check("closed after it opened", t.ts_ms >= t.opened_ms, str(t.ts_ms), f">= {t.opened_ms}", "event times")
    if decision is None:
        return [held, Check("opened after decision", None, str(t.opened_ms), None, "the decision is not on the log")]
    return [held, Check("opened after decision", t.opened_ms >= decision.ts_ms, str(t.opened_ms),
                        f">= {decision.ts_ms}", "event times"),
            Check("strategy is the one decided", t.strategy == decision.action, t.strategy, decision.action,
                  "the decision's action")]


def _reward(t: TradeClosed, e: Experience | None) -> list[Check]:
    if e is None or e.trade_id != t.trade_id:
        return []
    return [Check("experience.reward_r", e.reward_r == t.r_multiple, e.reward_r, t.r_multiple, "r_multiple"),
            Check("experience.pnl_usd", e.pnl_usd == t.pnl_usd, e.pnl_usd, t.pnl_usd, "pnl_usd")]


# ---------------------------------------------------------------------- fills on candles
def terms_of(execution: str) -> Terms | None:
    """Costs that a trade's `execution` names; None where it names none.

    >>> terms_of("paper:default-costs fee_bps=5 half_spread_bps=0.5 slippage_bps=1 funding_bps=0")
    Terms(fee_bps=5.0, half_spread_bps=0.5, slippage_bps=1.0, funding_bps=0.0)
    """
    found = dict(re.findall(r"(\w+)=(-?[0-9][0-9.e+-]*)(?= |$)", execution))
    try:
        return Terms(*(float(found[name]) for name in Terms._fields))
    except (KeyError, ValueError):
        return None


def _fills(t: TradeClosed, bars: list[Candle]) -> list[Check]:
    names = ("entry inside its bar", "exit inside its bar", "fees", "spread_cost", "slippage")
    terms = terms_of(t.execution)
    why = None
    if not t.execution.startswith("paper:"):
        why = f"filled by {t.execution.split()[0]}, not on candles"
    elif terms is None:
        why = "its execution names no costs"
    if terms is None or why is not None:
        return [Check(name, None, None, None, why or "") for name in names]
    side = 1 if t.side == "LONG" else -1
    entry = t.entry_price / (1.0 + side * terms.against)
    exit_ = t.exit_price / (1.0 - side * terms.against)
    slack = OF_NOTIONAL * t.entry_price * t.quantity
    both = (entry + exit_) * t.quantity * BPS
    return [
        _entry(t, entry, bars), _exit(t, exit_, side, bars),
        _equal("fees", t.fees, (t.entry_price + t.exit_price) * t.quantity * terms.fee_bps * BPS,
               "(entry_price + exit_price) x quantity x fee_bps", slack),
        _equal("spread_cost", t.spread_cost, both * terms.half_spread_bps,
               "(entry + exit before costs) x quantity x half_spread_bps", slack),
        _equal("slippage", t.slippage, both * terms.slippage_bps,
               "(entry + exit before costs) x quantity x slippage_bps", slack),
        _funding(t, terms),
    ]


def _funding(t: TradeClosed, terms: Terms) -> Check:
    if terms.funding_bps == 0.0:
        return Check("funding", t.funding == 0.0, t.funding, 0.0, "funding_bps is 0")
    return Check("funding", None, t.funding, None, "the funding times are not in the trade's record")


def _entry(t: TradeClosed, price: float, bars: list[Candle]) -> Check:
    """The entry before costs is the open of the bar that it opened at."""
    name = "entry inside its bar"
    bar = next((b for b in bars if b.open_time_ms == t.opened_ms), None)
    if bar is None:
        return Check(name, None, price, None, f"no candle that opens at {t.opened_ms} was found")
    if "fill=next_open" in t.execution.split():
        return _equal(name, price, bar.open, "entry_price before costs is the open of the bar")
    return _inside(name, price, bar)


def _exit(t: TradeClosed, price: float, side: int, bars: list[Candle]) -> Check:
    """The exit before costs is a price of the bar that ends, or begins, when the trade closed."""
    name = "exit inside its bar"
    ending = next((b for b in bars if b.ts_ms == t.ts_ms), None)
    opening = next((b for b in bars if b.open_time_ms == t.ts_ms), None)
    tries: list[Check] = []
    if ending is not None and t.exit_reason == "HORIZON":
        tries.append(_equal(name, price, ending.close, "exit_price before costs is the close of the bar"))
    level = {"STOP": t.stop_price, "TARGET": t.target_price}.get(t.exit_reason)
    if ending is not None and level is not None:
        check = _equal(name, price, level, f"exit_price before costs is the {t.exit_reason.lower()}, within the bar")
        tries.append(check._replace(agrees=bool(check.agrees and _holds(ending, level))))
    if opening is not None and t.exit_reason in ("STOP", "TARGET", "SIGNAL", "HALT"):
        check = _equal(name, price, opening.open, "exit_price before costs is the open of the bar")
        past = level is None or side * (opening.open - level) * (1 if t.exit_reason == "TARGET" else -1) >= 0
        tries.append(check._replace(agrees=bool(check.agrees and past)))
    if not tries and ending is not None and t.exit_reason in ("MANUAL", "LIQUIDATION", "OTHER"):
        tries.append(_inside(name, price, ending))
    if not tries:
        return Check(name, None, price, None, f"no candle that ends or opens at {t.ts_ms} was found")
    return next((c for c in tries if c.agrees), tries[0])


def _holds(bar: Candle, price: float) -> bool:
    slack = RELATIVE * price
    return bar.low - slack <= price <= bar.high + slack


def _inside(name: str, price: float, bar: Candle) -> Check:
    return Check(name, _holds(bar, price), price, f"{bar.low:g} to {bar.high:g}", "low <= price before costs <= high")

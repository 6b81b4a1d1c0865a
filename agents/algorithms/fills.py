"""Execution arithmetic on plain numbers: fills, sizes, exits within a bar, funding, results.

Side and direction are +1 (long, buy) or -1 (short, sell). Prices are in quote currency, quantities in base currency,
costs in basis points. Nothing here knows an event, a clock or a book.
"""

from __future__ import annotations

from typing import NamedTuple

BPS = 1e-4


class Costs(NamedTuple):
    """What a fill costs, basis points: fee of the notional; half spread and slippage of the reference price."""

    fee_bps: float
    half_spread_bps: float
    slippage_bps: float


class Fill(NamedTuple):
    """A fill. `spread_cost` and `slippage` are amounts that are already inside the price; the fee is not."""

    price: float
    fee: float
    spread_cost: float
    slippage: float


class Exit(NamedTuple):
    """How a position ends within a bar: the reason, the price before costs, and whether it is the bar's open."""

    reason: str
    price: float
    at_open: bool


class Result(NamedTuple):
    """A closed position. `r_multiple` is None where no stop defined a risk."""

    exit_price: float
    fees: float
    spread_cost: float
    slippage: float
    pnl_usd: float
    r_multiple: float | None


def fill_price(reference: float, direction: int, costs: Costs) -> float:
    """Price after half the spread and slippage went against us.

    >>> fill_price(100.0, +1, Costs(5.0, 50.0, 50.0)), fill_price(100.0, -1, Costs(5.0, 50.0, 50.0))
    (101.0, 99.0)
    """
    return reference * (1.0 + direction * (costs.half_spread_bps + costs.slippage_bps) * BPS)


def fill(reference: float, direction: int, quantity: float, costs: Costs) -> Fill:
    """Fill of a quantity at a reference price."""
    price = fill_price(reference, direction, costs)
    unit = reference * quantity * BPS
    return Fill(price, price * quantity * costs.fee_bps * BPS, unit * costs.half_spread_bps, unit * costs.slippage_bps)


def quantity_for_risk(risk_usd: float, stop_distance: float, size_multiplier: float) -> float:
    """Quantity that loses `risk_usd * size_multiplier` before costs if the stop is hit; 0 without a distance."""
    return risk_usd / stop_distance * size_multiplier if stop_distance > 0.0 else 0.0


def capped(quantity: float, price: float, equity: float, max_leverage: float, volume_limit: float | None) -> float:
    """The quantity within leverage (notional over equity) and the volume limit (base currency; None: no limit)."""
    quantity = min(quantity, max_leverage * equity / price)
    return quantity if volume_limit is None else min(quantity, volume_limit)


def exit_in_bar(
    side: int, stop: float | None, target: float | None, open_: float, high: float, low: float
) -> Exit | None:
    """Exit by stop or target within a bar; None where neither is touched.

    A bar that opens beyond a level fills at its open, whatever came later. Else a bar that holds both levels takes the
    stop: which one came first cannot be known from a bar, and the worse one is assumed.

    >>> exit_in_bar(+1, 95.0, 110.0, 100.0, 112.0, 94.0)
    Exit(reason='STOP', price=95.0, at_open=False)
    """
    if side > 0:
        hit_stop, hit_target = stop is not None and low <= stop, target is not None and high >= target
    else:
        hit_stop, hit_target = stop is not None and high >= stop, target is not None and low <= target
    if hit_stop and stop is not None and side * (open_ - stop) <= 0.0:
        return Exit("STOP", open_, True)
    if hit_target and target is not None and side * (open_ - target) >= 0.0:
        return Exit("TARGET", open_, True)
    if hit_stop and stop is not None:
        return Exit("STOP", stop, False)
    return Exit("TARGET", target, False) if hit_target and target is not None else None


def grid_points(start_ms: int, end_ms: int, interval_ms: int) -> int:
    """Number of multiples of `interval_ms` in [start_ms, end_ms).

    >>> grid_points(1, 16, 8), grid_points(0, 17, 8)
    (1, 3)
    """
    return max(0, (end_ms - 1) // interval_ms - (start_ms - 1) // interval_ms)


def funding_paid(side: int, quantity: float, price: float, funding_bps: float, points: int) -> float:
    """Funding of a position over so many funding times: longs pay where the rate is positive, shorts receive."""
    return side * quantity * price * funding_bps * BPS * points


def unrealised(side: int, entry_price: float, quantity: float, mark: float) -> float:
    """Result of an open position at a mark price, before fees and funding."""
    return side * (mark - entry_price) * quantity


def settle(side: int, entry: Fill, quantity: float, funding: float, risk_usd: float, exit_: Fill) -> Result:
    """Net result of a position: side x (exit - entry) x quantity - fees - funding."""
    fees = entry.fee + exit_.fee
    pnl = side * (exit_.price - entry.price) * quantity - fees - funding
    return Result(
        exit_.price, fees, entry.spread_cost + exit_.spread_cost, entry.slippage + exit_.slippage, pnl,
        pnl / risk_usd if risk_usd > 0.0 else None,
    )

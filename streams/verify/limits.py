"""Risk limits: whether the policy follows its rules, and whether decisions and trades keep to it.

A decision carries the limits that it was taken under, with the version of the risk policy. Each is held against that
version on the ledger: there, valid by then, the very numbers (past its end those of the fallback), and bound at all
only where the policy binds its origin. A trade is held against its decision: risk, leverage, and the stop's distance.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from schemas.events import Decision, PolicyRecord, RiskPolicy, TradeClosed
from streams.log import Record
from streams.verify.cells import MAX_RECORDS, Cell, cell
from streams.verify.evidence import Evidence
from streams.verify.shown import drawn

BY_RULE = frozenset({"risk_controller"})
"""Agents whose policies are rules: they estimate nothing from rewards, so no other reward makes another policy."""
NEEDED = 20
"""Decisions under limits before anything is said of them."""
FROZEN = 20
"""Decisions in a row by one version, with as many newer ones on the ledger before the first, that make it a frozen one;
as for learners' policies."""
BARRED = "risk_"
NEAR = 1e-9


@dataclass
class Count:
    """What was counted.

    Attributes:
        made: decisions.
        bindable: of these, those that limits can bind by their origin.
        due: decisions taken while a version that binds them was valid.
        carried: of these, those that carry limits.
        clipped: of these, those at the largest size that the limits allow.
        barred: of these, those that were let open nothing.
        trades: trades held against the limits of their decision.
        wrong: what contradicts, with its record.
        last: newest decision that carries limits.
    """

    made: int = 0
    bindable: int = 0
    due: int = 0
    carried: int = 0
    clipped: int = 0
    barred: int = 0
    trades: int = 0
    wrong: list[tuple[str, Record]] = field(default_factory=list)
    last: Record | None = None
    rows: list[tuple[Record, Decision]] = field(default_factory=list)


Ledger = dict[int, tuple[Record, PolicyRecord]]


def obeyed(evidence: Evidence, name: str, random: Random) -> Cell:
    """The cell APPLIED of an agent whose policies are limits."""
    ledger: Ledger = {e.version: (r, e) for r, e in evidence.events("policy.ledger")
                      if isinstance(e, PolicyRecord) and e.agent == name}
    count = _count(evidence, ledger)
    figures: dict[str, float] = {
        "due": count.due, "carried": count.carried, "clipped": count.clipped, "barred": count.barred,
        "trades": count.trades}
    rows = drawn(count.rows, MAX_RECORDS // 4, random)
    said = (f"{count.carried} of {count.due} decisions carry the limits in force; {count.clipped} at their largest "
            f"size, {count.barred} let open nothing; {count.trades} trades keep to them")
    if count.wrong:
        why, record = count.wrong[0]
        more = f" (and {len(count.wrong) - 1} more)" if len(count.wrong) > 1 else ""
        return cell("FAIL", f"{said}, but {why}{more}", record, evidence.now_ms, **figures)
    if count.due >= NEEDED and not count.carried:
        return cell("FAIL", f"limits were in force at {count.due} decisions, and none carries them", None, None,
                    **figures)
    if ledger and not count.bindable:
        return cell("IDLE", f"all {count.made} decisions are on SYNTHETIC symbols, which the limits do not bind", None,
                    None, **figures)
    if count.carried < NEEDED:
        return cell("NOT PROVEN", f"{said} ({count.carried}/{NEEDED})" if count.due else
                    f"no decision was taken under limits that bind it (0/{NEEDED})", count.last, evidence.now_ms,
                    **figures)
    return cell("PASS", said, count.last, evidence.now_ms, **figures).showing_each(
        [r, ledger[d.limits_version or 0][0]] for r, d in rows)


def _count(evidence: Evidence, ledger: Ledger) -> Count:
    count = Count()
    decisions: dict[str, Decision] = {}
    last: dict[str, list[tuple[Record, Decision]]] = {}
    first_ms = min([p.valid_from_ms for _, p in ledger.values()], default=2**62)
    binds_made = any(p.limits is not None and p.limits.synthetic for _, p in ledger.values())
    for record, d in evidence.events("rl.meta.strategy_selected"):
        if not isinstance(d, Decision):
            continue
        decisions[d.decision_id] = d
        if not evidence.covers(record):
            continue
        bindable = binds_made or d.origin != "SYNTHETIC"
        count.made, count.bindable = count.made + 1, count.bindable + bindable
        count.due += bindable and d.ts_ms >= first_ms
        if d.limits is None and not (d.forced_reason or "").startswith(BARRED):
            continue
        count.carried += 1
        count.barred += (d.forced_reason or "").startswith(BARRED)
        count.last = record
        count.rows.append((record, d))
        why = contradiction(d, ledger.get(d.limits_version or 0, (None, None))[1], _risk_pct(evidence))
        if why is not None:
            count.wrong.append((f"{d.decision_id} {why}", record))
        elif d.limits is not None:
            count.clipped += d.size_multiplier >= d.limits.risk_per_trade / _risk_pct(evidence) * (1 - NEAR)
        last.setdefault(d.symbol, []).append((record, d))
    for rows in last.values():
        rows.sort(key=lambda pair: pair[1].ts_ms)
        why = frozen(rows, ledger)
        if why is not None:
            count.wrong.append((why, rows[-1][0]))
    for record, t in evidence.events("execution.trade.closed"):
        of = decisions.get(t.decision_id or "") if isinstance(t, TradeClosed) and evidence.covers(record) else None
        if of is None or of.limits is None or not isinstance(t, TradeClosed):
            continue
        count.trades += 1
        why = beyond(t, of)
        if why is not None:
            count.wrong.append((f"trade {t.trade_id} {why}", record))
    return count


def _risk_pct(evidence: Evidence) -> float:
    return float(getattr(evidence.roster["decision"].config, "risk_pct", 0.01)) if "decision" in evidence.roster \
        else 0.01


def contradiction(d: Decision, policy: PolicyRecord | None, risk_pct: float) -> str | None:
    """What of a decision does not follow from the version of the limits that it names; None where all does.

    Args:
        risk_pct: loss at the stop at size 1, as the decider has it.
    """
    if d.limits is None or policy is None or policy.limits is None:
        return f"names version {d.limits_version} of the limits, which is not on the ledger"
    if policy.valid_from_ms > d.ts_ms:
        return f"goes by version {policy.version} of the limits, which did not hold yet"
    if d.origin == "SYNTHETIC" and not policy.limits.synthetic:
        return f"is bound by version {policy.version} of the limits, which binds no synthetic symbol"
    over = policy.valid_until_ms is not None and d.ts_ms > policy.valid_until_ms
    if d.limits != (policy.limits.otherwise if over else policy.limits.now):
        return f"carries other limits than version {policy.version} gives"
    if d.size_multiplier > d.limits.risk_per_trade / risk_pct * (1 + NEAR):
        return f"has a size of {d.size_multiplier:g}, and {d.limits.mode} allows {d.limits.risk_per_trade / risk_pct:g}"
    return _closing(d, policy.limits, over)


def _closing(d: Decision, policy: RiskPolicy, over: bool) -> str | None:
    closed = set()
    if policy.closed_until_ms is not None and d.ts_ms < policy.closed_until_ms:
        closed.add("risk_daily_loss")
    if not over and d.book_id in policy.full_books:
        closed.add("risk_max_positions")
    said = d.forced_reason or ""
    if closed and said not in (*closed, "halt"):
        return f"was taken as if its book were open; the limits say {min(closed)}"
    if said.startswith(BARRED) and said != "risk_min_confidence" and said not in closed:
        return f"says {said}, and the limits do not"
    if said.startswith(BARRED) and d.signals and d.action != "neutral":
        return f"says {said}, and takes {d.action}"
    return None


def frozen(rows: list[tuple[Record, Decision]], ledger: Ledger) -> str | None:
    """Whether the last decisions of a symbol all go by one version although newer ones were there; in words."""
    last = rows[-FROZEN:]
    if len(last) < FROZEN or len({d.limits_version for _, d in last}) > 1:
        return None
    record, first = last[0]
    newer = [v for v, (r, p) in ledger.items() if v > (first.limits_version or 0) and p.valid_from_ms <= first.ts_ms
             and (r.timestamp_ms or 0) < (record.timestamp_ms or 0)]
    if len(newer) < FROZEN:
        return None
    return (f"the last {FROZEN} decisions of {first.symbol} go by version {first.limits_version} of the limits, and "
            f"version {max(newer)} was on the ledger before the first of them")


def beyond(t: TradeClosed, d: Decision) -> str | None:
    """How a trade goes beyond the limits of its decision; None where it does not."""
    limits = d.limits
    assert limits is not None
    if t.risk_at_open > limits.risk_per_trade * t.equity_at_open * (1 + 1e-6):
        return (f"risked {t.risk_at_open / t.equity_at_open:.3%} of equity; {limits.mode} allows "
                f"{limits.risk_per_trade:.2%}")
    if t.leverage > limits.max_leverage * (1 + 1e-6):
        return f"has a leverage of {t.leverage:g}; {limits.mode} allows {limits.max_leverage:g}"
    distance = limits.stop_atr * d.atr_pct * d.close
    if t.execution.startswith("paper:") and t.stop_price is not None and \
            abs(abs(t.entry_price - t.stop_price) - distance) > 1e-6 * t.entry_price:
        return f"has its stop {abs(t.entry_price - t.stop_price):g} away; {limits.mode} puts it at {distance:g}"
    return None

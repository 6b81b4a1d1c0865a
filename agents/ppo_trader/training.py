"""From a state to the job of its open run, and from a job to its result."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

import msgspec
import numpy as np

from agents.algorithms.trading_fit import FitRequest, Fitted, fit, packed, unpacked
from agents.algorithms.trading_view import Tape, dropped
from agents.contract import Job, Output
from agents.ppo_trader.config import PpoTraderConfig
from agents.ppo_trader.state import Run, TraderState
from schemas.events import Origin, TrainingCompleted, TrainingStarted

STARTED, COMPLETED = "rl_v3.training.started", "rl_v3.training.completed"
DIAGNOSTICS = ("gradient_steps", "policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction",
               "explained_variance", "grad_norm")
PARTS = ("growth", "drawdown", "gross", "fees", "spread_cost", "slippage", "funding", "turnover")


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a job carries: the fit, and what its result must say."""

    fit: FitRequest
    symbol: str
    run_id: str
    attempt: int
    ts_ms: int
    slot_start_ms: int
    slot_end_ms: int
    parent_version: int
    source: str
    origin: Origin


def run_id(symbol: str, slot_start_ms: int) -> str:
    """Name of the run of a slot, in printable ASCII."""
    plain = symbol.encode("ascii", "backslashreplace").decode()
    return f"ppo_trader/{plain}/{slot_start_ms}"


def job_id(state: TraderState, run: Run) -> str:
    """Name of an attempt."""
    return f"{run_id(state.symbol, run.slot.start_ms)}/{run.attempt}"


def job(state: TraderState, run: Run, config: PpoTraderConfig, latency_ms: int) -> Job:
    """The attempt that is under way."""
    assert state.origin is not None
    name = run_id(state.symbol, run.slot.start_ms)
    request = Request(
        fit=FitRequest(
            name=name, seed=config.seed, episodes=config.training_episodes_per_run, episode_bars=config.episode_bars,
            interval_ms=state.interval_ms, rules=config.account_rules(), settings=config.settings(), mask=run.mask,
            rows=state.window, parent=state.learner if run.parent_version else b"",
        ),
        symbol=state.symbol, run_id=name, attempt=run.attempt, ts_ms=run.opened_ms + latency_ms,
        slot_start_ms=run.slot.start_ms, slot_end_ms=run.slot.end_ms, parent_version=run.parent_version,
        source=state.source, origin=state.origin,
    )
    return Job(f"{name}/{run.attempt}", msgspec.msgpack.encode(request))


def started(state: TraderState, run: Run, config: PpoTraderConfig) -> Output:
    """The event that an attempt was opened."""
    assert state.origin is not None
    rows = unpacked(state.window)
    told = {"rules": config.account_rules(), "settings": config.settings(), "episode_bars": config.episode_bars}
    return Output(STARTED, TrainingStarted(
        symbol=state.symbol, run_id=run_id(state.symbol, run.slot.start_ms), ts_ms=run.opened_ms,
        slot_start_ms=run.slot.start_ms, slot_end_ms=run.slot.end_ms, job_id=job_id(state, run), attempt=run.attempt,
        episodes=config.training_episodes_per_run, rows=len(rows), first_open_ms=int(rows[0, 0]),
        last_open_ms=int(rows[-1, 0]), new_rows=run.slot.new_rows, mask=run.mask,
        parent_version=run.parent_version or None, seed=config.seed,
        settings=json.dumps(msgspec.to_builtins(told), sort_keys=True), source=state.source, origin=state.origin,
    ))


def skipped(state: TraderState, start_ms: int, end_ms: int, slots: int, why: str) -> Output:
    """The event that a slot, or a row of empty ones, had no run."""
    assert state.origin is not None
    return Output(COMPLETED, TrainingCompleted(
        symbol=state.symbol, run_id=run_id(state.symbol, start_ms), ts_ms=state.now_ms, slot_start_ms=start_ms,
        slot_end_ms=end_ms, slots=slots, attempt=0, status="SKIPPED", success=False, skipped=why, episodes=0, mask=(),
        source=state.source, origin=state.origin,
    ))


def performed(work: Job) -> Output:
    """The result of a job: the learner that its run left, and how it went.

    Raises:
        ValueError: what cannot be learned from.
    """
    request = msgspec.msgpack.decode(work.request, type=Request)
    found = fit(request.fit)
    rows = unpacked(request.fit.rows)
    told: dict[str, Any] = {name: getattr(found.updates[-1], name) for name in DIAGNOSTICS}
    told |= {name: found.sums[name] for name in PARTS} | _rewards(found)
    return Output(COMPLETED, TrainingCompleted(
        **_named(work, request), ts_ms=request.ts_ms, status="SUCCEEDED", success=True, episodes=len(found.rewards),
        rows=len(rows), first_open_ms=int(rows[0, 0]), last_open_ms=int(rows[-1, 0]), mask=request.fit.mask,
        steps=found.steps, learner=found.learner, learner_sha256=sha256(found.learner).hexdigest(), **told,
    ))


def failure(work: Job, reason: str, ts_ms: int) -> Output:
    """The event that an attempt failed."""
    request = msgspec.msgpack.decode(work.request, type=Request)
    return Output(COMPLETED, TrainingCompleted(
        **_named(work, request), ts_ms=max(ts_ms, request.ts_ms), status="FAILED", success=False,
        error=reason[:512] or "no reason was given", episodes=0, mask=request.fit.mask,
    ))


def _named(work: Job, request: Request) -> dict[str, Any]:
    return {
        "symbol": request.symbol, "run_id": request.run_id, "slot_start_ms": request.slot_start_ms,
        "slot_end_ms": request.slot_end_ms, "slots": 1, "job_id": work.job_id, "attempt": request.attempt,
        "parent_version": request.parent_version or None, "source": request.source, "origin": request.origin,
    }


def _rewards(found: Fitted) -> dict[str, float]:
    if not found.rewards:
        return {}
    return {"avg_reward": sum(found.rewards) / len(found.rewards), "final_reward": found.rewards[-1]}


def opened_ms(row: bytes) -> int:
    """Opening time of a packed row."""
    return int(np.frombuffer(row, "<f8", 1)[0])


def merged(state: TraderState, before_ms: int, limit: int) -> TraderState:
    """The rows whose bars closed before a time, moved from the tail to the window, of which the newest `limit` stay."""
    n = 0
    while n < len(state.tail) and opened_ms(state.tail[n]) + state.interval_ms < before_ms:
        n += 1
    width = len(state.tail[0]) if state.tail else 1
    whole = state.window + b"".join(state.tail[:n])
    rows = min(state.window_rows + n, limit)
    return msgspec.structs.replace(state, window=whole[len(whole) - rows * width:] if n else whole, window_rows=rows,
                                   tail=state.tail[n:])


def absent(state: TraderState) -> tuple[str, ...]:
    """Columns that the window lacks."""
    return dropped(Tape(unpacked(state.window), state.interval_ms))


__all__ = ["absent", "failure", "job", "job_id", "merged", "packed", "performed", "run_id", "skipped", "started"]

"""River's estimators as plain numbers and bytes, so that they can live in an agent's state. No pickle.

An estimator exists only inside a step: `thaw`, update, `freeze`. River 0.26 keeps quantiles and ADWIN in Rust objects
that give their state as bytes (`__getstate__`, bincode) and take it back (`__setstate__`). These names are River's
internals: each access is checked, and the contract tests compare a thawed estimator with one that was never frozen.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import fsum
from typing import Any, NamedTuple

import msgspec
from river import drift, stats


class RiverChanged(RuntimeError):
    """River no longer keeps its state where this module looks for it; the message names the place."""


class Moments(msgspec.Struct, frozen=True, kw_only=True):
    """River's `stats.Var` (Welford): count, mean and sum of squared deviations."""

    n: float = 0.0
    mean: float = 0.0
    squares: float = 0.0

    @property
    def variance(self) -> float:
        """Variance with ddof 1; 0 below two numbers."""
        return self.squares / (self.n - 1) if self.n > 1 else 0.0


class Detected(NamedTuple):
    """What ADWIN said of one number."""

    state: bytes
    alarm: bool
    width_before: int
    width_after: int
    mean: float


def moments_update(frozen: Moments, x: float) -> Moments:
    """River's `stats.Var`, one number further."""
    var = stats.Var()
    try:
        var.mean.n, var.mean._mean, var._S = frozen.n, frozen.mean, frozen.squares
        var.update(x)
        return Moments(n=float(var.mean.n), mean=float(var.mean._mean), squares=float(var._S))
    except AttributeError as exc:
        raise RiverChanged(f"river.stats.Var: {exc}") from exc


def together(parts: Iterable[Moments]) -> Moments:
    """Moments of all numbers that the parts have seen (Chan, Golub and LeVeque 1983).

    >>> together([Moments(n=1.0, mean=1.0), Moments(n=1.0, mean=3.0)])
    Moments(n=2.0, mean=2.0, squares=2.0)
    """
    seen = [m for m in parts if m.n]
    n = fsum(m.n for m in seen)
    if not n:
        return Moments()
    mean = fsum(m.n * m.mean for m in seen) / n
    return Moments(n=n, mean=mean, squares=fsum(m.squares + m.n * (m.mean - mean) ** 2 for m in seen))


def quantile_update(state: bytes, q: float, x: float) -> tuple[bytes, float]:
    """River's `stats.Quantile(q)` (P-square, Jain and Chlamtac 1985), one number further.

    Args:
        state: frozen state; empty for a new estimator.

    Returns:
        The new frozen state and the estimate.
    """
    quantile = stats.Quantile(q)
    inner = _inner(quantile, "_quantile", "RsQuantile")
    if state:
        _thaw(inner, state)
        quantile._is_updated = True
    quantile.update(x)
    estimate = quantile.get()
    if estimate is None:
        raise RiverChanged("river.stats.Quantile gives None after an update")
    return _bytes(inner), float(estimate)


def adwin_update(state: bytes, delta: float, x: float) -> Detected:
    """River's `drift.ADWIN(delta)` (Bifet and Gavalda 2007), one number further.

    As River does, a detector that raised an alarm begins anew with the next number: the frozen state is then empty.
    """
    new: Any = drift.ADWIN  # River annotates it in part only
    detector = new(delta=delta)
    inner = _inner(detector, "_helper", "AdaptiveWindowing")
    if state:
        _thaw(inner, state)
    before = int(detector.width)
    detector.update(x)
    if not detector.drift_detected:
        return Detected(_bytes(inner), False, before, int(detector.width), 0.0)
    return Detected(b"", True, before, int(detector.width), float(detector.estimation))


def _inner(estimator: Any, name: str, kind: str) -> Any:
    inner = getattr(estimator, name, None)
    if type(inner).__name__ != kind or not hasattr(inner, "__setstate__"):
        raise RiverChanged(f"{type(estimator).__name__}.{name} is a {type(inner).__name__}, not a {kind} with a state")
    return inner


def _thaw(inner: Any, state: bytes) -> None:
    try:
        inner.__setstate__(state)
    except BaseException as exc:  # Rust's panics are no Exception
        if type(exc).__name__ != "PanicException":
            raise
        raise RiverChanged(f"{type(inner).__name__}.__setstate__ does not take {len(state)} bytes: {exc}") from exc


def _bytes(inner: Any) -> bytes:
    state = inner.__getstate__()
    if not isinstance(state, bytes):
        raise RiverChanged(f"{type(inner).__name__}.__getstate__ gives a {type(state).__name__}, not bytes")
    return state

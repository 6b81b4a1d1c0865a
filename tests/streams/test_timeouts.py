"""Time-outs fit together, and are the ones that are used."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams import samelog, worker
from streams.settings import Settings
from streams.transport import poll, produce, timeouts
from streams.transport.app import BatchApp
from tests.streams.test_contract import Nobody


def test_all_fit_together() -> None:
    assert timeouts.misfits() == []


@pytest.mark.parametrize(("name", "value"), [
    ("DRAIN_S", 61.0), ("STOP_S", 10.0), ("REBALANCE_S", 301.0), ("SESSION_MS", 5_000), ("HEARTBEAT_MS", 4_000),
    ("MESSAGE_TIMEOUT_MS", 1), ("ALERT_S", 9.0), ("ANSWER_S", 6.0), ("WATCH_S", 4.0),
])
def test_one_that_does_not_fit_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: float) -> None:
    monkeypatch.setattr(timeouts, name, value)
    assert timeouts.misfits()


def test_these_are_the_ones_in_use() -> None:
    assert poll.TUNING["session.timeout.ms"] == timeouts.SESSION_MS
    assert poll.TUNING["heartbeat.interval.ms"] == timeouts.HEARTBEAT_MS
    assert poll.TUNING["max.poll.interval.ms"] == timeouts.MAX_POLL_MS
    assert produce.TUNING["message.timeout.ms"] == timeouts.MESSAGE_TIMEOUT_MS
    app = BatchApp("g", consumer={}, producer={}, owner=Nobody())
    assert app.drain_timeout_s == timeouts.DRAIN_S
    assert (worker.STOP_S, samelog.MISSING_S) == (timeouts.STOP_S, timeouts.MISSING_S)


def test_settings_do_not_overrule_them(tmp_path: Path) -> None:
    mine = {**Settings(data_dir=tmp_path).client(), **Settings(data_dir=tmp_path).producer()}
    assert not {key for key in mine if "timeout" in key or "interval" in key}

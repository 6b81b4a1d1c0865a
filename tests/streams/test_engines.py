"""The benchmark of stream engines: every engine of this environment runs and computes what the trades come to."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.engines.environments import NotInstalled, python_of
from benchmarks.engines.task import Report, digest
from benchmarks.engines.trades import NAMES, Trades
from benchmarks.stream_engines import ENGINES, MODES, OURS, Row, compare, measure, wrong
from streams.settings import Settings

RECORDS = 12_000


@pytest.mark.topics("market.trades", "market.trades.dlq", "state.blobs")
def test_engines_give_the_same_answer(prefix: Settings, tmp_path: Path) -> None:
    trades = Trades.drawn(RECORDS)
    trades.publish(prefix)
    rows = [Row(name, mode, None) for name, engine in ENGINES.items() for mode in MODES
            if not engine.env and mode in engine.share]
    measure(rows, trades, prefix, RECORDS, 1, tmp_path)
    compare(rows)
    assert {(row.engine, row.mode): row.trouble for row in rows if row.trouble} == {}
    assert all(len(row.runs) == 1 and row.runs[0].cpu_s > 0 for row in rows)
    assert all(row.ratios for row in rows if row.engine != OURS)


def test_a_wrong_answer_is_told() -> None:
    trades = Trades.drawn(3_000)
    taken = {0: 300, 1: 200, 2: 100, 3: 50}
    windows = trades.windows(taken, closed=False)
    assert sum(n for n, _, _ in windows.values()) == 650
    good = Report(records=650, taken={str(p): n for p, n in taken.items()}, windows=len(windows),
                  digest=digest(windows))
    assert not wrong(trades, good)
    first = next(iter(windows))
    windows[first][2] += 1
    good.digest = digest(windows)
    assert "wrong answer" in wrong(trades, good)


def test_windows_are_those_of_a_plain_loop() -> None:
    trades, plain, taken = Trades.drawn(2_000, seed=3), {}, {0: 0, 1: 0, 2: 0, 3: 0}
    for event in trades.events():
        partition = int(trades.partition_of_symbol[NAMES.index(event.symbol)])
        taken[partition] += 1
        n, total, _ = plain.get((event.symbol, event.ts_ms // 10_000), (0, 0.0, 0.0))
        plain[event.symbol, event.ts_ms // 10_000] = [n + 1, total + event.quantity, event.price]
    assert trades.windows(taken, closed=False) == plain
    newest = {symbol: max(w for s, w in plain if s == symbol) for symbol, _ in plain}
    assert set(trades.windows(taken, closed=True)) == {k for k in plain if newest[k[0]] != k[1]}


def test_an_engine_that_cannot_be_installed_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.engines.environments.PINS", {"bytewax": ("no such pin",)})
    with pytest.raises(NotInstalled, match="uv pip"):
        python_of("bytewax", tmp_path)
    assert not list(tmp_path.rglob("*.part"))

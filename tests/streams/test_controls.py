"""The controls: what follows from a seed, that names tell nothing, and that each has the clock it needs."""

from __future__ import annotations

from collections import Counter

import pytest

from agents.roster import ROSTER
from schemas.codec import Codec
from schemas.events import Candle, ControlReveal, Event, Experience, PolicyRecord, Tick
from streams import controls
from streams.driver import Driver
from streams.ingest.publish import instruments
from streams.log import LogReader
from streams.settings import Settings


def test_a_seed_says_everything_and_another_seed_something_else() -> None:
    one, again, other = controls.draw(7, bars=60), controls.draw(7, bars=60), controls.draw(8, bars=60)
    assert one.controls == again.controls
    assert one.loaded.frame.equals(again.loaded.frame)
    assert set(one.symbols).isdisjoint(other.symbols)
    assert {c.market_seed for c in one.controls}.isdisjoint(c.market_seed for c in other.controls)


def test_names_tell_nothing_of_the_kind() -> None:
    """The order of the names is that of the alphabet, and each kind comes first, second and third alike."""
    first = Counter(controls.draw(seed, bars=1).controls[0].kind for seed in range(300))
    assert set(first) == {"PLANTED", "REVERSED", "FAIR"}
    assert min(first.values()) > 70, "300 draws of three"
    for seed in range(300):
        symbols = controls.draw(seed, bars=1).symbols
        assert len(set(symbols)) == 3
        assert list(symbols) == sorted(symbols)


def test_a_name_that_is_taken_is_not_drawn() -> None:
    symbols = controls.draw(7, bars=1).symbols
    assert set(controls.draw(7, bars=1, taken=symbols[:1]).symbols).isdisjoint(symbols[:1])


def test_the_key_makes_the_candles_again() -> None:
    lab = controls.draw(7, bars=80)
    for control in controls.revealed(lab, dict.fromkeys(lab.symbols, 50)).controls:
        made = controls.candles(control).head(control.published)
        assert len(made) == 50
        assert made.equals(lab.loaded.frame.filter(symbol=control.symbol).head(50))


@pytest.mark.topics("control.reveal")
def test_the_key_is_published(prefix: Settings) -> None:
    lab = controls.draw(3, bars=10)
    event = controls.reveal(prefix, lab, dict.fromkeys(lab.symbols, 10))
    with LogReader(prefix) as log:
        (record,) = log.read("control.reveal")
    assert Codec().decode("control.reveal", record.value) == event
    assert isinstance(event, ControlReveal)
    assert record.key == b"controls-3"


def test_no_clock_times_a_decision_out() -> None:
    lab = controls.draw(1, bars=700)
    events: list[tuple[str, Event]] = [("market.instruments", i) for i in instruments(lab.loaded, lab.costs)]
    candles = [("market.candles", candle) for candle in lab.loaded.candles()]
    events += [*candles[:900], ("system.clock", Tick(ts_ms=4_000_000_000_000, writer="live")), *candles[900:]]
    driver = Driver({name: agent() for name, agent in ROSTER.items()})
    driver.run(events)
    ends = [e.reason for e in driver.events("learning.experience") if isinstance(e, Experience)]
    assert len(ends) > 50
    assert "no_outcome" not in ends
    assert not driver.events("learning.orphan")


def test_renaming_a_control_changes_nothing_but_names() -> None:
    """No code asks for a symbol: under another name the same candles give the same policies.

    Decision ids carry the name and randomness is drawn from the id, so actions may differ; what is compared hangs on
    nothing drawn: features, and the decisions' states.
    """
    lab = controls.draw(2, bars=200)
    frame = lab.loaded.frame.filter(symbol=lab.symbols[0])

    def run(name: str) -> list[tuple[object, ...]]:
        driver = Driver({name_: agent() for name_, agent in ROSTER.items()})
        rows = [Candle(**{**row, "symbol": name}) for row in frame.iter_rows(named=True)]
        driver.run(("market.candles", c) for c in rows)
        seen: list[tuple[object, ...]] = [(f.ts_ms, f.regime, f.rsi_14)  # type: ignore[attr-defined]
                                          for f in driver.events("market.features")]
        return seen + [(p.version, p.outcomes) for p in driver.events("policy.ledger") if isinstance(p, PolicyRecord)
                       and p.version == 1]

    assert run("AAA") == run("ZZZ")

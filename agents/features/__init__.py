"""Candles to features and market regime, one bar at a time.

Reads `market.candles`. Writes `market.features` for every bar taken, and `market.regime.changed` where the label
changes. The fields and their exact definitions stand in `schemas/avsc/market.features.avsc`.

A symbol may have several intervals, each with its own windows and exactly one source. A bar costs the same however
many came before it: windows hold at most 50 numbers.

What it does with bars that are not simply the next one:
- a repeat of one of the newest 16 bars, number for number, is ignored;
- the same bar with other numbers is refused, CONFLICT; an older bar that is none of them, LATE (features of later
  bars are out already, and nothing rewrites them);
- another source for the same symbol and interval, SOURCE_CONFLICT; a bar that contradicts itself or leaves the sane
  range, BAD_CANDLE; a ninth interval, TOO_MANY_INTERVALS;
- missing bars are never invented: the windows carry on over a gap of at most 12 bars or 4 days (a long weekend), the
  return over it counting as one bar's; after a longer gap they start anew, `ready` and the regime with them.

Origin: of one origin, that; where any bar was synthetic, SYNTHETIC; else MIXED.

Limits: a symbol that trades its first hundreds of bars in a volatile regime takes that for usual until the level has
come down. Sources: see `agents.algorithms.indicators` and `agents.algorithms.regime`.
"""

from agents.features.core import Features, FeaturesConfig, FeaturesState

__all__ = ["Features", "FeaturesConfig", "FeaturesState"]

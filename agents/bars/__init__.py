"""Ticks to closed bars of one interval on the UTC grid, by event time.

Reads `market.trades`. Writes `market.candles`: one bar for each interval in which something was traded, once it is
closed. The first trade that is `lateness_ms` behind a bar's end closes it; until then trades may come in any order, and
open and close go by the trades' time and number, not by their arrival.

What it does with trades that are not simply the next one:
- a trade whose number came before is ignored: the first counts;
- a trade of a bar that is closed already is refused, LATE: the bar is out, and nothing rewrites it. So is one whose
  number is too old to be told from a repeat (`agents.algorithms.seen`);
- another source for the same symbol, SOURCE_CONFLICT; a price or quantity outside of the sane range, BAD_TRADE.

Bars are never invented: an interval without trades has none, and the bar in which the feed begins is left out, since
what was traded before is not known. The volume that takers bought is null where the side of any trade is.

Many trades at once, in columns, come to the same states and bars as one after the other (`agents.bars.many`).

Label: the source of the trades, and their origin; of different origins SYNTHETIC where any trade was, else MIXED.

Limits: nothing but a trade closes a bar, so the last one waits for the market to go on, and a trade whose time lies
ahead by mistake closes bars too early. Trades that the feed left out are not noticed, nor that a repeat has other
numbers. The interval is configuration, and one for all symbols.
"""

from agents.bars.core import Bars, BarsConfig, BarsState

__all__ = ["Bars", "BarsConfig", "BarsState"]

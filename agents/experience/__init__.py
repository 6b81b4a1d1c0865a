"""Experience: joins a decision with how it ended, once.

Reads  execution.trade.closed, decision.outcome, rl.meta.strategy_selected, system.clock.
Writes learning.experience (exactly one a decision), learning.orphan.

TRADED: the decision and its trade, whichever came first. NEUTRAL, NOT_EXECUTED: the decision and its outcome. Where
neither comes within the grace time, the decision ends NOT_EXECUTED (no_outcome, or trade_missing where an outcome
promised a trade). The reward is the trade's net result in units of risk: sizing scales result and risk alike, so it is
that of size 1.

Late and repeated events: an identical repeat changes nothing. A trade or outcome of a decision that has ended is an
orphan (LATE); one whose decision does not come within the grace time is an orphan (UNKNOWN_DECISION), as is a trade
that names none (NO_DECISION_ID). Another trade under a known trade id is refused (CONFLICT), as is a trade whose
numbers contradict one another (INCONSISTENT).

Time comes from ticks. A symbol that a tick named has a clock of its own: ticks for all do not move it.

What ended is remembered for 7 days of event time, 512 decisions at most. A decision not after the newest one forgotten
is refused (LATE), since nobody could tell whether it ended; so no decision ever ends twice.
"""

from agents.experience.core import ExperienceAgent

__all__ = ["ExperienceAgent"]

"""Experience: joins a decision with how it ended, once.

Reads  execution.trade.closed, decision.outcome, rl.meta.strategy_selected.
Writes learning.experience (exactly one a decision), learning.orphan.

TRADED: the decision and its trade, whichever came first. NEUTRAL, NOT_EXECUTED: the decision and its outcome. The
reward is the trade's net result in units of risk: sizing scales result and risk alike, so it is that of size 1.

What does not come: a decision ends NOT_EXECUTED (no_outcome) when the outcome of a decision of its book that was taken
204 bars later has come before its own, and NOT_EXECUTED (trade_missing) where an outcome promised a trade and the trade
of such a later decision has come. An executor that stands still, or is far behind, makes nothing late: its decisions
wait, and 'quantum status' shows who does not move. An engine that is not paper execution may tell its trades alone;
they stand for its outcomes too.

Late and repeated events: an identical repeat changes nothing. A trade or outcome of a decision that has ended is an
orphan (LATE); one whose decision has not come when the symbol's decisions are 204 bars further is an orphan
(UNKNOWN_DECISION), as is a trade that names none (NO_DECISION_ID). Another trade under a known trade id is refused
(CONFLICT), as is a trade whose numbers contradict one another (INCONSISTENT).

What ended is remembered for 7 days of event time, 512 decisions at most. A decision not after the newest one forgotten
is refused (LATE), since nobody could tell whether it ended; so no decision ever ends twice.
"""

from agents.experience.core import ExperienceAgent

__all__ = ["ExperienceAgent"]

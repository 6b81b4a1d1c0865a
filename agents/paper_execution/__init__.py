"""Paper execution: decisions are filled, held and closed on candles, by rules that stand in every trade record.

Reads  policy.commands (halt, retire, rollback), market.instruments (costs), market.candles, policy.ledger (retired and
       undone versions, answers to commands), rl.meta.strategy_selected (decisions).
Writes execution.trade.closed, decision.outcome (one a decision), policy.applied, execution.equity.marked.

Every book has its own money and at most one position. A decision taken at the close of bar t is filled at the open of
bar t+1. The fold works in event time: a decision that comes before its bar waits for it, and a candle waits for the
decision that is due before it, so that the trades do not hang on which topic was read faster (see `core`).

Baseline books run on the same candles by the same rules and are decided whenever the first learner book is: each fixed
strategy, neutral, random with the learner's exposure, buy-and-hold. They publish no trades; their results are in
execution.equity.marked.

Limits: one price a bar for everything between open and close, no queue position, no partial fills, no impact beyond
the slippage of the instrument. The volume cap uses the volume of the bar that fills.
"""

from agents.paper_execution.core import PaperExecutionAgent

__all__ = ["PaperExecutionAgent"]

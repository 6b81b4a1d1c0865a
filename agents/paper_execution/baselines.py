"""The baseline books: what they do when the first learner decides.

Equal exposure of the random book: it takes a position exactly where the learner's decision asks for one, on a side
drawn with probability 1/2. So it is in the market as often as the learner, with the learner's size, stop and horizon,
and knows nothing of the direction.
"""

from __future__ import annotations

from agents.algorithms.counter import uniform
from agents.paper_execution.book import Order
from schemas.events import STRATEGY_SYMBOLS, Decision, Strategy

PREFIX = "baseline:"
NEUTRAL, RANDOM, HOLD = PREFIX + "neutral", PREFIX + "random", PREFIX + "buy_and_hold"
FIXED: dict[str, Strategy] = {PREFIX + s: s for s in STRATEGY_SYMBOLS if s != "neutral"}
BOOKS: tuple[str, ...] = (NEUTRAL, RANDOM, *FIXED, HOLD)


def order_of(decision: Decision) -> Order:
    """What the learner itself asks for."""
    return Order(decision, decision.action, decision.signals[STRATEGY_SYMBOLS.index(decision.action)])


def baseline_order(book_id: str, decision: Decision, seed: int) -> Order:
    """What a baseline book does at the moment of a learner's decision."""
    if book_id == HOLD:
        return Order(decision, "neutral", 1, hold=True)
    if book_id == RANDOM:
        if order_of(decision).side == 0:
            return Order(decision, "neutral", 0)
        u = uniform(seed, "paper_execution", book_id, decision.decision_id)
        return Order(decision, "neutral", 1 if u < 0.5 else -1)
    strategy = FIXED.get(book_id, "neutral")
    return Order(decision, strategy, decision.signals[STRATEGY_SYMBOLS.index(strategy)])

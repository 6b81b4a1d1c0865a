"""What is in flight of each symbol, from what the agents have written: pure bookkeeping, no broker, no clock.

A bar is in flight until its mark (`execution.equity.marked`) is seen; a decision, from the time at which it is due to
end, until its experience is seen; a lesson (an experience to learn from) until the learner's update is seen, unless the
policy is frozen or retired: then nothing is learned, and nothing waited for. `behind` counts in bars. Records of
different topics may be seen in any order.
"""

from __future__ import annotations

from bisect import bisect_right

from schemas.events import Decision, EquityMarked, Event, Experience, Features, PolicyRecord, QUpdated

LEDGER = "policy.ledger"
FOLLOWED = (
    "execution.equity.marked", "market.features", LEDGER, "rl.meta.strategy_selected", "learning.experience",
    "rl.q_learning.updated",
)
NEWEST_IS_ENOUGH = FOLLOWED[:3]
LEARNING_BOOKS = frozenset({"q_learning"})  # books whose learner writes an update for every lesson
KEPT_BARS = 4096
UNDECIDED_BARS = 16
"""Bars beyond the first ready features that may be sent before anything was decided. Whoever decides must have come
along by then: with the lead on top, paper execution would hold back more candles than it does (192), and call decisions
late."""


class InFlight:
    """One symbol.

    Attributes:
        interval_ms: the primary interval: that of the first bar sent. Bars of others do not count.
        learned: updates of the learner that were seen.
    """

    def __init__(self, interval_ms: int) -> None:
        self.interval_ms = interval_ms
        self.learned = 0
        self._learns = True
        self._sent: list[int] = []  # ts_ms of the bars sent, ascending
        self._done_ms = -1
        self._marked = False
        self._ready_ms: int | None = None
        self._due: dict[tuple[str, str], int] = {}  # (what must be seen, decision id) to event time
        self._early: set[tuple[str, str]] = set()

    def sent(self, ts_ms: int) -> None:
        """A bar was sent."""
        self._sent.append(ts_ms)
        if len(self._sent) > 2 * KEPT_BARS:
            del self._sent[:KEPT_BARS]

    def saw(self, event: Event) -> None:
        """An agent has written something."""
        if isinstance(event, EquityMarked):
            self._marked = True
            self._done_ms = max(self._done_ms, event.ts_ms)
        elif isinstance(event, Features):
            # Before the first decision paper execution waits, and marks nothing.
            if not self._marked and event.interval_ms == self.interval_ms:
                if event.ready and self._ready_ms is None:
                    self._ready_ms = event.ts_ms
                last_ms = (event.ts_ms if self._ready_ms is None
                           else min(event.ts_ms, self._ready_ms + UNDECIDED_BARS * self.interval_ms))
                self._done_ms = max(self._done_ms, last_ms)
        elif isinstance(event, Decision):
            self._expect(("experience", event.decision_id), event.next_ts_ms)
        elif isinstance(event, Experience):
            self._meet(("experience", event.decision_id))
            if event.learnable and event.book_id in LEARNING_BOOKS and self._learns:
                self._expect(("update", event.decision_id), event.ts_ms)
        elif isinstance(event, QUpdated):
            self.learned += 1
            self._meet(("update", event.decision_id))
        elif isinstance(event, PolicyRecord) and event.agent in LEARNING_BOOKS:
            self._learns = event.status == "ACTIVE"
            if not self._learns:
                for what in [what for what in self._due if what[0] == "update"]:
                    del self._due[what]

    def _expect(self, what: tuple[str, str], due_ms: int) -> None:
        if what in self._early:
            self._early.remove(what)
        else:
            self._due[what] = due_ms

    def _meet(self, what: tuple[str, str]) -> None:
        if self._due.pop(what, None) is None:
            self._early.add(what)

    def behind(self) -> int:
        """Bars sent beyond the oldest thing that is not done."""
        oldest_ms = min(self._due.values(), default=self._done_ms)
        return len(self._sent) - bisect_right(self._sent, min(oldest_ms, self._done_ms))

    def settle(self) -> None:
        """Nothing is in flight: let go what left no trace, such as bars that the agents had taken before."""
        self._due.clear()
        self._early.clear()
        if self._sent:
            self._done_ms = max(self._done_ms, self._sent[-1])

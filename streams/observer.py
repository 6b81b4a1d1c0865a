"""A bystander: reads what the agents write and counts it, so that the demo shows the log and nobody's word for it.

It runs in a thread with a consumer of its own, joins no group and commits nothing. Only records that carry a number
that is shown are decoded; all others are counted. Repeats of an output id, as a killed worker's successor writes them,
are dropped.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from schemas.catalogue import TOPICS
from schemas.events import DecisionOutcome, EquityMarked, PolicyApplied, TradeClosed
from schemas.refused import Refused
from streams.records import CE_ID, header, headers_of, output_id
from streams.settings import Settings
from streams.subjects import codec_for
from streams.topics import ANSWER_S
from streams.transport.logs import LIBRDKAFKA

WATCHED = (
    "market.candles", "market.features", "market.regime.changed", "rl.meta.strategy_selected",
    "execution.trade.closed", "decision.outcome", "policy.applied", "execution.equity.marked", "learning.experience",
    "learning.orphan", "learning.drift.detected", "rl.q_learning.updated", "rl.meta.updated", "policy.ledger",
    "risk.mode.changed", "rl_v3.training.started", "rl_v3.training.completed", "rl_v3.decision",
)
RISK = b"risk_controller/global"  # a policy of rules, there from the first mark on
TOLD_LATER = 20
_DECODED = frozenset({"execution.trade.closed", "decision.outcome", "policy.applied"})


@dataclass(slots=True)
class TopicSeen:
    """Records of a topic since the observer began."""

    records: int = 0
    last_place: str = ""
    last_append_ms: int = 0


@dataclass
class Seen:
    """What the log showed so far.

    Attributes:
        versions: newest version of each policy, by policy id.
        versions_first_s: monotonic seconds at which the first policy was read; None before.
        followed: decisions taken under a policy, as an applier reported them.
        changed: those whose executed action was the recommended one and not the baseline's.
        outcomes: decisions by status and reason.
        changed_trades: by symbol, the newest trades that a policy led to; of the oldest of them, what followed is on
            the log too.
        first_marks, marks: first and newest equity mark of each symbol.
    """

    topics: dict[str, TopicSeen] = field(default_factory=lambda: {name: TopicSeen() for name in WATCHED})
    dead: Counter[str] = field(default_factory=Counter)
    versions: dict[str, int] = field(default_factory=dict)
    versions_first_s: float | None = None
    followed: int = 0
    changed: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    trades_by_decision: Counter[str] = field(default_factory=Counter)
    unattributed: int = 0
    changed_trades: defaultdict[str, deque[TradeClosed]] = field(
        default_factory=lambda: defaultdict(lambda: deque(maxlen=TOLD_LATER)))
    first_marks: dict[str, EquityMarked] = field(default_factory=dict)
    marks: dict[str, EquityMarked] = field(default_factory=dict)
    last_s: float = 0.0

    def records(self, topic: str) -> int:
        """Records of a topic so far."""
        return self.topics[topic].records

    @property
    def newest_place(self) -> dict[str, str]:
        """Topic-partition@offset of the newest record, by topic."""
        return {name: seen.last_place for name, seen in self.topics.items()}


class Observer:
    """Counts what is on the log from its beginning until `stop`."""

    def __init__(self, settings: Settings) -> None:
        self.seen = Seen()
        self._settings = settings
        self._marks = settings.topic("execution.equity.marked")
        self._prefix = len(settings.topic(""))
        self._codec = codec_for(settings)
        self._newest: dict[tuple[str, int, str, int], tuple[int, int]] = {}
        self._stop = threading.Event()
        self._consumer = Consumer({
            **settings.client(), "group.id": f"{settings.app_id}.observer", "enable.auto.commit": False,
            "enable.partition.eof": False, "fetch.wait.max.ms": 200, "fetch.min.bytes": 500_000,
        }, logger=LIBRDKAFKA)
        there = self._consumer.list_topics(timeout=ANSWER_S).topics
        self._consumer.assign([
            TopicPartition(name, p, 0)
            for name in map(settings.topic, (*WATCHED, *(t for t in TOPICS if t.endswith(".dlq")))) if name in there
            for p in there[name].partitions
        ])
        self._thread = threading.Thread(target=self._run, name="observer", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """Stop reading and leave the broker."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(10)
        self._consumer.close()

    def settle(self, quiet_s: float = 1.0, deadline_s: float = 30.0) -> None:
        """Wait until nothing new was read for a while."""
        end = time.monotonic() + deadline_s
        while time.monotonic() < end and time.monotonic() - self.seen.last_s < quiet_s:
            time.sleep(0.05)

    def _run(self) -> None:
        begun: set[bytes | None] = set()  # symbols whose first mark was read
        while not self._stop.is_set():
            marks: dict[bytes | None, Message] = {}
            for message in self._consumer.consume(2000, timeout=0.1):
                error = message.error()
                if error is None:
                    self._take(message)
                    if message.topic() == self._marks:
                        if message.key() not in begun:
                            begun.add(message.key())
                            self._read("execution.equity.marked", message)
                        marks[message.key()] = message
                elif error.code() not in (KafkaError._PARTITION_EOF, KafkaError._ALL_BROKERS_DOWN,
                                          KafkaError._TRANSPORT):
                    self.seen.dead[f"observer: {error.name()}"] += 1
            for message in marks.values():  # one a bar and symbol, of which the newest is enough
                self._read("execution.equity.marked", message)

    def _take(self, message: Message) -> None:
        topic = str(message.topic())[self._prefix:]
        self.seen.last_s = time.monotonic()
        if topic.endswith(".dlq"):
            reason = header(headers_of(message.headers()), "__streams.errors.reason") or "?"
            self.seen.dead[f"{topic} {reason}"] += 1
            return
        if self._repeated(topic, message):
            return
        seen = self.seen.topics[topic]
        seen.records += 1
        seen.last_place = f"{topic}-{message.partition()}@{message.offset()}"
        seen.last_append_ms = message.timestamp()[1]
        if topic == "policy.ledger":
            headers = headers_of(message.headers())
            self.seen.versions[header(headers, "policy_id") or "?"] = int(header(headers, "version") or 0)
            if self.seen.versions_first_s is None and message.key() != RISK:
                self.seen.versions_first_s = time.monotonic()
        elif topic in _DECODED:
            self._read(topic, message)

    def _repeated(self, topic: str, message: Message) -> bool:
        """Whether an agent has written this id before: of each of its partitions first copies come in order."""
        written = output_id(header(headers_of(message.headers()), CE_ID))
        if written is None:
            return False
        place = (topic, int(message.partition() or 0), written[0], written[1])
        if written[2:] <= self._newest.get(place, (-1, -1)):
            return True
        self._newest[place] = written[2:]
        return False

    def _read(self, topic: str, message: Message) -> None:
        try:
            self._count(self._codec.decode(topic, message.value()))
        except Refused:
            self.seen.dead[f"{topic} unreadable"] += 1

    def _count(self, event: object) -> None:
        seen = self.seen
        if isinstance(event, PolicyApplied):
            seen.followed += 1
            if event.executed_action == event.recommended_action != event.baseline_action:
                seen.changed += 1
        elif isinstance(event, TradeClosed):
            if event.decision_id is None:
                seen.unattributed += 1
                return
            seen.trades_by_decision[event.decision_id] += 1
            if event.policy_version is not None and event.policy_version > 1:
                seen.changed_trades[event.symbol].append(event)
        elif isinstance(event, DecisionOutcome):
            seen.outcomes[event.status + (f" {event.reason}" if event.reason else "")] += 1
        elif isinstance(event, EquityMarked):
            seen.first_marks.setdefault(event.symbol, event)
            seen.marks[event.symbol] = event

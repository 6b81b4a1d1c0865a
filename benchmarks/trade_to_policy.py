"""How long a closed trade takes to the policy that learned from it, beside bare relays over as many hops.

    python -m benchmarks.trade_to_policy --rates 10,100,1000 [--seconds 10] [--rounds 2] [--json FILE]

An Apache Kafka of its own; `quantum worker --agents experience,q_learning` in a process of its own; this program is
engine, decider and subscriber. A second before each `execution.trade.closed` its decision is on the log. Trades are
sent open loop, at times fixed beforehand, and a latency counts from the time at which a trade was to be sent until the
version that learned from it is in the hands of a plain consumer of `policy.ledger` and `policy.current`.

Beside it the same trades over a chain of relays of confluent-kafka alone (`benchmarks.roster.relays`), with as many
hops as the catalogue gives that path, in one process as well; rounds take turns, behind one of each that is not
counted. The ratios are of all rounds together.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from benchmarks.roster.brokers import place
from benchmarks.roster.engine import Engine, Mark
from benchmarks.roster.hands import Hands
from benchmarks.roster.processes import Workers, cpu_s
from benchmarks.roster.report import machine, table, write
from schemas.catalogue import AGENTS, MARKET_PARTITIONS
from schemas.codec import Codec
from schemas.events import PolicyRecord
from streams.records import Outgoing
from streams.settings import Settings
from streams.transport.logs import LIBRDKAFKA

PATH = ("experience", "q_learning")
HOPS = sum(1 if AGENTS[name].direct else 2 for name in PATH)  # a relay into the inbox, and the fold
RATES = (10, 100, 1_000)
GOALS = {100: (2.0, 4.0)}  # trades/s to the most that p50 and p99 may be, in those of the bare chain
SYMBOLS = 100
GENESIS = 20  # outcomes before the first version
WARM_S = 2.0  # of each way, before the rounds that count
AHEAD_S = 1.0  # a decision before its trade
PATIENCE_S = 120.0
SEEN = ("policy.ledger", "policy.current")


# ---------------------------------------------------------------------- what is sent
class Sender:
    """Sends records at times fixed beforehand; how late it was itself is told."""

    def __init__(self, settings: Settings) -> None:
        self._producer = Producer(settings.producer(), logger=LIBRDKAFKA)
        self._settings = settings
        self.late_ms = 0.0

    def at(self, due: Sequence[tuple[float, str, Outgoing]]) -> None:
        """Send records at clock times (monotonic, s); topic names are those on the broker."""
        for at_s, topic, record in due:
            while (wait_s := at_s - time.monotonic()) > 0:
                self._producer.poll(0)
                time.sleep(min(wait_s, 0.05))
            self.late_ms = max(self.late_ms, (time.monotonic() - at_s) * 1000)
            self._producer.produce(topic, record.value, record.key, headers=list(record.headers))
        if self._producer.flush(30):
            raise SystemExit("the broker did not take everything")


# ---------------------------------------------------------------------- the two ways
@dataclass
class Ours:
    """The real agents."""

    settings: Settings
    engine: Engine
    codec: Codec
    sender: Sender
    hands: Hands
    latencies: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in SEEN})
    lost: int = 0

    def warm(self, symbols: int) -> None:
        """Let every symbol have its first version."""
        now, due = time.monotonic(), []
        for _ in range(GENESIS * symbols):
            _, decision, trade = self.engine.next(learnable=False)
            due += [(now, self.settings.topic(r.topic), r) for r in (decision, trade)]
        self.sender.at(due)
        _until(lambda: len(self.hands.came), len(SEEN) * symbols)
        self.forget()

    def forget(self) -> None:
        """What came so far is not counted."""
        self.hands.came.clear()
        for values in self.latencies.values():
            values.clear()
        self.lost, self.sender.late_ms = 0, 0.0

    def round(self, rate: int, seconds: float) -> int:
        """Send, wait, note latencies; how many trades were sent."""
        began, due, sent = time.monotonic() + AHEAD_S + 0.3, [], {}
        for n in range(max(2, round(rate * seconds))):
            mark, decision, trade = self.engine.next(learnable=True)
            sent[mark] = began + n / rate
            due += [(sent[mark] - AHEAD_S, self.settings.topic(decision.topic), decision),
                    (sent[mark], self.settings.topic(trade.topic), trade)]
        self.sender.at(sorted(due, key=lambda d: d[0]))
        found: dict[str, dict[Mark, float]] = {name: {} for name in SEEN}
        _until(lambda: self._take(sent, found), len(SEEN) * len(sent))
        for name, marks in found.items():
            self.latencies[name] += [(at_s - sent[mark]) * 1000 for mark, at_s in marks.items()]
        self.lost += len(sent) - len(found[SEEN[0]])
        return len(sent)

    def _take(self, sent: Mapping[Mark, float], found: Mapping[str, dict[Mark, float]]) -> int:
        """Note when each of this round's versions came; how many came yet. Versions of earlier trades do not count."""
        came = self.hands.came[:]
        del self.hands.came[:len(came)]
        for at_s, topic, _, _, value in came:
            name = topic.removeprefix(self.settings.topic_prefix)
            version = self.codec.decode(name, value)
            assert isinstance(version, PolicyRecord)
            if (mark := (version.scope, version.ts_ms)) in sent:
                found[name].setdefault(mark, at_s)
        return sum(map(len, found.values()))


@dataclass
class Bare:
    """The chain of relays."""

    names: list[str]
    engine: Engine
    sender: Sender
    hands: Hands
    latencies: list[float] = field(default_factory=list)
    lost: int = 0

    def forget(self) -> None:
        """As `Ours.forget`."""
        self.latencies.clear()
        self.lost, self.sender.late_ms = 0, 0.0

    def round(self, rate: int, seconds: float) -> int:
        """As `Ours.round`."""
        began, due, sent = time.monotonic() + 0.3, [], {}
        for n in range(max(2, round(rate * seconds))):
            _, _, trade = self.engine.next(learnable=True)
            assert trade.value is not None
            sent[trade.value] = began + n / rate
            due.append((sent[trade.value], self.names[0], trade))
        self.sender.at(due)
        _until(lambda: len(self.hands.came), len(sent))
        found = {came.value: came.at_s for came in reversed(self.hands.came) if came.value in sent}
        self.hands.came.clear()
        self.latencies += [(at_s - sent[value]) * 1000 for value, at_s in found.items() if value is not None]
        self.lost += len(sent) - len(found)
        return len(sent)


def _until(count: Any, enough: int) -> None:
    """Wait for records; give up where none comes any more."""
    until, before = time.monotonic() + PATIENCE_S, -1
    while (now := count()) < enough and time.monotonic() < until:
        if now != before:
            until, before = time.monotonic() + PATIENCE_S / 4, now
        time.sleep(0.02)


# ---------------------------------------------------------------------- the run
def quantiles(values: Sequence[float]) -> dict[str, float]:
    """Figures of latencies, ms."""
    if not values:
        return {"n": 0}
    p50, p99, p999 = np.percentile(values, (50, 99, 99.9)).tolist()
    return {"n": len(values), "p50": round(p50, 2), "p99": round(p99, 2), "p99.9": round(p999, 2),
            "max": round(max(values), 2)}


@contextmanager
def chain(settings: Settings, names: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """The relays, in a process of their own."""
    admin = AdminClient(settings.client())  # kept until the futures are there
    made = admin.create_topics(
        [NewTopic(name, MARKET_PARTITIONS, config={"message.timestamp.type": "LogAppendTime"}) for name in names])
    for future in made.values():
        future.result(30)
    given = json.dumps({"broker": settings.broker, "app_id": settings.app_id, "linger_ms": settings.linger_ms,
                        "data_dir": str(settings.data_dir)})
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.roster.relays", given, ",".join(names)],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if process.stdout.readline().strip() != b"ready":
            raise SystemExit("the relays did not start")
        yield process
    finally:
        process.stdin.close()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def run(settings: Settings, folder: Path, rates: Sequence[int], seconds: float, rounds: int = 2,
        symbols: int = SYMBOLS) -> list[dict[str, Any]]:
    """A row for each rate, of the agents' path and of the bare chain, on a broker whose topics are there and empty.

    Args:
        seconds: of a round, of each way.
        rounds: at each rate.
    """
    names = [settings.topic(f"bare.{i}") for i in range(HOPS + 1)]
    rows, codec = [], Codec()
    with ExitStack() as stack:
        relays = stack.enter_context(chain(settings, names))
        workers = Workers(settings, folder, [PATH], name="path")
        stack.callback(workers.stop)
        workers.wait_ready()
        pids = {"worker": workers.processes[0].pid, "relays": relays.pid}
        hands = [Hands(settings, [settings.topic(name) for name in SEEN]), Hands(settings, names[-1:])]
        for hand in hands:
            stack.callback(hand.stop)
        engine = Engine(symbols, codec)
        ours = Ours(settings, engine, codec, Sender(settings), hands[0])
        ours.warm(symbols)
        others = Engine(symbols, codec)
        for rate in rates:
            ours = Ours(settings, engine, codec, ours.sender, hands[0])
            bare = Bare(names, others, Sender(settings), hands[1])
            rows.append(_at_rate(ours, bare, pids, rate, seconds, rounds))
            workers.check()
    return rows


def _at_rate(ours: Ours, bare: Bare, pids: dict[str, int], rate: int, seconds: float, rounds: int) -> dict[str, Any]:
    print(f"{rate} trades/s, {rounds} rounds of {seconds:g} s each", file=sys.stderr, flush=True)
    for way in (ours, bare):
        way.round(rate, min(seconds, WARM_S))  # the first of a kind pays for all: a table's first update, compilation
        way.forget()
    sent, cpu = 0, {"worker": 0.0, "relays": 0.0}
    for _ in range(rounds):
        for name, way in (("worker", ours), ("relays", bare)):
            before = cpu_s(pids[name])
            count = way.round(rate, seconds)
            cpu[name] += cpu_s(pids[name]) - before
            sent += count if way is ours else 0
    row: dict[str, Any] = {
        "rate": rate, "trades": sent, "hops": HOPS, "lost": ours.lost, "bare_lost": bare.lost,
        "ours": {name: quantiles(values) for name, values in ours.latencies.items()}, "bare": quantiles(bare.latencies),
        "sender_late_ms": [round(ours.sender.late_ms, 1), round(bare.sender.late_ms, 1)],
        "cpu_us_a_trade": {name: round(cpu[name] / sent * 1e6) for name in cpu},
    }
    mine = row["ours"][SEEN[0]]
    row["ratios"] = {p: round(mine[p] / row["bare"][p], 2) for p in ("p50", "p99", "p99.9")} \
        if mine["n"] and row["bare"]["n"] else {}
    return row


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print the table."""
    lines = []
    for row in rows:
        goal = GOALS.get(row["rate"])
        for name, figures in (*row["ours"].items(), ("bare relays", row["bare"])):
            ratios = row["ratios"] if name == SEEN[0] else {}
            lines.append((row["rate"] if name == SEEN[0] else None, name, *(figures.get(p) for p in (
                "p50", "p99", "p99.9", "max")), ratios.get("p50"), ratios.get("p99"),
                "p50 {:g}, p99 {:g}".format(*goal) if goal and ratios else None, figures["n"],
                row["cpu_us_a_trade"]["relays" if name == "bare relays" else "worker"]))
    table(f"Closed trade to policy, {HOPS} hops, ms from the intended time", (
        "trades/s", "seen on", "p50", "p99", "p99.9", "max", "p50 / bare", "p99 / bare", "goal", "n", "us a trade"),
        lines)


def main() -> int:
    """Measure and print; 0 unless a trade was lost."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trade_to_policy", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", default=",".join(map(str, RATES)), help="trades a second, with commas between")
    parser.add_argument("--seconds", type=float, default=10.0, help="of a round, of each of the two ways")
    parser.add_argument("--rounds", type=int, default=2, help="at each rate")
    parser.add_argument("--linger-ms", type=int, default=0, help="of every producer, ours and bare")
    parser.add_argument("--broker", metavar="HOST:PORT", help="use this one instead of an embedded one")
    parser.add_argument("--small", action="store_true", help="few trades: does it still run?")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything here")
    args = parser.parse_args()
    where, rates = machine(), [int(rate) for rate in args.rates.split(",")]
    with place(args.broker, linger_ms=args.linger_ms) as here:
        rows = (run(here.settings, here.folder, [10], 1.0, 1, 2) if args.small
                else run(here.settings, here.folder, rates, args.seconds, args.rounds))
    show(rows)
    write(args.json, {"machine": where, "rows": rows})
    return int(any(row["lost"] or row["bare_lost"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())

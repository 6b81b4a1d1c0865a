"""A run under faults: a broker of its own, the real roster, a made market that is published meanwhile, a judge.

    report = run(plan, tmp_path)
    assert not report.wrong, report.told()

Compaction of the changelogs is forced all the time (`COMPACTION`), and the run is only good if it took place. The feed
waits for the agents (`lead`), so that no fault hits an idle system; it ends when the last fault has struck. A worker
that ends on its own, or does not stop in ten seconds when told to, is a finding like any other.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import psutil
from confluent_kafka import KafkaException
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from agents.roster import ROSTER
from schemas.catalogue import AGENTS, built_agents
from streams import broker as embedded
from streams import topics
from streams.broker import node
from streams.cli.agents import configured
from streams.identity import identity_of
from streams.ingest import publish
from streams.ingest.synthetic import synthetic_market
from streams.log import LogReader, NoBroker
from streams.settings import Settings
from tests.faults.judge import Found, Written, counts, judge, read_all
from tests.faults.plan import ANYWHERE, RECOVERY, Fault, Plan
from tests.faults.process import AGENT_CONFIG, Slot, prepare
from tests.patience import PATIENCE_S
from tests.streams.hosting import trainers
from tests.streams.rostered import behind

SYMBOLS = ("FAUNA0", "FAUNA3", "FAUNA1", "FAUNA2", "FAUNA4", "FAUNA5")  # in partitions 2, 2, 0, 3, 1, 1 of four
LEAD_BARS = 24
AT_WORK_S = 20.0
BROKER = {
    "group.min.session.timeout.ms": "1000", "log.cleaner.backoff.ms": "500", "log.cleaner.threads": "1",
}
COMPACTION = {
    "segment.ms": "2000", "segment.bytes": "1048576", "min.cleanable.dirty.ratio": "0.01", "min.compaction.lag.ms": "0",
    "max.compaction.lag.ms": "2000", "delete.retention.ms": "0",
}


@dataclass
class Report:
    """What happened, and what the judge found."""

    plan: Plan
    kills: Counter[str] = field(default_factory=Counter)
    freezes: Counter[str] = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)
    compacted: dict[str, int] = field(default_factory=dict)
    found: Found = field(default_factory=Found)
    seconds: float = 0.0

    @property
    def wrong(self) -> list[str]:
        """Sentences that say what is wrong."""
        return self.found.wrong

    def told(self) -> str:
        """The findings and the plan that led to them."""
        return "\n".join([*self.wrong, *self.plan.lines()])

    def row(self) -> dict[str, int]:
        """For the table."""
        figures = self.found.figures
        return {
            "seed": self.plan.seed, "workers": self.plan.workers, "kills": self.kills.total(),
            "at points": self.kills.total() - self.kills[ANYWHERE], "freezes": self.freezes.total(),
            "broker kills": self.others["broker kill"], "broker freezes": self.others["broker freeze"],
            "joins": self.others["join"], "trainer kills": self.others["trainer kill"],
            **{name: figures[name] for name in (
                "candles", "trades", "versions", "folded", "copies", "repeated copies", "outputs", "repeated outputs",
                "scopes", "heads")},
            "compacted": sum(self.compacted.values()), "wrong": len(self.wrong), "seconds": round(self.seconds),
        }


class Broker:
    """An embedded Apache Kafka that may be killed, frozen and started again on the same data."""

    def __init__(self, folder: Path, session_s: float) -> None:
        self._settings = Settings(data_dir=folder / "broker")
        self._running = self._up()
        self.settings = self._settings.replace(
            broker=self._running.address, app_id="faults", session_timeout_ms=int(session_s * 1000), linger_ms=5)

    def _up(self) -> embedded.RunningBroker:
        def properties(*args: object) -> str:
            return written(*args) + "".join(f"{k}={v}\n" for k, v in BROKER.items())

        written = node.server_properties
        with mock.patch.object(node, "server_properties", properties):
            return embedded.up(self._settings, ephemeral_dir=self._settings.data_dir)

    def kill(self, away_s: float) -> None:
        """SIGKILL, and up again on the same data, at the same address."""
        os.kill(self._running.pid, signal.SIGKILL)
        psutil.wait_procs([psutil.Process(self._running.pid)] if psutil.pid_exists(self._running.pid) else [], 10)
        time.sleep(away_s)
        again = self._up()
        assert again.address == self._running.address, "the broker came back elsewhere"
        self._running = again

    def freeze(self, for_s: float) -> None:
        """SIGSTOP for so long."""
        os.kill(self._running.pid, signal.SIGSTOP)
        time.sleep(for_s)
        os.kill(self._running.pid, signal.SIGCONT)

    def down(self) -> None:
        """Stop it, frozen or not."""
        if psutil.pid_exists(self._running.pid):
            os.kill(self._running.pid, signal.SIGCONT)
        embedded.down(self._settings, ephemeral_dir=self._settings.data_dir)


class Feed(threading.Thread):
    """Publishes the made market, as far ahead of the agents as it may be, until told to stop."""

    def __init__(self, settings: Settings, seed: int, symbols: Sequence[str], bars: int) -> None:
        super().__init__(name="feed", daemon=True)
        self.stop = threading.Event()
        self.error: Exception | None = None
        self.ran_out = False
        self._settings, (self._loaded, self._costs) = settings, synthetic_market(seed, symbols, bars)

    def run(self) -> None:
        """Publish."""
        try:
            done = publish(self._settings, self._loaded, costs=self._costs, lead=LEAD_BARS, stop=self.stop,
                           patience_s=PATIENCE_S)
            self.ran_out = not done.stopped
        except Exception as exc:
            self.error = exc


class Injector:
    """Applies faults to workers and broker, one after the other.

    Args:
        broker: of the run.
        slots: running workers.
        guest: place of a worker more.
        report: where it notes what it did.
    """

    def __init__(self, broker: Broker, slots: list[Slot], guest: Slot, report: Report) -> None:
        self._broker, self._slots, self._guest, self._report = broker, slots, guest, report

    def apply(self, fault: Fault) -> None:
        """One fault; afterwards everything runs again."""
        if fault.kind == "kill":
            self._kill(fault, self._slots[fault.slot])
        elif fault.kind == "freeze":
            self._freeze(fault, self._slots[fault.slot])
        elif fault.kind == "join":
            self._joined(fault.hold_s)
        elif fault.kind == "trainer kill":
            self._trainer(fault.after_s)
        else:
            self._slots[0].at_work(AT_WORK_S)
            time.sleep(fault.after_s)
            strike = self._broker.kill if fault.kind == "broker kill" else self._broker.freeze
            strike(fault.hold_s)
        if fault.kind not in ("kill", "freeze", "trainer kill"):
            self._report.others[fault.kind] += 1
        for slot in self._slots:
            self.running(slot)

    def running(self, slot: Slot) -> None:
        """A worker that ended on its own is a finding; it is started again."""
        code = slot.exit_code()
        if code is not None:
            self._report.wrong.append(f"{slot.log.name}: a worker ended on its own, exit code {code}")
            slot.start()

    def stop(self, slot: Slot) -> None:
        """Tell a worker to stop: it drains and ends well within its promise."""
        begun, code = slot.begun, slot.terminate()
        if code != 0 and (begun or code != -signal.SIGTERM):
            self._report.wrong.append(f"{slot.log.name}: told to stop, " + (
                "it did not within 10 s" if code is None else f"it ended with {code}"))

    def _struck(self, fault: Fault, slot: Slot) -> str:
        """Strike at the point or anywhere; says where it was."""
        done = (lambda: slot.exit_code() is not None) if fault.kind == "kill" else slot.frozen
        if fault.point in RECOVERY:
            slot.at_work(AT_WORK_S)  # it has come far enough to be told to stop
            self.stop(slot)
            slot.start((fault.kind, fault.point, fault.nth))
            if slot.until(done, AT_WORK_S):
                return fault.point
        else:
            if not fault.blind or fault.point != ANYWHERE:
                slot.at_work(AT_WORK_S)
            if fault.point != ANYWHERE:
                slot.order(fault.kind, fault.point, fault.nth)
                if slot.until(done, AT_WORK_S):
                    return fault.point
            else:
                time.sleep(fault.after_s)
        if fault.kind == "kill":
            slot.kill()
        else:
            slot.send(signal.SIGSTOP)
        return ANYWHERE

    def _kill(self, fault: Fault, slot: Slot) -> None:
        self._report.kills[self._struck(fault, slot)] += 1
        if slot.exit_code() != -signal.SIGKILL:
            self._report.wrong.append(f"{slot.log.name}: a worker ended on its own, exit code {slot.exit_code()}")
        time.sleep(fault.hold_s)
        slot.start()

    def _freeze(self, fault: Fault, slot: Slot) -> None:
        """Frozen beyond its session, while another one takes over; then woken."""
        self._report.freezes[self._struck(fault, slot)] += 1
        alone = len(self._slots) == 1
        if alone:
            self._guest.start()
        other = self._guest if alone else self._slots[(fault.slot + 1) % len(self._slots)]
        time.sleep(fault.hold_s)
        other.at_work(AT_WORK_S)
        slot.send(signal.SIGCONT)
        slot.at_work(AT_WORK_S if not alone else self._report.plan.session_s)
        if alone:
            self.stop(self._guest)

    def _trainer(self, after_s: float) -> None:
        """Kill a trainer process, whosever; none may be at work for a while."""
        give_up = time.monotonic() + AT_WORK_S
        while not (found := self.trainers()) and time.monotonic() < give_up:
            time.sleep(0.05)
        time.sleep(after_s)
        found = self.trainers() or found
        for trainer in found[:1]:
            with suppress(psutil.NoSuchProcess):
                trainer.kill()
        self._report.others["trainer kill" if found else "no trainer"] += 1

    def trainers(self) -> list[psutil.Process]:
        """Trainer processes of all workers."""
        return [t for slot in (*self._slots, self._guest) if slot.running for t in trainers(slot.pid)]

    def _joined(self, for_s: float) -> None:
        self._guest.start()
        self._guest.at_work(AT_WORK_S)
        time.sleep(for_s)
        self.stop(self._guest)


@contextmanager
def _stage(plan: Plan, folder: Path, report: Report) -> Iterator[tuple[Settings, Injector, list[Slot]]]:
    """Broker, topics and workers; nothing stays behind."""
    broker = Broker(folder, plan.session_s)
    slots: list[Slot] = []
    try:
        topics.apply(broker.settings)
        force_compaction(broker.settings)
        slots += [Slot(broker.settings, folder, f"worker-{i}") for i in range(plan.workers)]
        guest = Slot(broker.settings, folder, "guest")
        for slot in slots:
            slot.start()
        slots.append(guest)
        yield broker.settings, Injector(broker, slots[:-1], guest, report), slots[:-1]
    finally:
        for slot in slots:
            slot.kill()
        broker.down()


def run(plan: Plan, folder: Path, *, bars: int, symbols: Sequence[str] = SYMBOLS) -> Report:
    """Play a plan and judge what was written.

    The first fault waits for the first policy, so that learning is struck and not only its warming up.

    Args:
        plan: the faults.
        folder: for the broker's data and the workers' logs.
        bars: of each symbol, at most: the feed must not run out before the last fault.
        symbols: what is traded.
    """
    began, report = time.monotonic(), Report(plan)
    prepare()
    with _stage(plan, folder, report) as (settings, injector, slots):
        feed = Feed(settings, plan.seed, symbols, bars)
        feed.start()
        _learning(settings, slots[0])
        for fault in plan.faults:
            injector.apply(fault)
        feed.stop.set()
        feed.join(PATIENCE_S)
        if feed.error is not None or feed.ran_out or feed.is_alive():
            report.wrong.append(f"the feed: {feed.error or 'ran out of candles' if not feed.is_alive() else 'hangs'}")
        _come_to_rest(settings, report, injector, slots)
        for slot in slots:
            injector.stop(slot)
        written = read_all(settings)
    _judge(report, settings, written)
    report.seconds = time.monotonic() - began
    return report


def _judge(report: Report, settings: Settings, written: Written) -> None:
    report.compacted = compacted(written)
    roster = configured(settings, AGENT_CONFIG, list(ROSTER))
    identities = {name: identity_of(agent) for name, agent in roster.items()}
    for found in (judge(written, roster, identities), counts(written)):
        report.found.wrong += found.wrong
        report.found.figures.update(found.figures)
    if not any(report.compacted.values()):
        report.wrong.append("nothing was compacted: the run proves less than it says")


def _learning(settings: Settings, slot: Slot) -> None:
    with LogReader(settings) as log:
        assert slot.until(lambda: any(log.bounds("policy.ledger", p)[1] for p in log.partitions("policy.ledger")),
                          PATIENCE_S), "nobody has learned anything, and no fault has struck yet"


def _come_to_rest(settings: Settings, report: Report, injector: Injector, slots: list[Slot]) -> None:
    """Until nothing is left to take, twice in a row: what is taken last may bring more."""
    give_up, quiet, left = time.monotonic() + PATIENCE_S, 0, -1
    while quiet < 2:
        if time.monotonic() > give_up:
            report.wrong.append(f"{left} records were still not taken after {PATIENCE_S:.0f} s of rest")
            return
        time.sleep(0.2)
        for slot in slots:
            injector.running(slot)
        if injector.trainers():
            quiet = 0
            continue
        try:
            left = behind(settings)
        except (NoBroker, KafkaException):
            continue
        quiet = quiet + 1 if left == 0 else 0


def force_compaction(settings: Settings) -> None:
    """Have the changelogs compacted every two seconds."""
    client, _ = topics.connect(settings)
    wanted = [ConfigEntry(k, v, incremental_operation=AlterConfigOpType.SET) for k, v in COMPACTION.items()]
    resources = [ConfigResource(ResourceType.TOPIC, settings.topic(io.changelog), incremental_configs=wanted)
                 for io in built_agents()]
    for future in client.incremental_alter_configs(resources, request_timeout=30).values():
        future.result()


def compacted(written: Written) -> dict[str, int]:
    """Offsets of each agent's changelog below its end that hold no record any more."""
    return {
        name: sum(records[-1].offset + 1 - len(records) for records in written[io.changelog].values() if records)
        for name, io in AGENTS.items() if io.built
    }

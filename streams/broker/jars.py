"""The pinned jars of Apache Kafka: fetched once per user, checked against their SHA-256 at every start.

`jars.json` beside this file lists `org.apache.kafka:kafka_2.13` with its runtime dependencies, as Maven resolves them,
and a log4j binding, without which Kafka logs nothing. Nothing is resolved at run time: jgo, which knows the Maven
repositories, brings exactly these coordinates, and what has another hash is refused.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache
from hashlib import file_digest
from pathlib import Path
from typing import Any

from filelock import FileLock
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from streams.broker.errors import CHOICES, FetchFailed, JarRefused
from streams.settings import Settings

PARALLEL = 8
TIMEOUT_S = 30
LOCK_TIMEOUT_S = 600

Bytes = Callable[[int], None]


@dataclass(frozen=True)
class Jar:
    """One pinned jar: Maven coordinates `group:artifact:version`, SHA-256 in hex, size in bytes."""

    coordinates: str
    sha256: str
    size_bytes: int

    @property
    def file_name(self) -> str:
        """`artifact-version.jar`."""
        _, artifact, version = self.coordinates.split(":")
        return f"{artifact}-{version}.jar"


@cache
def pinned() -> tuple[str, tuple[Jar, ...]]:
    """Version of Apache Kafka, and its jars."""
    pins = json.loads((Path(__file__).parent / "jars.json").read_text())
    return pins["kafka"], tuple(Jar(**jar) for jar in pins["jars"])


def kafka_home(settings: Settings) -> Path | None:
    """The unpacked Apache Kafka that the user names, if any."""
    named = settings.kafka_home or (Path(os.environ["KAFKA_HOME"]) if os.environ.get("KAFKA_HOME") else None)
    if named is not None and not list((named / "libs").glob("kafka_*.jar")):
        raise FetchFailed(f"KAFKA_HOME is {named}, but {named / 'libs'} has no kafka_*.jar")
    return named


def jar_folder(settings: Settings) -> Path:
    """Where the pinned jars are kept."""
    return settings.cache_dir / f"kafka-{pinned()[0]}"


def class_path(settings: Settings, console: Console | None = None) -> str:
    """Java class path of Apache Kafka, fetching the jars if need be.

    Raises:
        FetchFailed: they are not here and cannot be brought.
        JarRefused: what came is not what is pinned.
    """
    home = kafka_home(settings)
    if home is not None:
        return str(home / "libs" / "*")
    fetch(settings, console)
    folder = jar_folder(settings)
    return os.pathsep.join(str(folder / jar.file_name) for jar in pinned()[1])


def missing(settings: Settings) -> list[Jar]:
    """Pinned jars that are not in the cache, or are there with another hash."""
    folder = jar_folder(settings)
    return [jar for jar in pinned()[1] if not _matches(folder / jar.file_name, jar)]


def fetch(settings: Settings, console: Console | None = None) -> int:
    """Bring what is missing; returns the number of bytes fetched.

    Safe against other processes that do the same: one fetches, the others wait. A jar appears in the cache whole and
    checked, or not at all.
    """
    if not missing(settings):
        return 0
    settings.cache_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(settings.cache_dir / "kafka.lock", timeout=LOCK_TIMEOUT_S):
        wanted = missing(settings)
        if not wanted:
            return 0
        arrivals = Path(tempfile.mkdtemp(prefix="arriving-", dir=settings.cache_dir))
        try:
            _bring(wanted, arrivals, jar_folder(settings), console)
        finally:
            shutil.rmtree(arrivals, ignore_errors=True)
    return sum(jar.size_bytes for jar in wanted)


def _bring(wanted: list[Jar], arrivals: Path, folder: Path, console: Console | None) -> None:
    folder.mkdir(exist_ok=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    shown = console or Console(stderr=True)
    with Progress(*columns, console=shown, transient=True) as progress:
        task = progress.add_task(f"Apache Kafka {pinned()[0]}", total=sum(jar.size_bytes for jar in wanted))
        download = _downloader(arrivals, lambda n: progress.advance(task, n))
        with ThreadPoolExecutor(PARALLEL) as pool:
            jobs = [pool.submit(_bring_one, jar, download, folder) for jar in wanted]
            try:
                for job in jobs:
                    job.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def _bring_one(jar: Jar, download: Callable[[Jar], Path], folder: Path) -> None:
    try:
        arrived = download(jar)
    except (OSError, RuntimeError) as exc:  # requests' errors are OSErrors; jgo says "not found" by RuntimeError
        raise FetchFailed(f"{jar.file_name} could not be fetched: {_first_line(exc)}\n"
                          + CHOICES.format(further="connect this machine to the network and try again")) from exc
    verify(arrived, jar)
    os.replace(arrived, folder / jar.file_name)


def verify(path: Path, jar: Jar) -> None:
    """Refuse a file that is not the pinned jar.

    Raises:
        JarRefused: its hash is another.
    """
    found = _sha256(path)
    if found != jar.sha256:
        raise JarRefused(f"{jar.coordinates}: SHA-256 {found} came, {jar.sha256} is pinned; it was not used\n"
                         + CHOICES.format(further="find out who changed it: a proxy, a mirror, or an attacker"))


def _downloader(repository: Path, advance: Bytes) -> Callable[[Jar], Path]:
    """A function that downloads one jar into a Maven repository folder of our own."""
    from jgo.maven import MavenContext, PythonResolver

    @contextmanager
    def report(_name: str, _size: int) -> Iterator[Bytes]:
        yield advance

    callback: Callable[[str, int], AbstractContextManager[Any]] = report
    context = MavenContext(
        resolver=PythonResolver(progress_callback=callback), repo_cache=repository, timeout=TIMEOUT_S
    )

    def download(jar: Jar) -> Path:
        group, artifact, version = jar.coordinates.split(":")
        path = context.project(group, artifact).at_version(version).artifact(packaging="jar").resolve()
        return Path(path)

    return download


def _matches(path: Path, jar: Jar) -> bool:
    return path.is_file() and path.stat().st_size == jar.size_bytes and _sha256(path) == jar.sha256


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _first_line(exc: BaseException) -> str:
    """Kind and first words of an error; requests' texts hold whole URLs, so no more than its kind for these."""
    return type(exc).__name__ if isinstance(exc, OSError) else str(exc).split(" in remote")[0]

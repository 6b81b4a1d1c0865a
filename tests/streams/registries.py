"""Schema registries for tests: a stub that speaks the REST of Confluent's, and Apicurio Registry itself.

Apicurio is fetched once per user through jgo, as the broker's jars are, and held against its SHA-256. It needs Java 21.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from hashlib import file_digest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from filelock import FileLock

from streams.broker.errors import NoJava
from streams.broker.java import find_java
from streams.broker.node import free_port
from streams.settings import LOOPBACK, Settings
from tests.patience import PATIENCE_S
from tests.streams.serving import serving

VERSION = "3.3.3"
SHA256 = "8bc6751c76d963734224b01d5e7f84ccb3cb61c87d3bd77c36c35f10a5cbed63"
JAVA = 21
START_S = PATIENCE_S
LOGIN = ("ada", "sesame-Zx9!")


class _Handler(BaseHTTPRequestHandler):
    server: Stub

    def _answer(self) -> None:
        stub = self.server
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        stub.asked.append((self.command, self.path))
        if stub.login is not None:
            wanted = "Basic " + base64.b64encode(":".join(stub.login).encode()).decode()
            if self.headers.get("Authorization") != wanted:
                self._send(401, {"error_code": 401, "message": "who is there?"})
                return
        if stub.garbled:
            self._send(200, "<html>")
            return
        parts = [unquote(part) for part in self.path.partition("?")[0].strip("/").split("/")]
        self._send(*stub.answer(self.command, parts, body))

    do_GET = do_POST = do_PUT = _answer

    def _send(self, status: int, value: Any) -> None:
        data = value.encode() if isinstance(value, str) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


class Stub(ThreadingHTTPServer):
    """The paths of the REST that we and confluent-kafka use, in memory.

    Attributes:
        asked: every request: method and path.
        login: user and password that it wants; None: none.
        refuses: subjects that take no new version: 409.
        kinds: what kind a schema is, by its id, where it is not Avro.
        garbled: answer with something that is no JSON.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__((LOOPBACK, 0), _Handler)
        self.url = f"http://{LOOPBACK}:{self.server_address[1]}"
        self.asked: list[tuple[str, str]] = []
        self.login: tuple[str, str] | None = None
        self.refuses: set[str] = set()
        self.kinds: dict[int, str] = {}
        self.garbled = False
        self._texts: list[str] = []
        self._subjects: dict[str, list[int]] = {}
        self._levels: dict[str, str] = {}

    def server_bind(self) -> None:
        """Bind, without looking the host's name up."""
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def _of(self, subject: str, version: int) -> dict[str, Any]:
        schema_id = self._subjects[subject][version - 1]
        kind = {"schemaType": self.kinds[schema_id]} if schema_id in self.kinds else {}
        return {"subject": subject, "version": version, "id": schema_id, "schema": self._texts[schema_id - 1], **kind}

    def _id(self, text: str) -> int:
        text = json.dumps(json.loads(text))
        if text not in self._texts:
            self._texts.append(text)
        return self._texts.index(text) + 1

    def answer(self, method: str, parts: list[str], body: Any) -> tuple[int, Any]:
        """Status and body."""
        gone = 404, {"error_code": 40401, "message": f"{'/'.join(parts)} not found."}
        match method, parts:
            case "GET", ["subjects"]:
                return 200, sorted(self._subjects)
            case "GET", ["schemas", "ids", number]:
                if not 1 <= int(number) <= len(self._texts):
                    return gone
                kind = {"schemaType": self.kinds[int(number)]} if int(number) in self.kinds else {}
                return 200, {"schema": self._texts[int(number) - 1], **kind}
            case "POST", ["subjects", subject, "versions"]:
                if subject in self.refuses:
                    return 409, {"error_code": 409, "message": "not compatible,\nfield pnl_usd"}
                held, schema_id = self._subjects.setdefault(subject, []), self._id(body["schema"])
                if schema_id not in held:
                    held.append(schema_id)
                return 200, {"id": schema_id}
            case "GET" | "POST", ["subjects", subject, *_] if subject not in self._subjects:
                return gone
            case "POST", ["subjects", subject]:
                schema_id, held = self._id(body["schema"]), self._subjects[subject]
                return (200, self._of(subject, held.index(schema_id) + 1)) if schema_id in held else gone
            case "GET", ["subjects", subject, "versions"]:
                return 200, list(range(1, len(self._subjects[subject]) + 1))
            case "GET", ["subjects", subject, "versions", number]:
                return 200, self._of(subject, len(self._subjects[subject]) if number == "latest" else int(number))
            case "GET", ["config", subject]:
                return (200, {"compatibilityLevel": self._levels[subject]}) if subject in self._levels else gone
            case "PUT", ["config", subject]:
                self._levels[subject] = body["compatibility"]
                return 200, {"compatibility": body["compatibility"]}
        return gone


@contextlib.contextmanager
def stubbed() -> Iterator[Stub]:
    """A stub that serves as long as the block lasts."""
    stub = Stub()
    with serving(stub):
        yield stub


def _unpacked() -> Path:
    """The folder of Apicurio Registry; fetched and checked where it is not there yet."""
    cache = Settings().cache_dir
    folder = cache / f"apicurio-{VERSION}"
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / "apicurio.lock"):
        if (folder / SHA256).is_file():
            return folder
        arrivals = Path(tempfile.mkdtemp(prefix="arriving-", dir=cache))
        try:
            archive = _fetched(arrivals)
            with archive.open("rb") as file:
                found = file_digest(file, "sha256").hexdigest()
            assert found == SHA256, f"Apicurio Registry {VERSION}: SHA-256 {found} came, {SHA256} is pinned"
            with tarfile.open(archive) as tar:
                tar.extractall(arrivals / "app", filter="data")
            (arrivals / "app" / SHA256).touch()
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(arrivals / "app", folder)
        finally:
            shutil.rmtree(arrivals, ignore_errors=True)
    return folder


def _fetched(folder: Path) -> Path:
    from jgo.maven import MavenContext, PythonResolver

    context = MavenContext(resolver=PythonResolver(), repo_cache=folder, timeout=PATIENCE_S)
    component = context.project("io.apicurio", "apicurio-registry-app").at_version(VERSION)
    try:
        return Path(component.artifact(classifier="all", packaging="tar.gz").resolve())
    except (OSError, RuntimeError) as exc:
        pytest.skip(f"Apicurio Registry could not be fetched: {type(exc).__name__}")


@contextlib.contextmanager
def apicurio(log: Path, **environment: str) -> Iterator[str]:
    """Apicurio Registry in memory, for as long as the block lasts; gives the URL of its compatible API.

    Args:
        log: file for what it says.
        environment: more variables for it.
    """
    try:
        java = find_java()
    except NoJava as exc:
        pytest.skip(f"no Java: {str(exc).splitlines()[0]}")
    if java.major < JAVA:
        pytest.skip(f"Apicurio Registry needs Java {JAVA}, {java.origin} has {java.major}")
    home, port, management = _unpacked(), free_port(), free_port()
    url = f"http://{LOOPBACK}:{port}/apis/ccompat/v7"
    own = {"QUARKUS_HTTP_HOST": LOOPBACK, "QUARKUS_HTTP_PORT": str(port), "QUARKUS_MANAGEMENT_HOST": LOOPBACK,
           "QUARKUS_MANAGEMENT_PORT": str(management)}
    flags = ["-Xmx400m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", f"-Djava.io.tmpdir={log.parent}"]
    with log.open("wb") as out:
        process = subprocess.Popen([str(java.path), *flags, "-jar", "quarkus-run.jar"], cwd=home, stdout=out,
                                   stderr=out, stdin=subprocess.DEVNULL, env=os.environ | own | environment)
    try:
        deadline = time.monotonic() + START_S
        while not _answers(url):
            assert process.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(0.1)
        yield url
    finally:
        process.kill()
        process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/subjects", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False

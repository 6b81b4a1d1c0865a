"""Who computed a policy: hashes of code and configuration, and the platform.

The code hash covers what an agent's numbers can depend on: the source bytes of its package and of every module of ours
that it imports, directly or not (found in the syntax trees), the schema files, and the versions of the numerical
libraries among what those modules import, and of the interpreter.
"""

from __future__ import annotations

import ast
import json
import math
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib import metadata, resources, util
from pathlib import Path
from typing import Any

import msgspec

from agents.contract import Agent, Config
from schemas.released import fingerprint_of, schema_text

OURS = ("agents", "schemas")
NUMERICAL: Mapping[str, str] = {
    "numpy": "numpy", "scipy": "scipy", "river": "river", "msgspec": "msgspec", "fastavro": "fastavro",
    "torch": "torch", "xgboost": "xgboost", "lightgbm": "lightgbm", "numba": "numba",
}


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Stamped on every policy.

    Attributes:
        config_hash: SHA-256 of the agent's configuration, hex.
        code_hash: SHA-256 of the agent's code, the algorithms it imports, the schemas and numerical versions, hex.
        feature_schema_hash: CRC-64-AVRO fingerprint of `market.features`, hex.
        platform: Python version, machine, operating system, and a print of how floating point comes out there.
    """

    config_hash: str
    code_hash: str
    feature_schema_hash: str
    platform: str


def platform_name() -> str:
    """Python version, machine, operating system and print, e.g. `cpython-3.11.7 x86_64 linux floats-1a2b3c4d`."""
    return f"{platform.python_implementation().lower()}-{platform.python_version()} {platform.machine()} " \
           f"{platform.system().lower()} floats-{floats_print()}"


@cache
def floats_print() -> str:
    """Eight hex digits of a digest of fixed computations: equal where floating point comes out bit by bit the same.

    The same libraries round last digits differently on processors with and without wide vector units, and the C
    library's functions differ between its versions: `docs/decisions/0070` has the measurement. So the results
    themselves are the fingerprint, not the names of what they hang on.
    """
    import numpy as np
    from scipy.special import ndtr  # type: ignore[import-untyped]

    x_N = np.linspace(-3.0, 3.0, 1021) + np.float64(1e-3) / 3
    y_N = np.abs(x_N) + 0.1
    whole = [np.exp(x_N), np.log(y_N), np.log1p(y_N), np.expm1(x_N), np.sqrt(y_N), y_N**x_N, np.sin(x_N), np.cos(x_N),
             np.tanh(x_N), np.arctan(x_N), ndtr(x_N), np.cumprod(y_N[:64]), np.cumsum(x_N)]
    ones = [np.sum(x_N * y_N), np.std(y_N), np.mean(np.log(y_N)), np.var(x_N[:30], ddof=1)]
    functions = (math.exp, math.sin, math.cos, math.tanh, math.erf, math.expm1, math.atan)
    alone = [f(x) for f in functions for x in x_N[::7].tolist()]
    alone += [f(y) for f in (math.log, math.log1p, math.lgamma) for y in y_N[::7].tolist()]
    alone += [y**x for x, y in zip(x_N[::7].tolist(), y_N[::7].tolist(), strict=True)]
    digest = sha256()
    for values in (*whole, ones, alone):
        digest.update(np.asarray(values, dtype="<f8").tobytes())
    return digest.hexdigest()[:8]


def identity_of(agent: Agent[Any]) -> Identity:
    """Identity of an agent with its configuration."""
    return Identity(
        config_hash=config_hash(agent.config), code_hash=code_hash(type(agent).__module__),
        feature_schema_hash=feature_schema_hash(), platform=platform_name(),
    )


def config_hash(config: Config) -> str:
    """SHA-256 of a configuration as canonical JSON: its class, sorted keys, no spaces, floats as Python writes them."""
    fields = {"class": type(config).__qualname__, "fields": msgspec.to_builtins(config)}
    return sha256(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@cache
def feature_schema_hash() -> str:
    """Fingerprint of `market.features`, hex, as its records carry it."""
    return fingerprint_of(json.loads(schema_text("market.features"))).hex()


@cache
def code_hash(module: str) -> str:
    """SHA-256 over everything that an agent's numbers can depend on.

    Args:
        module: module in which the agent's class is defined; its whole package counts.
    """
    sources, libraries = closure(module)
    digest = sha256()
    for name in sorted(sources):
        _feed(digest, f"module {name}", sources[name])
    for name, text in sorted(_schemas().items()):
        _feed(digest, f"schema {name}", text)
    for name in sorted(libraries & set(NUMERICAL)):
        _feed(digest, f"library {name}", metadata.version(NUMERICAL[name]).encode())
    _feed(digest, "python", platform.python_version().encode())
    return digest.hexdigest()


def _feed(digest: Any, label: str, content: bytes) -> None:
    """A part with its label and length, so that parts cannot run into each other."""
    digest.update(f"{label} {len(content)}\n".encode() + content)


def _schemas() -> dict[str, bytes]:
    folder = resources.files("schemas") / "avsc"
    return {f.name: f.read_bytes() for f in folder.iterdir() if f.name.endswith(".avsc")}


def closure(module: str) -> tuple[dict[str, bytes], set[str]]:
    """Source bytes of the modules of ours that a module and its package import, transitively; and other top levels."""
    todo = {module, *_package(module), "agents.contract", "schemas.codec", "schemas.structs"}
    sources: dict[str, bytes] = {}
    libraries: set[str] = set()
    while todo:
        name = todo.pop()
        path = _path(name)
        if name in sources or path is None:
            continue
        sources[name] = path.read_bytes()
        for imported in _imports(name, path, sources[name]):
            if imported.partition(".")[0] in OURS or imported.partition(".")[0] == name.partition(".")[0]:
                todo.add(imported)
            else:
                libraries.add(imported.partition(".")[0])
    return sources, libraries


def _package(module: str) -> Iterable[str]:
    """Modules of the folder that an agent is; nothing more for a module outside of `agents`."""
    parts = module.split(".")
    if parts[0] != "agents" or len(parts) < 2:
        return []
    package = ".".join(parts[:2])
    path = _path(package)
    if path is None or path.name != "__init__.py":
        return [package]
    names = [p.relative_to(path.parent).with_suffix("").parts for p in sorted(path.parent.rglob("*.py"))]
    return [".".join((package, *(n[:-1] if n[-1] == "__init__" else n))) for n in names]


def _path(name: str) -> Path | None:
    try:
        spec = util.find_spec(name)
    except (ModuleNotFoundError, ValueError):
        return None
    return Path(spec.origin) if spec is not None and spec.origin and spec.origin.endswith(".py") else None


@cache
def _imports(name: str, path: Path, source: bytes) -> frozenset[str]:
    """Modules that a source imports, with the packages above them; `from a import b` counts `a` and `a.b`."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                above = parts[: len(parts) - node.level + 1]
                base = ".".join((*above, base) if base else above)
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return frozenset(".".join(n.split(".")[:i]) for n in found for i in range(1, n.count(".") + 2))

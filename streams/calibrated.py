"""The tables that the controls are measured on, made once and kept: calibrating takes minutes, verifying seconds.

    python -m streams.calibrated            # make them anew, after a change of what they rest on

A table rests on the source of the market, the features, the strategies and the fills. Its file names a digest of these,
without comments and docstrings, and a test holds it against the source.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import sys
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from agents.algorithms import market
from streams.laboratory import Table, calibrate

FOLDER = Path(__file__).with_name("tables")
TRADES = 300_000
SCHEMA = "quantum.calibration/1"
RESTS_ON = (
    "agents.algorithms.market", "agents.algorithms.fills", "agents.algorithms.indicators", "agents.algorithms.regime",
    "agents.algorithms.strategies", "agents.features.bar", "agents.paper_execution.layout", "streams.laboratory",
)


def digest() -> str:
    """SHA-256 of the source that the tables rest on, hex; as this version of Python writes it."""
    text = "\n".join(_bare(Path(str(importlib.import_module(name).__file__))) for name in RESTS_ON)
    return sha256(text.encode()).hexdigest()


def python() -> str:
    """Version of Python that a digest belongs to: another one may write the same source otherwise."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def generator() -> str:
    """SHA-256 of the file that makes the candles, hex: with another one the same seed may be another market."""
    return sha256(Path(market.__file__).read_bytes()).hexdigest()


def _bare(path: Path) -> str:
    """Source without comments, docstrings and layout."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [  # type: ignore[attr-defined]
                s for s in body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant)
                                        and isinstance(s.value.value, str))] or [ast.Pass()]
    return ast.unparse(tree)


@cache
def table(name: str) -> Table:
    """The table of a market, by its name in `market.MARKETS`.

    Raises:
        FileNotFoundError: there is none.
    """
    kept = json.loads((FOLDER / f"{name}.json").read_text())
    return Table(
        edges=np.array(kept["edges"]), middles=np.array(kept["middles"]), weight=np.array(kept["weight"]),
        mean=np.array(kept["mean"]), hidden_value=kept["hidden_value"], report=kept["report"],
    )


def kept(name: str) -> dict[str, Any]:
    """What a table's file says of itself: digest, Python, report."""
    content: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return content


def write(name: str, made: Table) -> Path:
    """Keep a table."""
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}.json"
    content = {
        "schema": SCHEMA, "market": name, "digest": digest(), "python": python(), "hidden_value": made.hidden_value,
        "edges": made.edges.tolist(), "middles": made.middles.tolist(), "weight": made.weight.tolist(),
        "mean": made.mean.tolist(), "report": made.report,
    }
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path


def main() -> int:
    """Make the tables of all markets in which something can be learned."""
    parser = argparse.ArgumentParser(prog="python -m streams.calibrated", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--trades", type=int, default=TRADES, help=f"trades of each (default {TRADES})")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default 2)")
    args = parser.parse_args()
    for name, params in market.MARKETS.items():
        if params.best:
            made = calibrate(args.trades, jobs=args.jobs, params=params, progress=_progress)
            print(f"\n{write(name, made)}", file=sys.stderr)
    return 0


def _progress(done: int, of: int) -> None:
    print(f"\r{done} of {of} trades", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

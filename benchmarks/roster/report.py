"""How figures are shown: a table for people, a file of JSON for programs, the machine in both."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def machine() -> dict[str, Any]:
    """Where, when and beside how much other work something is measured."""
    return {"at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", "cores": os.cpu_count(),
            "load_1_5_15": [round(load, 1) for load in os.getloadavg()], "python": platform.python_version()}


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table; the first column is text, None an empty cell."""
    shown = Table(title=title, title_justify="left")
    for i, name in enumerate(columns):
        shown.add_column(name, justify="right" if i else "left")
    for row in rows:
        shown.add_row(*("" if cell is None else f"{cell:,}" if isinstance(cell, int | float) else str(cell)
                        for cell in row))
    Console(width=150).print(shown)


def write(path: Path | None, report: Any) -> None:
    """Write the JSON, where a file was named."""
    if path is not None:
        path.write_text(json.dumps(report, indent=1) + "\n")

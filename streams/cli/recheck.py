"""Evidence files of `quantum verify`: written, and looked up again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.text import Text

from streams.cli.options import data_console, print_json
from streams.cli.reading import reading
from streams.inspecting.shown import iso
from streams.log import PIECEWISE_MS
from streams.settings import Settings
from streams.verify.cells import Report
from streams.verify.evidence_file import Filed, NotEvidence, parsed, written
from streams.verify.recheck import Rechecked, recheck

if TYPE_CHECKING:
    from streams.verify.brokered import BrokerLog

_COLOURS = {"HOLDS": "green", "FELL": "red", "EXPIRED": "yellow", "NO RECORDS": "dim"}


@contextmanager
def judging(settings: Settings) -> Iterator[BrokerLog]:
    """The broker's log as the judge reads it.

    Raises:
        Unreachable: the broker does not answer.
    """
    from streams.verify.brokered import BrokerLog

    with reading(settings, PIECEWISE_MS) as reader, closing(BrokerLog(settings, reader)) as log:
        yield log


def write(path: Path, data: bytes) -> None:
    """Write a file.

    Raises:
        click.ClickException: it cannot be written.
    """
    try:
        path.write_bytes(data)
    except OSError as exc:
        raise click.ClickException(f"{path} cannot be written: {exc.strerror}") from exc


def write_evidence(report: Report, log: BrokerLog, settings: Settings, path: Path) -> dict[str, str]:
    """Write an evidence file; returns its name and the digest that stands for it.

    Raises:
        click.ClickException: it cannot be written.
    """
    data = written(report, log.cluster_id, settings.topic_prefix)
    write(path, data)
    return {"file": str(path), "sha256": parsed(data).digest}


def look_again(settings: Settings, path: Path, as_json: bool) -> int:
    """Look the records of a file up again, say what became of each claim; returns the exit code.

    Raises:
        click.UsageError: it is no evidence file.
        Unreachable: the broker does not answer.
    """
    try:
        filed = parsed(path.read_bytes())
    except (NotEvidence, OSError) as exc:
        raise click.UsageError(f"--recheck {path}: {exc}") from None
    with judging(settings) as log:
        found = recheck(log, filed, settings.topic_prefix)
    if as_json:
        print_json(found.as_dict())
    else:
        _show(filed, found)
    return found.exit_code


def _show(filed: Filed, found: Rechecked) -> None:
    console = data_console()
    if filed.header is not None:
        h = filed.header
        console.print(Text(f"evidence of {iso(h.at_ms)}, cluster {h.cluster_id}, prefix {h.topic_prefix!r}, "
                           f"--sample-seed {h.sample_seed}, verify exited with {h.exit_code}"))
    console.print(Text(f"sha256 {found.digest}; {found.records} records looked up\n"))
    for item in found.items:
        claim = filed.claims.get(item.name)
        said = "" if claim is None else f" (said {claim.state})"
        if item.outcome != "NO RECORDS":
            console.print(Text(f"{item.name}{said} ").append(item.outcome, style=_COLOURS[item.outcome])
                          .append(f": {item.why}"))
    counts = {o: sum(i.outcome == o for i in found.items) for o in _COLOURS}
    console.print(Text("\n" + ", ".join(f"{n} {outcome}" for outcome, n in counts.items() if n)))

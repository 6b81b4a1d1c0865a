"""Where the demo's candles come from: files of yours, the exchange's public ones, or the sample that a wheel ships."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console

from streams.ingest.files import BadInput
from streams.ingest.monthly import NoNetwork, fetch
from streams.settings import Settings

INTERVAL = "1h"
MONTHS = 12


def sources(settings: Settings, klines: Sequence[Path], symbols: str | None, base_url: str,
            console: Console) -> tuple[Path, ...]:
    """Files with candles.

    Raises:
        click.UsageError: both are named, or the sample's package is not installed; nothing synthetic takes its place.
        click.ClickException: the public files cannot be had; nothing takes their place.
    """
    if symbols is None:
        return tuple(klines) or (sample(),)
    if klines:
        raise click.UsageError("--symbols fetches candles, and --klines names your own: give one of them")
    names = [s.strip() for s in symbols.split(",") if s.strip()]
    try:
        with console.status(f"fetching {MONTHS} months of {', '.join(names)} from {base_url}") as shown:
            return tuple(fetch(names, INTERVAL, MONTHS, settings.cache_dir / "klines", today=datetime.now(UTC).date(),
                               base_url=base_url, progress=lambda done, total: shown.update(
                                   f"fetching {', '.join(names)} from {base_url}: {done} of {total} files")))
    except NoNetwork as exc:
        raise click.ClickException(
            f"--symbols: no public files from here: {exc}. Nothing was started, and nothing takes their place. Fetch "
            f"them where there is a network and give --klines FOLDER (with the .CHECKSUM files beside them the origin "
            f"is CHECKED), or run without --symbols for the sample") from None
    except BadInput as exc:
        raise click.ClickException(f"--symbols: {exc}") from None


def sample() -> Path:
    """Real candles that a dependency's wheel ships.

    Raises:
        click.UsageError: the package is not installed; nothing synthetic takes its place.
    """
    try:
        import gym_anytrading
    except ImportError as exc:
        raise click.UsageError("no candles: give --klines PATH, or install quantum-streams[demo], which brings the "
                               "hourly EURUSD sample of gym-anytrading") from exc
    return Path(gym_anytrading.__file__).parent / "datasets" / "data" / "FOREX_EURUSD_1H_ASK.csv"

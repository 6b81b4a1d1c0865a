"""The public monthly files of Binance's bars, with their checksums: https://github.com/binance/binance-public-data

    paths = fetch(["BTCUSDT", "ETHUSDT"], "1h", 12, folder)      # newest twelve whole months that are there

A file is kept once its SHA-256 is that of the `.CHECKSUM` beside it, which stays beside it: `load` reads both, and the
origin of its bars is CHECKED. What is kept is not fetched again. Nothing takes the place of what cannot be had.
"""

from __future__ import annotations

import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from hashlib import sha256
from pathlib import Path

from streams.ingest.files import BadInput

BASE_URL = "https://data.binance.vision"
TIMEOUT_S = 30.0
MOST_BYTES = 64 << 20  # a month of 1 s bars is below it
ABSENT = 2  # months without a file, from the newest back, before a symbol counts as unknown: the last is late at times
Progress = Callable[[int, int], None]


class NoNetwork(Exception):
    """The files cannot be fetched; the message says from where, and what to do."""


def months(today: date, count: int) -> list[str]:
    """The last whole months before a day, the newest first.

    >>> months(date(2024, 2, 10), 3)
    ['2024-01', '2023-12', '2023-11']
    """
    found, day = [], today
    for _ in range(count):
        day = day.replace(day=1) - timedelta(days=1)
        found.append(f"{day:%Y-%m}")
    return found


def fetch(symbols: Sequence[str], interval: str, count: int, folder: Path, *, today: date, base_url: str = BASE_URL,
          progress: Progress = lambda done, total: None) -> list[Path]:
    """Bring the newest whole months of bars.

    Args:
        symbols: such as BTCUSDT.
        interval: such as 1h.
        count: months of each symbol; fewer where it is younger.
        folder: where they are kept.
        today: the day, UTC.
        base_url: where they are fetched from.
        progress: called with files there and files in all.

    Raises:
        BadInput: a symbol is none or has no file, or a file is not what its checksum says.
        NoNetwork: they cannot be fetched.
    """
    bad = [s for s in symbols if not re.fullmatch(r"[A-Z0-9]{2,32}", s)]
    if bad or not symbols or len(set(symbols)) != len(symbols):
        raise BadInput(f"symbols must be different names such as BTCUSDT,ETHUSDT, not {','.join(symbols)!r}")
    paths: list[Path] = []
    for n, symbol in enumerate(symbols):
        own: list[Path] = []
        for absent, month in enumerate(months(today, count + 1)):  # one more: the newest may not be out yet
            if len(own) == count:
                break
            path = _one(symbol, interval, month, folder, base_url)
            if path is not None:
                own.append(path)
            elif own or absent + 1 >= ABSENT:
                break
            progress(n * count + len(own), count * len(symbols))
        if not own:
            raise BadInput(f"{base_url} has no {interval} bars of {symbol} for the last {ABSENT} months; symbols are "
                           f"written as there, such as BTCUSDT")
        paths += own
    return sorted(paths)


def _one(symbol: str, interval: str, month: str, folder: Path, base_url: str) -> Path | None:
    """The file of a month, from the folder or from there; None where there is none."""
    name = f"{symbol}-{interval}-{month}.zip"
    path, beside = folder / name, folder / f"{name}.CHECKSUM"
    url = f"{base_url}/data/spot/monthly/klines/{symbol}/{interval}/{name}"
    if path.is_file() and beside.is_file() and _meets(path.read_bytes(), beside.read_bytes(), name):
        return path
    told = _get(f"{url}.CHECKSUM")
    if told is None:
        return None
    data = _get(url)
    if data is None:
        return None
    if not _meets(data, told, name):
        raise BadInput(f"{url}: SHA-256 is {sha256(data).hexdigest()}, and its .CHECKSUM says otherwise; nothing of it "
                       f"is kept")
    folder.mkdir(parents=True, exist_ok=True)
    for target, content in ((path, data), (beside, told)):
        part = target.with_name(f"{target.name}.{os.getpid()}.part")
        part.write_bytes(content)
        part.replace(target)
    return path


def _meets(data: bytes, told: bytes, name: str) -> bool:
    """Whether a file is the one that a checksum's text names."""
    found = re.fullmatch(rb"\s*([0-9a-fA-F]{64})\s+\*?(\S+)\s*", told)
    return found is not None and found[2] == name.encode() and found[1].decode().lower() == sha256(data).hexdigest()


def _get(url: str) -> bytes | None:
    """What is there; None where nothing is.

    Raises:
        NoNetwork: nobody answers, or not with a file.
    """
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
            data: bytes = answer.read(MOST_BYTES + 1)
    except urllib.error.HTTPError as exc:
        if exc.code == 404:
            return None
        raise NoNetwork(f"{url}: {exc.code} {exc.reason}") from exc
    except (OSError, ValueError) as exc:
        raise NoNetwork(f"{url}: {getattr(exc, 'reason', None) or exc}") from exc
    if len(data) > MOST_BYTES:
        raise NoNetwork(f"{url}: more than {MOST_BYTES >> 20} MiB, which no month of bars is")
    return data

"""The exchange's public monthly files: fetched from a stub, held against their checksums, kept, and never replaced."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from datetime import date
from hashlib import sha256
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from streams.cli.exits import Exit
from streams.cli.main import main
from streams.ingest import load
from streams.ingest.files import BadInput
from streams.ingest.monthly import NoNetwork, fetch, months
from tests.streams.serving import on_loopback, serving

TODAY = date(2024, 3, 5)
HOUR_US = 3_600_000_000
STARTS = {"2024-02": 1_706_745_600_000_000, "2024-01": 1_704_067_200_000_000, "2023-12": 1_701_388_800_000_000}


def month(symbol: str, name: str) -> bytes:
    """A zip with 48 hourly bars, without a header, times in microseconds as they are since 2025."""
    rows = "\n".join(f"{STARTS[name] + n * HOUR_US},10,12,9,11,5,{STARTS[name] + (n + 1) * HOUR_US - 1},55,7,2,22,0"
                     for n in range(48))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(f"{symbol}-1h-{name}.csv", rows)
    return out.getvalue()


class Server:
    """Files by path, and which of them were asked for."""

    def __init__(self) -> None:
        self.url, self.files, self.asked, self.status = "", dict[str, bytes](), list[str](), 404

    def put(self, symbol: str, name: str) -> str:
        """A month and its checksum; returns its path."""
        path, data = f"/data/spot/monthly/klines/{symbol}/1h/{symbol}-1h-{name}.zip", month(symbol, name)
        self.files[path] = data
        self.files[f"{path}.CHECKSUM"] = f"{sha256(data).hexdigest()}  {path.rpartition('/')[2]}\n".encode()
        return path


@pytest.fixture
def server() -> Iterator[Server]:
    told = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.asked.append(self.path)
            body = told.files.get(self.path)
            self.send_response(told.status if body is None else 200)
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_: object) -> None:
            pass

    with serving(on_loopback(Handler)) as told.url:
        yield told


def test_months_go_back_over_the_year() -> None:
    assert months(TODAY, 4) == ["2024-02", "2024-01", "2023-12", "2023-11"]


def test_files_whose_digest_agrees_are_checked_and_not_fetched_again(server: Server, tmp_path: Path) -> None:
    for symbol in ("BTCUSDT", "ETHUSDT"):
        for name in ("2024-01", "2023-12"):  # February is not out yet
            server.put(symbol, name)
    paths = fetch(["BTCUSDT", "ETHUSDT"], "1h", 3, tmp_path, today=TODAY, base_url=server.url)
    assert [p.name for p in paths] == [
        f"{s}-1h-{m}.zip" for s in ("BTCUSDT", "ETHUSDT") for m in ("2023-12", "2024-01")]
    loaded = load(paths)
    assert loaded.symbols == ("BTCUSDT", "ETHUSDT")
    assert {(s.source, s.origin, s.candles) for s in loaded.series} == {("binance", "CHECKED", 96)}
    before = len(server.asked)
    assert fetch(["BTCUSDT"], "1h", 2, tmp_path, today=TODAY, base_url=server.url) == paths[:2]
    assert [p.rpartition("/")[2] for p in server.asked[before:]] == ["BTCUSDT-1h-2024-02.zip.CHECKSUM"]
    paths[0].write_bytes(b"damaged")
    fetch(["BTCUSDT"], "1h", 2, tmp_path, today=TODAY, base_url=server.url)
    assert paths[0].read_bytes() == month("BTCUSDT", "2023-12"), "what is damaged is fetched again"
    assert not list(tmp_path.glob("*.part"))


def test_a_file_that_is_not_what_its_checksum_says_is_refused_and_not_kept(server: Server, tmp_path: Path) -> None:
    path = server.put("BTCUSDT", "2024-02")
    server.files[path] += b"!"
    with pytest.raises(BadInput, match="says otherwise"):
        fetch(["BTCUSDT"], "1h", 1, tmp_path, today=TODAY, base_url=server.url)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_had_is_said(server: Server, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no 1h bars of NONE"):
        fetch(["NONE"], "1h", 12, tmp_path, today=TODAY, base_url=server.url)
    assert len(server.asked) == 2
    server.status = 503
    with pytest.raises(NoNetwork, match="503"):
        fetch(["BTCUSDT"], "1h", 12, tmp_path, today=TODAY, base_url=server.url)
    for names in ([], ["btc/usdt"], ["BTCUSDT", "BTCUSDT"]):
        with pytest.raises(BadInput, match="different names"):
            fetch(names, "1h", 12, tmp_path, today=TODAY, base_url=server.url)


def test_the_demo_without_a_network_starts_nothing_and_says_so(tmp_path: Path,
                                                               capsys: pytest.CaptureFixture[str]) -> None:
    line = ["demo", "--symbols", "BTCUSDT,ETHUSDT", "--base-url", "http://127.0.0.1:1", "--data-dir",
            str(tmp_path / "data"), "--cache-dir", str(tmp_path / "cache")]
    assert main(line) == Exit.FAILED
    said = " ".join(capsys.readouterr().err.split())
    assert "no public files from here: http://127.0.0.1:1/data/spot/monthly/klines/BTCUSDT" in said
    assert "nothing takes their place" in said
    assert "--klines FOLDER" in said
    assert not (tmp_path / "data").exists()
    assert main([*line, "--klines", str(tmp_path)]) == Exit.USAGE

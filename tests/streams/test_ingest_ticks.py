"""Ticks from a recorder's file: what is taken, what is refused, and the candles that come of them on a broker."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from schemas.codec import Codec
from schemas.events import Candle, Instrument, MarketTrade
from streams.cli.exits import Exit
from streams.cli.main import main
from streams.ingest.files import BadInput
from streams.ingest.publish import Costs
from streams.ingest.ticks import look, publish_ticks
from streams.log import LogReader
from streams.records import header
from streams.settings import Settings
from tests.streams.rostered import until_done, worker

START_MS = 1_723_161_240_000  # a whole minute


def message(number: int, at_ms: int, price: str = "61800.30", maker: bool = False, **more: Any) -> str:
    data = {"e": "trade", "E": START_MS + at_ms, "T": START_MS + at_ms, "s": "BTCUSDT", "t": number, "p": price,
            "q": "0.006", "X": "MARKET", "m": maker} | more
    return f"17231612550{number:08} " + json.dumps({"stream": "btcusdt@trade", "data": data})


QUOTE = '1723161255030314667 {"stream":"btcusdt@bookTicker","data":{"e":"bookTicker","u":1,"b":"1.0","B":"1"}}'


def recorded(tmp_path: Path, *lines: str, zipped: bool = True) -> Path:
    path = tmp_path / ("ticks.gz" if zipped else "ticks.txt")
    text = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(text) if zipped else text)
    return path


def four_minutes(tmp_path: Path) -> Path:
    """Ten trades a minute, with quotes between them."""
    lines = [message(n, n * 6_000, f"{100 + n % 7}.5", n % 2 == 0) for n in range(40)]
    return recorded(tmp_path, '1723161255030314667 {"result":null,"id":1}', *(x for m in lines for x in (QUOTE, m)))


@pytest.mark.parametrize("zipped", [True, False])
def test_what_a_file_holds(tmp_path: Path, zipped: bool) -> None:
    path = recorded(tmp_path, message(1, 0), QUOTE, message(2, 5), message(2, 5), message(5, 9), message(4, 7),
                    message(6, 11, "0", X="INSURANCE_FUND"), zipped=zipped)
    found = look(path)
    r = found.report
    assert dict(r.trades) == {"BTCUSDT": 5}
    assert (r.missing, r.repeats, r.disordered) == (2, 1, 1)
    assert dict(r.others) == {"bookTicker": 1, "trade:INSURANCE_FUND": 1}
    assert (r.source, r.origin, r.first_ms, r.last_ms) == ("binance-usdm", "CLAIMED", START_MS, START_MS + 9)
    assert found.firsts == {"BTCUSDT": START_MS}


def test_a_bare_message_of_the_spot_market(tmp_path: Path) -> None:
    spot = {"e": "trade", "s": "ETHUSDT", "t": 7, "T": START_MS, "p": "3.5", "q": "2", "m": True, "M": True}
    r = look(recorded(tmp_path, json.dumps(spot), zipped=False)).report
    assert (dict(r.trades), r.source) == ({"ETHUSDT": 1}, "binance")


def test_a_digest_that_is_met_makes_the_origin_checked_and_another_refuses(tmp_path: Path) -> None:
    path = recorded(tmp_path, message(1, 0))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert look(path, digests={path.name: digest}).report.origin == "CHECKED"
    path.with_name(path.name + ".CHECKSUM").write_text(f"{'0' * 64}  {path.name}\n")
    with pytest.raises(BadInput, match="fetch the file again"):
        look(path)


@pytest.mark.parametrize(("line", "words"), [
    ("17 {\"data\": {\"e\": \"tra", "line 2"), ("hello", "not a JSON object"), (message(2, 1, "x"), "line 2"),
    (message(2, 1, "0"), "trade 2 of BTCUSDT: price"), (message(2, 1, t=None), "without its number"),
    (message(2, 1, T="soon"), "line 2"),
])
def test_a_line_that_is_no_message_is_refused_with_its_number(tmp_path: Path, line: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        look(recorded(tmp_path, message(1, 0), line))


def test_a_file_without_trades_or_cut_off_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no trade in it, but 1 bookTicker"):
        look(recorded(tmp_path, QUOTE))
    path = four_minutes(tmp_path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(BadInput, match="cannot be read to its end"):
        look(path)
    with pytest.raises(BadInput, match="no such file"):
        look(tmp_path / "none.gz")


@pytest.mark.topics("market.instruments", "market.trades")
def test_speed_limit_and_stop(prefix: Settings, tmp_path: Path) -> None:
    pauses: list[float] = []
    found = look(four_minutes(tmp_path))
    done = publish_ticks(prefix, found, costs=Costs(fee_bps=2.0), speed=6000.0, limit=12, pause=pauses.append)
    assert done.counts == {"market.instruments": 1, "market.trades": 12}
    assert pauses
    assert max(pauses) <= 0.2


def test_candles_come_of_a_file_by_the_agent_bars(prefix: Settings, tmp_path: Path,
                                                  capsys: pytest.CaptureFixture[str]) -> None:
    names = ["--broker", prefix.broker, "--topic-prefix", prefix.topic_prefix, "--app-id", prefix.app_id]
    log = tmp_path / "worker.log"
    with worker(prefix, log, "bars,features") as process:
        for _ in range(2):  # the second time, every trade is a repeat
            assert main(["ingest", "ticks", str(four_minutes(tmp_path)), "--json", *names]) == Exit.GOOD
            told = json.loads(capsys.readouterr().out)
            assert told["published"]["counts"] == {"market.instruments": 1, "market.trades": 40}
            until_done(prefix, process, log, ("bars", "features"))
    codec = Codec()
    with LogReader(prefix) as reader:
        rows = [(r, codec.decode("market.candles", r.value)) for r in reader.read("market.candles")]
        trades = [codec.decode("market.trades", r.value) for r in reader.read("market.trades")]
        costs = [codec.decode("market.instruments", r.value) for r in reader.read("market.instruments")]
        assert not list(reader.read("market.trades.dlq"))
        assert len(list(reader.read("market.features"))) == 2
    assert [(c.open_time_ms - START_MS, c.open, c.high, c.low, c.close, c.trades) for _, c in rows
            if isinstance(c, Candle)] == [(60_000, 103.5, 106.5, 100.5, 105.5, 10),
                                          (120_000, 106.5, 106.5, 100.5, 101.5, 10)]
    assert all(isinstance(c, Candle) and (c.source, c.origin) == ("binance-usdm", "CLAIMED") for _, c in rows)
    assert all((header(r.headers, "ce_id") or "").startswith("bars:") for r, _ in rows)
    assert isinstance(trades[0], MarketTrade)
    assert trades[0].taker_side == "SELL"
    assert isinstance(costs[0], Instrument)
    assert (costs[0].days_per_year, costs[0].volume_cap) == (365, 0.1)
    assert main(["verify", "--json", *names]) == Exit.NOT_PROVEN
    cells = {a["agent"]: a["cells"] for a in json.loads(capsys.readouterr().out)["agents"]}
    assert {c["state"] for c in cells["bars"].values()} == {"PASS", "NOT APPLICABLE"}, cells["bars"]


def test_command_line_without_a_broker(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(four_minutes(tmp_path))
    assert main(["ingest", "ticks", path, "--check", "--json"]) == Exit.GOOD
    assert json.loads(capsys.readouterr().out)["file"]["trades"] == {"BTCUSDT": 40}
    assert main(["ingest", "ticks", path, "--broker", "127.0.0.1:1"]) == Exit.UNREACHABLE
    assert main(["ingest", "ticks", str(tmp_path / "no.gz")]) == Exit.FAILED

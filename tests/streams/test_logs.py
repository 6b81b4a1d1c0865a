"""A worker's log: one form for everybody, places as fields, JSON that a parser takes."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams import logs
from streams.settings import Settings, SettingsError
from streams.transport.logs import LIBRDKAFKA
from tests.patience import PATIENCE_S

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _root_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)
    logging.captureWarnings(False)


def _lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_every_line_is_json_with_the_place_as_fields() -> None:
    stream = io.StringIO()
    logs.to_stderr("info", "json", stream)
    log = logging.getLogger("streams.lane")
    log.warning("%s took %.1f s over %s-%d@%d", "features", 2.0, "blue.features.inbox", 3, 17)
    log.info("below the level of nobody")
    log.debug("not written")
    log.error("it's \"said\" \n twice", extra={"topic": "market.candles", "partition": 1})
    try:
        raise ValueError("here")
    except ValueError:
        log.exception("went wrong")
    found = _lines(stream)
    assert [line["level"] for line in found] == ["warning", "info", "error", "error"]
    assert list(found[0])[:4] == ["at", "level", "logger", "text"]
    assert {k: found[0][k] for k in ("logger", "topic", "partition", "offset")} == {
        "logger": "streams.lane", "topic": "blue.features.inbox", "partition": 3, "offset": 17}
    assert found[2]["text"] == "it's \"said\" \n twice"
    assert (found[2]["topic"], found[2]["partition"]) == ("market.candles", 1)
    assert "ValueError: here" in found[3]["exception"]
    assert all(line["at"].endswith("Z") for line in found)


@pytest.mark.parametrize("kind", ["json", "console"])
def test_libraries_and_warnings_come_out_in_the_same_form(kind: Any) -> None:
    stream = io.StringIO()
    logs.to_stderr("warning", kind, stream)
    LIBRDKAFKA.error("SASL authentication error")
    logging.getLogger("faust.worker").warning("from faust")
    logging.getLogger("asyncio").error("Task exception was never retrieved")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", stacklevel=1)
    text = stream.getvalue()
    if kind == "json":
        assert [line["logger"] for line in _lines(stream)] == ["librdkafka", "faust.worker", "asyncio", "py.warnings"]
    for said in ("[librdkafka]", "[faust.worker]", "[asyncio]", "[py.warnings]"):
        assert kind == "json" or said in text
    assert "\x1b" not in text, "no colours where there is no terminal"


def test_lines_for_people_carry_the_place_too() -> None:
    stream = io.StringIO()
    logs.to_stderr("info", "console", stream)
    logging.getLogger("streams.host").error("market.candles-0@5: no leader")
    assert "topic=market.candles partition=0 offset=5" in stream.getvalue()


@pytest.mark.parametrize(("text", "place"), [
    ("features failed: LogChanged: blue.features.inbox-2 holds 5 to 9, but the state of features goes on at 3",
     ("blue.features.inbox", 2, None)),
    ("market.candles-1@40 to @50 were deleted", ("market.candles", 1, 40)),
    ("checkpoint at features.inbox-0@9: a blob is gone; restored from market.candles-0@3", ("features.inbox", 0, 9)),
    ("any-thing-7@8 is a place", ("any-thing", 7, 8)),
    ("features took up 4 input and 4 source partitions in 0.12 s", None),
    ("commit of quantum.features-2, tried again", None),
    ("sha-256 of lz4-1.2", None),
    ("the broker 127.0.0.1:9092 does not answer", None),
])
def test_places_are_found_in_texts(text: str, place: tuple[str, int, int | None] | None) -> None:
    found = logs.place_in(text)
    assert found == ({} if place is None else {
        k: v for k, v in zip(("topic", "partition", "offset"), place, strict=True) if v is not None})


@given(st.text(), st.dictionaries(st.sampled_from(["topic", "partition", "offset", "agent"]), st.text()))
def test_no_text_breaks_a_line(text: str, extra: dict[str, str]) -> None:
    record = logging.LogRecord("x", logging.WARNING, "", 0, "%s", (text,), None)
    record.__dict__.update(extra)
    line = logs.formatter("json").format(record)
    assert len(line.splitlines()) == 1 or "\n" not in line
    assert json.loads(line)["text"] == text


def test_text_is_a_former_name_of_console(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings.load(log_format="text").log_format == "console"
    monkeypatch.setenv("QUANTUM_LOG_FORMAT", "text")
    assert Settings.load().log_format == "console"
    with pytest.raises(SettingsError, match="log_format"):
        Settings.load(log_format="xml")


@pytest.mark.topics("market.candles")
def test_a_worker_that_fails_says_so_in_json(prefix: Settings) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "streams.cli.main", "worker", "--agents", "features", "--broker", prefix.broker,
         "--topic-prefix", prefix.topic_prefix, "--app-id", prefix.app_id, "--log-format", "json"],
        cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 1
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert any(line["level"] == "error" and "not on the broker" in line["text"] for line in lines)

"""The generated pages are what the catalogue says, and their examples are records that the agents take."""

from __future__ import annotations

import json
import re

import msgspec
import pytest

from agents.experience.records import inconsistency
from schemas import pages
from schemas.catalogue import TOPICS
from schemas.codec import Codec, event_class
from schemas.events import TradeClosed
from schemas.released import newest

NAMES = [t.name for t in pages.described()]


def test_nothing_is_stale() -> None:
    assert pages.stale() == []


@pytest.mark.parametrize("topic", NAMES)
def test_an_example_is_a_record(topic: str) -> None:
    kind = event_class(newest(topic)["name"])
    example = pages.example_of(topic)
    assert example.keys() <= set(kind.__struct_fields__)
    event = msgspec.convert(example, kind)
    codec = Codec()
    assert codec.decode(topic, codec.encode(topic, event)) == event
    assert not isinstance(event, TradeClosed) or inconsistency(event) is None


def test_no_example_is_left_of_a_topic_that_is_gone() -> None:
    assert {p.stem for p in pages.EXAMPLES.glob("*.json")} == set(NAMES)


def test_the_table_names_every_topic_and_its_links_lead_somewhere() -> None:
    text = pages.page()
    headings = {re.sub(r"[^a-z0-9_]", "", line[3:]) for line in text.splitlines() if line.startswith("## ")}
    assert set(re.findall(r"\(#([^)]+)\)", text)) <= headings
    for topic in TOPICS.values():
        assert f"`{topic.name}`" in text


def test_asyncapi_refers_to_what_is_there() -> None:
    document = json.loads(pages.asyncapi())
    assert document["asyncapi"] == "3.0.0"
    for ref in re.findall(r'"\$ref": "#/([^"]+)"', pages.asyncapi()):
        found = document
        for step in ref.split("/"):
            found = found[step]
        assert found
    assert {c["address"] for c in document["channels"].values()} == set(NAMES)
    sent = {name.removeprefix("send_") for name in document["operations"] if name.startswith("send_")}
    assert sent == {t.name.replace(".", "_") for t in pages.described() if t.external}


def test_check_says_what_is_stale(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(pages, "asyncapi", lambda: "other")
    assert pages.main(["--check"]) == 1
    assert "asyncapi.yaml is behind" in capsys.readouterr().err

"""What the programs of `examples/` are: short, alone, and with pinned libraries."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.examples.programs import LANGUAGES, ROOT

FOLDER = ROOT / "examples"
MADE = {"target", "bin", "node_modules", "__pycache__"}  # by building in the checkout
FILES = [p for x in LANGUAGES for p in sorted((FOLDER / x).rglob("*")) if p.is_file() and not MADE & set(p.parts)]
PROGRAMS = [p for p in FILES if p.suffix in (".py", ".java", ".go", ".js")]
LINES = 80
LIBRARIES = {  # what a program may import: its own language's library, one for Kafka, one for Avro
    ".py": {"confluent_kafka", "fastavro", "wire", "contract", "io", "json", "os", "pathlib", "sys", "time"},
    ".java": {"java", "org.apache.avro", "org.apache.kafka.clients", "org.apache.kafka.common",
              "com.fasterxml.jackson"},  # Jackson comes with Avro
    ".go": {"github.com/linkedin/goavro", "github.com/twmb/franz-go", "quantum.streams/examples/wire", "bufio",
            "context", "encoding/json", "fmt", "log", "math", "os", "path/filepath", "slices", "strings", "time"},
    ".js": {"avsc", "kafkajs", "lz4js", "node", "./wire.js", "./contract.js"},
}
IMPORT = {
    ".py": r"^(?:import|from) ([\w.]+)", ".java": r"^import (?:static )?([\w.]+)",
    ".go": r'^(?:import )?\s*(?:[\w.]+ )?"([^"]+)"$', ".js": r"^import .* from '([^']+)';",
}


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda p: str(p.relative_to(FOLDER)))
def test_a_program_is_short_and_imports_nothing_of_ours(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= LINES
    imported = re.findall(IMPORT[path.suffix], text, re.MULTILINE)
    allowed = LIBRARIES[path.suffix]
    assert [i for i in imported if not any(i == a or i.startswith((f"{a}.", f"{a}/", f"{a}:")) for a in allowed)] == []
    assert imported or "contract" in path.name


def test_every_language_has_a_producer_and_a_subscriber() -> None:
    names = {p.relative_to(FOLDER).as_posix().lower() for p in PROGRAMS}
    assert len(PROGRAMS) >= 4 * len(LANGUAGES)
    assert names >= {"python/producer.py", "python/subscriber.py", "java/src/main/java/closedtrades.java",
                     "java/src/main/java/subscriber.java", "go/producer/main.go", "go/subscriber/main.go",
                     "node/producer.js", "node/subscriber.js"}


def test_versions_are_pinned_and_no_place_is_named() -> None:
    needs = json.loads((FOLDER / "node" / "package.json").read_text())["dependencies"]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in needs.values())
    assert not list((FOLDER / "node").glob("*lock*"))
    pom = ElementTree.parse(FOLDER / "java" / "pom.xml")
    space = {"m": "http://maven.apache.org/POM/4.0.0"}
    for what in (".//m:dependency", ".//m:plugin"):
        assert all(re.fullmatch(r"[\d.]+", x.findtext("m:version", "", space)) for x in pom.iterfind(what, space))
    assert re.findall(r"^\t\S+ v\d+\.\d+\.\d+", (FOLDER / "go" / "go.mod").read_text(), re.MULTILINE)

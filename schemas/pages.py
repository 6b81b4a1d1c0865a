"""Writes what follows from the catalogue and the schemas: `docs/topics.md` and `asyncapi.yaml`.

    python -m schemas.pages            write both
    python -m schemas.pages --check    exit 1 where one of them is behind

Examples are the records in `schemas/examples/`, one a topic; a test encodes every one of them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from schemas.catalogue import AGENTS, DAY_MS, FOREVER, KIB, TOPICS, Topic

HERE = Path(__file__).parent
ROOT = HERE.parent
EXAMPLES = HERE / "examples"
PAGE, ASYNCAPI = ROOT / "docs" / "topics.md", ROOT / "asyncapi.yaml"
_STATE = {".inbox": "inboxes", ".changelog": "changelogs", ".dlq": "dead letters"}


def example_of(topic: str) -> dict[str, Any]:
    """The example record of a topic, as JSON."""
    found: dict[str, Any] = json.loads((EXAMPLES / f"{topic}.json").read_text())
    return found


def described() -> list[Topic]:
    """Topics with an event of their own that exist, in catalogue order: those that people meet."""
    return [t for t in TOPICS.values() if t.built and t.event is not None and not t.name.endswith(".changelog")]


def writers(topic: Topic) -> list[str]:
    """Who writes a topic: agents, then the outside."""
    ours = [a.name for a in AGENTS.values() if a.built and topic.name in a.writes]
    return [*ours, *(["you"] if topic.external else [])] or ["the host"]


def readers(topic: Topic) -> list[str]:
    """Agents that read a topic."""
    return [a.name for a in AGENTS.values() if a.built and topic.name in a.reads]


def kept(topic: Topic) -> str:
    """How long records stay, in words."""
    if topic.cleanup == "compact":
        return "the newest of each key"
    return "for ever" if topic.retention_ms == FOREVER else f"{topic.retention_ms // DAY_MS} days"


def _schema(topic: Topic) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((HERE / "avsc" / f"{topic.name}.avsc").read_text())
    return found


# ---------------------------------------------------------------------- docs/topics.md
def page() -> str:
    """Text of `docs/topics.md`."""
    return "\n".join([*_head(), *(line for t in described() for line in _section(t)), *_tail()]) + "\n"


def _head() -> Iterator[str]:
    yield from (
        "# Topics", "",
        "<!-- Made by `python -m schemas.pages` from the catalogue and the schemas: do not edit. -->", "",
        "Every topic with an event of its own: who writes and reads it, its key, how long it is kept, its fields and",
        "an example. Values are Avro (`schemas/avsc/<topic>.avsc`), keys UTF-8 text, times epoch milliseconds UTC.",
        "Fields marked with a ? may be null or left out. `quantum tail TOPIC` prints records as JSON;",
        "`quantum produce TOPIC` sends JSON lines to the topics that you may write. Where 4 partitions are named,",
        "`quantum topics apply --partitions N` makes others of that number.", "",
        "| topic | event | key | partitions | kept | written by | read by |", "|---|---|---|---|---|---|---|",
    )
    for t in described():
        link = f"[`{t.name}`](#{t.name.replace('.', '')})"
        yield (f"| {link} | {t.event} | {t.key} | {t.partitions} | {kept(t)} | {', '.join(writers(t))} | "
               f"{', '.join(readers(t)) or 'whoever likes'} |")


def _section(topic: Topic) -> Iterator[str]:
    schema = _schema(topic)
    yield from ("", f"## {topic.name}", "", f"{topic.doc} {schema['doc']}", "", "| field | type | what it is |",
                "|---|---|---|")
    for field in schema["fields"]:
        kind, nullable = _words(field["type"])
        doc = " ".join([field["doc"], *_limits(field)]).replace("|", "\\|")
        yield f"| `{field['name']}`{'?' if nullable else ''} | {kind} | {doc} |"
    yield from ("", f"Largest record: {topic.max_bytes // KIB} KiB. An example:", "", "```json")
    yield from json.dumps(_short(example_of(topic.name)), indent=2, ensure_ascii=False).splitlines()
    yield "```"


def _words(avro: Any) -> tuple[str, bool]:
    """An Avro type in words, and whether it may be null."""
    if isinstance(avro, list):
        return _words(next(t for t in avro if t != "null"))[0], True
    if isinstance(avro, str):
        return avro, False
    if avro["type"] == "enum":
        return ", ".join(avro["symbols"]), False
    if avro["type"] == "array":
        return f"array of {_words(avro['items'])[0]}", False
    fields = ", ".join(f"`{f['name']}`" for f in avro["fields"])
    return f"{avro['name']} of {fields}", False


def _limits(field: dict[str, Any]) -> Iterator[str]:
    words = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<="}
    found = [f"{sign} {field[name]:,}" for name, sign in words.items() if name in field]
    if found:
        yield f"({', '.join(found)})"


def _short(value: Any) -> Any:
    """The value with long arrays cut behind their first items."""
    if isinstance(value, dict):
        return {k: _short(v) for k, v in value.items()}
    if isinstance(value, list):
        shown = [_short(v) for v in value[:1]] if value and isinstance(value[0], dict) else value[:8]
        return [*shown, f"... {len(value) - len(shown)} more"] if len(shown) < len(value) else shown
    return value


def _tail() -> Iterator[str]:
    yield from ("", "## Topics of the machine", "",
                "Nobody outside needs these, and everybody may look: `quantum tail` decodes them.", "",
                "| topic | partitions | kept | what it holds |", "|---|---|---|---|")
    shown = {t.name for t in described()}
    for t in TOPICS.values():
        if t.built and t.name not in shown:
            yield f"| `{t.name}` | {t.partitions} | {kept(t)} | {t.doc} |"
    unbuilt = [t for t in TOPICS.values() if not t.built]
    if unbuilt:
        yield from ("", "In the catalogue, and not built yet, so that no broker has them: "
                    + ", ".join(f"`{t.name}`" for t in unbuilt) + ".")


# ---------------------------------------------------------------------- asyncapi.yaml
def asyncapi() -> str:
    """Text of `asyncapi.yaml`: JSON, which is YAML, so that nothing is needed to write or to read it."""
    channels, operations, messages = {}, {}, {}
    for t in described():
        name = t.name.replace(".", "_")
        channels[name] = {
            "address": t.name, "title": t.name, "description": t.doc,
            "messages": {str(t.event): {"$ref": f"#/components/messages/{name}"}},
            "bindings": {"kafka": {
                "topic": t.name, "partitions": t.partitions, "topicConfiguration": {
                    "cleanup.policy": [t.cleanup], "max.message.bytes": t.max_bytes,
                    **({} if t.cleanup == "compact" else {"retention.ms": t.retention_ms})}}},
        }
        messages[name] = {
            "name": t.event, "contentType": "application/vnd.apache.avro",
            "summary": _schema(t)["doc"],
            "payload": {"schemaFormat": "application/vnd.apache.avro;version=1.9.0", "schema": _schema(t)},
            "bindings": {"kafka": {"key": {"type": "string", "description": t.key}}},
            "examples": [{"name": t.event, "payload": example_of(t.name)}],
        }
        for action, who in (("send", "you" in writers(t)), ("receive", True)):
            if who:  # from the point of view of a service beside this system
                operations[f"{action}_{name}"] = {
                    "action": action, "channel": {"$ref": f"#/channels/{name}"},
                    "summary": f"{'Produce to' if action == 'send' else 'Subscribe to'} {t.name}."}
    return json.dumps({
        "asyncapi": "3.0.0",
        "info": {"title": "Quantum Streams", "version": "1", "description":
                 "What a service beside Quantum Streams may send and receive. Made by `python -m schemas.pages`."},
        "defaultContentType": "application/vnd.apache.avro",
        "channels": channels, "operations": operations, "components": {"messages": messages},
    }, indent=1, ensure_ascii=False) + "\n"


def stale() -> list[Path]:
    """Files that are not what the catalogue and the schemas say."""
    return [p for p, text in ((PAGE, page()), (ASYNCAPI, asyncapi())) if not p.is_file() or p.read_text() != text]


def main(argv: list[str]) -> int:
    """Command line."""
    behind = stale()
    if argv == ["--check"]:
        for path in behind:
            print(f"{path.relative_to(ROOT)} is behind the catalogue or the schemas: run python -m schemas.pages",
                  file=sys.stderr)
        return 1 if behind else 0
    PAGE.write_text(page())
    ASYNCAPI.write_text(asyncapi())
    for path in behind:
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

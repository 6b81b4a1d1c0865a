"""Writes `schemas/events.py` from the `.avsc` files, which are the one source of truth.

    python -m schemas.generate             write `events.py`
    python -m schemas.generate --release   write it, and append every changed schema to `history/`
    python -m schemas.generate --check     exit 1 where either is behind the `.avsc` files

An Avro record becomes a frozen `msgspec.Struct`, an enum a `Literal`, an array a tuple. A record or enum that
several files define under one name must be defined alike in all of them; the generator refuses otherwise. A schema is
released only if it reads everything that was released before it (`schemas.compatibility`).
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from schemas.limits import NUMBER_LIMITS, TEXT_LIMITS

HERE = Path(__file__).parent
AVSC = HERE / "avsc"
HISTORY = HERE / "history"
TARGET = HERE / "events.py"

_PRIMITIVES = {"string": "str", "long": "int", "int": "int", "double": "float", "boolean": "bool", "bytes": "bytes"}

_FIELD_KEYS = {"name", "type", "doc", "default"} | NUMBER_LIMITS | TEXT_LIMITS

_HEAD = '''"""The typed events. Generated from `schemas/avsc/` by `python -m schemas.generate`: do not edit."""

from __future__ import annotations

from typing import ClassVar, Literal

import msgspec


class Event(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Base of every record that has a schema; immutable."""

    SCHEMA_NAME: ClassVar[str] = ""

'''


def _type_of(avro: Any, define: dict[str, Any]) -> str:
    if isinstance(avro, list):
        inner = [t for t in avro if t != "null"]
        if len(inner) != 1 or len(avro) != 2:
            raise ValueError(f"only unions of null and one type are supported, not {avro}")
        return f"{_type_of(inner[0], define)} | None"
    if isinstance(avro, str):
        return _PRIMITIVES.get(avro, avro)
    kind = avro["type"]
    if kind == "array":
        return f"tuple[{_type_of(avro['items'], define)}, ...]"
    if kind in ("record", "enum"):
        name = avro["name"]
        if define.setdefault(name, avro) != avro:
            raise ValueError(f"{name} is defined in two ways")
        if kind == "record":
            for field in avro["fields"]:
                if unknown := field.keys() - _FIELD_KEYS:
                    raise ValueError(f"{name}.{field['name']} has {sorted(unknown)}, which nothing enforces")
                _type_of(field["type"], define)
        return str(name)
    raise ValueError(f"unsupported Avro type {avro}")


def _render(avro: dict[str, Any]) -> str:
    name, doc = avro["name"], avro["doc"]
    if avro["type"] == "enum":
        symbols = ", ".join(f'"{s}"' for s in avro["symbols"])
        upper = re.sub(r"(?<!^)(?=[A-Z])", "_", name).upper()
        return f"{name} = Literal[{symbols}]\n{upper}_SYMBOLS: tuple[{name}, ...] = ({symbols})\n"
    lines = [f"class {name}(Event, frozen=True, kw_only=True, gc=False):", f'    """{doc}"""', ""]
    lines.append(f'    SCHEMA_NAME: ClassVar[str] = "{name}"')
    for field in avro["fields"]:
        default = " = None" if field.get("default", ...) is None else ""
        lines.append(f"    {field['name']}: {_type_of(field['type'], {})}{default}")
        lines.append(f'    """{field["doc"]}"""')
    return "\n".join(lines) + "\n"


def source() -> str:
    """Text of `events.py` as the `.avsc` files demand it.

    Raises:
        ValueError: a type is unsupported, or one name is defined in two ways.
    """
    define: dict[str, Any] = {}
    for path in sorted(AVSC.glob("*.avsc")):
        _type_of(json.loads(path.read_text()), define)
    enums = [_render(d) for d in define.values() if d["type"] == "enum"]
    records = [_render(d) for d in define.values() if d["type"] == "record"]
    names = sorted(define)
    return _HEAD + "\n" + "\n".join(enums) + "\n\n" + "\n\n".join(records) + "\n\n__all__ = " + _all(names)


def _all(names: list[str]) -> str:
    return "[\n" + "".join(f'    "{n}",\n' for n in ["Event", *names]) + "]\n"


def unreleased() -> dict[str, str]:
    """Texts of the schemas that differ from the newest of their history, by topic."""
    texts = {path.stem: path.read_text() for path in sorted(AVSC.glob("*.avsc"))}
    return {topic: text for topic, text in texts.items() if [text] != history(topic)[-1:]}


def history(topic: str) -> list[str]:
    """Texts of the released schemas of a topic, oldest first."""
    return [path.read_text() for path in sorted((HISTORY / topic).glob("*.avsc"))]


def release() -> list[str]:
    """Append every changed schema to its history, or none; returns why one may not be released."""
    from schemas.compatibility import problems

    changed = unreleased()
    found = [f"{topic}: {problem}" for topic, text in changed.items() for problem in problems(text, history(topic))]
    if not found:
        for topic, text in changed.items():
            folder = HISTORY / topic
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{len(history(topic)) + 1:04}.avsc").write_text(text)
    return found


def check() -> list[str]:
    """What is behind the `.avsc` files."""
    found = []
    if TARGET.read_text() != source():
        found.append("schemas/events.py differs from schemas/avsc: run python -m schemas.generate")
    if changed := unreleased():
        found.append(f"not in schemas/history: {', '.join(changed)}; run python -m schemas.generate --release")
    return found


def main(argv: list[str]) -> int:
    """Write, release or check; returns the exit code."""
    if "--check" in argv:
        found = check()
    else:
        TARGET.write_text(source())
        found = release() if "--release" in argv else []
    for problem in found:
        print(problem, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The texts of the schemas: `avsc/<topic>.avsc` as it stands, `history/<topic>/NNNN.avsc` as each was released.

History keeps full texts, because fingerprints ignore defaults and docs. It is written by
`python -m schemas.generate --release` and never edited: records with these schemas are on people's logs.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

import fastavro
from fastavro.schema import fingerprint, to_parsing_canonical_form

_ROOT = resources.files("schemas")


def schema_text(topic: str) -> str:
    """Text of the `.avsc` file of a topic, or of `state.scope` and `state.head`.

    Raises:
        FileNotFoundError: the topic has no schema.
    """
    return (_ROOT / "avsc" / f"{topic}.avsc").read_text()


def schema_names() -> tuple[str, ...]:
    """Names that have a schema: topics, `state.scope` and `state.head`."""
    return tuple(sorted(f.name.removesuffix(".avsc") for f in (_ROOT / "avsc").iterdir() if f.name.endswith(".avsc")))


def history_texts(topic: str) -> list[str]:
    """Texts of all released schemas of a topic, oldest first; empty where none was."""
    folder = _ROOT / "history" / topic
    if not folder.is_dir():
        return []
    return [f.read_text() for f in sorted(folder.iterdir(), key=lambda f: f.name) if f.name.endswith(".avsc")]


def fingerprint_of(schema: Any) -> bytes:
    """CRC-64-AVRO of the parsing canonical form, 8 bytes little-endian as records carry it."""
    return bytes.fromhex(fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO"))


def resolved(schema: Any) -> Any:
    """A schema with all names in full, without logical types and without fastavro's own marks."""
    return _plain(fastavro.parse_schema(_plain(schema)))


def _plain(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {k: _plain(v) for k, v in schema.items() if not k.startswith("__") and k != "logicalType"}
    return [_plain(v) for v in schema] if isinstance(schema, list) else schema


@cache
def newest(topic: str) -> Any:
    """The resolved schema of a topic as it stands."""
    return resolved(json.loads(schema_text(topic)))

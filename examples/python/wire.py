"""Records as Quantum Streams writes and reads them: C3 01, the CRC-64-AVRO of the writer's schema, then Avro."""

import io
import json
import os
from pathlib import Path

import fastavro
from fastavro.schema import fingerprint, to_parsing_canonical_form

BROKER = os.environ.get("QUANTUM_BROKER", "127.0.0.1:19092")
PREFIX = os.environ.get("QUANTUM_TOPIC_PREFIX", "")
SCHEMAS = Path(os.environ.get("QUANTUM_SCHEMAS", "schemas"))


class Wire:
    """Encodes by the newest schema of a topic, decodes what any release wrote."""

    def __init__(self, topic):
        newest = SCHEMAS / "avsc" / f"{topic}.avsc"
        released = sorted((SCHEMAS / "history" / topic).glob("*.avsc"))
        schemas = [json.loads(file.read_text()) for file in [*released, newest]]
        marks = [b"\xc3\x01" + bytes.fromhex(fingerprint(to_parsing_canonical_form(s), "CRC-64-AVRO")) for s in schemas]
        self.topic, self.mark = PREFIX + topic, marks[-1]
        self.writers = {mark: fastavro.parse_schema(s) for mark, s in zip(marks, schemas, strict=True)}
        self.schema = self.writers[self.mark]

    def encode(self, record):
        out = io.BytesIO(self.mark)
        out.seek(len(self.mark))
        fastavro.schemaless_writer(out, self.schema, record)
        return out.getvalue()

    def decode(self, value):
        if value[:10] not in self.writers:
            raise ValueError(f"{self.topic}: no schema here has the mark {value[:10].hex()}; fetch the newest schemas")
        return fastavro.schemaless_reader(io.BytesIO(value[10:]), self.writers[value[:10]], self.schema)

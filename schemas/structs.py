"""Avro schemas of `msgspec.Struct` classes: the class is the source of truth for the layout of an agent's state."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from msgspec import inspect as mi

_SIMPLE: dict[type, str] = {
    mi.IntType: "long", mi.FloatType: "double", mi.StrType: "string", mi.BoolType: "boolean", mi.BytesType: "bytes",
}


def avro_schema_of(struct: type[msgspec.Struct]) -> dict[str, Any]:
    """Avro record schema of a struct of numbers, text, bytes, tuples, nested structs and optional ones of these.

    Raises:
        TypeError: a field has a type that Avro state may not hold, e.g. a dict.
    """
    schema = _avro(mi.type_info(struct), {})
    assert isinstance(schema, dict)
    return schema


def direct_schema_of(struct: type[msgspec.Struct]) -> tuple[dict[str, Any], dict[str, type]] | None:
    """(schema, classes by name) for a reader that makes the structs itself, where `msgspec.convert` would only do that.

    A Literal is {"type": "literal", "values": [...]} in it. None where convert does more: constraints, names that are
    not the attributes', tags, `__post_init__`, structs as arrays.
    """
    info, classes = mi.type_info(struct), {}  # type: mi.Type, dict[str, type]
    if not _plainly_made(info, set()):
        return None
    schema = _avro(info, classes, literals=True)
    assert isinstance(schema, dict)
    return schema, classes


def _plainly_made(info: mi.Type, seen: set[type]) -> bool:
    if isinstance(info, (mi.IntType, mi.FloatType, mi.StrType, mi.BytesType, mi.VarTupleType)):
        item = info.item_type if isinstance(info, mi.VarTupleType) else None
        bounds = set(type(info).__struct_fields__) - {"item_type"}
        return all(getattr(info, name) is None for name in bounds) and (item is None or _plainly_made(item, seen))
    if isinstance(info, mi.UnionType):
        return all(_plainly_made(t, seen) for t in info.types)
    if isinstance(info, mi.StructType):
        if info.cls in seen:
            return True
        seen.add(info.cls)
        return (info.tag is None and not info.array_like and not hasattr(info.cls, "__post_init__")
                and all(f.name == f.encode_name and _plainly_made(f.type, seen) for f in info.fields))
    return isinstance(info, (mi.BoolType, mi.NoneType, mi.LiteralType))


def avro_text_of(struct: type[msgspec.Struct]) -> str:
    """That schema as the text of an `.avsc` file, to be recorded beside the format version that wrote it."""
    return json.dumps(avro_schema_of(struct), indent=2) + "\n"


def _avro(info: mi.Type, seen: dict[str, type], literals: bool = False) -> Any:
    if type(info) in _SIMPLE:
        return _SIMPLE[type(info)]
    if isinstance(info, mi.LiteralType) and all(isinstance(v, str) for v in info.values):
        return {"type": "literal", "values": list(info.values)} if literals else "string"
    if isinstance(info, mi.VarTupleType):
        return {"type": "array", "items": _avro(info.item_type, seen, literals)}
    if isinstance(info, mi.UnionType):
        rest = [t for t in info.types if not isinstance(t, mi.NoneType)]
        if len(rest) == 1 and len(info.types) == 2:
            return ["null", _avro(rest[0], seen, literals)]
    if isinstance(info, mi.StructType):
        name = info.cls.__name__
        if name in seen:
            if seen[name] is not info.cls:
                raise TypeError(f"{info.cls} and {seen[name]} have one name, and so one Avro type")
            return name
        seen[name] = info.cls
        fields = [{"name": f.encode_name, "type": _avro(f.type, seen, literals)} for f in info.fields]
        return {"type": "record", "name": name, "fields": fields}
    raise TypeError(f"state cannot hold {info}")

"""Effective settings and where each came from, for people: secrets are masked."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from streams.settings import ENV_PREFIX, Settings, config_path, read_file, state_path

MASK = "**********"


@dataclass(frozen=True, kw_only=True)
class Effective:
    """One setting.

    Attributes:
        value: as JSON takes it; a secret is masked, None is not set.
        source: `flag`, `environment`, `file` or `default`.
        place: the flag, the variable, the file, or what a default follows from; empty where it follows from nothing.
    """

    name: str
    value: str | int | None
    source: str
    place: str = ""


def effective(settings: Settings, flags: Collection[str], config: Path | None) -> list[Effective]:
    """All settings, in the order of their declaration.

    Args:
        settings: as `Settings.load` made them in this environment.
        flags: names of those that a flag gave.
        config: the configuration file, if a flag named one.
    """
    path = config_path(config)
    in_file = read_file(path, type(settings).model_fields) if path is not None else {}
    return [_one(settings, name, flags, in_file, path) for name in type(settings).model_fields]


def _one(settings: Settings, name: str, flags: Collection[str], in_file: Mapping[str, Any],
         path: Path | None) -> Effective:
    value = _shown(getattr(settings, name))
    variables = {k.upper() for k, v in os.environ.items() if v}
    if name in flags:
        return Effective(name=name, value=value, source="flag", place=f"--{name.replace('_', '-')}")
    if (variable := ENV_PREFIX + name.upper()) in variables:
        return Effective(name=name, value=value, source="environment", place=variable)
    if name in in_file:
        return Effective(name=name, value=value, source="file", place=str(path and path.absolute()))
    if name == "kafka_home" and os.environ.get("KAFKA_HOME"):
        return Effective(name=name, value=os.environ["KAFKA_HOME"], source="environment", place="KAFKA_HOME")
    state = state_path(settings.data_dir)
    follows = str(state) if name == "broker" and state.is_file() else ""
    return Effective(name=name, value=value, source="default", place=follows)


def _shown(value: Any) -> str | int | None:
    if isinstance(value, SecretStr):
        return MASK
    return value if value is None or isinstance(value, (str, int)) else str(value)

"""A schema registry over Confluent's REST, as far as it is needed here, by the standard library alone.

confluent-kafka has a client for it, which brings ten packages along, `cryptography` among them; a test holds this one
against that one and against a real registry (decision 0150).
"""

from __future__ import annotations

import base64
import http.client
import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from streams.registry_errors import RegistryRefused, RegistryUnreachable
from streams.settings import Settings

ANSWER_S = 10.0
KIND = "application/vnd.schemaregistry.v1+json"
NOT_FOUND = 404
CONFLICT = 409
AVRO = "AVRO"


@dataclass(frozen=True)
class Registered:
    """A version of a subject.

    Attributes:
        schema_id: id over all subjects, as records carry it.
        version: number within the subject.
        text: the schema.
        kind: `AVRO`, or what else a registry keeps.
    """

    schema_id: int
    version: int
    text: str
    kind: str = AVRO


class Registry:
    """A client of the registry that the settings name.

    Every method raises RegistryUnreachable or RegistryRefused.

    Raises:
        ValueError: they name none.
    """

    def __init__(self, settings: Settings) -> None:
        if settings.registry is None:
            raise ValueError("no registry is set")
        self.url = settings.registry
        self._login: str | None = None
        if settings.registry_username is not None and settings.registry_password is not None:
            pair = f"{settings.registry_username}:{settings.registry_password.get_secret_value()}"
            self._login = "Basic " + base64.b64encode(pair.encode()).decode()

    def subjects(self) -> list[str]:
        """Names of all subjects."""
        return [str(name) for name in self._ask("GET", "/subjects")]

    def versions(self, subject: str) -> list[Registered]:
        """All versions of a subject, oldest first; none where the subject is not there."""
        try:
            numbers = self._ask("GET", f"{_subject(subject)}/versions")
        except RegistryRefused as exc:
            if exc.status == NOT_FOUND:
                return []
            raise
        return [_registered(self._ask("GET", f"{_subject(subject)}/versions/{int(n)}")) for n in sorted(numbers)]

    def find(self, subject: str, text: str) -> Registered | None:
        """The version of a subject that is this schema, by the registry's own idea of equal; None where none is."""
        try:
            return _registered(self._ask("POST", _subject(subject), {"schema": text}))
        except RegistryRefused as exc:
            if exc.status == NOT_FOUND:
                return None
            raise

    def register(self, subject: str, text: str) -> int:
        """Register a schema as the newest version of a subject; its id. One that is there is not registered again."""
        return int(self._ask("POST", f"{_subject(subject)}/versions", {"schema": text})["id"])

    def schema(self, schema_id: int) -> str | None:
        """A schema by its id; None where there is none of that id, or it is no Avro."""
        try:
            found = self._ask("GET", f"/schemas/ids/{schema_id}")
        except RegistryRefused as exc:
            if exc.status == NOT_FOUND:
                return None
            raise
        return str(found["schema"]) if found.get("schemaType", AVRO) == AVRO else None

    def compatibility(self, subject: str) -> str | None:
        """The level that is set for a subject itself; None where none is, and the registry's default holds."""
        try:
            return str(self._ask("GET", f"/config/{quote(subject, safe='')}")["compatibilityLevel"])
        except RegistryRefused as exc:
            if exc.status == NOT_FOUND:
                return None
            raise

    def set_compatibility(self, subject: str, level: str) -> None:
        """Set the level for a subject."""
        self._ask("PUT", f"/config/{quote(subject, safe='')}", {"compatibility": level})

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(self.url + path, method=method)
        request.add_header("Accept", f"{KIND}, application/json")
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", KIND)
        if self._login is not None:
            request.add_unredirected_header("Authorization", self._login)  # to no other host than the one that is set
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
                text = answer.read()
        except urllib.error.HTTPError as exc:
            with exc:
                raise RegistryRefused(f"{self.url}{path}: {exc.code} {_reason(exc)}", exc.code) from None
        except (OSError, http.client.HTTPException) as exc:
            why = getattr(exc, "reason", None) or exc
            raise RegistryUnreachable(f"no answer from the schema registry at {self.url}: {why}. Start it, set "
                                      "QUANTUM_REGISTRY right, or unset it") from None
        try:
            return json.loads(text)
        except ValueError:
            raise RegistryRefused(f"{self.url}{path} answers no JSON: is it the address of a registry's API?",
                                  200) from None


def _subject(name: str) -> str:
    return f"/subjects/{quote(name, safe='')}"


def _registered(answer: Any) -> Registered:
    return Registered(int(answer["id"]), int(answer["version"]), str(answer["schema"]),
                      str(answer.get("schemaType") or AVRO))


def _reason(exc: urllib.error.HTTPError) -> str:
    """What the registry says of it, in one line."""
    try:
        said = json.loads(exc.read())["message"]
    except (ValueError, KeyError, TypeError, OSError):
        said = exc.reason
    return " ".join(str(said).split())[:500]

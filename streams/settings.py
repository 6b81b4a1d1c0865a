"""Settings: where the broker is, how to log in, which names to use, where files lie.

A flag wins over the environment (`QUANTUM_<NAME>`), which wins over the file (`quantum.toml` in the working directory,
or the path in `QUANTUM_CONFIG`), which wins over the default. Unknown keys are refused in all of them, so that a typing
error in a security setting cannot leave a connection open. Secrets are never part of a text made here.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from platformdirs import user_cache_path, user_data_path
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from schemas.catalogue import built_topics

ENV_PREFIX = "QUANTUM_"
CONFIG_ENV = "QUANTUM_CONFIG"
CONFIG_NAME = "quantum.toml"
DEFAULT_PORT = 19092
LOOPBACK = "127.0.0.1"
BATCH_OVERHEAD_BYTES = 64 * 1024  # record batch header, keys and headers around the largest value
NOT_SETTINGS = frozenset({"config", "test_data", "test_run"})  # QUANTUM_ variables that are read elsewhere
_APP = "quantum-streams"
_ADDRESS = re.compile(r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})$")


class SettingsError(ValueError):
    """A setting that cannot be taken; the message names the key and never the value."""


class ClientConfig(dict[str, str | int]):
    """A librdkafka configuration that does not show its secrets when printed."""

    _SECRET = re.compile(r"password|secret|key\.pem", re.IGNORECASE)

    def __repr__(self) -> str:
        return repr({k: "**********" if self._SECRET.search(k) else v for k, v in self.items()})

    __str__ = __repr__


def state_path(data_dir: Path) -> Path:
    """File in which a running embedded broker of this data directory says where it is."""
    return data_dir / "broker" / "state.json"


def _default_broker(values: dict[str, Any]) -> str:
    """The embedded broker's address by its state file, else its port on loopback."""
    try:
        state = json.loads(state_path(values["data_dir"]).read_text())
        return str(state["address"])
    except (OSError, ValueError, KeyError, TypeError):
        return f"{LOOPBACK}:{values.get('broker_port', DEFAULT_PORT)}"


class Settings(BaseSettings):
    """All settings; frozen. Make one with `Settings.load(**flags)`.

    Attributes:
        data_dir: durable data: the embedded broker's log and state.
        cache_dir: what can be fetched again: Apache Kafka's jars.
        broker: bootstrap servers, `HOST:PORT[,HOST:PORT]`.
        topic_prefix: stands before every topic name of the catalogue.
        app_id: stands before every consumer group.
        seed: seed of everything random.
        linger_ms: how long a worker's producer waits for more records before it sends: 0 for the least latency, 5 for
            replays at full speed, which then cost a fifth less.
        session_timeout_ms: how long a worker may be silent before its groups give its partitions to others. Less than
            the broker's `group.min.session.timeout.ms`, 6000 by default, is refused by it.
        metrics_port: port of a worker's `/metrics`, `/healthz` and `/readyz`; 0: none.
        metrics_host: address that they are served on. They need no login: another than loopback shows them to everybody
            who reaches it.
        trainers: trainer processes at a time in a worker, over all of its agents; others wait for their turn.
        replication_factor: of topics that `topics apply` creates; -1: the broker's default.
        partitions: of topics that are spread by symbol, and so how many workers can share an agent; None: as many as
            `market.candles` has on the broker, and 4 where it is not there yet.
        log_level: least level that a worker logs.
        log_format: `console`: lines for people, `json`: an object a line. `text` is a former name of `console`.
        broker_port: first port tried by the embedded broker.
        broker_heap_mb: Java heap of the embedded broker, MiB.
        registry: URL of a schema registry with Confluent's REST; none by default. `registry_username` and
            `registry_password` are its login by HTTP Basic.
        registry_ids: ids of schemas there, `ID[,ID]`, whose writers are read beside those of our subjects.
        framing: how records with an event are written: `single-object` encoding, which needs no registry to be read, or
            `confluent`, with the registry's schema ids, which Kafka UIs and the usual deserialisers decode. Both are
            read.
        kafka_home: an unpacked Apache Kafka to use instead of fetched jars; `KAFKA_HOME` is read as well.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_ignore_empty=True, frozen=True, extra="forbid", hide_input_in_errors=True
    )

    data_dir: Path = Field(default_factory=lambda: user_data_path(_APP, appauthor=False))
    cache_dir: Path = Field(default_factory=lambda: user_cache_path(_APP, appauthor=False))
    broker_port: int = Field(default=DEFAULT_PORT, ge=1, le=65535)
    broker: str = Field(default_factory=_default_broker)
    topic_prefix: str = Field(default="", pattern=r"^[A-Za-z0-9._-]*$", max_length=120)
    app_id: str = Field(default="quantum", pattern=r"^[A-Za-z0-9._-]+$", max_length=120)
    seed: int = Field(default=0, ge=0, lt=2**63)
    linger_ms: int = Field(default=0, ge=0, le=1000)
    session_timeout_ms: int = Field(default=10_000, ge=1000, le=300_000)
    metrics_port: int = Field(default=0, ge=0, le=65535)
    metrics_host: str = Field(default=LOOPBACK, min_length=1, max_length=255)
    trainers: int = Field(default=1, ge=1, le=64)
    replication_factor: int = Field(default=-1, ge=-1, le=32)
    partitions: int | None = Field(default=None, ge=1, le=1000)
    broker_heap_mb: int = Field(default=512, ge=128)
    kafka_home: Path | None = None
    registry: str | None = None
    registry_username: str | None = None
    registry_password: SecretStr | None = None
    registry_ids: str | None = Field(default=None, pattern=r"^[0-9]{1,10}(,[0-9]{1,10})*$")
    framing: Literal["single-object", "confluent"] = "single-object"

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["console", "json"] = "console"

    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    ssl_ca_location: Path | None = None
    ssl_certificate_location: Path | None = None
    ssl_key_location: Path | None = None
    ssl_key_password: SecretStr | None = None

    @field_validator("data_dir", "cache_dir", "kafka_home")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        return None if path is None else path.expanduser().absolute()

    @field_validator("log_format", mode="before")
    @classmethod
    def _former(cls, kind: object) -> object:
        return "console" if kind == "text" else kind

    @field_validator("broker")
    @classmethod
    def _addresses(cls, broker: str) -> str:
        for address in broker.split(","):
            match = _ADDRESS.match(address.strip())
            if match is None or not 1 <= int(match[2]) <= 65535:
                raise ValueError("must be HOST:PORT, or several of them with commas between")
        return broker

    @field_validator("registry")
    @classmethod
    def _registry(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("must be http://HOST[:PORT][/PATH], or https")
        if "@" in parts.netloc:
            raise ValueError("must have no login in it: that goes into registry_username and registry_password")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _registry_login(self) -> Self:
        given = [self.registry_username is not None, self.registry_password is not None]
        if any(given) and not all(given):
            raise ValueError("registry_username and registry_password go together")
        if any(given) and self.registry is None:
            raise ValueError("registry_username and registry_password are set, but registry is not")
        if self.registry_ids is not None and self.registry is None:
            raise ValueError("registry_ids is set, but registry is not")
        if self.framing == "confluent" and self.registry is None:
            raise ValueError("framing is confluent, but registry is not set")
        return self

    @model_validator(mode="after")
    def _login(self) -> Self:
        given = [self.sasl_mechanism is not None, self.sasl_username is not None, self.sasl_password is not None]
        if self.security_protocol.startswith("SASL") and not all(given):
            raise ValueError("a SASL security_protocol needs sasl_mechanism, sasl_username and sasl_password")
        if not self.security_protocol.startswith("SASL") and any(given):
            raise ValueError("sasl_* is set, but security_protocol is not SASL_PLAINTEXT or SASL_SSL")
        tls = (self.ssl_ca_location, self.ssl_certificate_location, self.ssl_key_location, self.ssl_key_password)
        if not self.security_protocol.endswith("SSL") and any(v is not None for v in tls):
            raise ValueError("ssl_* is set, but security_protocol is not SSL or SASL_SSL")
        return self

    @classmethod
    def load(cls, *, config: Path | None = None, **flags: Any) -> Self:
        """Settings from flags, environment and file.

        Args:
            config: configuration file; default `QUANTUM_CONFIG`, else `quantum.toml` in the working directory if any.
            flags: values of flags; None means that the flag was not given.

        Raises:
            SettingsError: a value is refused, a key is unknown, or a named file is not there.
        """
        environment = {k.lower().removeprefix(ENV_PREFIX.lower()) for k, v in os.environ.items()
                       if k.upper().startswith(ENV_PREFIX) and v}
        unknown = environment - set(cls.model_fields) - NOT_SETTINGS
        if unknown:
            names = ", ".join(sorted(ENV_PREFIX + name.upper() for name in unknown))
            raise SettingsError(f"unknown environment variable {names}")
        values = {k: v for k, v in _from_file(config, cls.model_fields).items() if k not in environment}
        values |= {k: v for k, v in flags.items() if v is not None}
        try:
            return cls(**values)
        except ValidationError as exc:
            problems = "; ".join(_problem(e) for e in exc.errors(include_input=False, include_context=False))
            raise SettingsError(problems) from None  # the cause would carry the refused input

    def replace(self, **changes: Any) -> Self:
        """These settings with some values changed; nothing is read anew."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self)(**values | changes)

    def topic(self, name: str) -> str:
        """A catalogue topic's name on the broker."""
        return self.topic_prefix + name

    def group(self, agent: str) -> str:
        """An agent's consumer group."""
        return f"{self.app_id}.{agent}"

    def further_ids(self) -> list[int]:
        """The ids that `registry_ids` names."""
        return [] if self.registry_ids is None else [int(text) for text in self.registry_ids.split(",")]

    def client(self) -> dict[str, str | int]:
        """librdkafka configuration that every client takes: consumer, producer, AdminClient."""
        config = ClientConfig({
            "bootstrap.servers": self.broker,
            "client.id": self.app_id,
            "socket.nagle.disable": "true",
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 1000,  # the default of 10 s outlasts a broker's restart of 4 s
            "security.protocol": self.security_protocol,
        })
        optional = {
            "sasl.mechanism": self.sasl_mechanism,
            "sasl.username": self.sasl_username,
            "sasl.password": self.sasl_password and self.sasl_password.get_secret_value(),
            "ssl.ca.location": self.ssl_ca_location,
            "ssl.certificate.location": self.ssl_certificate_location,
            "ssl.key.location": self.ssl_key_location,
            "ssl.key.password": self.ssl_key_password and self.ssl_key_password.get_secret_value(),
        }
        config.update({k: str(v) for k, v in optional.items() if v is not None})
        return config

    def member(self) -> dict[str, str | int]:
        """librdkafka configuration of members of consumer groups: ten heartbeats fit into a session."""
        return ClientConfig(self.client() | {
            "session.timeout.ms": self.session_timeout_ms,
            "heartbeat.interval.ms": self.session_timeout_ms // 10,
        })

    def producer(self) -> dict[str, str | int]:
        """librdkafka configuration of our producers.

        The partitioner is that of Java's clients (librdkafka's own default is CRC-32): all our producers must agree on
        the partition of a key. The size limit is the largest of the catalogue, for the broker to judge by topic.
        """
        return ClientConfig(self.client() | {
            "acks": "all",
            "enable.idempotence": "true",
            "partitioner": "murmur2_random",
            "compression.type": "lz4",
            "linger.ms": self.linger_ms,
            "message.max.bytes": max(t.max_bytes for t in built_topics()) + BATCH_OVERHEAD_BYTES,
        })


def config_path(config: Path | None) -> Path | None:
    """The configuration file in force; None where there is none.

    Args:
        config: the one that a flag names.

    Raises:
        SettingsError: a flag or `QUANTUM_CONFIG` names one that is not there.
    """
    named = config or (Path(os.environ[CONFIG_ENV]) if os.environ.get(CONFIG_ENV) else None)
    path = named or Path(CONFIG_NAME)
    if path.is_file():
        return path
    if named is not None:
        raise SettingsError(f"configuration file {named} is not there")
    return None


def _from_file(config: Path | None, known: Mapping[str, object]) -> dict[str, Any]:
    path = config_path(config)
    return {} if path is None else read_file(path, known)


def read_file(path: Path, known: Mapping[str, object]) -> dict[str, Any]:
    """Values of a configuration file.

    Raises:
        SettingsError: it is no TOML, or has a key that is unknown.
    """
    try:
        values = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as exc:
        place = re.search(r"\(at .*\)$", str(exc))  # the rest of the text may quote the file
        raise SettingsError(f"{path} cannot be read as TOML {place[0] if place else ''}".rstrip()) from None
    unknown = set(values) - set(known)
    if unknown:
        raise SettingsError(f"{path}: unknown key {', '.join(sorted(unknown))}")
    return values


def _problem(error: Any) -> str:
    name = ".".join(str(part) for part in error["loc"])
    return f"{name}: {error['msg']}" if name else str(error["msg"]).removeprefix("Value error, ")

"""What can keep the embedded broker from running, each with the choices that are left."""

from __future__ import annotations

CHOICES = """Choices:
  - use a broker that already runs: --broker HOST:PORT (or QUANTUM_BROKER)
  - use an unpacked Apache Kafka: set KAFKA_HOME to its folder
  - {further}"""


class BrokerError(Exception):
    """The embedded broker cannot do what was asked."""


class NoJava(BrokerError):
    """No Java runtime that is new enough."""


class FetchFailed(BrokerError):
    """The jars of Apache Kafka could not be fetched."""


class JarRefused(BrokerError):
    """A jar is not the pinned one."""


class StartFailed(BrokerError):
    """The broker ended or did not answer; the message ends with the tail of its log."""

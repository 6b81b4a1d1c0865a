"""What a broker denies, in words: a login, a certificate, a right; and what to do.

Nothing is lost by it: what was not acknowledged is done again once the broker allows it.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from concurrent.futures import TimeoutError as NoAnswerInTime
from typing import Any

import confluent_kafka as ck
from confluent_kafka.admin import AclOperation, AdminClient

from streams.acls import Acl, acls
from streams.heard import result_of
from streams.settings import Settings

ANSWER_S = 8.0
LOGIN = frozenset({ck.KafkaError._AUTHENTICATION, ck.KafkaError.SASL_AUTHENTICATION_FAILED,
                   ck.KafkaError.UNSUPPORTED_SASL_MECHANISM, ck.KafkaError.ILLEGAL_SASL_STATE})
TLS = frozenset({ck.KafkaError._SSL})
RIGHTS = frozenset({ck.KafkaError.TOPIC_AUTHORIZATION_FAILED, ck.KafkaError.GROUP_AUTHORIZATION_FAILED,
                    ck.KafkaError.CLUSTER_AUTHORIZATION_FAILED})
_TEXT = "authorization failed"  # how librdkafka words each of them, in texts that have lost their code
_FATAL = "Local: Fatal error"
_silent = logging.Logger("quantum.denied")
_silent.addHandler(logging.NullHandler())


class Denied(Exception):
    """The broker answers and refuses; the message says what, and what to do."""


def of_connection(settings: Settings, code: int, text: str) -> str | None:
    """Why no connection comes about, where the broker, or our own TLS, refuses; None for anything else.

    Args:
        settings: broker and login.
        code: librdkafka's.
        text: librdkafka's.
    """
    if code in LOGIN:
        return (f"{settings.broker} refuses the login of {settings.sasl_username} by {settings.sasl_mechanism}: "
                f"{text}. Set QUANTUM_SASL_USERNAME, QUANTUM_SASL_PASSWORD and "
                "QUANTUM_SASL_MECHANISM right")
    if code in TLS:
        return (f"no TLS with {settings.broker}: {text}. Set QUANTUM_SSL_CA_LOCATION to the certificate of the "
                "authority that has signed the broker's, and name the broker as its certificate does")
    return None


def of_failure(reason: BaseException | None) -> bool:
    """Whether what took an app down is a right or a login that the broker denies."""
    while reason is not None:
        error = reason.args[0] if reason.args and isinstance(reason.args[0], ck.KafkaError) else None
        code = error.code() if error is not None else getattr(reason, "code", None)
        if code in LOGIN | TLS | RIGHTS or _TEXT in str(reason).lower():
            return True
        reason = reason.__cause__
    return False


def missing(settings: Settings, rights: Iterable[Acl]) -> list[Acl]:
    """The rights that the broker says this user does not have.

    What it does not tell of, topics that are not there and groups that nobody has joined yet, is left out: where a
    right is lacking there, the worker ends on it later (`of_failure`).
    """
    rights = list(rights)
    client = AdminClient(dict(settings.client()), logger=_silent)
    topics = sorted({r.name for r in rights if r.resource == "Topic"})
    groups = sorted({r.name for r in rights if r.resource == "Group"})
    allowed: dict[tuple[str, str], Collection[str]] = {}
    asked: list[tuple[str, dict[str, Any]]] = []
    if topics:
        asked.append(("Topic", client.describe_topics(
            ck.TopicCollection(topics), include_authorized_operations=True, request_timeout=ANSWER_S)))
    if groups:
        asked.append(("Group", client.describe_consumer_groups(
            groups, include_authorized_operations=True, request_timeout=ANSWER_S)))
    for resource, futures in asked:
        for name, future in futures.items():
            operations = _operations(future)
            if operations is not None:
                allowed[resource, name] = operations
    return [r for r in rights if (r.resource, r.name) in allowed
            and r.operation.upper() not in allowed[r.resource, r.name]]


def _operations(future: Any) -> Collection[str] | None:
    """Names of the operations that are allowed; None where the broker does not say."""
    try:
        found = result_of(future, ANSWER_S).authorized_operations
    except ck.KafkaException as exc:
        return () if exc.args[0].code() in RIGHTS else None
    except NoAnswerInTime:
        return None
    return None if found is None else {AclOperation(operation).name for operation in found}


def told(settings: Settings, lacking: Iterable[Acl]) -> str:
    """Missing rights in words."""
    rights = ", ".join(dict.fromkeys(f"{r.operation} on {r.resource.lower()} {r.name}" for r in lacking))
    return (f"{settings.broker} does not allow {settings.sasl_username or 'this user'}: {rights}. `quantum topics "
            "check --acls` says all that a worker needs, as commands of kafka-acls")


def after(settings: Settings, agent: str, reason: BaseException | None) -> str | None:
    """What to say of an agent that went down, where a right or the login was the reason; None otherwise.

    A producer that may not write dies of a fatal error that names no right, so the broker is asked.
    """
    denial = of_failure(reason)
    if not denial and _FATAL not in str(reason):
        return None
    done = "What was not stored is done again by the next worker"
    if lacking := missing(settings, acls(settings, [agent])):
        return f"{told(settings, lacking)}. {done}"
    return f"{settings.broker} denied {agent} what it needs: {reason}. {done}" if denial else None

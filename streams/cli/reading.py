"""What the commands that read the log share: a reader, and its errors in words that say what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Protocol

import click
from confluent_kafka import KafkaException

from schemas.catalogue import TOPICS
from schemas.codec import Codec
from streams.cli.main import Unreachable
from streams.log import WAIT_MS, LogReader, NoBroker, NoTopic
from streams.settings import Settings
from streams.subjects import codec_for

HINT = "start one with 'quantum broker up', or name yours with --broker HOST:PORT"


@contextmanager
def reading(settings: Settings, wait_ms: int = WAIT_MS) -> Iterator[LogReader]:
    """A log reader whose errors become exit codes.

    Args:
        settings: broker and names.
        wait_ms: see `LogReader`.

    Raises:
        Unreachable: the broker does not answer.
        click.ClickException: the broker has no such topic or partition, or refuses to serve it.
    """
    try:
        with LogReader(settings, wait_ms=wait_ms) as log:
            yield log
    except NoBroker as exc:
        raise Unreachable(f"{exc}; {HINT}") from exc
    except NoTopic as exc:
        raise click.ClickException(str(exc)) from exc
    except KafkaException as exc:
        raise click.ClickException(f"the broker {settings.broker} says: {exc.args[0].str()}") from exc


def codec_of(settings: Settings, *, writes: bool = False) -> Codec:
    """The codec of a command; at its end the command says what could not be read because no registry is set.

    Raises:
        RegistryUnreachable, RegistryRefused: as `codec_for`.
    """
    codec = codec_for(settings, writes=writes)
    click.get_current_context().call_on_close(partial(_say_unnamed, codec))
    return codec


def _say_unnamed(codec: Codec) -> None:
    if codec.unnamed:
        click.echo(f"quantum: no registry is set, and records of {', '.join(sorted(codec.unnamed))} are in Confluent "
                   "framing: none of them could be read. Set QUANTUM_REGISTRY=URL", err=True)


class _HasTopics(Protocol):
    def topics(self) -> Mapping[str, Sequence[int]]: ...


def find_topic(log: _HasTopics, settings: Settings, name: str) -> str:
    """Catalogue name of a topic that the broker has; it may be given with or without the prefix.

    Raises:
        click.UsageError: there is none; near names are in the message.
    """
    there = log.topics()
    prefix = settings.topic_prefix
    for candidate in (name, name.removeprefix(prefix)):
        if candidate in there:
            return candidate
    known = TOPICS.get(name)
    if known is not None and not known.built:
        raise click.UsageError(f"{name} is in the catalogue, but what writes it is not built yet")
    if known is not None:
        raise click.UsageError(f"the broker has no topic {settings.topic(name)}; run: quantum topics apply")
    names = list(dict.fromkeys([*(t.name for t in TOPICS.values() if t.built), *there]))
    near = [t for t in names if name.lower() in t.lower()] + difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    more = f"did you mean {', '.join(dict.fromkeys(near[:3]))}?" if near else "docs/topics.md has them all"
    raise click.UsageError(f"no topic is named {name}; {more}")

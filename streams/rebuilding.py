"""State made anew by a person's command, while no worker of the agent runs: folded again, or begun from nothing.

Neither publishes anything: what was published stands. The new state is written as the root of an epoch, at the offset
up to which the old one had taken its input, so that workers go on behind it and every later policy names it as its
parent. Version numbers go on above the newest on the ledger, because whoever holds a policy takes only newer ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from msgspec import structs

from agents.contract import Agent
from schemas.catalogue import AGENTS
from schemas.codec import Codec
from schemas.events import PartitionHead
from schemas.refused import Refused
from streams.blobs import TOPIC as BLOBS
from streams.blobs import Blobs
from streams.commits import members
from streams.fitting import fit
from streams.fold import Damaged, OtherFormat, PartitionFold
from streams.held import Held, seal, wiped
from streams.identity import identity_of
from streams.keeping import digest_of
from streams.log import LogReader, NoBroker, ask
from streams.policies.ledger import LEDGER, newest, read_ledger
from streams.records import Headers, Incoming
from streams.rising import fences, highest_ids, passed_over
from streams.settings import Settings
from streams.starting import stored
from streams.transport.logs import LIBRDKAFKA

ACK_S = 60.0
ANSWER_S = 10.0
UNACKNOWLEDGED = 10_000


class CannotRebuild(Exception):
    """Why nothing is written.

    Attributes:
        code: EXPIRED, LOST, OTHER_INPUT or IDS_TAKEN.
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


@dataclass
class Rebuilt:
    """The new state of one partition.

    Attributes:
        records: input records that were folded for it.
        same: whether the stored state was whole and is what came out; None for a reset.
        changed: scopes whose state is another one than the stored.
        damage: what was wrong with the stored state, in words.
        keys: keys of the changelog partition, to be deleted first.
        fitted: what the state said of another log than the one that is there, in words.
        anew: source partitions that are other topics' now, or of which copies are passed over; with the source offset
            from which on they have to be copied.
        fences: how many have to be written into the inbox first; see `streams.rising`.
    """

    partition: int
    offset: int
    records: int
    fold: PartitionFold
    same: bool | None
    changed: list[str]
    damage: list[str] = field(default_factory=list)
    keys: tuple[bytes, ...] = ()
    fitted: list[str] = field(default_factory=list)
    anew: dict[tuple[str, int], int] = field(default_factory=dict)
    fences: int = 0


def running(settings: Settings, agent: str) -> int:
    """Members of the agent's consumer group.

    Raises:
        NoBroker: no answer.
    """
    group = settings.group(agent)
    admin = AdminClient(dict(settings.client()), logger=LIBRDKAFKA)  # its answers die with it
    return int(ask(lambda: members(admin, [group], ANSWER_S), settings.broker)[group])


def rebuilt(log: LogReader, codec: Codec, agent: Agent[Any], *, reset: bool, only: str | None = None,
            ids: Mapping[str, str] | None = None) -> Iterator[Rebuilt]:
    """Make the state of every partition that has some anew, in memory.

    Args:
        log: holds input, changelog and ledger.
        agent: as the worker runs it.
        reset: begin from nothing, and not from the input.
        only: with `reset`, the one scope to begin anew; None: all.
        ids: with a reset of all, the topics that are there (`fitting.topic_ids`): it goes on with these.

    Raises:
        CannotRebuild: EXPIRED: the input is not there from its beginning; LOST: there is no offset to go on from;
            OTHER_INPUT: the state was folded from another topic; IDS_TAKEN: readers would drop what comes out.
    """
    io = AGENTS[agent.name]
    taken: dict[int, int] | None = None
    versions = _versions(log, codec, agent.name)
    for partition in log.partitions(io.changelog):
        held, blobs = stored(log, codec, agent, partition)
        if not held.keys and not held.refused:
            continue
        head = max((h for h in held.heads.values()), key=lambda h: h.input_offset, default=None)
        if head is None:
            raise CannotRebuild("LOST", f"{io.changelog}-{partition} has no head that can be read, so nobody knows up "
                                        f"to where {io.input_topic}-{partition} was folded: delete the topic "
                                        f"{io.changelog} and run `quantum topics apply`; workers fold all again, and "
                                        f"publish it again under the same ids")
        fold = PartitionFold(agent, partition, codec, identity_of(agent))
        if not reset or only is not None:
            _check_input(fold, head)
        records = _begun_anew(fold, held, blobs, only) if reset else _folded(log, fold, partition, head.input_offset)
        sources = set(fold.fences)
        fitted = fit(log, fold, ids) if ids is not None else []
        anew = dict.fromkeys(sources - set(fold.fences), 0)
        filled = 0
        if reset and (fold.offset < head.input_offset or head.input_topic != io.input_topic):
            taken = highest_ids(log, io) if taken is None else taken
            filled = _risen(log, fold, taken.get(partition, -1), fitted, anew)
        _numbered(fold, versions)
        old = {s: row.state for s, row in held.newest().items()}
        new = {s: fold.state_bytes(e.state) for s, e in fold.scopes.items()}
        whole = not held.refused and digest_of(held.newest().values(), head.input_offset) == head.digest
        changed = sorted(s for s in {*old, *new} if old.get(s) != new.get(s))
        yield Rebuilt(partition, fold.offset, records, fold, None if reset else whole and not changed, changed,
                      list(held.refused.values()), tuple(sorted(held.keys)), fitted, anew, filled)


def _check_input(fold: PartitionFold, head: PartitionHead) -> None:
    if (head.input_topic, head.input_partition) == (fold.io.input_topic, fold.partition):
        return
    name = fold.agent.name
    raise CannotRebuild(
        "OTHER_INPUT", f"the state of {name} was folded from {head.input_topic}-{head.input_partition}, up to "
        f"@{head.input_offset}, and this version folds {fold.io.input_topic}-{fold.partition}: there is nothing to "
        f"fold it again from. Run the version that wrote it; or `quantum reset {name}`, of all scopes: it forgets what "
        f"was learned and goes on with what was not taken yet")


def _risen(log: LogReader, fold: PartitionFold, taken: int, said: list[str], anew: dict[tuple[str, int], int]) -> int:
    """Move a fold that begins at a lower offset than the old one above the ids on the log; fences needed for that."""
    topic, p, start = fold.io.input_topic, fold.partition, fold.offset + 1
    if start > taken:
        return 0
    if fold.io.direct:
        raise CannotRebuild(
            "IDS_TAKEN", f"{fold.agent.name} would begin at {topic}-{p}@{start}, and outputs with ids up to @{taken} "
            f"are on the log: readers would drop all that it publishes until it comes past them. Begin on a log of its "
            f"own: another --topic-prefix and --app-id")
    _, end = log.bounds(topic, p)
    for place, offset in passed_over(log, fold.io, p, start, taken).items():
        anew[place] = min(offset, anew.get(place, offset))
    fold.offset = taken
    count = max(0, taken + 1 - end)
    said.append(f"outputs with ids up to {topic}-{p}@{taken} are on the log: goes on above, so that readers take what "
                f"comes; {count} fences are put into {topic}-{p} for that")
    return count


def _folded(log: LogReader, fold: PartitionFold, partition: int, upto: int) -> int:
    topic = fold.io.input_topic
    low, end = log.bounds(topic, partition)
    if low > 0 or end <= upto:
        raise CannotRebuild("EXPIRED", f"{topic}-{partition} holds {low} to {end}, and the state holds it up to "
                                       f"{upto}: it cannot be folded again from its beginning; `quantum reset "
                                       f"{fold.agent.name}` begins from nothing")
    n = 0
    for r in log.read(topic, partitions=[partition]):
        if r.offset > upto:
            break
        fold.apply(Incoming(r.offset, r.key, r.value, r.headers))
        n += 1
    return n


def _begun_anew(fold: PartitionFold, held: Held[str], blobs: Blobs | None, only: str | None) -> int:
    """Nothing learned, at the place where the stored state is; other scopes than the one named stay as they are."""
    head = max(held.heads.values(), key=lambda h: h.input_offset)
    if only is None:
        scopes = list(held.newest())
        nothing = structs.replace(head, digest=f"{0:064x}")
        if (head.input_topic, head.input_partition) != (fold.io.input_topic, fold.partition):  # before any of the new
            nothing = structs.replace(nothing, input_topic=fold.io.input_topic, input_partition=fold.partition,
                                      input_topic_id=None, input_offset=-1)
        fold.restore((), nothing)
    else:
        scopes = [only] if only in held.newest() else []
        try:
            fold.restore(held.newest().values(), head, blobs)
        except (Damaged, OtherFormat, Refused) as exc:
            raise CannotRebuild("LOST", f"{exc}; so the other scopes cannot stay as they are") from exc
    for scope in scopes:
        fold.scopes[scope] = fold.born(scope, fold.offset + 1)
    return 0


def _numbered(fold: PartitionFold, versions: Mapping[str, int]) -> None:
    for scope, entry in fold.scopes.items():
        fold.scopes[scope] = entry._replace(state=fold.agent.numbered(entry.state, versions.get(scope, 0)),
                                            offset=min(entry.offset, fold.offset))


def _versions(log: LogReader, codec: Codec, agent: str) -> dict[str, int]:
    """Newest version of each policy of the agent on the ledger, by scope."""
    if LEDGER not in AGENTS[agent].writes:
        return {}
    found = (newest(versions).policy for versions in read_ledger(log.read(LEDGER), codec).versions.values())
    return {policy.scope: policy.version for policy in found if policy.agent == agent}


def write(settings: Settings, made: Rebuilt, why: str) -> None:
    """Put the new state in the place of the old one: tombstones of every key, then root, scopes and head.

    Where it is cut short, no head is left, and a worker folds the whole input again.

    Raises:
        NoBroker: it was not acknowledged.
    """
    fold, changelog = made.fold, settings.topic(made.fold.io.changelog)
    fold.begin_epoch(why[:512])
    flush = fold.flush()
    inbox = settings.topic(fold.io.input_topic)
    _send(settings, made, ((inbox, None, None, headers) for headers in fences(fold.io, made.fences, why[:512])))
    _send(settings, made, [
        *((settings.topic(BLOBS), k, v, ()) for k, v in flush.blobs),
        *((changelog, k, None, wiped(why)) for k in made.keys),
        *((changelog, k, v, seal(v)) for k, v in flush.rows),
    ])


def _send(settings: Settings, made: Rebuilt, rows: Iterable[tuple[str, bytes | None, bytes | None, Headers]]) -> None:
    problems: list[str] = []
    producer = Producer({**settings.producer(), "enable.gapless.guarantee": "true"}, logger=LIBRDKAFKA)

    def told(error: Any, _: Any) -> None:
        if error is not None:
            problems.append(error.str())

    for topic, key, value, headers in rows:
        while len(producer) >= UNACKNOWLEDGED:
            producer.poll(0.1)
        producer.produce(topic, value, key, made.partition, headers=list(headers), on_delivery=told)
        producer.poll(0)
    if producer.flush(ACK_S) or problems:
        raise NoBroker(f"the broker {settings.broker} did not acknowledge the state of {made.fold.agent.name}-"
                       f"{made.partition}: {', '.join(sorted(set(problems))) or 'no answer'}; run the command again")

"""Open jobs of a fold, and the records that results and failures are published as; shared by host, driver and rederive.

The record of a result has the job id in its headers. Its `ce_id` is a function of the job, so that a result that is
published twice, by a worker that was cut off and by its successor, is the same record twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

from agents.contract import Agent, Job, Output, Refused, State
from schemas import catalogue
from schemas.catalogue import AGENTS, GLOBAL, TOPICS
from schemas.codec import Codec
from streams.records import Outgoing, encode_event

if TYPE_CHECKING:
    from streams.fold import PartitionFold

JOB_ID = "job_id"
JOB_SEED = "job_seed"
JOB_DURATION = "job_duration_ms"
JOB_WORKER = "job_worker"
MAX_ID = 256
MAX_REASON = 512
OVERHEAD_BYTES = 4 * 1024  # of a record's key and headers, which count towards the topic's limit


class Asked(NamedTuple):
    """A job, and the scope whose state has it open."""

    scope: str
    job: Job


def has_jobs(agent: Agent[Any]) -> bool:
    """Whether an agent ever opens jobs."""
    return type(agent).jobs is not Agent.jobs


class OpenJobs:
    """The open jobs of a fold's scopes; an agent is asked again only for states that are other ones.

    Args:
        fold: the fold.
    """

    def __init__(self, fold: PartitionFold) -> None:
        self._fold = fold
        self._known: dict[str, tuple[State, tuple[Job, ...]]] = {}
        self._any = has_jobs(fold.agent)

    def look(self) -> dict[str, Asked]:
        """The open jobs as the fold stands, by their id.

        Raises:
            ValueError: an id is none, or two scopes have one in common.
        """
        if not self._any:
            return {}
        found: dict[str, Asked] = {}
        for scope, entry in self._fold.scopes.items():
            state, jobs = self._known.get(scope, (None, ()))
            if state is not entry.state:
                jobs = self._fold.agent.jobs(entry.state)
                self._known[scope] = entry.state, jobs
            for job in jobs:
                if not 0 < len(job.job_id) <= MAX_ID or not (job.job_id.isascii() and job.job_id.isprintable()):
                    raise ValueError(f"{self._fold.agent.name}/{scope}: {job.job_id[:MAX_ID]!r} is no job id: 1 to "
                                     f"{MAX_ID} characters of printable ASCII")
                if job.job_id in found:
                    raise ValueError(f"{self._fold.agent.name}: {job.job_id} is open in {found[job.job_id].scope} and "
                                     f"in {scope}; an id belongs to one scope")
                found[job.job_id] = Asked(scope, job)
        return found


def encoded(codec: Codec, agent: Agent[Any], job: Job, output: Output) -> Outgoing:
    """A result as a record.

    Raises:
        Refused: the event does not fit its schema.
    """
    return encode_event(codec, output.topic, output.event, f"{agent.name}:job:{job.job_id}",
                        str(getattr(output.event, "source", agent.name)))


def failure(codec: Codec, agent: Agent[Any], asked: Asked, why: str, ts_ms: int) -> Outgoing:
    """What an agent has to say of a job that failed, as a record that may be published.

    Raises:
        Refused: it does not fit its schema, or would not come back to the scope.
    """
    output = agent.failed(asked.job, why, ts_ms)
    value = codec.encode(output.topic, output.event)
    ce_id = f"{agent.name}:failed:{asked.job.job_id}:{sha256(value).hexdigest()[:12]}"
    record = encode_event(codec, output.topic, output.event, ce_id, str(getattr(output.event, "source", agent.name)))
    return returning(agent, asked, record)


def returning(agent: Agent[Any], asked: Asked, record: Outgoing) -> Outgoing:
    """A record that comes back to the scope that asked, with the job id in its headers.

    Raises:
        Refused: JOB_MISROUTED: its topic is none that the agent writes and reads, or its key is another scope's;
            JOB_TOO_LARGE: the topic takes no record of that size.
    """
    io, name = AGENTS[agent.name], asked.job.job_id
    if record.topic not in io.writes or record.topic not in io.reads:
        raise Refused("JOB_MISROUTED", f"{name}: {agent.name} does not both write and read {record.topic}")
    scope = catalogue.scope_of(record.topic, (record.key or b"").decode())
    if io.reads[record.topic] == "by_scope" and scope not in (asked.scope, GLOBAL):
        raise Refused("JOB_MISROUTED", f"{name}: the key {scope!r} on {record.topic} leads to another scope than "
                                       f"{asked.scope}")
    size, limit = len(record.value or b""), TOPICS[record.topic].max_bytes - OVERHEAD_BYTES
    if size > limit:
        raise Refused("JOB_TOO_LARGE", f"{name}: {size} bytes, {record.topic} takes {limit}")
    return record._replace(headers=(*record.headers, (JOB_ID, name.encode())))


def with_headers(record: Outgoing, more: Mapping[str, str]) -> Outgoing:
    """A record with further headers, for people."""
    return record._replace(headers=record.headers + tuple((k, v.encode()) for k, v in more.items()))


def reason(exc: BaseException) -> str:
    """An exception in words that fit a schema's string."""
    return f"{type(exc).__name__}: {exc}"[:MAX_REASON]

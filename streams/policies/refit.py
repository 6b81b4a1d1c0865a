"""Jobs performed again: a policy that came of a fit rests on a result in the log, and the result on its request.

Folding the input again takes results from the log, so it cannot tell a right one from a wrong one. Here each job that a
record of the version's range closes is performed again, in a trainer process as it was then, and held against that
record's bytes. A failure that a host told of has nothing to be held against: it is counted, never taken for a fit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from agents.contract import Agent
from schemas.catalogue import AGENTS
from schemas.codec import Codec
from streams.fold import PartitionFold
from streams.log import Record
from streams.policies.ledger import Version
from streams.records import CE_ID, SOURCE_TOPIC, header
from streams.trainers.jobs import Asked, OpenJobs, has_jobs
from streams.trainers.process import TrainerFailed, order_of, performed


@dataclass(frozen=True)
class Refit:
    """A job that a record closed.

    Attributes:
        place: of the record in the agent's input.
        log: SHA-256 of its value, hex; of Confluent framing as in single-object encoding.
        made: of the result as it came out here, hex; None where the job raised, and for a failure.
        why: what differs, in words; None where nothing does.
    """

    job_id: str
    place: str
    log: str
    made: str | None
    why: str | None = None

    @property
    def failure(self) -> bool:
        """Whether it is a failure that a host told of."""
        return self.made is None and self.why is None


class Refits:
    """Performs the jobs again that versions rest on; each once, however often the input is passed.

    Args:
        agent: the agent.
        versions: versions asked for, of one partition of input.
        codec: Avro codec.
    """

    def __init__(self, agent: Agent[Any], versions: Iterable[Version], codec: Codec) -> None:
        self._agent, self._codec = agent, codec
        io = AGENTS[agent.name]
        self._results = set(io.reads) & set(io.writes) if has_jobs(agent) else set()
        self._versions = tuple(versions)
        self._found: dict[str, Refit] = {}
        self.of: dict[str, dict[str, Refit]] = {}
        """By place of the version on the ledger, then by place of the record."""

    def before(self, fold: PartitionFold, record: Record) -> Mapping[str, Asked]:
        """The open jobs of a fold, if the record, which it takes next, may close one for a version asked for."""
        if header(record.headers, SOURCE_TOPIC) not in self._results or not self._resting(record):
            return {}
        return OpenJobs(fold).look()

    def behind(self, before: Mapping[str, Asked], fold: PartitionFold, record: Record) -> None:
        """Perform again what the record has closed."""
        still = OpenJobs(fold).look() if before else {}
        for asked in (a for job_id, a in before.items() if job_id not in still):
            for v in self._resting(record):
                if v.policy.scope == asked.scope:
                    self.of.setdefault(v.record.place, {})[record.place] = self._refit(asked, record)

    def _resting(self, record: Record) -> list[Version]:
        return [v for v in self._versions if v.policy.provenance is not None
                and v.policy.provenance.from_offset <= record.offset <= v.at]

    def _refit(self, asked: Asked, record: Record) -> Refit:
        if record.place not in self._found:
            self._found[record.place] = self._again(asked, record)
        return self._found[record.place]

    def _again(self, asked: Asked, record: Record) -> Refit:
        agent, job_id = self._agent, asked.job.job_id
        log = sha256(self._codec.canonical(record.value) or b"").hexdigest()
        if (header(record.headers, CE_ID) or "").startswith(f"{agent.name}:failed:{job_id}:"):
            return Refit(job_id, record.place, log, None)
        try:
            made = asyncio.run(performed(order_of(agent, asked.job), None))
        except TrainerFailed as failed:
            return Refit(job_id, record.place, log, None, f"performed again, {job_id} fails: {failed}")
        topic, value = header(record.headers, SOURCE_TOPIC), sha256(made.value).hexdigest()
        same = (topic, log) == (made.topic, value)
        return Refit(job_id, record.place, log, value,
                     None if same else f"performed again, {job_id} has another result than {record.place}")

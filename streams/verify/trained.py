"""LEARNS of an agent that learns by training runs: their results on the log, made again from what they rest on.

Folding the input again takes the results from the log, so it cannot tell a right one from a wrong one. Here drawn runs
are performed once more and held against the log bit for bit; and once more on bars with other prices, where the code
must come to other weights: it could have been declared that prices are not looked at.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from agents.contract import Agent, Config, Job
from schemas.catalogue import AgentIO
from schemas.events import TrainingCompleted
from streams.log import Record
from streams.trainers.process import ONE_THREAD, TrainerFailed, order_of, performed
from streams.verify.cells import Cell, State, cell
from streams.verify.commanded import Update
from streams.verify.evidence import Evidence
from streams.verify.refold import Refolded

COMPLETED = "rl_v3.training.completed"
FITS = 5
"""Training runs performed again, at most, each twice; at the agent's defaults one takes about a second."""
NOTHING_TO_TRAIN = frozenset({"no_new_data", "synthetic", "disabled", "frozen", "retired"})
"""Why slots were skipped, where nobody can expect a run."""
REMEMBERED = 64
"""Results kept: a log that is judged again, as the planted cheats are, asks for the same runs."""
PRICES = slice(1, 5)
"""Columns of a bar in a run's request: opening time, then open, high, low, close."""


_done: dict[tuple[type[Agent[Any]], Config, Job], bytes] = {}


def trains(agent: Agent[Any]) -> bool:
    """Whether an agent learns by jobs."""
    return type(agent).jobs is not Agent.jobs


def verdict(evidence: Evidence, io: AgentIO, updates: list[Update], drawn: list[Update], done: dict[int, Refolded],
            last: Record | None, elsewhere: bool, figures: Mapping[str, int]) -> Cell:
    """The cell LEARNS, where every version follows from the input.

    Args:
        drawn: versions whose runs are performed again.
        done: partitions folded again.
        elsewhere: whether the versions were made on another platform than this one.
    """
    now_ms, slots = evidence.now_ms, _slots(evidence)
    state: State
    runs = sum(n for how, n in slots.items() if how == "SUCCEEDED")
    counts: dict[str, float] = {**figures, "runs": runs, **{f"slots:{how}": n for how, n in sorted(slots.items())}}
    claims = next((u for u in updates if u.policy.edge_claim is not None), None)
    if claims is not None:
        return cell("FAIL", f"{claims.policy.policy_id} version {claims.policy.version} claims an edge, and no outcome "
                            f"was learned from", claims.record, now_ms, **counts)
    if not updates:
        state, why = _untrained(slots)
        return cell(state, why, last, now_ms, **counts)
    for u in drawn:
        wrong = _wrong(evidence, u, done)
        if wrong is not None:
            state = "NOT PROVEN" if elsewhere and not wrong[1] else "FAIL"
            more = " (made on another platform)" if state == "NOT PROVEN" else ""
            return cell(state, f"{u.policy.policy_id} version {u.policy.version}: {wrong[0]}{more}", u.record, now_ms,
                        **counts)
    made = f"{sum(len(d.policies) for d in done.values())} versions made again byte for byte"
    if not drawn:
        return cell("NOT PROVEN", f"{made}, but none of {runs} runs was performed again; {_told(slots)}", last, now_ms,
                    **counts)
    return cell("PASS", f"{made}; {len(drawn)} of {runs} training runs performed again bit for bit, and with other "
                        f"prices each comes to other weights; {_told(slots)}",
                max((u.record for u in drawn), key=lambda r: r.timestamp_ms or 0), now_ms, **counts)


def _slots(evidence: Evidence) -> Counter[str]:
    """How slots ended: SUCCEEDED, FAILED (an attempt), or why there was no run."""
    found: Counter[str] = Counter()
    for _, e in evidence.events(COMPLETED):
        if isinstance(e, TrainingCompleted):
            found[e.skipped or e.status] += e.slots
    return found


def _told(slots: Counter[str]) -> str:
    return "slots: " + (", ".join(f"{how} {n}" for how, n in sorted(slots.items())) or "none has ended")


def _untrained(slots: Counter[str]) -> tuple[State, str]:
    """State and sentence where there is no version."""
    if slots and set(slots) <= NOTHING_TO_TRAIN:
        return "IDLE", f"nothing was to be trained; {_told(slots)}"
    return "NOT PROVEN", f"no training run has succeeded yet; {_told(slots)}"


def _wrong(evidence: Evidence, u: Update, done: dict[int, Refolded]) -> tuple[str, bool] | None:
    """What of the run behind a version is not as its code makes it, and whether that is so on every platform."""
    p = u.policy.provenance
    assert p is not None
    before = done[p.input_partition].before.get(p.to_offset) if p.input_partition in done else None
    result = None if before is None else evidence.decoded(before.record)
    if before is None or before.entry is None or not isinstance(result, TrainingCompleted):
        return "its provenance names no result of a training run", True
    agent = evidence.roster[u.policy.agent]
    job = next((j for j in agent.jobs(before.entry.state) if j.job_id == result.job_id), None)
    if job is None:
        return f"no such run was open as {before.record.place} came", True
    try:
        same = _perform(evidence, agent, job)
        other = evidence.codec.decode(COMPLETED, _perform(evidence, agent, _with_other_prices(job, result)))
    except TrainerFailed as failed:
        return f"performed again, {job.job_id} fails: {failed}", False
    if same != evidence.codec.canonical(before.record.value):
        return f"performed again, {job.job_id} has another result than {before.record.place}", False
    if isinstance(other, TrainingCompleted) and other.learner == result.learner:
        return f"with other prices {job.job_id} comes to the very same weights", True
    return None


def _with_other_prices(job: Job, result: TrainingCompleted) -> Job:
    """The run on the same features, with every price mirrored at the first close: what rose falls."""
    asked = msgspec.msgpack.decode(job.request)
    rows_TR = np.frombuffer(asked["fit"]["rows"], "<f8").reshape(result.rows or 1, -1).copy()
    open_, high, low, close = (rows_TR[0, 4] ** 2 / rows_TR[:, PRICES]).T
    rows_TR[:, PRICES] = np.column_stack((open_, low, high, close))
    fit = asked["fit"] | {"rows": rows_TR.tobytes()}
    return job._replace(request=msgspec.msgpack.encode(asked | {"fit": fit}))


def _perform(evidence: Evidence, agent: Agent[Any], job: Job) -> bytes:
    """A job's result as it would stand on the log; what this process has performed before is not performed again.

    Raises:
        TrainerFailed: it raised.
    """
    key = type(agent), agent.config, job
    if key not in _done:
        if len(_done) >= REMEMBERED:
            del _done[next(iter(_done))]
        _done[key] = _performed(evidence, agent, job)
    return _done[key]


def _performed(evidence: Evidence, agent: Agent[Any], job: Job) -> bytes:
    """Here, if this process has one thread as a trainer has, else in a trainer process."""
    if all(os.environ.get(name) == "1" for name in ONE_THREAD[:2]):
        try:
            topic, event = agent.perform(job)
            return evidence.codec.encode(topic, event)
        except Exception as exc:
            raise TrainerFailed(f"{type(exc).__name__}: {exc}") from exc
    return asyncio.run(performed(order_of(agent, job), agent.fit_timeout_s)).value

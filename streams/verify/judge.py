"""All cells of all agents."""

from __future__ import annotations

import gc
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from random import Random
from typing import Any

from agents.contract import Agent
from schemas.catalogue import AGENTS, AgentIO
from schemas.codec import Codec
from streams.identity import Identity
from streams.unresolved import TOPIC as ALERTS
from streams.unresolved import unresolved
from streams.verify import shown
from streams.verify.applied import applied
from streams.verify.cells import KINDS, Cell, Kind, Report, Row, cell
from streams.verify.claims import with_claims
from streams.verify.controls import judge_controls
from streams.verify.copied import Sources, received
from streams.verify.durable import BUDGET, persists
from streams.verify.evidence import Evidence, Since
from streams.verify.flow import FRESH_S, PATIENCE_S, flow
from streams.verify.learning import LEDGER, learns
from streams.verify.limits import BY_RULE, obeyed
from streams.verify.origin import Origins
from streams.verify.refold import Refolded
from streams.verify.traded import traded
from streams.verify.trained import FITS, trains
from streams.verify.view import Log

SAMPLE = 20


def verify(log: Log, roster: Mapping[str, Agent[Any]], *, sample: int = SAMPLE, sample_seed: int = 0,
           since: Since | None = None, patience_s: float = PATIENCE_S, fresh_s: float = FRESH_S, budget: int = BUDGET,
           codec: Codec | None = None, identities: Mapping[str, Identity] | None = None,
           only: Collection[str] | None = None, controls: bool = True, fits: int = FITS) -> Report:
    """Judge every agent of the catalogue by the log.

    Args:
        log: what is judged.
        roster: agents as the worker runs them, by name, with seed and configuration.
        sample: policy updates asked again with other rewards.
        sample_seed: draws them. A cheat must not know it beforehand.
        since: where evidence may begin.
        patience_s: how long input may wait, with nothing written meanwhile.
        fresh_s: input older than that is no input.
        budget: input records folded again for each agent's PERSISTS, and copies held against their sources.
        codec: Avro codec.
        identities: what the agents stamp on policies; None: what the roster's would.
        only: agents to judge; None: all. The others are read all the same where these rest on them.
        controls: whether to judge the controls whose key is on the log.
        fits: training runs performed again, at most.

    Raises:
        NoBroker: the log cannot be reached.
    """
    with uncollected():
        return _judge(Evidence(log, roster, codec or Codec(), since, identities), roster, sample, sample_seed, since,
                      patience_s, fresh_s, budget, only, controls, fits)


@contextmanager
def uncollected() -> Iterator[None]:
    """Without looking for garbage in circles: there is none, and every look goes through all records that are held."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _judge(evidence: Evidence, roster: Mapping[str, Agent[Any]], sample: int, sample_seed: int, since: Since | None,
           patience_s: float, fresh_s: float, budget: int, only: Collection[str] | None, controls: bool,
           fits: int) -> Report:
    origins, sources = Origins(evidence, sample_seed), Sources(evidence)
    random = Random(sample_seed)
    rows = []
    for io in AGENTS.values():
        if only is not None and io.name not in only:
            continue
        if not io.built:
            nothing = cell("NOT BUILT", "it stands in the catalogue, but has no code yet")
            rows.append(Row(io.name, dict.fromkeys(KINDS, nothing)))
        elif io.name not in roster:
            nothing = cell("FAIL", "the catalogue says that it runs, but it is not in the roster")
            rows.append(Row(io.name, dict.fromkeys(KINDS, nothing)))
        else:
            rows.append(Row(io.name, _cells(evidence, io, origins, sources, sample, random, sample_seed, patience_s,
                                            fresh_s, budget, fits)))
    return Report(evidence.now_ms, sample, sample_seed, None if since is None else since.text, tuple(rows),
                  judge_controls(evidence) if controls else (),
                  tuple(unresolved(evidence.codec, evidence.records(ALERTS))))


def _cells(evidence: Evidence, io: AgentIO, origins: Origins, sources: Sources, sample: int, random: Random,
           sample_seed: int, patience_s: float, fresh_s: float, budget: int, fits: int) -> dict[Kind, Cell]:
    again: dict[tuple[str, int], Refolded] = {}
    showing = Random(f"{sample_seed}/{io.name}")
    runs, offsets = flow(evidence, io, origins, patience_s=patience_s, fresh_s=fresh_s)
    receives = received(evidence, io, sources, offsets, showing, budget)
    if io.name in BY_RULE:
        learned = learns(evidence, io, 0, random, again)
        used = obeyed(evidence, io.name, showing)
    elif trains(evidence.roster[io.name]):
        learned = learns(evidence, io, fits, random, again)
        used = traded(evidence, io.name, showing)
    elif LEDGER in io.writes:
        learned = with_claims(evidence, io, learns(evidence, io, sample, random, again))
        used = shown.acknowledged(evidence, io.name, applied(evidence, io.name), showing)
    else:
        learned = cell("NOT APPLICABLE", f"{io.name} computes from its input; it estimates nothing from outcomes and "
                                         f"writes no policy")
        used = cell("NOT APPLICABLE", f"{io.name} writes no policy that anyone could apply")
    held = shown.stored(evidence, io, persists(evidence, io, random, again, budget=budget), showing)
    return {"RUNS": runs, "RECEIVES": receives, "LEARNS": learned, "PERSISTS": held, "APPLIED": used,
            "ORIGIN": origins.judge(io)}

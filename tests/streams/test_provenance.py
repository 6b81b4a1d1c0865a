"""What rule 4 asks of every policy record, held against a run of the driver."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import Any

import pytest
from msgspec.structs import replace

from schemas.catalogue import AGENTS
from schemas.events import Event, PolicyRecord, Provenance
from streams.identity import feature_schema_hash, platform_name
from streams.verify.planted.stage import CODEC, Stage, at, identities, stage

SYMBOLS = ("ALPHA", "BETA")


@pytest.fixture(scope="module", params=[1, 3])
def run(request: pytest.FixtureRequest) -> Stage:
    return stage(bars=500, symbols=SYMBOLS, partitions=request.param)


def policies(run: Stage) -> dict[str, list[PolicyRecord]]:
    found: dict[str, list[PolicyRecord]] = defaultdict(list)
    for rows in run.log.records["policy.ledger"].values():
        for r in rows:
            event = CODEC.decode("policy.ledger", r.value)
            assert isinstance(event, PolicyRecord)
            found[event.policy_id].append(event)
    return found


def stamped(policy: PolicyRecord) -> Provenance:
    assert policy.provenance is not None
    return policy.provenance


def test_every_field_is_filled_and_true(run: Stage) -> None:
    found, known = policies(run), identities()
    learners = ("q_learning", "meta_strategy", "ppo_trader")
    assert set(found) == {*(f"{a}/{s}" for s in SYMBOLS for a in learners), "risk_controller/global"}
    for p in (p for versions in found.values() for p in versions):
        s, ours = stamped(p), known[p.agent]
        assert (s.code_hash, s.config_hash, s.platform) == (ours.code_hash, ours.config_hash, platform_name())
        assert s.feature_schema_hash == feature_schema_hash()
        assert s.seed == run.roster[p.agent].config.seed
        assert s.input_topic == AGENTS[p.agent].input_topic
        assert p.origin == "SYNTHETIC"
        assert all(len(h) == 64 for h in (s.state_hash, s.code_hash, s.config_hash))
    features = next(r.value for rows in run.log.records["market.features"].values() for r in rows)
    assert features is not None
    assert feature_schema_hash() == features[2:10].hex(), "as the records of market.features carry it"


def test_versions_are_a_chain_without_gap(run: Stage) -> None:
    """The parent is null at genesis alone; each range begins behind the parent's; each parent is the state before."""
    for versions in policies(run).values():
        assert len(versions) > (10 if versions[0].agent in ("q_learning", "risk_controller") else 2)  # rounds, runs
        assert [p.version for p in versions] == list(range(1, len(versions) + 1))
        first = stamped(versions[0])
        assert (first.parent_hash, first.from_offset) == (None, 0)
        for parent, child in pairwise(stamped(p) for p in versions):
            assert child.parent_hash == parent.state_hash
            assert (child.input_partition, child.from_offset) == (parent.input_partition, parent.to_offset + 1)
            assert child.from_offset <= child.to_offset


def test_the_range_ends_at_the_record_that_the_output_id_names(run: Stage) -> None:
    for rows in run.log.records["policy.ledger"].values():
        for r in rows:
            event = CODEC.decode("policy.ledger", r.value)
            assert isinstance(event, PolicyRecord)
            s = stamped(event)
            assert dict(r.headers)["ce_id"].decode().startswith(f"{event.agent}:{s.input_partition}-{s.to_offset}:")


@pytest.mark.parametrize("changes", [
    {"parent_hash": None}, {"parent_hash": "0" * 64}, {"state_hash": "0" * 64}, {"from_offset": 0}, {"seed": 9},
    {"feature_schema_hash": "0" * 16}], ids=lambda c: "-".join(f"{k}={v}"[:24] for k, v in c.items()))
def test_verify_fails_a_provenance_that_is_not_true(changes: dict[str, Any]) -> None:
    """On one version in the middle of a run."""
    def tamper(topic: str, event: Event) -> Event:
        if isinstance(event, PolicyRecord) and event.provenance is not None and event.version == 8:
            return replace(event, provenance=replace(event.provenance, **changes))
        return event

    cell = at(stage(tamper=tamper).judge(), "q_learning", "LEARNS")
    assert cell.state == "FAIL", cell

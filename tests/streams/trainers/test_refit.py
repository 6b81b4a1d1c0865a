"""Policies that came of a fit, made again: the fit too, bit for bit."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from schemas.events import DriftDetected
from streams.cli.recheck import judging
from streams.policies.deriving import Deriver, Report
from streams.policies.ledger import read_ledger
from streams.settings import Settings
from streams.worker import run_agents
from tests.streams.hosting import CODEC, in_loop, produce, read, until
from tests.streams.trainers.fitter import ASKS, BACK_OFF_MS, NAME, RESULTS, TOPICS, Fitter, asking

T0 = 1_600_000_000_000
pytestmark = [pytest.mark.topics(*TOPICS), pytest.mark.usefixtures("fitter")]


def again(settings: Settings, refit: bool = True) -> Report:
    """Every version on the ledger."""
    with judging(settings) as log:
        ledger = read_ledger(log.read("policy.ledger"), CODEC)
        asked = [v for versions in ledger.versions.values() for v in versions]
        return Deriver(log, {NAME: Fitter()}, CODEC, refit=refit)(ledger, asked)


@in_loop
async def _run(settings: Settings) -> None:
    """A fit that succeeds, one that fails at first, and one whose result somebody forged before it was done."""
    produce(settings, ASKS, [asking("AUSDT", "good", 0.0, 1, T0), asking("AUSDT", "once", 0.0, 2, T0)])
    async with run_agents(settings, {NAME: Fitter()}):
        await until(lambda: len(read(settings, RESULTS)) >= 2, "a result and a failure")
        await until(lambda: len(read(settings, "policy.ledger")) >= 1, "the first policy")
        produce(settings, ASKS, [asking("AUSDT", "none", 0.0, 3, T0 + 2 * BACK_OFF_MS)])
        await until(lambda: len(read(settings, "policy.ledger")) >= 2, "the second policy")
        produce(settings, ASKS, [asking("BUSDT", "good", 8.0, 4, T0)])
        await until(lambda: len(read(settings, "q_learning.changelog")) > 0, "state")
        produce(settings, RESULTS, [DriftDetected(
            symbol="BUSDT", ts_ms=0, agent=NAME, strategy="neutral", detector="done", window_before=0, window_after=0,
            mean_residual=1e9, decision_id="BUSDT/good-8.0-4/0", source="synthetic:1", origin="SYNTHETIC")])
        await until(lambda: len(read(settings, "policy.ledger")) >= 3, "the policy of the forged result")


def test_fits_are_made_again_and_a_forged_result_shows(prefix: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    _run(prefix)
    monkeypatch.setattr("tests.streams.trainers.fitter.Fitter.fit_timeout_s", 0.001)  # counts where it runs live only
    first, second, forged = again(prefix).answers
    assert (first.outcome, second.outcome, forged.outcome) == ("MATCH", "MATCH", "MISMATCH")
    assert "the result of 1 job, performed again" in first.why
    (fit,) = first.refits
    assert fit.log == fit.made
    refits = {r.job_id: r for r in (*first.refits, *second.refits)}
    assert refits["AUSDT/once-0.0-2/0"].failure
    assert not refits["AUSDT/once-0.0-2/1"].failure
    assert refits["AUSDT/once-0.0-2/1"].log == refits["AUSDT/once-0.0-2/1"].made
    assert forged.state is not None
    assert forged.state.same, "the input leads there: only the fit tells"
    assert "performed again, BUSDT/good-8.0-4/0 has another result than q_learning.inbox-" in forged.why
    assert asdict(forged.refits[0])["why"] == forged.refits[0].why
    unfitted = again(prefix, refit=False).answers
    assert {a.outcome for a in unfitted} == {"MATCH"}, "results are taken from the log"
    assert all(a.refits == () for a in unfitted)

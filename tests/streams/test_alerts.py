"""Health alerts: written once, delivered, ended by their own component alone, shown by status and verify."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from schemas.codec import Codec
from schemas.events import HealthAlert
from streams.alerts import Alerts, shortened
from streams.cli import status, verify
from streams.log import LogReader, Record
from streams.settings import Settings
from streams.unresolved import TOPIC, unresolved
from streams.verify.cells import Report, cell, exit_code
from tests.streams.log_fixtures import flags

CODEC = Codec()


def record(offset: int, component: str, health: str, reason: str = "why") -> Record:
    alert = HealthAlert(component=component, ts_ms=offset, status=health, reason=reason, writer="host:x")  # type: ignore[arg-type]
    return Record(TOPIC, 0, offset, component.encode(), CODEC.encode(TOPIC, alert), (), offset)


def test_an_alert_stands_until_its_own_component_is_healthy() -> None:
    log = [record(0, "a-0", "CRITICAL"), record(1, "a-1", "DEGRADED"), record(2, "b", "HEALTHY"),
           record(3, "a-0", "DEGRADED"), record(4, "a-1", "HEALTHY"),
           Record(TOPIC, 0, 5, b"a-0", b"not avro", (), 5)]
    (found,) = unresolved(CODEC, log)
    assert found.text == f"a-0 DEGRADED: why  [{TOPIC}-0@3]"
    assert unresolved(CODEC, [*log, record(6, "a-0", "HEALTHY")]) == []


def test_one_that_stands_is_never_a_0_and_never_a_pass() -> None:
    (found,) = unresolved(CODEC, [record(0, "a", "DEGRADED")])
    assert exit_code([]) == 0
    assert Report(0, 0, 0, None, (), (), (found,)).exit_code == 3
    assert Report(0, 0, 0, None, ()).exit_code == 0
    assert cell("PASS", "it is").state == "PASS"


def test_a_reason_keeps_the_place_and_what_to_do() -> None:
    text = shortened("market.candles-0@7 " + "x" * 600 + " `quantum topics apply`")
    assert len(text) <= 512
    assert text.startswith("market.candles-0@7 ")
    assert text.endswith("`quantum topics apply`")


def on(settings: Settings) -> list[tuple[str, str, str]]:
    with LogReader(settings) as log:
        found = [CODEC.decode(TOPIC, r.value) for r in log.read(TOPIC)]
    return [(a.component, a.status, a.reason) for a in found if isinstance(a, HealthAlert)]


@pytest.mark.topics(TOPIC)
def test_written_once_and_delivered(prefix: Settings) -> None:
    said = Alerts(prefix, "features", now_ms=lambda: 1_000)
    said.healthy("features-0", "never said to be ill")
    assert not said.said
    for _ in range(3):
        said.degraded("features-0", "features.changelog-0@7 is no Avro")
    said.healthy("features-0", "repaired")
    said.healthy("features-0", "repaired")
    assert said.deliver(20)
    assert on(prefix) == [("features-0", "DEGRADED", "features.changelog-0@7 is no Avro"),
                          ("features-0", "HEALTHY", "repaired")]
    with LogReader(prefix) as log:
        first, second = log.read(TOPIC)
    assert first.key == second.key == b"features-0"
    ids = [dict(r.headers)["ce_id"].decode() for r in (first, second)]
    assert len(set(ids)) == 2
    assert all(i.startswith("alert:features-0:1000:") for i in ids)


@pytest.mark.topics(TOPIC)
def test_the_next_process_takes_back_what_is_over_and_nothing_else(prefix: Settings) -> None:
    died = Alerts(prefix, "features")
    died.critical("features", "gone")
    died.degraded("features-1", "broken")
    Alerts(prefix, "other").critical("decision", "not its business")
    assert died.deliver(20)
    following = Alerts(prefix, "features")
    assert following.recovered({"features", "features-0"}.__contains__, "goes on") == ["features"]
    assert following.recovered({"features", "features-0"}.__contains__, "goes on") in ([], ["features"])
    assert following.deliver(20)
    with LogReader(prefix) as log:
        standing = {found.alert.component for found in unresolved(CODEC, log.read(TOPIC))}
    assert "features-1" in standing
    assert "features" not in standing


@pytest.mark.topics
def test_without_the_topic_it_says_so_in_the_log(prefix: Settings, caplog: pytest.LogCaptureFixture) -> None:
    said = Alerts(prefix, "features")
    said.critical("features", "gone")
    said.deliver(20)
    assert "an alert" in caplog.text
    assert said.recovered(lambda _: True, "well") == []


def test_without_a_broker_it_waits_no_longer_than_it_may(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    said = Alerts(Settings(data_dir=tmp_path, broker="127.0.0.1:1"), "features")
    said.critical("features", "gone")
    assert not said.deliver(0.2)
    assert "not acknowledged" in caplog.text


@pytest.mark.topics
def test_status_and_verify_show_it(prefix: Settings) -> None:
    from streams import topics

    topics.apply(prefix, only=[TOPIC, "policy.ledger"])
    said = Alerts(prefix, "features")
    said.critical("features", "market.candles-0@7 is gone: quantum reset features")
    assert said.deliver(20)
    run = CliRunner().invoke
    shown = run(status.command, [*flags(prefix), "--no-verify", "-i", "0.1", "--json"], catch_exceptions=False)
    (alert,) = json.loads(shown.stdout)["alerts"]
    assert (alert["component"], alert["status"], alert["place"]) == ("features", "CRITICAL", f"{TOPIC}-0@0")
    text = " ".join(run(status.command, [*flags(prefix), "--no-verify", "-i", "0.1"]).stdout.split())
    assert "features CRITICAL: market.candles-0@7 is gone" in text
    judged = run(verify.command, [*flags(prefix), "--json"])
    assert json.loads(judged.stdout)["alerts"][0]["place"] == f"{TOPIC}-0@0"
    assert judged.exit_code != 0
    text = " ".join(run(verify.command, flags(prefix)).stdout.split())
    assert "health alert features CRITICAL: market.candles-0@7 is gone" in text

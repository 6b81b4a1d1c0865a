"""`quantum config show|set` over a broker, with an agent whose configuration can be changed while it runs."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Annotated, Any, ClassVar

import msgspec
import pytest

from agents.contract import Config, Refused
from agents.roster import ROSTER
from schemas import catalogue
from schemas.events import PolicyConfig, Tick
from streams.cli.exits import Exit
from streams.cli.main import main
from streams.settings import Settings
from tests.streams.counting import CountingFeatures
from tests.streams.hosting import produce, read
from tests.streams.log_fixtures import flags

TOPIC = "policy.config"
T0 = 1_600_000_000_000
pytestmark = [pytest.mark.topics(TOPIC, "system.clock"), pytest.mark.usefixtures("tunable")]


class Knobs(Config, frozen=True, kw_only=True):
    enabled: bool = True
    interval_ms: Annotated[int, msgspec.Meta(ge=60_000)] = 1_800_000
    mode: str = "OFF"
    depth: int = 3

    def __post_init__(self) -> None:
        if self.mode not in ("OFF", "SHADOW"):
            raise ValueError(f"mode {self.mode} is none of OFF, SHADOW")


class Tunable(CountingFeatures):
    config_type = Knobs
    live: ClassVar[frozenset[str]] = frozenset({"enabled", "interval_ms", "mode"})


@pytest.fixture
def tunable(monkeypatch: pytest.MonkeyPatch) -> None:
    agents: Any = catalogue.AGENTS
    reads = {**catalogue.AGENTS["features"].reads, TOPIC: "broadcast"}
    monkeypatch.setitem(agents, "features", replace(catalogue.AGENTS["features"], reads=reads))
    monkeypatch.setitem(ROSTER, "features", Tunable)


def quantum(settings: Settings, capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, dict[str, Any]]:
    code = main(["config", *args, "--json", *flags(settings)])
    out = capsys.readouterr()
    return code, json.loads(out.out) if out.out else {"error": out.err}


def now(told: dict[str, Any], name: str = "now") -> dict[str, Any]:
    return {row["name"]: row[name] for row in told["fields"]}


def why(*args: str) -> tuple[str, ...]:
    return (*args, "--reason", "a test", "--actor", "ann")


def test_changes_add_up_are_taken_back_and_shown(prefix: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    produce(prefix, "system.clock", [Tick(ts_ms=T0, writer="test")])
    started = {"seed": 0, "enabled": True, "interval_ms": 1_800_000, "mode": "OFF", "depth": 3}
    assert now(quantum(prefix, capsys, "show", "features")[1]) == started
    dry = quantum(prefix, capsys, *why("set", "features", "mode=SHADOW", "--dry-run"))[1]
    assert (dry["outcome"], dry["place"]) == ("planned", None)
    assert now(dry, "becomes") == started | {"mode": "SHADOW"}
    assert read(prefix, TOPIC) == []
    assert quantum(prefix, capsys, *why("set", "features", "mode=SHADOW", "enabled=false"))[0] == Exit.GOOD
    code, told = quantum(prefix, capsys, *why("set", "features", "interval_ms=60000", "--unset", "enabled"))
    assert (code, told["outcome"], told["place"]) == (Exit.GOOD, "written", f"{TOPIC}-0@1")
    shown = quantum(prefix, capsys, "show", "features")[1]
    assert now(shown) == started | {"mode": "SHADOW", "interval_ms": 60_000}
    assert shown["event"] | {"config_id": ""} == {
        "config_id": "", "ts_ms": T0 + 1, "actor": "ann", "reason": "a test", "place": f"{TOPIC}-0@1",
        "values": {"mode": "SHADOW", "interval_ms": 60_000}}, "event time, behind the one before"
    assert [r.key for r in read(prefix, TOPIC)] == [b"features"] * 2
    main(["config", "show", "features", *flags(prefix)])
    assert "by ann: a test" in capsys.readouterr().out


@pytest.mark.parametrize(("change", "says"), [
    ("interval_ms=1", "`int` >= 60000"), ("mode=LOUD", "none of OFF, SHADOW"), ("depth=4", "depth: not changed while"),
    ("speed=4", "speed: not changed while"), ("enabled=maybe", "Expected `bool`"), ("mode=OFF", "NO_CHANGE"),
])
def test_what_the_agent_would_refuse_is_not_written(
    prefix: Settings, capsys: pytest.CaptureFixture[str], change: str, says: str,
) -> None:
    if change == "mode=OFF":
        quantum(prefix, capsys, *why("set", "features", "mode=OFF"))
    before = len(read(prefix, TOPIC))
    code, told = quantum(prefix, capsys, *why("set", "features", change))
    assert code == Exit.FAILED
    assert says in told["error"]
    assert len(read(prefix, TOPIC)) == before


@pytest.mark.topics
@pytest.mark.parametrize("args", [
    ("set", "features"), ("set", "features", "mode"), ("set", "features", "mode=OFF", "mode=SHADOW"),
    ("set", "decision", "seed=1"),
])
def test_wrong_usage(prefix: Settings, capsys: pytest.CaptureFixture[str], args: tuple[str, ...]) -> None:
    assert quantum(prefix, capsys, *why(*args))[0] == Exit.USAGE


def test_what_others_wrote_and_the_agent_refuses_is_shown_and_passed_over(
    prefix: Settings, capsys: pytest.CaptureFixture[str],
) -> None:
    def written(values: str, ts_ms: int) -> PolicyConfig:
        return PolicyConfig(config_id=f"c{ts_ms}", agent="features", values=values, actor="bob", reason="r",
                            ts_ms=ts_ms)

    produce(prefix, TOPIC, [written('{"mode":"SHADOW"}', T0 + 2), written('{"depth":9}', T0 + 3),
                            written('{"enabled":false}', T0 + 1), written("[1]", T0 + 4)])
    shown = quantum(prefix, capsys, "show", "features")[1]
    assert (now(shown)["mode"], now(shown)["enabled"]) == ("SHADOW", True), "the newest in event time, whole"
    assert list(shown["refused"]) == [f"{TOPIC}-0@1", f"{TOPIC}-0@3"]


def test_one_judge_for_writer_and_fold() -> None:
    agent = Tunable(Knobs(depth=5, seed=2))
    assert agent.configured('{"mode":"SHADOW"}') == Knobs(depth=5, seed=2, mode="SHADOW")
    for bad in ("", "[]", "null", '{"depth": 1}', '{"interval_ms": "x"}', '{"mode": "LOUD"}'):
        with pytest.raises(Refused, match="BAD_CONFIG"):
            agent.configured(bad)

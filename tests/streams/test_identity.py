"""What the hashes of an agent depend on, and what they do not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from agents.contract import Config
from agents.roster import ROSTER
from streams import identity
from streams.identity import (
    closure,
    code_hash,
    config_hash,
    feature_schema_hash,
    floats_print,
    identity_of,
    platform_name,
)


class _Knobs(Config, frozen=True, kw_only=True, forbid_unknown_fields=True):
    a: float = 0.1
    b: int = 2


def test_configuration_hash_depends_on_values_alone() -> None:
    assert config_hash(_Knobs()) == config_hash(_Knobs(b=2, a=0.1, seed=0))
    assert len({config_hash(c) for c in (_Knobs(), _Knobs(a=0.2), _Knobs(b=3), _Knobs(seed=1), Config())}) == 5


@pytest.mark.parametrize("name", ROSTER)
def test_an_agents_code_is_all_there(name: str) -> None:
    module = ROSTER[name].__module__
    sources, _ = closure(module)
    package = Path(sys.modules[module].__file__ or "").parent
    files = {p.read_bytes() for p in package.rglob("*.py")}
    assert files <= set(sources.values())
    assert {"schemas.events", "schemas.codec", "agents.contract"} <= set(sources)
    assert not any(s.startswith("streams") for s in sources)
    others = {n for n in ROSTER if n != name and not module.startswith(f"agents.{n}.")}
    assert not any(s.startswith(f"agents.{n}") for n in others for s in sources), "agents do not know each other"


def test_an_edit_of_an_algorithm_changes_the_hash_of_those_who_import_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    package = tmp_path / "toyagents"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "core.py").write_text("from . import deep\nfrom .deep import f\nimport numpy\n")
    (package / "deep.py").write_text("from toyagents.deeper import g\ndef f(): return g()\n")
    (package / "deeper.py").write_text("def g(): return 1\n")
    (package / "unused.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    sources, libraries = closure("toyagents.core")
    toys = {s for s in sources if s.startswith("toyagents")}
    assert toys == {"toyagents", "toyagents.core", "toyagents.deep", "toyagents.deeper"}
    assert "numpy" in libraries
    before = code_hash.__wrapped__("toyagents.core")
    assert before == code_hash.__wrapped__("toyagents.core")
    (package / "unused.py").write_text("x = 1\n")
    assert before == code_hash.__wrapped__("toyagents.core")
    (package / "deeper.py").write_text("def g(): return 2\n")
    assert before != code_hash.__wrapped__("toyagents.core")


def test_identity_of_every_agent_is_complete_and_its_own() -> None:
    found = [identity_of(agent()) for agent in ROSTER.values()]
    assert len({i.code_hash for i in found}) == len(ROSTER)
    assert {i.feature_schema_hash for i in found} == {feature_schema_hash()}
    assert all(len(i.code_hash) == len(i.config_hash) == 64 for i in found)


def test_a_code_hash_depends_on_numerical_versions_that_the_agent_uses_on_schemas_and_on_the_interpreter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module, fresh = ROSTER["q_learning"].__module__, code_hash.__wrapped__
    _, libraries = closure(module)
    assert {"numpy", "scipy", "river", "msgspec", "fastavro"} <= libraries
    before, version, schemas = fresh(module), identity.metadata.version, identity._schemas()
    for library, changes in (("river", True), ("scipy", True), ("torch", False)):
        monkeypatch.setattr(identity.metadata, "version", lambda n, x=library: "9" if n == x else version(n))
        assert (fresh(module) != before) == changes, library
    monkeypatch.setattr(identity.metadata, "version", version)
    monkeypatch.setattr(identity, "_schemas", lambda: schemas | {"market.features.avsc": b"{}"})
    assert fresh(module) != before
    monkeypatch.setattr(identity, "_schemas", lambda: schemas)
    assert fresh(module) == before
    monkeypatch.setattr(identity.platform, "python_version", lambda: "3.99.0")
    assert fresh(module) != before


def test_the_platform_says_how_floating_point_comes_out_and_says_the_same_in_another_process() -> None:
    assert re.fullmatch(r"\S+-3\.\d+\.\d+\S* \S+ \S+ floats-[0-9a-f]{8}", platform_name())
    env = os.environ | {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", "from streams.identity import floats_print; print(floats_print())"],
                          cwd=Path(__file__).parents[2], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == floats_print()


@pytest.mark.parametrize("name", ROSTER)
def test_no_agent_hangs_on_what_the_demo_does_not_install(name: str) -> None:
    """PyTorch among it: an agent whose code hash names it would not start on a machine without it."""
    assert closure(ROSTER[name].__module__)[1] & {"torch", "xgboost", "lightgbm", "gymnasium"} == set()

"""Imports run one way: schemas <- agents.<name> <- agents.roster <- streams <- streams.cli; algorithms know no event.

Read from the syntax trees, so an import inside of a function counts too.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from schemas.catalogue import AGENTS

ROOT = Path(__file__).parents[1]
MODULES = sorted(p for top in ("schemas", "agents", "streams") for p in (ROOT / top).rglob("*.py"))

#: Who may import what of our own. The longest matching prefix counts.
MAY: dict[str, tuple[str, ...]] = {
    "schemas": ("schemas",),
    "agents.algorithms": ("agents.algorithms",),
    "agents": ("schemas", "agents.contract", "agents.obeying", "agents.former", "agents.algorithms"),
    "agents.roster": ("schemas", "agents"),
    "streams": ("schemas", "agents", "streams"),
    # The judge shares the pure folds and the codec with what it judges, never the host that ran them.
    # Planted cheats are agents, run by the driver.
    "streams.verify.planted": (
        "schemas", "agents", "streams.verify", "streams.driver", "streams.records", "streams.identity", "streams.log",
    ),
    "streams.verify": (
        "schemas", "agents.contract", "streams.verify", "streams.fold", "streams.held", "streams.keeping",
        "streams.blobs", "streams.states", "streams.records", "streams.identity", "streams.log", "streams.commits",
        "streams.driver", "streams.settings", "streams.unresolved", "streams.trainers.jobs",
        "streams.trainers.process",
    ),
    # What makes the controls and measured them, and the mathematics of looking often.
    "streams.verify.controls": (
        "schemas", "streams.verify", "streams.log", "streams.calibrated", "streams.gains", "agents.algorithms.market",
        "agents.algorithms.sequential",
    ),
}
OURS = ("schemas", "agents", "streams", "tests", "benchmarks")
#: Outside of our own: what an agent may not touch, because its fold would no longer be a function of its input.
IMPURE = {
    "faust", "mode", "aiokafka", "confluent_kafka", "asyncio", "threading", "multiprocessing", "subprocess", "socket",
    "requests", "httpx", "aiohttp", "time", "os", "pathlib", "shutil", "tempfile", "io", "random", "secrets", "uuid",
    "logging", "structlog", "rich", "click", "pickle", "joblib",
}
#: Reads of the clock and of global randomness that hide in modules which are fine otherwise.
CLOCKS = {
    "datetime.now", "datetime.utcnow", "datetime.today", "date.today", "np.random.rand", "np.random.randn",
    "np.random.random", "np.random.choice", "np.random.seed", "numpy.random.seed",
}
HEAVY = ("faust", "torch", "xgboost", "lightgbm", "confluent_kafka", "river", "numpy", "pandas", "avro")


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[str]:
    """Full names of everything a module imports: modules, and `from x import y` as x.y."""
    own = name_of(path).split(".")
    if path.name != "__init__.py":
        own = own[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = own[: len(own) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def starts(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def violations(module: str, imported: list[str]) -> list[str]:
    """Imports that the direction forbids."""
    rule = max((p for p in MAY if starts(module, p)), key=len)
    allowed = list(MAY[rule])
    if rule == "agents":
        allowed.append(".".join(module.split(".")[:2]))  # its own folder
    if rule == "streams" and not starts(module, "streams.cli"):
        imported = [i if not starts(i, "streams.cli") else f"!{i}" for i in imported]
    ours = [i for i in imported if i.lstrip("!").split(".")[0] in OURS]
    return [i for i in ours if not any(starts(i, a) for a in allowed)]


def test_the_judge_imports_no_planted_cheat() -> None:
    for path in MODULES:
        if starts(name_of(path), "streams.verify") and not starts(name_of(path), "streams.verify.planted"):
            assert not [i for i in imports(path) if starts(i, "streams.verify.planted")], path


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_run_one_way(path: Path) -> None:
    assert violations(name_of(path), list(imports(path))) == []


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("schemas.codec", "agents.contract"),
        ("agents.algorithms.counter", "schemas.events"),
        ("agents.algorithms.counter", "agents.contract"),
        ("agents.decision.core", "agents.features.core"),
        ("agents.decision.core", "agents.roster"),
        ("agents.decision", "streams.fold"),
        ("agents.roster", "streams.fold"),
        ("streams.fold", "streams.cli.main"),
        ("streams.fold", "tests.conftest"),
        ("streams.verify.judge", "streams.host"),
        ("streams.verify.evidence", "streams.restore"),
        ("streams.verify.flow", "streams.transport.recover"),
        ("streams.verify.flow", "streams.inspecting.standing"),
        ("streams.verify.planted.stage", "streams.host"),
    ],
)
def test_the_rule_sees_a_violation(module: str, imported: str) -> None:
    assert violations(module, [imported])


def attribute_paths(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield ast.unparse(node)


@pytest.mark.parametrize("path", [p for p in MODULES if starts(name_of(p), "agents")], ids=name_of)
def test_agents_touch_no_transport_clock_disk_or_global_randomness(path: Path) -> None:
    assert sorted({i for i in imports(path) if i.split(".")[0] in IMPURE}) == []
    tree = ast.parse(path.read_text())
    assert sorted({a for a in attribute_paths(tree) if any(a.endswith(c) for c in CLOCKS)}) == []
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert called & {"open", "print", "input", "exec", "eval", "id", "hash"} == set()


@pytest.mark.parametrize("path", [p for p in MODULES if starts(name_of(p), "schemas")], ids=name_of)
def test_schemas_need_only_what_the_base_installation_has(path: Path) -> None:
    allowed = set(sys.stdlib_module_names) | {"fastavro", "msgspec", "schemas"}
    if name_of(path) == "schemas.compatibility":
        allowed.add("avro")  # judge of releases; in the extra dev
    if name_of(path) in ("schemas.columns", "schemas.lockstep"):
        allowed.add("numpy")  # for those who have the extra agents; nothing else in schemas imports them
    assert {i.split(".")[0] for i in imports(path)} <= allowed


def loaded_by(statement: str) -> set[str]:
    return {name.split(".")[0] for name in modules_loaded_by(statement)}


def modules_loaded_by(statement: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{statement}\nimport sys; print('\\n'.join(sys.modules))"],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )
    return set(done.stdout.splitlines())


def test_importing_schemas_loads_no_transport_and_no_model_library() -> None:
    statement = "import schemas.catalogue, schemas.codec, schemas.events, schemas.structs; schemas.codec.Codec()"
    assert loaded_by(statement) & set(HEAVY) == set()
    assert loaded_by(statement) & {"agents", "streams", "numpy"} == set()


def test_the_judge_loads_no_host_and_no_transport() -> None:
    """Not through what it imports either."""
    statement = "import streams.verify.judge, streams.verify.brokered, streams.verify.recheck, " \
                "streams.verify.junit, streams.verify.planted.selftest"
    assert "faust" not in loaded_by(statement)
    host = ("streams.host", "streams.lane", "streams.relay", "streams.worker", "streams.transport", "streams.restore")
    assert [m for m in modules_loaded_by(statement) if any(starts(m, h) for h in host)] == []


def test_importing_the_roster_loads_no_transport_and_no_network_library() -> None:
    assert loaded_by("import agents.roster") & {"faust", "confluent_kafka", "aiokafka", "torch", "streams"} == set()


def test_learning_by_ppo_loads_no_network_library_unless_it_is_asked_for() -> None:
    statement = "import agents.algorithms.ppo_train, agents.algorithms.rollout"
    assert loaded_by(statement) & {"torch", "gymnasium", "xgboost", "lightgbm"} == set()


@pytest.mark.parametrize("top", ["agents", "schemas", "streams"])
def test_no_other_distribution_shadows_our_names(top: str) -> None:
    assert set(packages_distributions().get(top, [])) <= {"quantum-streams"}
    loaded = __import__(top)
    assert Path(loaded.__file__).parent == ROOT / top


def test_base_installation_is_small() -> None:
    """A subscriber who needs only `schemas` pulls neither torch nor Faust."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {r.split(">")[0] for r in project["dependencies"]} == {"fastavro", "msgspec"}
    extras = " ".join(r for group in project["optional-dependencies"].values() for r in group)
    for fixed in ("faust-streaming", "confluent-kafka", "xgboost", "lightgbm", "torch", "river", "avro"):
        assert fixed in extras


def test_folders_of_agents_are_names_of_the_catalogue() -> None:
    folders = {p.parent.name for p in (ROOT / "agents").glob("*/__init__.py")} - {"algorithms"}
    assert folders <= set(AGENTS)

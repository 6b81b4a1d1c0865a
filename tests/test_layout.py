"""The files that a clone and a wheel must have, and habits that can be counted."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from schemas.catalogue import AGENTS, TOPICS
from schemas.released import history_texts, schema_names

ROOT = Path(__file__).parents[1]
SOURCES = sorted(p for top in ("schemas", "agents", "streams") for p in (ROOT / top).rglob("*.py"))
MODULE_LINES = 450
FUNCTION_LINES = 60


def test_every_event_of_the_catalogue_has_a_schema_and_every_schema_a_topic() -> None:
    named = {t.name for t in TOPICS.values() if t.event and not t.name.endswith(".changelog")}
    assert named | {"state.scope", "state.head"} == set(schema_names())


def test_topics_of_the_agents_stand_in_the_catalogue() -> None:
    for agent in AGENTS.values():
        assert {*agent.reads, *agent.writes} <= set(TOPICS)
        if agent.built:
            assert all(TOPICS[t].built for t in (*agent.reads, *agent.writes))


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_modules_and_functions_stay_short(path: Path) -> None:
    """The habit is 350 and 40 lines; these bounds leave room where splitting would hide the idea."""
    if path.name == "events.py":
        pytest.skip("generated")
    text = path.read_text()
    assert len(text.splitlines()) <= MODULE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert (node.end_lineno or 0) - node.lineno < FUNCTION_LINES, node.name


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_module_says_what_it_is(path: Path) -> None:
    if path.read_text().strip():
        assert ast.get_docstring(ast.parse(path.read_text()))


def test_pins_cover_the_requirements_and_name_no_host() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert all("==" in line and "/" not in line and "@" not in line for line in lines)
    pinned = {line.split("==")[0] for line in lines}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + [r for group in project["optional-dependencies"].values() for r in group]
    assert _names(wanted) - {"quantum-streams"} <= pinned


def test_what_is_imported_is_required() -> None:
    """Each third-party import of a package stands in its own extra, not only in what another one happens to bring."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    base = _names(project["dependencies"])
    for top, have in (
        ("schemas", base | {"avro", "numpy"}),  # the judge of releases, in dev; columns, for those who have agents
        ("agents", base | _names(extras["agents"] + extras["learn"])),
        ("streams", base | {"mode-streaming", "yarl"} | _names(
            extras["agents"] + extras["streams"] + extras["demo"] + extras["exchange"])),
    ):
        wanted = {name for path in SOURCES if path.relative_to(ROOT).parts[0] == top for name in _distributions(path)}
        assert wanted <= have, top


def _names(requirements: list[str]) -> set[str]:
    return {r.split(">")[0].split("[")[0] for r in requirements}


def _distributions(path: Path) -> set[str]:
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules.add(node.module.split(".")[0])
    known = packages_distributions()
    foreign = modules - set(sys.stdlib_module_names) - {"schemas", "agents", "streams"}
    return {known.get(name, [name])[0].lower().replace("_", "-") for name in foreign}


def test_a_wheel_works_outside_of_the_checkout(tmp_path: Path) -> None:
    """The schemas, their history and the data files travel in the wheel, and the codec finds them there."""
    build = subprocess.run(
        [sys.executable, "-c",
         "import sys, setuptools.build_meta as b; print(b.build_wheel(sys.argv[1]))", str(tmp_path)],
        cwd=_copy(tmp_path / "copy"), capture_output=True, text=True, check=False,
    )
    assert build.returncode == 0, build.stderr[-2000:]
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "there")
    assert {n.split("/")[0] for n in names if ".dist-info" not in n} == {"schemas", "agents", "streams"}
    data = {str(p.relative_to(ROOT)) for top in ("schemas", "agents", "streams") for p in (ROOT / top).rglob("*")
            if p.suffix in (".avsc", ".json", ".txt", ".properties", ".typed", ".html", ".css", ".js", ".svg")}
    assert data <= names
    code = "import schemas.codec as c; print(len(c.Codec()._current), c.__file__)"
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "there", env=env, capture_output=True,
                          text=True, check=True)
    count, where = done.stdout.split(maxsplit=1)
    assert int(count) == len(schema_names())
    assert Path(where.strip()).is_relative_to(tmp_path / "there")


def _copy(target: Path) -> Path:
    """The checkout without what building would leave behind in it."""
    import shutil

    target.mkdir(parents=True)
    for name in ("schemas", "agents", "streams"):
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, target / name)
    return target


def test_make_help_lists_the_targets() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {line.split()[0] for line in done.stdout.splitlines()} >= {"demo", "test", "lint", "bench", "soak", "clean"}


def test_history_is_there() -> None:
    assert all(history_texts(name) for name in schema_names())

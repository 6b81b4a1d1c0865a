"""Shell completion: the scripts are click's, and what they ask for is answered."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from streams.cli.completion import SHELLS
from streams.cli.main import COMMANDS, cli, main
from tests.patience import PATIENCE_S

ROOT = Path(__file__).parents[2]


def _completed(kind: str, words: str, last: int, incomplete: str) -> str:
    env = os.environ | {"_QUANTUM_COMPLETE": f"{kind}_complete", "COMP_WORDS": words, "PYTHONPATH": str(ROOT),
                        "COMP_CWORD": incomplete if kind == "fish" else str(last)}
    done = subprocess.run([sys.executable, "-m", "streams.cli.main"], env=env, capture_output=True, text=True,
                          cwd=ROOT, timeout=PATIENCE_S, check=False)
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_gets_its_script_and_answers(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert f"{shell}_complete" in told["script"]
    assert "_QUANTUM_COMPLETE" in told["script"]
    assert main(["completion", shell]) == 0
    assert capsys.readouterr().out.strip() == told["script"].strip()
    assert "topics" in _completed(shell, "quantum to", 1, "to")
    assert "--metrics-port" in _completed(shell, "quantum worker --met", 2, "--met")
    assert "console" in _completed(shell, "quantum worker --log-format co", 3, "co")


def test_bash_completes_by_the_script(tmp_path: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not there")
    (tmp_path / "quantum").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m streams.cli.main "$@"\n')
    (tmp_path / "quantum").chmod(0o755)
    done = subprocess.run(
        [bash, "--norc", "-c", 'source <(quantum completion bash); COMP_WORDS=(quantum top); COMP_CWORD=1; '
                               '_quantum_completion quantum; echo "${COMPREPLY[@]}"'],
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}, cwd=ROOT,
        capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    assert done.stdout.split() == ["topics"]


def test_names_are_completed_without_loading_a_command() -> None:
    code = ("import sys; from streams.cli.main import cli; import click; "
            "print(*[i.value for i in cli.shell_complete(click.Context(cli), '')]); "
            "print(*[m for m in sys.modules if m.startswith('streams.cli.')])")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    names, modules = done.stdout.splitlines()
    assert set(names.split()) >= set(COMMANDS)
    assert set(modules.split()) == {"streams.cli.main", "streams.cli.exits"}


def test_another_shell_is_refused() -> None:
    assert CliRunner().invoke(cli, ["completion", "tcsh"]).exit_code == 2

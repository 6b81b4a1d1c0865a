"""`quantum ui` as a command: exit codes, and the lines of the docs."""

from __future__ import annotations

import re
import shlex
import socket
from pathlib import Path

import click
import pytest

from streams.cli.exits import Exit
from streams.cli.main import main
from streams.cli.ui import command
from streams.settings import LOOPBACK, Settings
from streams.ui.judging import Failed, Verifier
from tests.streams.log_fixtures import flags

PAGE = (Path(__file__).parents[3] / "docs" / "inspecting.md").read_text()


def test_a_broker_that_is_not_there_and_wrong_words_end_it_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ui", "--broker", "127.0.0.1:9"]) == Exit.UNREACHABLE
    assert "quantum broker up" in capsys.readouterr().err
    for words in (["--port", "x"], ["--agent-config", "nobody={}"], ["--verify-every", "-1"]):
        assert main(["ui", *words]) == Exit.USAGE


def test_a_port_that_is_taken_is_said_with_what_to_do(broker: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        assert main(["ui", "--port", str(taken.getsockname()[1]), *flags(broker)]) == Exit.FAILED
    out, err = capsys.readouterr()
    assert out == ""
    assert "cannot listen on 127.0.0.1:" in err
    assert "--port" in err


def test_a_report_that_cannot_be_made_says_why(broker: Settings) -> None:
    verifier = Verifier(broker, Broken())
    with pytest.raises(Failed, match="ValueError: no roster today"):
        verifier(True)
    verifier.stop()
    with pytest.raises(Failed, match="stopped"):
        verifier(True)


class Broken:
    """A roster that cannot be made."""

    def __call__(self) -> dict:
        raise ValueError("no roster today")


def test_the_lines_of_the_page_are_words_of_the_command() -> None:
    lines = re.findall(r"^quantum ui.*$", PAGE, re.MULTILINE)
    assert len(lines) == 3
    for line in lines:
        context = command.make_context("ui", shlex.split(line)[2:])
        assert isinstance(context, click.Context)
    for option in set(re.findall(r"--[a-z-]+", PAGE[PAGE.index("## One page"):PAGE.index("## A consumer")])):
        assert option in {o for p in command.params for o in p.opts}

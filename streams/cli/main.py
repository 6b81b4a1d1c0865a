"""Entry point of `quantum`: finds the command's module, loads it, turns failures into exit codes."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import click
from click.shell_completion import CompletionItem

from streams.cli.exits import MEANING, Exit
from streams.registry_errors import RegistryRefused, RegistryUnreachable

COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("demo", "Real market data through Kafka into every agent, watched live."),
    "worker": ("worker", "Run agents until told to stop."),
    "status": ("status", "Lag, rates, last evidence and dead letters of every agent."),
    "verify": ("verify", "Hold every agent against the log: runs, receives, learns, persists, applied, origin."),
    "ui": ("ui", "One local page over the log: cells, policies, trades, curves, dead letters."),
    "broker": ("broker", "The embedded Apache Kafka: up, down, status, logs."),
    "topics": ("topics", "Hold the broker's topics against the catalogue: check, apply."),
    "ingest": ("ingest", "Bring market data in: file, ticks, exchange, synthetic."),
    "tail": ("tail", "Print records of a topic, decoded."),
    "produce": ("produce", "JSON lines on standard input to records of a topic, judged first."),
    "decode": ("decode", "Avro records on standard input to JSON lines; needs no broker."),
    "dlq": ("dlq", "Dead letters: list, show, redrive."),
    "why": ("why", "The story of one trade or decision, each step with its record."),
    "policy": ("policy", "Policies: list, show, diff, plot, rederive; rollback, freeze, retire, halt."),
    "config": ("config", "The configuration of running agents: show, set."),
    "risk": ("risk", "The risk mode and its limits: show, override, clear."),
    "refold": ("rebuild:refold", "An agent's state folded again from its input, while no worker runs it."),
    "reset": ("rebuild:reset", "An agent's state begun from nothing, while no worker runs it."),
    "books": ("books", "Learners' paper books against the baseline books, paired bar by bar."),
    "doctor": ("doctor", "Check this machine and the broker; one fix for each finding."),
    "completion": ("completion", "The completion script of a shell: bash, zsh, fish."),
}


class Unreachable(Exception):
    """The broker cannot be reached; the message says which address and what to do."""


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(f"streams.cli.{module}"), name or "command")
        assert isinstance(command, click.Command)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Names of commands without loading one of them; options as ever."""
        own = click.Command.shell_complete(self, ctx, incomplete)
        return [*(CompletionItem(name, help=text) for name, (_, text) in COMMANDS.items()
                  if name.startswith(incomplete)), *own]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


_EPILOG = "Exit codes: " + ", ".join(f"{code.value} {text}" for code, text in MEANING.items()) + "."


@click.command(cls=_Lazy, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="quantum-streams")
def cli() -> None:
    """Quantum Streams: online learning for trading on Kafka, proved from the log."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code. Data goes to stdout, everything else to stderr."""
    try:
        result = cli.main(args=list(argv) if argv is not None else None, prog_name="quantum", standalone_mode=False)
        return int(result) if isinstance(result, int) else Exit.GOOD
    except click.exceptions.Exit as exc:
        return exc.exit_code
    except click.UsageError as exc:
        exc.show()
        return Exit.USAGE
    except click.ClickException as exc:
        exc.show()
        return Exit.FAILED
    except (Unreachable, RegistryUnreachable) as exc:
        print(f"quantum: {exc}", file=sys.stderr)
        return Exit.UNREACHABLE
    except RegistryRefused as exc:
        print(f"quantum: {exc}", file=sys.stderr)
        return Exit.UNREACHABLE if exc.denied else Exit.FAILED
    except (KeyboardInterrupt, click.Abort):
        print("quantum: interrupted", file=sys.stderr)
        return Exit.INTERRUPTED
    except BrokenPipeError:
        return Exit.GOOD


def run() -> None:
    """Console script."""
    sys.exit(main())


if __name__ == "__main__":
    from streams.cli.main import run as _run  # not this copy of the module: commands raise the other one's Unreachable

    _run()

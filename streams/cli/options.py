"""Options and output that commands share: settings from flags, `--json`, progress on standard error."""

from __future__ import annotations

import functools
import getpass
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console

from streams.settings import Settings, SettingsError

F = TypeVar("F", bound=Callable[..., Any])

actor_option = click.option("--actor", metavar="NAME", callback=lambda _, __, name: name or getpass.getuser(),
                            help="Who commands. Default: your login name.")
agent_config_option = click.option("--agent-config", metavar="AGENT=JSON", multiple=True,
                                   help="Configuration of the agent, as the worker has it.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")

_SETTINGS = (
    click.option("--broker", metavar="HOST:PORT", help="Bootstrap servers. Default: the embedded broker's."),
    click.option("--topic-prefix", metavar="TEXT", help="Stands before every topic name."),
    click.option("--app-id", metavar="TEXT", help="Stands before every consumer group. Default: quantum."),
    click.option("--data-dir", type=click.Path(path_type=Path, file_okay=False), help="Durable data."),
    click.option("--cache-dir", type=click.Path(path_type=Path, file_okay=False), help="What can be fetched again."),
    click.option("--seed", type=int, help="Seed of everything random. Default: 0."),
    click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="Default: info."),
    click.option("--log-format", type=click.Choice(["console", "json", "text"]),
                 help="Of a worker's log. Default: console; text is its former name."),
)
_CONFIG = click.option("--config", type=click.Path(path_type=Path, dir_okay=False),
                       help="Default: quantum.toml, if any.")
SHOW = "\0"  # no path: `--config` without one
_CONFIG_OR_SHOW = click.option("--config", is_flag=False, flag_value=SHOW, metavar="[PATH]",
                               help="Without a path: print the effective settings and where each came from. With one: "
                                    "the configuration file. Default: quantum.toml, if any.")
_NAMES = ("broker", "topic_prefix", "app_id", "data_dir", "cache_dir", "seed", "log_level", "log_format", "config")


def settings_options(function: F) -> F:
    """Add the options that make up `Settings`; the command gets them as the one argument `settings`.

    Login and TLS have no flags, because a command line can be read by every user of the machine: they come from the
    environment (`QUANTUM_SASL_PASSWORD`, ...) or the file.
    """
    return _with_settings(function, _CONFIG)


def settings_options_or_show(function: F) -> F:
    """The same, where `--config` without a path asks to print the settings; the command reads that from its context."""
    return _with_settings(function, _CONFIG_OR_SHOW)


def _with_settings(function: F, config: Callable[[Any], Any]) -> F:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        flags = {name: kwargs.pop(name) for name in _NAMES}
        path = flags.pop("config")
        try:
            settings = Settings.load(**flags, config=None if path in (None, SHOW) else Path(path))
        except SettingsError as exc:
            raise click.UsageError(f"settings: {exc}") from None
        return function(*args, settings=settings, **kwargs)

    for option in (config, *reversed(_SETTINGS)):
        wrapper = option(wrapper)
    return wrapper  # type: ignore[return-value]


def given(ctx: click.Context) -> set[str]:
    """Names of the settings that stand on the command line."""
    return {name for name in _NAMES if name != "config"
            and ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE}


def print_json(value: Any) -> None:
    """One JSON document on standard output; paths and the like as text."""
    click.echo(json.dumps(value, default=str, indent=2))


def progress_console() -> Console:
    """Console on standard error; rich itself respects NO_COLOR."""
    return Console(stderr=True)


def data_console() -> Console:
    """Console on standard output, for tables; as wide as needed where it is not a terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=200)

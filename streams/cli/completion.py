"""`quantum completion`: the script by which a shell completes commands, options and their choices."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from streams.cli.options import json_option, print_json

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@json_option
@click.pass_context
def command(ctx: click.Context, shell: str, as_json: bool) -> None:
    """Print the completion script of a shell.

    bash: quantum completion bash > ~/.local/share/bash-completion/completions/quantum

    zsh: quantum completion zsh > a folder of $fpath, as _quantum

    fish: quantum completion fish > ~/.config/fish/completions/quantum.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None, "click knows them all"
    script = kind(ctx.find_root().command, {}, "quantum", "_QUANTUM_COMPLETE").source()
    if as_json:
        print_json({"shell": shell, "script": script})
    else:
        click.echo(script)

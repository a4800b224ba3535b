"""`config-manager completion`: what a shell needs to complete our commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from config_manager.api.commands.options import AS_JSON
from config_manager.api.commands.output import Shown

_PROGRAM = "config-manager"
_VARIABLE = "_CONFIG_MANAGER_COMPLETE"
"""By which the shell asks; click makes the name of the program's."""


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@AS_JSON
@click.pass_context
def completion(ctx: click.Context, shell: str, as_json: bool) -> None:
    """Print the script by which a shell completes commands and options.

    \b
    bash, from 4.4 on:
      config-manager completion bash > ~/.local/share/bash-completion/completions/config-manager
    zsh, in a directory of your $fpath:
      config-manager completion zsh > ~/.zfunc/_config-manager
    fish:
      config-manager completion fish > ~/.config/fish/completions/config-manager.fish

    A new shell has it; the directory has to be there.
    """
    make = get_completion_class(shell)
    assert make is not None
    complete = make(ctx.find_root().command, {}, _PROGRAM, _VARIABLE)
    script = complete.source_template % complete.source_vars()
    Shown({"shell": shell, "script": script}, [script.strip()]).show(as_json=as_json)

"""`horae completion`: the lines that make a shell complete commands, options and the ids of jobs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem, get_completion_class

from cluster.core.errors import HoraeError
from ops.support.client import Client
from ops.support.profiles import load_profiles

if TYPE_CHECKING:
    from collections.abc import Callable

MOST = 50
PATIENCE_SECONDS = 2.0
"""Somebody waits for the completion in the middle of a line."""
SHELLS = {
    "bash": 'eval "$(horae completion bash)"    in ~/.bashrc',
    "zsh": 'eval "$(horae completion zsh)"    in ~/.zshrc, after compinit',
    "fish": "horae completion fish > ~/.config/fish/completions/horae.fish",
}


@click.command("completion", epilog="\b\nOnce for all:\n" + "\n".join(f"  {line}" for line in SHELLS.values()))
@click.argument("shell", type=click.Choice(list(SHELLS)))
@click.pass_context
def completion_command(context: click.Context, shell: str) -> None:
    """Print the completion of SHELL. It knows commands, options, profiles, and the names of jobs, calendars and windows."""
    made = get_completion_class(shell)
    if made is None:
        raise click.UsageError(f"'{shell}' is unknown")
    completion = made(context.find_root().command, {}, "horae", "_HORAE_COMPLETE")
    # Its own `source` would first run bash to look at its version.
    click.echo(completion.source_template % completion.source_vars())


def _quietly(names: Callable[[click.Context, str], list[str]]) -> Callable[..., list[CompletionItem]]:
    """A completion never prints an error into the line that somebody types."""

    def complete(context: click.Context, _: click.Parameter, begun: str) -> list[CompletionItem]:
        try:
            return [CompletionItem(name) for name in names(context, begun) if name.startswith(begun)]
        except (click.ClickException, HoraeError, OSError, LookupError, ValueError):
            return []

    return complete


def _client(context: click.Context) -> Client:
    """A client of the address in the line: `--url` is an option of the command or of its group. `explain` and `verify`
    read the database, and have none.
    """
    contexts = (context, *([context.parent] if context.parent is not None else []))
    url = next((c.params["url"] for c in contexts if c.params.get("url")), os.environ.get("HORAE_URL"))
    return Client(url, timeout_seconds=PATIENCE_SECONDS)


def _jobs(context: click.Context, begun: str) -> list[str]:
    """Ids that begin so, of the jobs that the API finds first: the words of an id are words of its job."""
    page = _client(context).call("GET", "/jobs", query={"limit": 500, "sort": "name", "q": begun or None})
    return sorted(job["jobId"] for job in page["items"] if job["jobId"].startswith(begun))[:MOST]


def _names_of(kind: str) -> Callable[[click.Context, str], list[str]]:
    """The names of all objects of a kind, such as `calendars`."""
    return lambda context, _: [item["name"] for item in _client(context).call("GET", f"/{kind}")["items"]]


complete_jobs = _quietly(_jobs)
complete_calendars = _quietly(_names_of("calendars"))
complete_windows = _quietly(_names_of("windows"))
complete_profiles = _quietly(lambda _, __: sorted(load_profiles().profiles))

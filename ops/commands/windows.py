"""`horae windows`: list, show, set and delete maintenance windows through the REST API."""

from __future__ import annotations

import sys
from operator import itemgetter
from typing import Any

import click

from cluster.core.documents.base import to_camel
from ops.commands.completion import complete_windows
from ops.support.client import Client
from ops.support.formats import Listing, listing_options
from ops.support.named_objects import delete_each, path_of


@click.group("windows")
@click.option(
    "--url", envvar="HORAE_URL", help="Address of the API. [default: HORAE_URL, the profile in use, or HOST and PORT]"
)
@click.pass_context
def windows_group(context: click.Context, url: str | None) -> None:
    """List, show, set and delete maintenance windows."""
    context.obj = lambda: Client(url)


def _client(context: click.Context) -> Client:
    client: Client = context.obj()
    return client


def _about(w: dict[str, Any]) -> str:
    return ", ".join([*(f"tag {t}" for t in w["tags"]), *w["hosts"], *(f"queue {q}" for q in w["queues"])])


def _when(w: dict[str, Any]) -> str:
    if w["schedule"] is None:
        return f"{w['from']} to {w['until']}"
    return f"{w['schedule']} {w['timezone']}, {w['durationSeconds']} s"


@windows_group.command("list")
@listing_options
@click.pass_context
def list_command(context: click.Context, listing: Listing) -> None:
    """List all windows, and until when they are in force."""
    found = _client(context).call("GET", "/windows")["items"]
    listing.show(
        found,
        title=f"{len(found)} window(s)",
        name="name",
        columns={
            "window": itemgetter("name"),
            "mode": itemgetter("mode"),
            "about": _about,
            "when": _when,
            "in force until": itemgetter("inForceUntil"),
        },
        wide={"changed": itemgetter("updatedAt")},
    )


@windows_group.command("show")
@click.argument("name", shell_complete=complete_windows)
@listing_options
@click.pass_context
def show_command(context: click.Context, name: str, listing: Listing) -> None:
    """Show one window."""
    found = _client(context).call("GET", path_of("windows", name))
    if listing.show_one(found, name="name"):
        return
    for field, value in found.items():
        if value not in (None, []):
            click.echo(f"{field:>15}  {', '.join(value) if isinstance(value, list) else value}")


@windows_group.command("set")
@click.argument("name", shell_complete=complete_windows)
@click.option("--mode", type=click.Choice(["hold", "skip", "mute"]), required=True, help="What it does.")
@click.option("--tag", "tags", multiple=True, help="Jobs with this tag; several options: one of them.")
@click.option("--host", "hosts", multiple=True, help="Jobs whose target has this host.")
@click.option("--queue", "queues", multiple=True, help="Jobs in this queue.")
@click.option("--schedule", help="When it begins: a cron expression.")
@click.option("--timezone", help="Time zone of the schedule. [default: UTC]")
@click.option("--duration", "duration_seconds", type=click.IntRange(1), help="How long it lasts, in seconds.")
@click.option("--from", "from", help="When it begins (RFC 3339), of a window that comes once.")
@click.option("--until", help="When it ends.")
@click.option("--spread", "spread_seconds", type=click.IntRange(0), help="What it held leaves within so many seconds.")
@click.pass_context
def set_command(context: click.Context, /, name: str, **options: Any) -> None:
    """Create or replace the window NAME. It is in force on all nodes within two seconds."""
    body = {
        to_camel(field): list(value) if isinstance(value, tuple) else value
        for field, value in options.items()
        if value not in (None, ())
    }
    stored = _client(context).call("PUT", path_of("windows", name), body)
    click.echo(f"{name}: {stored['mode']}, {_about(stored)}, {_when(stored)}")


@windows_group.command("delete")
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=complete_windows)
@click.pass_context
def delete_command(context: click.Context, names: tuple[str, ...]) -> None:
    """Delete windows. What they hold goes on."""
    sys.exit(delete_each(_client(context), "windows", names))

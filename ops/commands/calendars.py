"""`horae calendars`: list, show, import and delete calendars through the REST API."""

from __future__ import annotations

import sys
from operator import itemgetter
from pathlib import Path
from typing import Any

import click

from ops.commands.completion import complete_calendars
from ops.support.client import Client
from ops.support.formats import Listing, listing_options
from ops.support.named_objects import delete_each, path_of

ICALENDAR = "text/calendar"


@click.group("calendars")
@click.option(
    "--url", envvar="HORAE_URL", help="Address of the API. [default: HORAE_URL, the profile in use, or HOST and PORT]"
)
@click.pass_context
def calendars_group(context: click.Context, url: str | None) -> None:
    """List, show, import and delete calendars: days on which the jobs that name one do not run."""
    context.obj = lambda: Client(url)


def _client(context: click.Context) -> Client:
    client: Client = context.obj()
    return client


@calendars_group.command("list")
@listing_options
@click.pass_context
def list_command(context: click.Context, listing: Listing) -> None:
    """List all calendars, and how many jobs have not followed the last change of each yet."""
    found = _client(context).call("GET", "/calendars")["items"]
    names = {
        "calendar": "name",
        "time zone": "timezone",
        "jobs": "jobs",
        "following": "following",
        "changed": "updatedAt",
    }
    listing.show(
        found,
        title=f"{len(found)} calendar(s)",
        name="name",
        columns={title: itemgetter(field) for title, field in names.items()},
        wide={"version": itemgetter("version"), "excludes": _summary},
    )


def _summary(c: dict[str, Any]) -> str:
    words = {"dates": "date(s)", "ranges": "range(s)", "yearly": "day(s) of every year"}
    counts = [f"{len(c[name])} {what}" for name, what in words.items() if c[name]]
    return ", ".join([*counts, *c["weekdays"]]) or "nothing"


def _following(c: dict[str, Any]) -> str:
    if not c["jobs"]:
        return "no job names it"
    return f"{c['following']} of {c['jobs']} job(s) have yet to follow"


@calendars_group.command("show")
@click.argument("name", shell_complete=complete_calendars)
@listing_options
@click.pass_context
def show_command(context: click.Context, name: str, listing: Listing) -> None:
    """Show one calendar."""
    found = _client(context).call("GET", path_of("calendars", name))
    if listing.show_one(found, name="name"):
        return
    for field, value in found.items():
        if value not in (None, []):
            click.echo(f"{field:>12}  {_text(value)}")


def _text(value: Any) -> str:
    if not isinstance(value, list):
        return str(value)
    return ", ".join(f"{v['from']} to {v['until']}" if isinstance(v, dict) else str(v) for v in value)


@calendars_group.command("import")
@click.argument("name", shell_complete=complete_calendars)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.pass_context
def import_command(context: click.Context, name: str, file: Path) -> None:
    """Create or replace the calendar NAME from FILE: iCalendar (.ics), or JSON. Jobs follow in the background."""
    raw = file.read_bytes()
    kind = "application/json" if raw.lstrip().startswith(b"{") else ICALENDAR
    stored = _client(context).put(path_of("calendars", name), raw, kind)
    for remark in stored["remarks"]:
        click.echo(f"remark: {remark}", err=True)
    click.echo(f"{name}: excludes {_summary(stored)}; {_following(stored)}")


@calendars_group.command("delete")
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=complete_calendars)
@click.pass_context
def delete_command(context: click.Context, names: tuple[str, ...]) -> None:
    """Delete calendars that no job names."""
    sys.exit(delete_each(_client(context), "calendars", names))

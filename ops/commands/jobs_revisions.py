"""`horae jobs revisions`, `horae jobs revert`: the earlier definitions of a job, and the way back."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click
import orjson

from ops.commands.completion import complete_jobs
from ops.support.formats import Listing, listing_options
from ops.support.output import print_json

if TYPE_CHECKING:
    from ops.support.client import Client


def caller(by: dict[str, Any] | None) -> str:
    """Who acted, in short."""
    if by is None:
        return "unknown"
    who = by["key"] or by["address"] or ""
    return f"{by['via']} {who}".strip()


def change_text(change: dict[str, Any]) -> str:
    """One difference as a line."""
    return f"{change['path']}: {_short(change['before'])} -> {_short(change['after'])}"


def _short(value: Any) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= 80 else text[:77] + "..."


def _path(job_id: str) -> str:
    return f"/jobs/{quote(job_id, safe='')}/revisions"


@click.command("revisions")
@click.argument("job_id", shell_complete=complete_jobs)
@click.argument("number", type=click.IntRange(1), required=False)
@click.option("--against", type=click.IntRange(1), help="Show how revision NUMBER differs from this one.")
@listing_options
@click.pass_context
def revisions_command(
    context: click.Context, job_id: str, number: int | None, against: int | None, listing: Listing
) -> None:
    """List the last revisions of a job: who made them and when. With NUMBER, show the definition of one."""
    client: Client = context.obj()
    if number is not None:
        found = client.call("GET", f"{_path(job_id)}/{number}", query={"against": against})
        if against is None or listing.output == "json":
            print_json(found)
            return
        for change in found["changes"]:
            click.echo(change_text(change))
        return
    if against is not None:
        raise click.UsageError("--against needs NUMBER, the revision to compare")
    items: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = client.call("GET", _path(job_id), query={"limit": 50, "cursor": cursor})
        items += page["items"]
        cursor = page["nextCursor"]
        if cursor is None:
            break
    columns = {
        "revision": lambda r: r["revision"],
        "at": lambda r: r["at"],
        "action": lambda r: r["action"],
        "by": lambda r: caller(r["by"]),
        "state": lambda r: r["state"],
        "schedule": lambda r: r["definition"]["schedule"],
    }
    listing.show(items, title=f"{len(items)} revision(s)", name="revision", columns=columns)


@click.command("revert")
@click.argument("job_id", shell_complete=complete_jobs)
@click.argument("number", type=click.IntRange(1))
@click.pass_context
def revert_command(context: click.Context, job_id: str, number: int) -> None:
    """Give a job the definition of revision NUMBER. Its state and the secrets that it has now stay as they are."""
    client: Client = context.obj()
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    job = client.call("POST", f"{_path(job_id)}/{number}/revert", headers=headers)
    click.echo(f"{job_id}: as of revision {number}, now revision {job['revision']}")

"""`horae audit`: who did what, through the REST API."""

from __future__ import annotations

from typing import Any

import click

from ops.commands.jobs_revisions import caller, change_text
from ops.support.client import Client
from ops.support.formats import Listing, listing_options


@click.command("audit")
@click.option("--object", "about", help="Only about this object, such as job:nightly, queue:mail, key:ci.")
@click.option("--key", help="Only by this API key.")
@click.option("--since", help="Only at or after this time (RFC 3339).")
@click.option("--until", help="Only before this time (RFC 3339).")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="At most so many.")
@click.option(
    "--url", envvar="HORAE_URL", help="Address of the API. [default: HORAE_URL, the profile in use, or HOST and PORT]"
)
@listing_options
def audit_command(
    about: str | None, key: str | None, url: str | None, limit: int, listing: Listing, **times: str | None
) -> None:
    """Show who did what to which object, the latest first. Needs a key with scope admin."""
    client = Client(url)
    items: list[dict[str, Any]] = []
    cursor = None
    while len(items) < limit:
        query = {"object": about, "key": key, **times, "limit": min(500, limit - len(items)), "cursor": cursor}
        page = client.call("GET", "/audit", query=query)
        items += page["items"]
        cursor = page["nextCursor"]
        if cursor is None:
            break
    columns = {
        "at": lambda e: e["at"],
        "object": lambda e: e["object"],
        "action": lambda e: e["action"],
        "by": lambda e: caller(e["by"]),
        "what": _what,
    }
    wide = {"address": lambda e: e["by"]["address"], "command": lambda e: e["by"]["command"]}
    listing.show(items, title=f"{len(items)} entries", name="id", columns=columns, wide=wide)


def _what(entry: dict[str, Any]) -> str:
    if entry["action"] != "create" and entry["changes"]:
        return "; ".join(change_text(c) for c in entry["changes"])
    shown = {**(entry["counts"] or {}), **entry["detail"]}
    return ", ".join(f"{name} {value}" for name, value in shown.items() if value is not None)

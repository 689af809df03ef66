"""What the commands for calendars and windows share: objects of a collection of the API, each with its name."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import click

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ops.support.client import Client


def path_of(collection: str, name: str) -> str:
    """Where the API has an object."""
    return f"/{collection}/{quote(name, safe='')}"


def delete_each(client: Client, collection: str, names: Iterable[str]) -> int:
    """Delete these, and say of each what came of it. Returns the exit status: 1 if one was not deleted."""
    failed = 0
    for name in names:
        try:
            client.call("DELETE", path_of(collection, name))
            click.echo(f"{name}: deleted")
        except click.ClickException as exc:
            click.echo(f"{name}: {exc.message}", err=True)
            failed = 1
    return failed

"""`horae keys`: create, list and revoke API keys. The database stores their hashes; a new key is shown once."""

from __future__ import annotations

import hashlib
import re
import secrets
import sys
import time
from operator import itemgetter
from typing import TYPE_CHECKING

import click

from cluster.store import api_keys
from cluster.store.api_keys import StoredApiKey
from ops.commands.status import read_database
from ops.support.formats import Listing, listing_options
from ops.support.output import print_json, rfc3339

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database

NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")
LENGTH = re.compile(r"(\d{1,6})([smhd])\Z")
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _now_ms() -> int:
    return int(time.time() * 1000)


def _duration_seconds(_: click.Context, __: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    match = LENGTH.match(value)
    if match is None or int(match[1]) == 0:
        raise click.BadParameter("write a duration such as 30d, 12h or 90m")
    return int(match[1]) * UNITS[match[2]]


@click.group("keys")
def keys_group() -> None:
    """Manage API keys. A new key works on every node within two seconds. Once a key exists, every request needs one."""


@keys_group.command("create")
@click.option("--name", required=True, help="Name of the key.")
@click.option(
    "--scope",
    type=click.Choice(["read", "write", "admin"]),
    default="write",
    show_default=True,
    help="What the key allows.",
)
@click.option(
    "--expires",
    "seconds",
    callback=_duration_seconds,
    help="How long the key is valid, such as 30d. [default: forever]",
)
@JSON
def create_command(name: str, scope: str, seconds: int | None, as_json: bool) -> None:  # noqa: FBT001
    """Create a key and print it. It cannot be shown again."""
    if not NAME.match(name):
        raise click.BadParameter("must have 1 to 64 of the characters A-Z a-z 0-9 _ . -", param_hint="--name")
    secret = f"hk_{secrets.token_urlsafe(32)}"
    now = _now_ms()
    key = StoredApiKey(
        name,
        hashlib.sha256(secret.encode()).digest(),
        scope,
        now,
        None if seconds is None else now + seconds * 1000,
    )
    if not read_database(lambda db: api_keys.create(db, key)):
        click.echo(
            f"horae: a key named '{name}' exists already: choose another name, or revoke that key first", err=True
        )
        sys.exit(1)
    if as_json:
        print_json({"name": name, "scope": scope, "expiresAt": rfc3339(key.expires_ms), "key": secret})
        return
    click.echo(secret)
    click.echo("This key is not shown again. Send it in the header 'Authorization: Bearer <key>'.", err=True)


@keys_group.command("list")
@listing_options
def list_command(listing: Listing) -> None:
    """List the keys in the database, without their values. Keys in HORAE_API_KEYS are not listed."""
    stored = read_database(api_keys.list_all)
    now = _now_ms()
    listed = [
        {
            "name": k.name,
            "scope": k.scope,
            "state": "revoked" if k.revoked_ms is not None else "live" if k.is_active(now) else "expired",
            "createdAt": rfc3339(k.created_ms),
            "expiresAt": rfc3339(k.expires_ms),
            "lastUsedAt": rfc3339(k.used_ms),
        }
        for k in stored
    ]
    names = {"name": "name", "scope": "scope", "state": "state", "created": "createdAt", "expires": "expiresAt"}
    columns = {title: itemgetter(field) for title, field in {**names, "last used": "lastUsedAt"}.items()}
    listing.show(listed, title=f"{len(listed)} key(s)", name="name", columns=columns)


@keys_group.command("revoke")
@click.argument("name")
def revoke_command(name: str) -> None:
    """Revoke a key. Every node refuses it within two seconds."""

    async def end(db: Database) -> bool:
        return await api_keys.revoke(db, name, _now_ms())

    if not read_database(end):
        click.echo(f"horae: there is no valid key named '{name}'", err=True)
        sys.exit(1)
    click.echo(f"revoked '{name}'")

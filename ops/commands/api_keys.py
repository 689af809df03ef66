"""`horae keys`: make, list and revoke API keys. They are kept in the database, hashed; a new key is shown once."""

from __future__ import annotations

import hashlib
import re
import secrets
import sys
import time
from typing import TYPE_CHECKING

import click

from cluster.store import api_keys
from cluster.store.api_keys import StoredApiKey
from ops.commands.status import read_database
from ops.support.output import print_json, print_table, rfc3339

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database

NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")
LENGTH = re.compile(r"(\d{1,6})([smhd])\Z")
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
JSON = click.option("--json", "form", is_flag=True, help="Print JSON.")


def _now_ms() -> int:
    return int(time.time() * 1000)


def _lasting(_: click.Context, __: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    match = LENGTH.match(value)
    if match is None or int(match[1]) == 0:
        raise click.BadParameter("write a length of time such as 30d, 12h or 90m")
    return int(match[1]) * UNITS[match[2]]


@click.group("keys")
def keys_group() -> None:
    """API keys. They work on every node within two seconds; from the first one on, requests need a key."""


@keys_group.command("create")
@click.option("--name", required=True, help="What to call it.")
@click.option("--scope", type=click.Choice(["read", "write", "admin"]), default="write", show_default=True)
@click.option("--expires", "seconds", callback=_lasting, help="How long it is good for, such as 30d; else for ever.")
@JSON
def create_command(name: str, scope: str, seconds: int | None, form: bool) -> None:  # noqa: FBT001
    """Make a key and show it, this once."""
    if not NAME.match(name):
        raise click.BadParameter("write 1 to 64 of the characters A-Z a-z 0-9 _ . -", param_hint="--name")
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
        click.echo(f"horae: a key is called '{name}' already: choose another name, or revoke it first", err=True)
        sys.exit(1)
    if form:
        print_json({"name": name, "scope": scope, "expiresAt": rfc3339(key.expires_ms), "key": secret})
        return
    click.echo(secret)
    click.echo("This is the only time it is shown. Send it as 'Authorization: Bearer <key>'.", err=True)


@keys_group.command("list")
@JSON
def list_command(form: bool) -> None:  # noqa: FBT001
    """Every key that was made here, without the keys themselves. Those of HORAE_API_KEYS are not listed."""
    found = read_database(api_keys.list_all)
    now = _now_ms()
    shown = [
        {
            "name": k.name,
            "scope": k.scope,
            "state": "revoked" if k.revoked_ms is not None else "live" if k.is_active(now) else "expired",
            "createdAt": rfc3339(k.created_ms),
            "expiresAt": rfc3339(k.expires_ms),
            "lastUsedAt": rfc3339(k.used_ms),
        }
        for k in found
    ]
    if form:
        print_json(shown)
        return
    columns = ["name", "scope", "state", "created", "expires", "last used"]
    print_table(f"{len(shown)} key(s)", columns, [list(k.values()) for k in shown])


@keys_group.command("revoke")
@click.argument("name")
def revoke_command(name: str) -> None:
    """End a key: no node takes it two seconds from now."""

    async def end(db: Database) -> bool:
        return await api_keys.revoke(db, name, _now_ms())

    if not read_database(end):
        click.echo(f"horae: there is no live key called '{name}'", err=True)
        sys.exit(1)
    click.echo(f"revoked '{name}'")

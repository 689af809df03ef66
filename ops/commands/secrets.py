"""`horae secrets`: a key for `HORAE_SECRET_KEY`, and changing it."""

from __future__ import annotations

import base64
import os
import sys
from functools import partial

import click

from cluster.core.errors import ConfigurationError
from cluster.store.maintenance import rotate_secrets
from cluster.store.mongo.encryption import key_id
from config.settings import SECRET_KEY_BYTES, load_settings
from ops.commands.status import read_database
from ops.support.output import print_json


@click.group("secrets")
def secrets_group() -> None:
    """The key that jobs' secrets are encrypted with (HORAE_SECRET_KEY)."""


@secrets_group.command("new-key")
def new_key_command() -> None:
    """Print a fresh key."""
    click.echo(base64.b64encode(os.urandom(SECRET_KEY_BYTES)).decode())


@secrets_group.command("rotate")
@click.option("--dry-run", is_flag=True, help="Only count.")
@click.option("--json", "form", is_flag=True, help="Print JSON.")
def rotate_command(*, dry_run: bool, form: bool) -> None:
    """Encrypt every secret again with the first key of HORAE_SECRET_KEY.

    Give all nodes "new,old" first, run this, then take the old key away. It may be stopped and run again. Exit status 1
    if there are secrets that no key opens.
    """
    keys = load_settings().secret_keys
    if not keys:
        raise ConfigurationError(["HORAE_SECRET_KEY is empty: there is no key to encrypt with"])
    done = read_database(partial(rotate_secrets.rotate, dry_run=dry_run))
    if form:
        locked = [{"jobId": job, "why": why} for job, why in done.undecryptable]
        print_json({"keyId": key_id(keys[0]), "rotated": done.reencrypted, "current": done.current, "locked": locked})
    else:
        verb = "would be" if dry_run else "were"
        click.echo(
            f"{done.reencrypted} job(s) and channel(s) {verb} encrypted with key {key_id(keys[0])}; {done.current} had been before"
        )
        for job, why in done.undecryptable:
            click.echo(f"horae: job {job}: {why}", err=True)
    if done.undecryptable:
        sys.exit(1)

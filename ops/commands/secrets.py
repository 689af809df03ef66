"""`horae secrets`: make a key for `HORAE_SECRET_KEY`, and change it."""

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
    """Manage the key that encrypts secrets of jobs and channels (HORAE_SECRET_KEY)."""


@secrets_group.command("new-key")
def new_key_command() -> None:
    """Print a new random key."""
    click.echo(base64.b64encode(os.urandom(SECRET_KEY_BYTES)).decode())


@secrets_group.command("rotate")
@click.option("--dry-run", is_flag=True, help="Only count the secrets; change nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def rotate_command(*, dry_run: bool, as_json: bool) -> None:
    """Encrypt all secrets with the first key of HORAE_SECRET_KEY.

    Give every node HORAE_SECRET_KEY=old,new and restart it; then new,old, and restart; then run this command with the
    same setting; then remove the old key (ops/RUNBOOK.md says why in this order). You can interrupt the command and run
    it again. Exit status 1 if there are secrets that no key decrypts.
    """
    keys = load_settings().secret_keys
    if not keys:
        raise ConfigurationError(["HORAE_SECRET_KEY is not set: set it to a key from `horae secrets new-key`"])
    done = read_database(partial(rotate_secrets.rotate, dry_run=dry_run))
    if as_json:
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

"""`channels`: their secrets are rotated with those of jobs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cluster.store import channels
from cluster.store.channels import Channel
from cluster.store.maintenance.rotate_secrets import rotate
from cluster.store.mongo.encryption import Keyring

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database

OPS, CHAT = "http://ops.example/alerts", "http://chat.example/secret-path"


async def test_rotation_encrypts_the_secrets_of_channels(database: Database) -> None:
    """Channels with undecryptable secrets are named by the rotation and when an alert is sent."""
    old, new, other = ((letter * 32,) for letter in (b"o", b"n", b"x"))
    before = replace(database, keyring=Keyring(old))
    await channels.put(before, Channel("chat", "slack", CHAT))
    await channels.put(before, Channel("ops", "webhook", OPS, signing_secret="whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"))
    await channels.put(before, Channel("plain", "webhook", OPS))
    both = replace(database, keyring=Keyring(new + old))
    assert (await rotate(both, dry_run=True)).reencrypted == 2
    assert (await rotate(both)).reencrypted == 2
    after = replace(database, keyring=Keyring(new))
    result = await rotate(after)
    assert (result.reencrypted, result.current, result.undecryptable) == (0, 2, ())
    by_name, undecryptable = await channels.for_sending(after, ["chat", "ops", "plain"])
    assert (by_name["chat"].url, undecryptable) == (CHAT, {})
    without = replace(database, keyring=Keyring(other))
    assert [name for name, _ in (await rotate(without)).undecryptable] == ["channel chat", "channel ops"]
    by_name, undecryptable = await channels.for_sending(without, ["chat", "plain"])
    assert (set(by_name), set(undecryptable)) == ({"plain"}, {"chat"})

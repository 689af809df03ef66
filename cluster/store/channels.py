"""`channels`: where alerts are sent. Secrets are stored encrypted and decrypted when an alert is sent."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bson.datetime_ms import DatetimeMS

from cluster.core.errors import UndecryptableSecret
from cluster.store import audited
from cluster.store.audited import Subject
from cluster.store.mongo.operation import operation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cluster.store.mongo.client import Database, Document
    from cluster.store.mongo.encryption import Keyring

SECRET_FIELDS = {"signing_secret": "signingSecret", "secret_url": "url"}


@dataclass(frozen=True, slots=True)
class Channel:
    """One channel. `kind`: `webhook` or `slack` (then `url` is set), or `email` (then `to` is)."""

    name: str
    kind: str
    url: str | None = field(default=None, repr=False)
    to: tuple[str, ...] = ()
    signing_secret: str | None = field(default=None, repr=False)
    updated_ms: int = 0

    @property
    def address(self) -> str:
        """The URL that alerts are sent to; `mailto:a@b,c@d` for mail."""
        return self.url or "mailto:" + ",".join(self.to)


def _binding(name: str) -> str:
    """What the secrets of a channel are bound to. Job ids contain no colon, so no secret can be moved between the two."""
    return f"channel:{name}"


def _subject(name: str) -> Subject:
    return Subject("channels", name, f"channel:{name}", tuple(SECRET_FIELDS))


def _fields(c: Channel, keyring: Keyring) -> Document:
    secret_url = c.kind == "slack"  # the URL of a Slack webhook is all that is needed to post there

    def encrypted(text: str | None, name: str) -> str | None:
        return None if text is None else keyring.encrypt(text, _binding(c.name), name)

    return {
        "kind": c.kind,
        "url": None if secret_url else c.url,
        "secret_url": encrypted(c.url, "url") if secret_url else None,
        "to": list(c.to),
        "signing_secret": encrypted(c.signing_secret, "signingSecret"),
        "updated_at": DatetimeMS(c.updated_ms),
    }


def _channel(d: Document, keyring: Keyring, *, lock: bool) -> Channel:
    decrypt = keyring.decrypt_or_lock if lock else keyring.decrypt

    def decrypted(name: str) -> str | None:
        return None if d[name] is None else decrypt(d[name], _binding(d["_id"]), SECRET_FIELDS[name])

    return Channel(
        name=d["_id"],
        kind=d["kind"],
        url=d["url"] if d["secret_url"] is None else decrypted("secret_url"),
        to=tuple(d["to"]),
        signing_secret=decrypted("signing_secret"),
        updated_ms=int(d["updated_at"]),
    )


async def put(db: Database, channel: Channel) -> bool:
    """Create or replace a channel. True if it was created. Raises `InvalidInput` for a secret without an encryption key."""
    fields = _fields(channel, db.keyring)
    before = await audited.put(db, _subject(channel.name), fields, channel.updated_ms)
    return before is None


async def get(db: Database, name: str) -> Channel | None:
    """The channel, None if there is none. Secrets that no key decrypts are locked."""
    with operation():
        d = await db.api["channels"].find_one({"_id": name})
    return None if d is None else _channel(d, db.keyring, lock=True)


async def list_all(db: Database) -> list[Channel]:
    """Every channel, by name. Secrets that no key decrypts are locked."""
    with operation():
        documents = await db.api["channels"].find().sort("_id", 1).to_list()
    return [_channel(d, db.keyring, lock=True) for d in documents]


async def existing_names(db: Database, names: Iterable[str]) -> set[str]:
    """Those of these names that channels have."""
    with operation():
        return {d["_id"] async for d in db.api["channels"].find({"_id": {"$in": list(names)}}, {"_id": 1})}


async def delete(db: Database, name: str, now_ms: int) -> bool:
    """Delete a channel. False if there was none."""
    return await audited.delete(db, _subject(name), now_ms)


async def for_sending(db: Database, names: Iterable[str]) -> tuple[dict[str, Channel], dict[str, str]]:
    """For the engine: channels by name, and by name why others cannot be decrypted."""
    with operation():
        documents = await db.work["channels"].find({"_id": {"$in": list(names)}}).to_list()
    channels: dict[str, Channel] = {}
    undecryptable: dict[str, str] = {}
    for d in documents:
        try:
            channels[d["_id"]] = _channel(d, db.keyring, lock=False)
        except UndecryptableSecret as exc:
            undecryptable[d["_id"]] = str(exc)
    return channels, undecryptable


async def reencrypt(db: Database, *, dry_run: bool = False) -> tuple[int, int, list[tuple[str, str]]]:
    """Encrypt the secrets of every channel with the first key. With `dry_run` nothing is written.

    Returns how many channels were (or would be) encrypted, how many were current already, and `(channel, why)` of those
    that no key decrypts.
    """
    encrypted = current = 0
    undecryptable: list[tuple[str, str]] = []
    with operation():
        documents = await db.work["channels"].find().to_list()
    for d in documents:
        stored = {name: d[name] for name in SECRET_FIELDS if d[name] is not None}
        if not stored:
            continue
        if not any(db.keyring.needs_rotation(value) for value in stored.values()):
            current += 1
            continue
        try:
            fresh = _reencrypted(d["_id"], stored, db.keyring)
        except UndecryptableSecret as exc:
            undecryptable.append((f"channel {d['_id']}", str(exc)))
            continue
        if not dry_run:
            # Only if the secrets are still those that were read: a change made meanwhile wins.
            with operation():
                await db.work["channels"].update_one({"_id": d["_id"], **stored}, {"$set": fresh})
        encrypted += 1
    return encrypted, current, undecryptable


def _reencrypted(channel: str, stored: dict[str, str], keyring: Keyring) -> dict[str, str]:
    binding = _binding(channel)
    return {
        name: keyring.encrypt(keyring.decrypt(value, binding, SECRET_FIELDS[name]), binding, SECRET_FIELDS[name])
        for name, value in stored.items()
    }

"""`channels`: where alerts go. What is secret of them is sealed, and opened by whoever sends an alert, at that time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bson.datetime_ms import DatetimeMS
from pymongo import ReturnDocument

from cluster.core.errors import UndecryptableSecret
from cluster.store.mongo.operation import operation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cluster.store.mongo.client import Database, Document
    from cluster.store.mongo.encryption import Keyring

SECRET_NAMES = {"signing_secret": "signingSecret", "secret_url": "url"}


@dataclass(frozen=True, slots=True)
class Channel:
    """One channel. `url` is set for `webhook` and `slack`, `to` for `email`."""

    name: str
    kind: str
    url: str | None = field(default=None, repr=False)
    to: tuple[str, ...] = ()
    signing_secret: str | None = field(default=None, repr=False)
    updated_ms: int = 0

    @property
    def address(self) -> str:
        """What the sender is given."""
        return self.url or "mailto:" + ",".join(self.to)


def _bound(name: str) -> str:
    """What the secrets of a channel are bound to. Job ids hold no colon, so nothing moves between the two."""
    return f"channel:{name}"


def _fields(c: Channel, vault: Keyring) -> Document:
    hidden = c.kind == "slack"  # whoever knows the URL of a Slack webhook may post there

    def sealed(text: str | None, name: str) -> str | None:
        return None if text is None else vault.encrypt(text, _bound(c.name), name)

    return {
        "kind": c.kind,
        "url": None if hidden else c.url,
        "secret_url": sealed(c.url, "url") if hidden else None,
        "to": list(c.to),
        "signing_secret": sealed(c.signing_secret, "signingSecret"),
        "updated_at": DatetimeMS(c.updated_ms),
    }


def _channel(d: Document, vault: Keyring, *, peek: bool) -> Channel:
    read = vault.decrypt_or_lock if peek else vault.decrypt

    def opened(name: str) -> str | None:
        return None if d[name] is None else read(d[name], _bound(d["_id"]), SECRET_NAMES[name])

    return Channel(
        d["_id"],
        d["kind"],
        d["url"] if d["secret_url"] is None else opened("secret_url"),
        tuple(d["to"]),
        opened("signing_secret"),
        int(d["updated_at"]),
    )


async def put(db: Database, channel: Channel) -> bool:
    """Make or replace one. True if it was made. Raises `InvalidInput` for a secret without a key to seal it with."""
    fields = _fields(channel, db.keyring)
    with operation():
        before = await db.api["channels"].find_one_and_update(
            {"_id": channel.name}, {"$set": fields}, upsert=True, return_document=ReturnDocument.BEFORE
        )
    return before is None


async def get(db: Database, name: str) -> Channel | None:
    """The channel; what no key opens is locked."""
    with operation():
        d = await db.api["channels"].find_one({"_id": name})
    return None if d is None else _channel(d, db.keyring, peek=True)


async def list_all(db: Database) -> list[Channel]:
    """Every channel, by name."""
    with operation():
        found = await db.api["channels"].find().sort("_id", 1).to_list()
    return [_channel(d, db.keyring, peek=True) for d in found]


async def existing_names(db: Database, names: Iterable[str]) -> set[str]:
    """Those of these names that are channels."""
    with operation():
        return {d["_id"] async for d in db.api["channels"].find({"_id": {"$in": list(names)}}, {"_id": 1})}


async def delete(db: Database, name: str) -> bool:
    """Remove one. False if there was none."""
    with operation():
        return (await db.api["channels"].delete_one({"_id": name})).deleted_count > 0


async def for_sending(db: Database, names: Iterable[str]) -> tuple[dict[str, Channel], dict[str, str]]:
    """For the engine: channels by name, and why others cannot be read."""
    with operation():
        found = await db.work["channels"].find({"_id": {"$in": list(names)}}).to_list()
    channels: dict[str, Channel] = {}
    locked: dict[str, str] = {}
    for d in found:
        try:
            channels[d["_id"]] = _channel(d, db.keyring, peek=False)
        except UndecryptableSecret as exc:
            locked[d["_id"]] = str(exc)
    return channels, locked


async def reencrypt(db: Database, *, dry_run: bool = False) -> tuple[int, int, list[tuple[str, str]]]:
    """Seal again with the first key: how many were, how many had been, and what no key opens."""
    sealed = current = 0
    locked: list[tuple[str, str]] = []
    with operation():
        found = await db.work["channels"].find().to_list()
    for d in found:
        held = {name: d[name] for name in SECRET_NAMES if d[name] is not None}
        if not held:
            continue
        if not any(db.keyring.needs_rotation(value) for value in held.values()):
            current += 1
            continue
        try:
            fresh = {
                name: db.keyring.encrypt(
                    db.keyring.decrypt(value, _bound(d["_id"]), SECRET_NAMES[name]),
                    _bound(d["_id"]),
                    SECRET_NAMES[name],
                )
                for name, value in held.items()
            }
        except UndecryptableSecret as exc:
            locked.append((f"channel {d['_id']}", str(exc)))
            continue
        if not dry_run:
            with operation():
                await db.work["channels"].update_one({"_id": d["_id"], **held}, {"$set": fresh})
        sealed += 1
    return sealed, current, locked

"""`sessions`: API keys that a browser holds as a cookie. Neither the cookie nor the key can be read from a document.

`_id` is the SHA-256 of the cookie, which is random. `binding` is the SHA-256 of the cookie and the key's digest: a session
counts only as long as the key of this name is the same one, and without the cookie nobody can try keys against it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bson.binary import Binary
from bson.datetime_ms import DatetimeMS

from cluster.store.mongo.codec import instant
from cluster.store.mongo.operation import operation

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database


@dataclass(frozen=True, slots=True)
class Session:
    """A session as it is stored; `digest` is the SHA-256 of its cookie."""

    digest: bytes
    key_name: str
    binding: bytes
    expires_ms: int


async def create(db: Database, session: Session, now_ms: int) -> None:
    """Store a new session."""
    document = {
        "_id": Binary(session.digest),
        "key": session.key_name,
        "binding": Binary(session.binding),
        "created_at": DatetimeMS(now_ms),
        "expire_at": DatetimeMS(session.expires_ms),
    }
    with operation():
        await db.api["sessions"].insert_one(document)


async def find(db: Database, digest: bytes) -> Session | None:
    """The session of this cookie; None if there is none. It may have expired."""
    with operation():
        d = await db.api["sessions"].find_one({"_id": Binary(digest)})
    if d is None:
        return None
    return Session(bytes(d["_id"]), d["key"], bytes(d["binding"]), instant(d["expire_at"]) or 0)


async def end(db: Database, digest: bytes) -> None:
    """Delete a session. Repeating it changes nothing."""
    with operation():
        await db.api["sessions"].delete_one({"_id": Binary(digest)})

"""`idempotency`: what was answered to requests that carried an `Idempotency-Key`, for a day.

A record is made before the work, with the name under which the work will be done. So whoever takes over a record that
its first request left behind does the same thing again, not a second one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bson.binary import Binary
from bson.datetime_ms import DatetimeMS
from pymongo.errors import DuplicateKeyError

from cluster.core.errors import Conflict, Fault, InvalidInput
from cluster.store.mongo.operation import operation

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database

RETENTION_MS = 86_400_000
ABANDONED_MS = 10_000
"""A request is answered within 5 s, so a record that is in work for longer was left behind."""


class InProgress(Conflict):
    """The first request with this key is being worked on."""


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """What was answered."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Reservation:
    """The right to do the work. `again`: an earlier request may have done it, or a part of it, under `name`."""

    key: str
    at_ms: int
    name: str
    takeover: bool = False


async def reserve(db: Database, key: str, fingerprint: str, name: str, now_ms: int) -> Reservation | StoredResponse:
    """The right to do the work, or its answer. Raises `InvalidInput` for another payload, or `InProgress`."""
    records = db.api["idempotency"]
    fresh = {
        "_id": key,
        "fingerprint": fingerprint,
        "name": name,
        "at": DatetimeMS(now_ms),
        "answer": None,
        "expire_at": DatetimeMS(now_ms + RETENTION_MS),
    }
    while True:
        with operation():
            try:
                await records.insert_one(fresh)
                return Reservation(key, now_ms, name)
            except DuplicateKeyError:
                pass
            found = await records.find_one({"_id": key})
            if found is None:
                continue
            if found["fingerprint"] != fingerprint:
                raise InvalidInput([Fault("Idempotency-Key", "was used with another payload: use a new key")])
            if found["answer"] is not None:
                a = found["answer"]
                return StoredResponse(a["status"], bytes(a["body"]), tuple((n, v) for n, v in a["headers"]))
            left_ms = int(found["at"])
            if left_ms > now_ms - ABANDONED_MS:
                raise InProgress(
                    "the first request with this Idempotency-Key is being worked on: ask again in a second"
                )
            taken = await records.update_one(
                {"_id": key, "at": found["at"], "answer": None}, {"$set": {"at": DatetimeMS(now_ms)}}
            )
            if taken.matched_count:
                return Reservation(key, now_ms, found["name"], takeover=True)


async def rename(db: Database, reservation: Reservation, name: str) -> None:
    """The work will be done under another name."""
    with operation():
        await db.api["idempotency"].update_one(_held(reservation), {"$set": {"name": name}})


async def store_response(db: Database, reservation: Reservation, response: StoredResponse) -> None:
    """The work is done: keep the answer."""
    document = {
        "status": response.status,
        "body": Binary(response.body),
        "headers": [list(h) for h in response.headers],
    }
    with operation():
        await db.api["idempotency"].update_one(_held(reservation), {"$set": {"answer": document}})


async def release(db: Database, reservation: Reservation) -> None:
    """Nothing was done: the key is free again."""
    with operation():
        await db.api["idempotency"].delete_one(_held(reservation))


async def abandon(db: Database, reservation: Reservation) -> None:
    """Whether it was done is not known: the next request may take over at once."""
    with operation():
        await db.api["idempotency"].update_one(_held(reservation), {"$set": {"at": DatetimeMS(0)}})


def _held(mine: Reservation) -> dict[str, object]:
    return {"_id": mine.key, "at": DatetimeMS(mine.at_ms), "answer": None}

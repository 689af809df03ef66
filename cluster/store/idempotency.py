"""`idempotency`: the responses to requests with an `Idempotency-Key`, for a day.

A key is reserved before the work, together with the name under which the work will be done. So a request that takes over
an abandoned reservation repeats the same work under the same name instead of doing it a second time.
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
"""A request is answered within 5 s, so a reservation without a response that is older than this was abandoned."""


class InProgress(Conflict):
    """The first request with this key is still in progress."""


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """The response to a request."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Reservation:
    """The right to do the work. `takeover`: an earlier request may have done it, or a part of it, under `name`."""

    key: str
    at_ms: int
    name: str
    takeover: bool = False


async def reserve(db: Database, key: str, fingerprint: str, name: str, now_ms: int) -> Reservation | StoredResponse:
    """The right to do the work, or the response to an earlier request.

    Raises `InvalidInput` if the key was used with another payload, `InProgress` while the first request is in progress.
    """
    records = db.api["idempotency"]
    reservation = {
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
                await records.insert_one(reservation)
                return Reservation(key, now_ms, name)
            except DuplicateKeyError:
                pass
            earlier = await records.find_one({"_id": key})
            if earlier is None:
                continue
            if earlier["fingerprint"] != fingerprint:
                raise InvalidInput([Fault("Idempotency-Key", "was used with another payload: use a new key")])
            if earlier["answer"] is not None:
                a = earlier["answer"]
                return StoredResponse(a["status"], bytes(a["body"]), tuple((n, v) for n, v in a["headers"]))
            if int(earlier["at"]) > now_ms - ABANDONED_MS:
                raise InProgress("the first request with this Idempotency-Key is in progress: repeat it in a second")
            taken_over = await records.update_one(
                {"_id": key, "at": earlier["at"], "answer": None}, {"$set": {"at": DatetimeMS(now_ms)}}
            )
            if taken_over.matched_count:
                return Reservation(key, now_ms, earlier["name"], takeover=True)


async def rename(db: Database, reservation: Reservation, name: str) -> None:
    """Change the name under which the work will be done."""
    with operation():
        await db.api["idempotency"].update_one(_open(reservation), {"$set": {"name": name}})


async def store_response(db: Database, reservation: Reservation, response: StoredResponse) -> None:
    """Store the response of the work that is done."""
    document = {
        "status": response.status,
        "body": Binary(response.body),
        "headers": [list(h) for h in response.headers],
    }
    with operation():
        await db.api["idempotency"].update_one(_open(reservation), {"$set": {"answer": document}})


async def release(db: Database, reservation: Reservation) -> None:
    """Free the key, because nothing was done."""
    with operation():
        await db.api["idempotency"].delete_one(_open(reservation))


async def abandon(db: Database, reservation: Reservation) -> None:
    """Let the next request take over at once, because it is not known whether the work was done."""
    with operation():
        await db.api["idempotency"].update_one(_open(reservation), {"$set": {"at": DatetimeMS(0)}})


def _open(reservation: Reservation) -> dict[str, object]:
    """Matches the reservation unless another request has taken it over or a response is stored."""
    return {"_id": reservation.key, "at": DatetimeMS(reservation.at_ms), "answer": None}

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
from cluster.store.mongo.operation import translated

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database

KEPT_MS = 86_400_000
LEFT_MS = 10_000
"""A request is answered within 5 s, so a record that is in work for longer was left behind."""


class InProgress(Conflict):
    """The first request with this key is being worked on."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Mine:
    """The right to do the work. `again`: an earlier request may have done it, or a part of it, under `name`."""

    key: str
    at_ms: int
    name: str
    again: bool = False


async def begin(db: Database, key: str, fingerprint: str, name: str, now_ms: int) -> Mine | Answer:
    """The right to do the work, or its answer. Raises `InvalidInput` for another payload, or `InProgress`."""
    records = db.api["idempotency"]
    fresh = {
        "_id": key,
        "fingerprint": fingerprint,
        "name": name,
        "at": DatetimeMS(now_ms),
        "answer": None,
        "expire_at": DatetimeMS(now_ms + KEPT_MS),
    }
    while True:
        with translated():
            try:
                await records.insert_one(fresh)
                return Mine(key, now_ms, name)
            except DuplicateKeyError:
                pass
            found = await records.find_one({"_id": key})
            if found is None:
                continue
            if found["fingerprint"] != fingerprint:
                raise InvalidInput([Fault("Idempotency-Key", "was used with another payload: use a new key")])
            if found["answer"] is not None:
                a = found["answer"]
                return Answer(a["status"], bytes(a["body"]), tuple((n, v) for n, v in a["headers"]))
            left_ms = int(found["at"])
            if left_ms > now_ms - LEFT_MS:
                raise InProgress(
                    "the first request with this Idempotency-Key is being worked on: ask again in a second"
                )
            taken = await records.update_one(
                {"_id": key, "at": found["at"], "answer": None}, {"$set": {"at": DatetimeMS(now_ms)}}
            )
            if taken.matched_count:
                return Mine(key, now_ms, found["name"], again=True)


async def rename(db: Database, mine: Mine, name: str) -> None:
    """The work will be done under another name."""
    with translated():
        await db.api["idempotency"].update_one(_held(mine), {"$set": {"name": name}})


async def finish(db: Database, mine: Mine, answer: Answer) -> None:
    """The work is done: keep the answer."""
    document = {"status": answer.status, "body": Binary(answer.body), "headers": [list(h) for h in answer.headers]}
    with translated():
        await db.api["idempotency"].update_one(_held(mine), {"$set": {"answer": document}})


async def forget(db: Database, mine: Mine) -> None:
    """Nothing was done: the key is free again."""
    with translated():
        await db.api["idempotency"].delete_one(_held(mine))


async def leave(db: Database, mine: Mine) -> None:
    """Whether it was done is not known: the next request may take over at once."""
    with translated():
        await db.api["idempotency"].update_one(_held(mine), {"$set": {"at": DatetimeMS(0)}})


def _held(mine: Mine) -> dict[str, object]:
    return {"_id": mine.key, "at": DatetimeMS(mine.at_ms), "answer": None}

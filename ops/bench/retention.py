"""For `horae bench --case retention`: history that expires as fast as new history is recorded.

The expiring documents are copies of recorded ones, so that documents and indexes are as they would be after days.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pymongo.database import Database

CHUNK = 5000
SECONDS = 125
"""Long enough for at least two runs of MongoDB's TTL deletion, which runs once a minute."""


def fill(database: Database[dict[str, Any]], now: datetime, rate: int, seconds: int) -> None:
    """Insert old history of which `rate` documents expire per second, from soon after `now`, for `seconds`."""
    samples = list(database["history"].find().limit(200))
    documents = _old(samples, now + timedelta(seconds=15), rate, rate * (seconds + 30))
    while chunk := list(islice(documents, CHUNK)):
        database["history"].insert_many(chunk, ordered=False)


def _old(samples: list[dict[str, Any]], began: datetime, rate: int, count: int) -> Iterator[dict[str, Any]]:
    for n in range(count):
        due = began - timedelta(days=7) + timedelta(seconds=n // rate)
        job = f"old{n % rate}"
        yield {
            **samples[n % len(samples)],
            "_id": f"{job}:{int(due.timestamp()) * 1000:013d}",
            "job_id": job,
            "due_at": due,
            "ended_at": due,
            "expire_at": began + timedelta(seconds=n / rate),
        }


def expiring_left(database: Database[dict[str, Any]]) -> int:
    """How many of the inserted documents still exist."""
    return database["history"].count_documents({"_id": {"$gte": "old", "$lt": "ole"}})


def overdue(database: Database[dict[str, Any]], now: datetime) -> int:
    """How many expired documents still exist."""
    return database["history"].count_documents({"expire_at": {"$lt": now}})


def deleted_by_ttl(database: Database[dict[str, Any]]) -> int:
    """How many documents MongoDB's TTL has deleted since it started."""
    return int(database.client.admin.command("serverStatus")["metrics"]["ttl"]["deletedDocuments"])

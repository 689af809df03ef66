"""`revisions`: the earlier definitions of jobs. The present one is the job itself.

Before a job is written, the server copies it here as it is, under its id and revision. A revision never changes, so the
copy may be made by several writers, and of a change that is then not made. The secrets of the job are left out of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pymongo import DeleteMany

from cluster.core.actor import actor_from_document
from cluster.store.mongo.codec import instant
from cluster.store.mongo.operation import operation, retry_while_unavailable
from cluster.store.outbox import HIDDEN, OUTBOX

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cluster.core.actor import Actor
    from cluster.store.mongo.client import Database, Document

KEPT = 50
"""The revisions of a job that are kept, with the present one."""
RETRY_SECONDS = 3.0
"""Within the deadline of a request."""
_NOT_DEFINED = (
    "past",
    "words",
    "unsettled",
    "running",
    "followed_by",
    "told_until",
    OUTBOX,
    "first_at",
    "last_at",
    "last_run_at",
    "last_state",
    "last_due_at",
    "failing",
)


def _of_callback(name: str) -> Document:
    """A callback without its secrets. What it has not, it has not afterwards."""
    headers = {
        "$map": {
            "input": f"${name}.secret_headers",
            "as": "header",
            "in": [{"$arrayElemAt": ["$$header", 0]}, HIDDEN],
        }
    }
    without = [
        {"$cond": [{"$gt": [f"${name}.secret_headers", None]}, {"secret_headers": headers}, {}]},
        {"$cond": [{"$gt": [f"${name}.signing_secret", None]}, {"signing_secret": HIDDEN}, {}]},
    ]
    return {"$cond": [{"$gt": [f"${name}", None]}, {"$mergeObjects": [f"${name}", *without]}, None]}


_SECRETS: Document = {
    **{
        name: {"$cond": [{"$gt": [f"${name}", None]}, HIDDEN, None]}
        for name in ("signing_secret", "previous_signing_secret")
    },
    "secret_headers": {
        "$map": {
            "input": {"$ifNull": ["$secret_headers", []]},
            "as": "header",
            "in": [{"$arrayElemAt": ["$$header", 0]}, HIDDEN],
        }
    },
    "auth": {"$cond": [{"$gt": ["$auth", None]}, {"$mergeObjects": ["$auth", {"secret": HIDDEN}]}, None]},
    **{name: _of_callback(name) for name in ("on_success", "on_failure")},
}


@dataclass(frozen=True, slots=True)
class RevisionOrigin:
    """Who made a revision, and how: `action` as in the audit log. `revision`: the one that was made."""

    revision: int
    at_ms: int
    action: str
    by: Actor


def origin_document(origin: RevisionOrigin) -> Document:
    """As stored in the job."""
    return {
        "revision": origin.revision,
        "at_ms": origin.at_ms,
        "action": origin.action,
        "by": origin.by.to_document(),
    }


def origin_of(d: Mapping[str, Any]) -> RevisionOrigin | None:
    """Who made the job what it is; None if that is not stored: by a node of the release before."""
    stored = d.get("origin")
    if stored is None or stored["revision"] > d["revision"]:
        return None
    return RevisionOrigin(stored["revision"], stored["at_ms"], stored["action"], actor_from_document(stored["by"]))


async def keep(db: Database, job_ids: Sequence[str]) -> None:
    """Copy these jobs, as they are now. Repeated while MongoDB is unavailable: the driver does not repeat such a write."""
    pipeline: list[Document] = [
        {"$match": {"_id": {"$in": list(job_ids)}}},
        {"$unset": list(_NOT_DEFINED)},
        {"$set": _SECRETS},
        {"$set": {"_id": {"job": "$_id", "n": "$revision"}}},
        {"$merge": {"into": "revisions", "on": "_id", "whenMatched": "keepExisting", "whenNotMatched": "insert"}},
    ]

    async def copy() -> None:
        with operation():
            await (await db.api["jobs"].aggregate(pipeline)).to_list()

    await retry_while_unavailable(copy, seconds=RETRY_SECONDS, during="revisions.keep")


async def trim(db: Database, latest: Mapping[str, int]) -> None:
    """Delete the revisions of these jobs that are older than the last `KEPT`. `latest`: their present ones, by id."""
    deletions = [DeleteMany(_older_than(job, n - KEPT + 1)) for job, n in latest.items() if n > KEPT]
    if deletions:
        with operation():
            await db.api["revisions"].bulk_write(deletions, ordered=False)


def _older_than(job_id: str, n: int) -> Document:
    return {"_id": {"$gte": {"job": job_id, "n": 0}, "$lt": {"job": job_id, "n": n}}}


async def documents(db: Database, job_id: str, below: int, limit: int) -> list[Document]:
    """The stored revisions below one, the latest first, with `_id` as the job has it."""
    with operation():
        found = await db.api["revisions"].find(_older_than(job_id, below)).sort("_id", -1).limit(limit).to_list()
    return [{**d, "_id": job_id} for d in found]


async def document(db: Database, job_id: str, n: int) -> Document | None:
    """One stored revision; None if it is not kept."""
    with operation():
        d = await db.api["revisions"].find_one({"_id": {"job": job_id, "n": n}})
    return None if d is None else {**d, "_id": job_id}


async def delete(db: Database, latest: Mapping[str, int]) -> None:
    """Delete all revisions of jobs up to these, before their tombstones go."""
    deletions = [DeleteMany(_older_than(job, n + 1)) for job, n in latest.items()]
    if deletions:
        with operation():
            await db.work["revisions"].bulk_write(deletions, ordered=False)


def made_ms(d: Document) -> int:
    """When a revision was made."""
    return instant(d["updated_at"]) or 0

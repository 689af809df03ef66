"""`actions`: requests to change many jobs, and the progress of each. `action_jobs`: the jobs that a request matched.

The jobs are stored with the request, in pages, so that a job that comes later is not touched. The leader stores the page
that it begins before it changes the first job of it, so the next leader after a crash finishes exactly that page.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from bson.datetime_ms import DatetimeMS
from pymongo.errors import DuplicateKeyError

from cluster.core.actor import HORAE, Actor, actor_from_document
from cluster.store import progress
from cluster.store.history import DAY_MS
from cluster.store.mongo.codec import date, instant
from cluster.store.mongo.operation import operation
from cluster.store.progress import RETENTION_MS, RUNNING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.store.mongo.client import Database, Document

PAGES_RETENTION_MS = 30 * DAY_MS
"""Longer than the slowest action takes. The pages of an action are deleted when it ends; this is for what a crash leaves."""
MOST_FAILURES = 1000
"""Failures that are kept with their reasons."""
PATCH_FIELD = "patch"


@dataclass(frozen=True, slots=True)
class Action:
    """One request. `filter`: as `queries.action_targets` stores it; `pages`: the name of its pages in `action_jobs`.

    `page`: the next page; `page_ms`: the instant at which it was begun, 0 if it was not; `next_ms`: when it is due.
    `left_out`: jobs that no longer matched at their turn. `failures`: `(job id, reason)` of the first that failed.
    `by`: who asked for it. `patch`: a merge patch as it is stored, which `patch_text` reads, and `fields`: the names in it.
    """

    id: str
    kind: str
    filter: Document
    per_second: float
    created_ms: int
    matched: int
    pages: str
    by: Actor = HORAE
    patch: str | None = field(default=None, repr=False)
    fields: tuple[str, ...] = ()
    state: str = RUNNING
    page: int = 0
    page_ms: int = 0
    next_ms: int = 0
    done: int = 0
    left_out: int = 0
    failed: int = 0
    failures: tuple[tuple[str, str], ...] = ()
    ended_ms: int | None = None
    rev: int = 0


def _action(d: Document) -> Action:
    return Action(
        id=d["_id"],
        kind=d["kind"],
        filter=d["filter"],
        per_second=d["per_second"],
        created_ms=int(d["created_at"]),
        matched=d["matched"],
        pages=d["pages"],
        by=actor_from_document(d["by"]),
        patch=d.get(PATCH_FIELD),
        fields=tuple(d["fields"]),
        state=d["state"],
        page=d["page"],
        page_ms=int(d["page_at"]),
        next_ms=int(d["next_at"]),
        done=d["done"],
        left_out=d["left_out"],
        failed=d["failed"],
        failures=tuple((f["job"], f["reason"]) for f in d["failures"]),
        ended_ms=instant(d["ended_at"]),
        rev=d["rev"],
    )


def _progress(a: Action) -> Document:
    """The fields that change."""
    return {
        "state": a.state,
        "page": a.page,
        "page_at": DatetimeMS(a.page_ms),
        "next_at": DatetimeMS(a.next_ms),
        "done": a.done,
        "left_out": a.left_out,
        "failed": a.failed,
        "failures": [{"job": job, "reason": reason} for job, reason in a.failures[:MOST_FAILURES]],
        "ended_at": date(a.ended_ms),
        "rev": a.rev,
        **({} if a.ended_ms is None else {"expire_at": DatetimeMS(a.ended_ms + RETENTION_MS)}),
    }


async def insert_page(db: Database, pages: str, number: int, job_ids: Sequence[str], now_ms: int) -> None:
    """Store a page of jobs of a request that is about to be stored."""
    document = {
        "_id": f"{pages}:{number:08d}",
        "jobs": list(job_ids),
        "expire_at": DatetimeMS(now_ms + PAGES_RETENTION_MS),
    }
    with operation():
        await db.api["action_jobs"].insert_one(document)


async def insert(db: Database, action: Action) -> bool:
    """Store a new request, after its pages; its patch is still plain text. False if there is one of this id: the same
    request was made before.
    """
    patch: Any = action.patch
    if patch is not None and db.keyring.current_key_id is not None:  # a patch may hold secrets
        patch = db.keyring.encrypt(patch, action.id, PATCH_FIELD)
    document = {
        "_id": action.id,
        "kind": action.kind,
        "filter": action.filter,
        "per_second": action.per_second,
        "created_at": DatetimeMS(action.created_ms),
        "matched": action.matched,
        "pages": action.pages,
        "by": action.by.to_document(),
        "fields": list(action.fields),
        **({} if patch is None else {PATCH_FIELD: patch}),
        **_progress(action),
    }
    with operation():
        try:
            await db.api["actions"].insert_one(document)
        except DuplicateKeyError:
            return False
    return True


def patch_text(db: Database, action: Action) -> str | None:
    """The text of the merge patch. Raises `UndecryptableSecret`."""
    return db.keyring.decrypt_optional(action.patch, action.id, PATCH_FIELD)


async def get(db: Database, action_id: str) -> Action | None:
    """The request with its progress; None if there is none, or its retention has ended."""
    with operation():
        d = await db.api["actions"].find_one({"_id": action_id}, {PATCH_FIELD: 0})
    return None if d is None else _action(d)


async def newest(db: Database, limit: int, before: tuple[int, str] | None = None) -> list[Action]:
    """The latest requests, those before `(created in ms, id)` if given."""
    query: Document = {}
    if before is not None:
        at = DatetimeMS(before[0])
        query = {"$or": [{"created_at": {"$lt": at}}, {"created_at": at, "_id": {"$lt": before[1]}}]}
    with operation():
        documents = (
            await db.api["actions"]
            .find(query, {PATCH_FIELD: 0, "failures": 0})
            .sort([("created_at", -1), ("_id", -1)])
            .limit(limit)
            .to_list()
        )
    return [_action({**d, "failures": []}) for d in documents]


async def next_due(db: Database) -> Action | None:
    """The request that the leader works on next; None: all have ended."""
    d = await progress.next_due(db, "actions")
    return None if d is None else _action(d)


async def page_of(db: Database, action: Action) -> list[str] | None:
    """The jobs of the page that `action` has come to; None behind the last one."""
    with operation():
        d = await db.work["action_jobs"].find_one({"_id": f"{action.pages}:{action.page:08d}"})
    return None if d is None else list(d["jobs"])


async def save(db: Database, action: Action) -> Action | None:
    """Store the progress by compare-and-set on `rev`. Returns the request as stored; None if it was stopped, or another
    leader was faster.
    """
    saved = replace(action, rev=action.rev + 1)
    ended = None if saved.state == RUNNING else {PATCH_FIELD: ""}
    stored = await progress.save(db, "actions", action.id, action.rev, _progress(saved), ended)
    return saved if stored else None


async def save_page(db: Database, action: Action, done: Action) -> None:
    """Store that the page which `action` had begun is done, also if the request was stopped meanwhile. A page that another
    leader has noted as done is not counted twice.
    """
    this_page = {"_id": action.id, "page": action.page, "page_at": DatetimeMS(action.page_ms)}
    fields = ("page", "page_at", "next_at", "done", "left_out", "failed", "failures")
    stored = _progress(done)
    with operation():
        await db.work["actions"].update_one(this_page, {"$set": {f: stored[f] for f in fields}, "$inc": {"rev": 1}})


async def stop(db: Database, action_id: str, now_ms: int) -> Action | None:
    """Stop a request that is running. Returns it as it is now; None if there is none."""
    await progress.stop(db, "actions", action_id, now_ms, {PATCH_FIELD: ""})
    return await get(db, action_id)


async def delete_pages(db: Database, pages: str) -> None:
    """Delete the pages of a request that has ended."""
    with operation():
        await db.api["action_jobs"].delete_many({"_id": {"$gte": f"{pages}:", "$lt": f"{pages};"}})

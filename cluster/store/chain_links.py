"""`followed_by` of a job: the jobs that are chained to it, or about to be, each with the time and an id of the link.

The entry is written before the job that it names: it is what nodes see when they end an execution, and the intent by which two
changes that would close a cycle together see each other. An entry whose job runs after another one by now does no harm.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bson.datetime_ms import DatetimeMS

from cluster.core.lifecycle import JobState
from cluster.store.mongo.operation import operation

if TYPE_CHECKING:
    from collections.abc import Collection

    from cluster.store.mongo.client import Database, Document

FOLLOWED_BY = "followed_by"
MOST_CHAINED = 1000
"""Jobs that run after one job: nodes read their names with it, and write a run of each when it has run."""
TRIMMED_AT_ONCE = 1000
IDS_AT_ONCE = 1000
_NOT_DELETED: Document = {"state": {"$ne": JobState.DELETED.value}}


async def intend(db: Database, job_id: str, after: str, at_ms: int, link: str) -> bool:
    """Note that the job is to run after the other one. False: there is no such other job, or it has no room."""
    entry = {"job": job_id, "at": DatetimeMS(at_ms), "id": link}
    query: Document = {"_id": after, **_NOT_DELETED, "channel": None, _last_place(): {"$exists": False}}
    with operation():
        result = await db.api["jobs"].update_one(query, {"$push": {FOLLOWED_BY: entry}})
    return result.matched_count > 0


def _last_place() -> str:
    return f"{FOLLOWED_BY}.{MOST_CHAINED - 1}"


async def make_room(db: Database, job_id: str) -> bool:
    """Whether the job had no room; then the entries of jobs that run after other ones by now are removed."""
    query: Document = {"_id": job_id, **_NOT_DELETED, _last_place(): {"$exists": True}}
    with operation():
        document = await db.api["jobs"].find_one(query, {FOLLOWED_BY: 1})
    if document is None:
        return False
    used = set((await chained_ids(db, [job_id])).get(job_id, ()))
    # No change relies on these: what they noted was written before, and whoever chains such a job again makes a new entry.
    over = [e["id"] for e in document[FOLLOWED_BY] if "made" in e and e["job"] not in used]
    with operation():
        await db.api["jobs"].update_one({"_id": job_id}, {"$pull": {FOLLOWED_BY: {"id": {"$in": over}}}})
    return True


async def confirm(db: Database, job_id: str, after: str, link: str) -> None:
    """The change is written: the note is an intent no more, and what the job says counts.

    It replaces earlier ones that are confirmed, in one write, so that of two that replace each other one stays. Intents stay:
    each is withdrawn by its own change, which may come to nothing.
    """
    this: Document = {"$eq": ["$$this.id", link]}
    kept = {"$or": [this, {"$ne": ["$$this.job", job_id]}, {"$not": ["$$this.made"]}]}
    made = {"$cond": [this, {"$mergeObjects": ["$$this", {"made": True}]}, "$$this"]}
    entries = {"$map": {"input": {"$filter": {"input": f"${FOLLOWED_BY}", "cond": kept}}, "in": made}}
    with operation():
        await db.api["jobs"].update_one({"_id": after, f"{FOLLOWED_BY}.id": link}, [{"$set": {FOLLOWED_BY: entries}}])


async def withdraw(db: Database, after: str, link: str) -> None:
    """Take the note back."""
    with operation():
        await db.api["jobs"].update_one({"_id": after}, {"$pull": {FOLLOWED_BY: {"id": link}}})


async def parents(db: Database, job_ids: Collection[str], intents_since_ms: int) -> dict[str, dict[str, bool]]:
    """The jobs that each of these runs after, or was to run after since an instant; each with whether it does already."""
    ids = list(job_ids)
    found: dict[str, dict[str, bool]] = {job: {} for job in ids}
    with operation():
        intents = await db.api["jobs"].find({f"{FOLLOWED_BY}.job": {"$in": ids}}, {FOLLOWED_BY: 1}).to_list()
        # Behind the intents: a change that is written meanwhile is met in one of the two.
        stored = await db.api["jobs"].find({"_id": {"$in": ids}, **_NOT_DELETED}, {"after.job": 1}).to_list()
    for d in intents:
        for e in d[FOLLOWED_BY]:
            if e["job"] in found and int(e["at"]) >= intents_since_ms and "made" not in e:
                found[e["job"]][d["_id"]] = False
    for d in stored:
        if d.get("after"):
            found[d["_id"]][d["after"]["job"]] = True
    return found


async def children(db: Database, job_ids: Collection[str], intents_since_ms: int) -> set[str]:
    """The jobs that run after one of these, or were to run after one since an instant. So many ids at a time are asked
    for that the request stays small, however many jobs run after one.
    """
    found: set[str] = set()
    ids = list(job_ids)
    for portion in (ids[i : i + IDS_AT_ONCE] for i in range(0, len(ids), IDS_AT_ONCE)):
        with operation():
            intents = await db.api["jobs"].find({"_id": {"$in": portion}}, {FOLLOWED_BY: 1}).to_list()
        found |= {
            e["job"]
            for d in intents
            for e in d.get(FOLLOWED_BY, ())
            if int(e["at"]) >= intents_since_ms and "made" not in e
        }
        # Behind the intents, as for the parents.
        found = found.union(*(await chained_ids(db, portion)).values())
    return found


async def chained_ids(db: Database, job_ids: Collection[str]) -> dict[str, list[str]]:
    """The jobs that name one of these in their `after`, by that."""
    query: Document = {"after.job": {"$in": list(job_ids)}, **_NOT_DELETED}
    by_job: dict[str, list[str]] = {}
    with operation():
        async for d in db.api["jobs"].find(query, {"after.job": 1}):
            by_job.setdefault(d["after"]["job"], []).append(d["_id"])
    return by_job


async def links_of_created(db: Database, job_ids: Collection[str], at_ms: int) -> dict[str, Document]:
    """The links with which jobs of these ids are created: of those that name one already, because it had been deleted.

    No other job can be chained to one of them until it is there.
    """
    return {
        job: {
            FOLLOWED_BY: [
                {"job": child, "at": DatetimeMS(at_ms), "id": uuid.uuid4().hex, "made": True} for child in children
            ]
        }
        for job, children in (await chained_ids(db, job_ids)).items()
    }


@dataclass(frozen=True, slots=True)
class Trimmed:
    """How many entries were removed, and behind which job the next call goes on; empty: from the first one."""

    entries: int
    reached: str


async def trim(db: Database, before_ms: int, behind: str = "") -> Trimmed:
    """Remove entries of before an instant whose job runs after another one, or is gone: those of the next jobs by id.

    Most entries are in use and stay, so the place is kept: from the first job each time, the later ones would never be met.
    """
    old: Document = {
        "_id": {"$gt": behind},
        f"{FOLLOWED_BY}.job": {"$exists": True},
        f"{FOLLOWED_BY}.at": {"$lt": DatetimeMS(before_ms)},
    }
    with operation():
        # By the index of those that have entries, which are few of all jobs.
        found = db.work["jobs"].find(old, {FOLLOWED_BY: 1}).hint(FOLLOWED_BY).sort("_id", 1).limit(TRIMMED_AT_ONCE)
        documents = await found.to_list()
        children: dict[str, set[str]] = {}
        query: Document = {"after.job": {"$in": [d["_id"] for d in documents]}, **_NOT_DELETED}
        async for d in db.work["jobs"].find(query, {"after.job": 1}):
            children.setdefault(d["after"]["job"], set()).add(d["_id"])
        removed = 0
        for d in documents:
            used = children.get(d["_id"], set())
            # Only entries that were read: one that is written meanwhile has an id of its own, and stays.
            outdated = [e["id"] for e in d[FOLLOWED_BY] if int(e["at"]) < before_ms and e["job"] not in used]
            if outdated:
                await db.work["jobs"].update_one({"_id": d["_id"]}, {"$pull": {FOLLOWED_BY: {"id": {"$in": outdated}}}})
                removed += len(outdated)
    return Trimmed(removed, documents[-1]["_id"] if len(documents) == TRIMMED_AT_ONCE else "")

"""The last results of jobs (`last_due_at`, `last_state`, `last_run_at`, `failing` in `jobs`), which lists of jobs sort and
filter by.

They are rolled up, not written with each execution: nodes save the latest result of a job now and then, and the leader
compares all jobs with history in turn. A save only moves a job forward, so any number of nodes may save in any order, and
each save may be repeated. Neither revision nor schedule version change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bson.datetime_ms import DatetimeMS
from pymongo import UpdateOne

from cluster.core.lifecycle import JobState, State
from cluster.core.value import value
from cluster.store.history import REOPENED
from cluster.store.mongo.codec import date, instant
from cluster.store.mongo.decoding import decode_readable
from cluster.store.mongo.operation import operation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.store.mongo.client import Database, Document

FAILING = (State.FAILED.value, State.DEAD.value)


@value(frozen=True, slots=True)
class LastResult:
    """The final execution of a job that was due last (ms), and when its last request was sent, if one was."""

    job_id: str
    due_ms: int
    state: str
    run_ms: int | None = None

    @property
    def failing(self) -> bool:
        """Whether the job fails as of this result."""
        return self.state in FAILING


async def save(db: Database, results: Sequence[LastResult]) -> None:
    """Save these results with their jobs, unless a job has that of a later execution already."""
    if not results:
        return
    with operation():
        await db.work["jobs"].bulk_write([UpdateOne({"_id": r.job_id}, _update(r)) for r in results], ordered=False)


def _update(r: LastResult) -> list[Document]:
    due = DatetimeMS(r.due_ms)
    later = {"$gte": [due, "$last_due_at"]}  # a missing field is less than any date
    return [
        {
            "$set": {
                "last_run_at": {"$ifNull": [{"$max": ["$last_run_at", date(r.run_ms)]}, "$$REMOVE"]},
                "last_state": {"$cond": [later, r.state, "$last_state"]},
                "last_due_at": {"$max": ["$last_due_at", due]},
            }
        },
        {"$set": {"failing": {"$cond": [{"$in": ["$last_state", list(FAILING)]}, True, "$$REMOVE"]}}},
    ]


async def compare_page(
    db: Database, after: str, limit: int, saved_before_ms: int
) -> tuple[list[LastResult], str | None]:
    """Of the next `limit` jobs in order of id, the last results by history that differ from the saved ones.

    A look into history costs more than an execution. So jobs whose saved result was due at `saved_before_ms` or later are
    left out: nodes are saving their results. Second, the id behind which the next page begins; None at the end.
    """
    with operation():
        jobs = await db.work["jobs"].find({"_id": {"$gt": after}}, _SAVED_FIELDS).sort("_id", 1).limit(limit).to_list()
    listed = [d for d in jobs if d.get("state") != JobState.DELETED.value and d.get("channel") is None]
    unsure = [d["_id"] for d in listed if (instant(d.get("last_due_at")) or 0) < saved_before_ms]
    end = jobs[-1]["_id"] if len(jobs) == limit else None
    if not unsure:
        return [], end
    pipeline: list[Document] = [
        {"$match": {"_id": {"$in": unsure}}},
        {"$project": _SAVED_FIELDS},
        {
            "$lookup": {
                "from": "history",
                "let": {"low": {"$concat": ["$_id", ":"]}, "high": {"$concat": ["$_id", ";"]}},
                "pipeline": [
                    {"$match": {"$expr": {"$and": [{"$gte": ["$_id", "$$low"]}, {"$lt": ["$_id", "$$high"]}]}}},
                    {"$sort": {"_id": -1}},
                    {"$match": {"state": {"$ne": REOPENED}}},
                    {"$limit": 1},
                    {"$project": {"job_id": 1, "state": 1, "due_at": 1, "last_at": 1, "attempts.sent_at": 1}},
                ],
                "as": "last",
            }
        },
    ]
    with operation():
        documents = await (await db.work["jobs"].aggregate(pipeline)).to_list()
    found = decode_readable("history", [d for d in documents if d["last"]], _differing)
    return [r for r in found if r is not None], end


_SAVED_FIELDS = dict.fromkeys(("state", "channel", "last_due_at", "last_state", "last_run_at"), 1)


def _differing(d: Document) -> LastResult | None:
    last = d["last"][0]
    sent = last["attempts"][-1:]
    result = LastResult(
        d["_id"],
        int(last.get("last_at") or last["due_at"]),
        last["state"],
        int(sent[0]["sent_at"]) if sent else None,
    )
    saved_due, saved_run = instant(d.get("last_due_at")), instant(d.get("last_run_at"))
    same_run = result.run_ms is None or (saved_run is not None and saved_run >= result.run_ms)
    return None if same_run and (result.due_ms, result.state) == (saved_due, d.get("last_state")) else result

"""The reads of `horae verify`: jobs, owed executions and records, page by page in the order of execution ids.

Execution ids are `job:ms`, so the records of one job lie side by side. Jobs are read in the order of `id + ":"`, which
is that of their records (`a-1:` and `a0:` lie before `a:`, although `a` lies before `a-1`). Each query is one bounded
page: the load on the database is that of one connection, and nothing here grows with the time range.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bson.datetime_ms import DatetimeMS

from cluster.core.execution.verdict import expand_codes
from cluster.core.verify.calendars import calendar_in
from cluster.core.verify.records import Record, RecordedAttempt
from cluster.core.verify.subjects import REREAD_MS, MissedRecord, OwedPeriod, VerifiedJob
from cluster.store import batches
from cluster.store.history import LEFT_OUT
from cluster.store.jobs import MAX_PERIODS
from cluster.store.meta import RETENTION_ID
from cluster.store.mongo.codec import LARGE_BODY, instant
from cluster.store.mongo.operation import operation
from cluster.store.queries import verify_windows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from cluster.store.mongo.client import Database, Document

PAGE = 5000
JOBS = 1000
_FIELDS = dict.fromkeys(
    (
        "schedule",
        "timezone",
        "anchor",
        "start_at",
        "end_at",
        "schedule_key",
        "schedule_version",
        "active_from",
        "state",
        "spread_seconds",
        "retention_days",
        "success_codes",
        "codes_at",
        "overlap",
        "catch_up",
        "catch_up_window_seconds",
        "retry",
        "unsettled",
        "revision",
        "created_at",
        "updated_at",
        "past",
        "tags",
        "host",
        "queue",
    ),
    1,
)
_PROJECTION: Document = {
    "attempts.excerpt": 0,
    "attempts.detail": 0,
    LARGE_BODY: 0,
    "answer": 0,
    **dict.fromkeys(("message.body", "message.headers"), 0),
}
"""Excerpts and details are the largest part of a document, and verification does not need them."""


@dataclass(frozen=True, slots=True)
class UnreadableRecord:
    """A document that cannot be read, and why."""

    collection: str
    id: str
    why: str


@dataclass(frozen=True, slots=True)
class IdRange:
    """Execution ids `first <= id < last`; `job` None: of any job, or between jobs, where no record should be."""

    job: str | None
    first: str
    last: str


async def now_ms(db: Database) -> int:
    """The database's clock, ms."""
    with operation():
        hello = await db.work.client.admin.command("hello")
    return int(hello["localTime"].timestamp() * 1000)


async def shortest_retention_days(db: Database, configured: float) -> float:
    """The shortest retention that results were ever recorded under; `configured` (days) if none is stored."""
    with operation():
        retention = await db.work["meta"].find_one({"_id": RETENTION_ID})
    return configured if retention is None else min(configured, float(retention["days"]))


async def ids_in_order(db: Database, after: str = "") -> AsyncIterator[str]:
    """The ids of all jobs in the order of `id + ":"`, tombstones too."""
    prefixes: list[str] = []  # ids that are prefixes of the next id: at most as many as an id has characters
    while True:
        with operation():
            page = await db.work["jobs"].find({"_id": {"$gt": after}}, {"_id": 1}).sort("_id", 1).limit(JOBS).to_list()
        for d in page:
            name = str(d["_id"])
            while prefixes and not f"{name}:" < f"{prefixes[-1]}:":
                yield prefixes.pop()
            prefixes.append(name)
        if len(page) < JOBS:
            break
        after = page[-1]["_id"]
    while prefixes:
        yield prefixes.pop()


async def jobs_to_verify(db: Database, ids: Sequence[str]) -> tuple[dict[str, VerifiedJob], list[UnreadableRecord]]:
    """These jobs by id, with the progress of their rows and open ranges; and the jobs that cannot be read."""
    with operation():
        documents = await db.work["jobs"].find({"_id": {"$in": list(ids)}}, _FIELDS).to_list()
        keys = {d.get("schedule_key") for d in documents}
        rows = await db.work["schedules"].find({"_id": {"$in": list(keys)}}, {"next_at": 1}).to_list()
        ranges = await db.work["backfills"].find({"key": {"$in": list(keys)}}).to_list()
    next_ms = {d["_id"]: int(d["next_at"]) for d in rows}
    jobs: dict[str, VerifiedJob] = {}
    unreadable = []
    rules = await verify_windows.rules(db)
    for d in documents:
        try:
            open_ranges = [
                _open_range(b) for b in ranges if b["key"] == d["schedule_key"] and b["job_id"] in (None, d["_id"])
            ]
            job = _verified_job(d, next_ms.get(d["schedule_key"]), open_ranges)
            subject = d.get("tags") or (), d.get("host") or "", d.get("queue")
            jobs[d["_id"]] = replace(job, windows=tuple(rule for rule in rules if rule.concerns(*subject)))
        except Exception as exc:
            unreadable.append(UnreadableRecord("jobs", str(d["_id"]), f"{type(exc).__name__}: {str(exc)[:200]}"))
    return jobs, unreadable


def _open_range(b: Document) -> tuple[int, int]:
    return int(b["cursor_at"] if b["counted"] else b["from"]), int(b["to"])


def _period(d: Document, from_ms: int, to_ms: int | None) -> OwedPeriod:
    return OwedPeriod(
        version=d["schedule_version"],
        schedule=d["schedule"],
        timezone=d["timezone"],
        anchor_ms=instant(d.get("anchor")),
        start_ms=instant(d.get("start_at")),
        end_ms=instant(d.get("end_at")),
        from_ms=from_ms,
        to_ms=to_ms,
        ended_by="" if to_ms is None else d.get("ended_by", ""),
        calendar=calendar_in(d.get("schedule_key") or d.get("key")),
    )


def _verified_job(d: Document, written_to_ms: int | None, catching_up: list[tuple[int, int]]) -> VerifiedJob:
    past = d.get("past") or []
    periods = [_period(p, int(p["from"]), int(p["to"])) for p in past]
    if d["state"] in ("active", "completed"):
        periods.append(_period(d, int(d["active_from"]), None))
    success_codes = d.get("success_codes")
    return VerifiedJob(
        id=d["_id"],
        periods=tuple(periods),
        spread_seconds=int(d.get("spread_seconds") or 0),
        retention_days=d.get("retention_days"),
        unsettled_ms=int(d["updated_at"]) if "unsettled" in d else None,
        known_from_ms=int(past[0]["from"]) if len(past) >= MAX_PERIODS else 0,
        written_to_ms=written_to_ms,
        catching_up=tuple(catching_up),
        success_codes=None if success_codes is None else expand_codes(tuple(success_codes)),
        overlap_skip=d["overlap"] == "skip",
        catch_up=d["catch_up"],
        catch_up_window_ms=int(d["catch_up_window_seconds"]) * 1000,
        longest_wait_s=float(d["retry"]["max_delay_seconds"]) * (1 + float(d["retry"]["jitter"])),
        defined_ms=_defined_ms(d),
        success_codes_since_ms=None if d.get("codes_at") is None else int(d["codes_at"]) + REREAD_MS,
        created_ms=int(d["created_at"]),
        deleted_ms=int(d["updated_at"]) if d["state"] == "deleted" else None,
    )


def _defined_ms(d: Document) -> int:
    """From when on requests follow the present definition of the job, as far as its document tells."""
    untouched = d["revision"] == 1 and d["created_at"] == d["updated_at"]
    # Its only change paused, completed or deleted the job, and left its definition as it was.
    ended = d["revision"] == 2 and d["state"] != "active"
    return 0 if untouched or ended else int(d["updated_at"]) + REREAD_MS


def ranges(ids: Iterable[str], since_ms: int, until_ms: int, before: str | None) -> list[IdRange]:
    """The id ranges of the records of these jobs, which are in order, and the gaps between them and behind job `before`.

    `before` None: without the gaps.
    """
    id_ranges: list[IdRange] = []
    for name in ids:
        if before is not None:
            id_ranges.append(IdRange(None, f"{before};" if before else "", f"{name}:"))
            before = name
        # Ends behind the last id of the range, ":missed" included, and before the ids of the next ms.
        id_ranges.append(IdRange(name, f"{name}:{since_ms:013d}", f"{name}:{until_ms + 1:013d}"))
    return id_ranges


def spanning_range(wanted: Sequence[IdRange]) -> list[IdRange]:
    """One range over all of these. So few executions are owed that one scan of them costs less than many ranges."""
    return [IdRange(None, wanted[0].first, wanted[-1].last)]


async def pages(
    db: Database, collection: str, wanted: Sequence[IdRange], due: tuple[int, int]
) -> AsyncIterator[list[Document]]:
    """Pages of the documents of these ranges, which are in order, ascending by id.

    `due`: first and last due time (ms) of documents in ranges that name no job.
    """
    left = list(wanted)
    while left:
        query: Document = {"$or": [_query(r, due) for r in left]} if len(left) > 1 else _query(left[0], due)
        with operation():
            page = await db.work[collection].find(query, _PROJECTION).sort("_id", 1).limit(PAGE).to_list()
        if page:
            yield page
        if len(page) < PAGE:
            return
        last = str(page[-1]["_id"])
        left = [r if last < r.first else IdRange(r.job, f"{last}\0", r.last) for r in left if last < r.last]


def _query(r: IdRange, due: tuple[int, int]) -> Document:
    ids: Document = {"_id": {"$gte": r.first, "$lt": r.last}}
    if r.job is None:
        ids["due_at"] = {"$gte": DatetimeMS(due[0]), "$lte": DatetimeMS(due[1])}
    return ids


async def missed_before(db: Database, ids: Sequence[str], since_ms: int) -> dict[str, list[MissedRecord]]:
    """Missed ranges of these jobs (all jobs, if none is named) that begin before an instant and reach it, by job id.

    There are one or two of each job at most, because the ranges of one job overlap only where a change extended one.
    """
    query: Document = {
        "state": "missed",
        "expire_at": {"$gt": DatetimeMS(since_ms)},
        "last_at": {"$gte": DatetimeMS(since_ms)},
        "first_at": {"$lt": DatetimeMS(since_ms)},
    }
    if ids:
        query["job_id"] = {"$in": list(ids)}
    by_job: dict[str, list[MissedRecord]] = {}
    with operation():
        async for d in db.work["history"].find(query, {"job_id": 1, "first_at": 1, "last_at": 1, "count": 1}):
            r = MissedRecord(int(d["first_at"]), int(d["last_at"]), int(d["count"]), open=True)
            by_job.setdefault(d["job_id"], []).append(r)
    return by_job


async def with_batch_listing(db: Database, owed: Sequence[Record]) -> list[Record]:
    """The same records, each with whether the batch it names exists and lists it."""
    listed = await batches.executions_listed(db, {r.batch for r in owed}) if owed else {}
    return [replace(r, batch_lists=r.id in listed.get(r.batch, ())) for r in owed]


def missed_from_document(d: Document) -> MissedRecord:
    """A document of `history` whose id ends in `:missed`."""
    first, last, ended = int(d["first_at"]), int(d["last_at"]), int(d["ended_at"])
    return MissedRecord(first, last, int(d["count"]), open=not d["schedule_version"], ended_ms=ended)


def _attempt(d: Document) -> RecordedAttempt:
    return RecordedAttempt(
        number=d["n"],
        sent_ms=int(d["sent_at"]),
        node=d["node"],
        token=d["token"],
        duration_ms=d["ms"],
        status=None if d.get("error") else d["status"],
    )


def record_from_document(d: Document, due_ms: int) -> Record:
    """A document of `history` or `executions` whose id contains this due time. Raises any exception for a corrupt one."""
    attempts = [_attempt(a) for a in d["attempts"]]
    if len(attempts) > 1:
        attempts.sort(key=lambda a: a.sent_ms)
    ended, replayed = d.get("ended_at"), d.get("asked_at")
    return Record(
        id=d["_id"],
        due_ms=due_ms,
        send_ms=int(d["send_at"]),
        version=d["schedule_version"],
        state=d["state"],
        attempts=attempts,
        trigger=d["trigger"],
        ended_ms=0 if ended is None else int(ended),
        reason=d.get("reason"),
        drift_ms=d.get("drift_ms"),
        replayed=replayed is not None,
        replayed_ms=instant(replayed),
        replay_time_kept=ended is not None and "asked_at" in d,
        batch=d.get("batch", ""),
        stored_job_id=d["job_id"],
        stored_due_ms=int(d["due_at"]),
        attempts_left_out=d.get(LEFT_OUT, 0),
        success_codes=_success_codes(d),
    )


def _success_codes(d: Document) -> frozenset[int] | None:
    codes = d.get("success_codes") or d.get("message", {}).get("success_codes")
    return None if codes is None else expand_codes(tuple(codes))


async def overdue_messages(db: Database, from_ms: int, before_ms: int, message: str | None) -> dict[str, int]:
    """Messages that still wait although they were due in that time: id and due time (ms). The leader should have moved them
    long before. At most a page.
    """
    query: Document = {"due_at": {"$gte": DatetimeMS(from_ms), "$lt": DatetimeMS(before_ms)}}
    if message is not None:
        query["_id"] = {"$gte": f"{message}:", "$lt": f"{message};"}
    with operation():
        cursor = db.work["messages"].find(query, {"due_at": 1}).sort([("due_at", 1), ("_id", 1)]).limit(PAGE)
        return {d["_id"]: int(d["due_at"]) async for d in cursor}

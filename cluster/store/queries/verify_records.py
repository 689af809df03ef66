"""What `horae verify` reads: jobs, what is owed, what is final, page by page in the order of execution ids. Only reads.

Ids are `job:ms`, so one job's records lie side by side; jobs come in the order of `id + ":"`, which is that of their
records (`a-1:` and `a0:` lie before `a:`, although `a` lies before `a-1`). Each query is one bounded page: the load on
the database is one connection's, and nothing here grows with the range.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bson.datetime_ms import DatetimeMS

from cluster.core.execution.verdict import expand_codes
from cluster.core.verify.records import Record, RecordedAttempt
from cluster.core.verify.subjects import REREAD_MS, MissedRecord, OwedPeriod, VerifiedJob
from cluster.store import batches
from cluster.store.jobs import MAX_PERIODS
from cluster.store.mongo.codec import instant
from cluster.store.mongo.operation import operation

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
    ),
    1,
)
_UNSAID: Document = {"attempts.excerpt": 0, "attempts.detail": 0}
"""What targets answered is most of a document, and no matter of ours."""


@dataclass(frozen=True, slots=True)
class UnreadableRecord:
    """A document that cannot be read, and why."""

    collection: str
    id: str
    why: str


@dataclass(frozen=True, slots=True)
class IdRange:
    """Execution ids `first <= id < last`; `job` None: of whatever job, or between jobs, where no record should be."""

    job: str | None
    first: str
    last: str


async def now_ms(db: Database) -> int:
    """The database's clock."""
    with operation():
        hello = await db.work.client.admin.command("hello")
    return int(hello["localTime"].timestamp() * 1000)


async def shortest_retention_days(db: Database, configured: float) -> float:
    """The shortest time that anything was ever recorded for, as far as that is known."""
    with operation():
        found = await db.work["meta"].find_one({"_id": "retention"})
    return configured if found is None else min(configured, float(found["days"]))


async def ids_in_order(db: Database, after: str = "") -> AsyncIterator[str]:
    """The ids of all jobs in the order of `id + ":"`, tombstones too."""
    open_: list[str] = []  # ids that are a beginning of the next: at most as many as an id is long
    while True:
        with operation():
            page = await db.work["jobs"].find({"_id": {"$gt": after}}, {"_id": 1}).sort("_id", 1).limit(JOBS).to_list()
        for d in page:
            name = str(d["_id"])
            while open_ and not f"{name}:" < f"{open_[-1]}:":
                yield open_.pop()
            open_.append(name)
        if len(page) < JOBS:
            break
        after = page[-1]["_id"]
    while open_:
        yield open_.pop()


async def jobs_to_verify(db: Database, ids: Sequence[str]) -> tuple[dict[str, VerifiedJob], list[UnreadableRecord]]:
    """These jobs, with where their rows and their catching up have come to."""
    with operation():
        found = await db.work["jobs"].find({"_id": {"$in": list(ids)}}, _FIELDS).to_list()
        keys = {d.get("schedule_key") for d in found}
        rows = await db.work["schedules"].find({"_id": {"$in": list(keys)}}, {"next_at": 1}).to_list()
        ranges = await db.work["backfills"].find({"key": {"$in": list(keys)}}).to_list()
    written = {d["_id"]: int(d["next_at"]) for d in rows}
    jobs: dict[str, VerifiedJob] = {}
    unreadable = []
    for d in found:
        try:
            mine = [_open_range(b) for b in ranges if b["key"] == d["schedule_key"] and b["job_id"] in (None, d["_id"])]
            jobs[d["_id"]] = _audited(d, written.get(d["schedule_key"]), mine)
        except Exception as exc:
            unreadable.append(UnreadableRecord("jobs", str(d["_id"]), f"{type(exc).__name__}: {str(exc)[:200]}"))
    return jobs, unreadable


def _open_range(b: Document) -> tuple[int, int]:
    return int(b["cursor_at"] if b["counted"] else b["from"]), int(b["to"])


def _period(d: Document, from_ms: int, to_ms: int | None) -> OwedPeriod:
    return OwedPeriod(
        d["schedule_version"],
        d["schedule"],
        d["timezone"],
        instant(d.get("anchor")),
        instant(d.get("start_at")),
        instant(d.get("end_at")),
        from_ms,
        to_ms,
    )


def _audited(d: Document, written_to_ms: int | None, catching_up: list[tuple[int, int]]) -> VerifiedJob:
    past = d.get("past") or []
    periods = [_period(p, int(p["from"]), int(p["to"])) for p in past]
    if d["state"] in ("active", "completed"):
        periods.append(_period(d, int(d["active_from"]), None))
    own = d.get("success_codes")
    return VerifiedJob(
        d["_id"],
        tuple(periods),
        int(d.get("spread_seconds") or 0),
        d.get("retention_days"),
        int(d["updated_at"]) if "unsettled" in d else None,
        int(past[0]["from"]) if len(past) >= MAX_PERIODS else 0,
        written_to_ms,
        tuple(catching_up),
        success_codes=None if own is None else expand_codes(tuple(own)),
        overlap_skip=d["overlap"] == "skip",
        catch_up_ms=int(d["catch_up_window_seconds"]) * 1000 if d["catch_up"] == "all" else None,
        longest_wait_s=float(d["retry"]["max_delay_seconds"]) * (1 + float(d["retry"]["jitter"])),
        defined_ms=_defined_ms(d),
        success_codes_since_ms=None if d.get("codes_at") is None else int(d["codes_at"]) + REREAD_MS,
    )


def _defined_ms(d: Document) -> int:
    """From when on what is sent goes by the job's definition as it is now, as far as its document tells."""
    untouched = d["revision"] == 1 and d["created_at"] == d["updated_at"]
    # The one change there was has paused, completed or deleted it, and changed nothing else.
    ended = d["revision"] == 2 and d["state"] != "active"
    return 0 if untouched or ended else int(d["updated_at"]) + REREAD_MS


def ranges(ids: Iterable[str], since_ms: int, until_ms: int, before: str | None) -> list[IdRange]:
    """Where the records of these jobs lie, which are in order; and the gaps between them and behind `before`.

    `before` None: the gaps are not looked at.
    """
    found: list[IdRange] = []
    for name in ids:
        if before is not None:
            found.append(IdRange(None, f"{before};" if before else "", f"{name}:"))
            before = name
        # Behind the last id of the range, ":missed" included, and before that of the next ms.
        found.append(IdRange(name, f"{name}:{since_ms:013d}", f"{name}:{until_ms + 1:013d}"))
    return found


def spanning_range(wanted: Sequence[IdRange]) -> list[IdRange]:
    """One range over all of these: what is owed is so little that looking at all of it costs less than many ranges."""
    return [IdRange(None, wanted[0].first, wanted[-1].last)]


async def pages(
    db: Database, collection: str, wanted: Sequence[IdRange], due: tuple[int, int]
) -> AsyncIterator[list[Document]]:
    """The documents of these ranges, which are in order, ascending by id. `due`: where no job is named, those due then."""
    left = list(wanted)
    while left:
        query: Document = {"$or": [_query(r, due) for r in left]} if len(left) > 1 else _query(left[0], due)
        with operation():
            page = await db.work[collection].find(query, _UNSAID).sort("_id", 1).limit(PAGE).to_list()
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
    """Missed ranges of these jobs (all: none named) that begin before an instant and reach it.

    One or two of each job at most, whatever the range: those of one job do not overlap, but for what a change of it left.
    """
    query: Document = {
        "state": "missed",
        "expire_at": {"$gt": DatetimeMS(since_ms)},
        "last_at": {"$gte": DatetimeMS(since_ms)},
        "first_at": {"$lt": DatetimeMS(since_ms)},
    }
    if ids:
        query["job_id"] = {"$in": list(ids)}
    found: dict[str, list[MissedRecord]] = {}
    with operation():
        async for d in db.work["history"].find(query, {"job_id": 1, "first_at": 1, "last_at": 1, "count": 1}):
            r = MissedRecord(int(d["first_at"]), int(d["last_at"]), int(d["count"]), open=True)
            found.setdefault(d["job_id"], []).append(r)
    return found


async def look_up_batches(db: Database, owed: Sequence[Record]) -> None:
    """Look up whether the batch each of these names exists and lists it."""
    listed = await batches.executions_listed(db, {r.batch for r in owed}) if owed else {}
    for r in owed:
        r.batch_lists = r.id in listed.get(r.batch, ())


def missed_from_document(d: Document) -> MissedRecord:
    """A document of `history` whose id ends in `:missed`."""
    first, last, ended = int(d["first_at"]), int(d["last_at"]), int(d["ended_at"])
    return MissedRecord(first, last, int(d["count"]), open=not d["schedule_version"], ended_ms=ended)


def record_from_document(d: Document, due_ms: int) -> Record:
    """A document of `history` or `executions`, whose id says that due time. Raises whatever a broken one makes it."""
    attempts = [
        RecordedAttempt(a["n"], int(a["sent_at"]), a["node"], a["token"], a["ms"], a["status"]) for a in d["attempts"]
    ]
    if len(attempts) > 1:
        attempts.sort(key=lambda a: a.sent_ms)
    ended, asked = d.get("ended_at"), d.get("asked_at")
    return Record(
        d["_id"],
        due_ms,
        int(d["send_at"]),
        d["schedule_version"],
        d["state"],
        attempts,
        d["trigger"],
        0 if ended is None else int(ended),
        d.get("reason"),
        d.get("drift_ms"),
        asked is not None,
        None if asked is None else int(asked),
        ended is not None and "asked_at" in d,
        d.get("batch", ""),
        stored_job_id=d["job_id"],
        stored_due_ms=int(d["due_at"]),
    )

"""Records written by hand for `horae verify`: jobs that are due every minute, with all their history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bson.datetime_ms import DatetimeMS

from cluster.usecases.verify import Scope, VerifyReport, verify
from tests.support.engine import T0, job_document, put_jobs

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database


MINUTE = 60_000
NOW = T0 + 10 * MINUTE
DUES = range(T0, NOW + 1, MINUTE)
DAY = 86_400_000
Documents = dict[str, dict[str, Any]]


def attempt(sent: int, number: int = 1, token: int = 1, node: str = "n1", status: int | None = 200) -> dict[str, Any]:
    return {"n": number, "sent_at": DatetimeMS(sent), "node": node, "token": token, "ms": 5.0, "status": status}


def final(job: dict[str, Any], due: int, **fields: Any) -> dict[str, Any]:
    """What a run that went well leaves behind."""
    return {
        "_id": f"{job['_id']}:{due:013d}",
        "job_id": job["_id"],
        "due_at": DatetimeMS(due),
        "send_at": DatetimeMS(due),
        "schedule_version": job["schedule_version"],
        "state": "succeeded",
        "reason": None,
        "attempts": [attempt(due + 20)],
        "drift_ms": 20,
        "ended_at": DatetimeMS(due + 30),
        "expire_at": DatetimeMS(due + 7 * DAY),
        "trigger": False,
        **fields,
    }


def missed(job: dict[str, Any], first: int, last: int, count: int) -> dict[str, Any]:
    d = final(job, first, state="missed", attempts=[], drift_ms=None, reason="nobody was there")
    more = {"first_at": DatetimeMS(first), "last_at": DatetimeMS(last), "count": count}
    return {**d, **more, "_id": f"{d['_id']}:missed"}


def owed(job: dict[str, Any], due: int, batch: str, **fields: Any) -> dict[str, Any]:
    return {
        **{k: v for k, v in final(job, due).items() if k not in ("ended_at", "expire_at", "drift_ms", "reason")},
        "state": "pending",
        "attempts": [],
        "batch": batch,
        "lane": 1,
        "owner": None,
        "token": 0,
        "host": "",
        **fields,
    }


def batch(name: str, *ids: str) -> dict[str, Any]:
    return {"_id": name, "ids": list(ids), "late": False, "claimable_at": DatetimeMS(NOW)}


class Books:
    """Jobs that are due every minute, with all their history; then something of it is changed."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.history: Documents = {}
        self.jobs: list[dict[str, Any]] = []
        self.owed: list[dict[str, Any]] = []
        self.batches: list[dict[str, Any]] = []

    def job(self, name: str, schedule: str = "0 * * * * *", **fields: Any) -> dict[str, Any]:
        job = job_document(name, schedule, **fields)
        job.pop("unsettled")
        self.jobs.append(job)
        for due in DUES:
            self.add(final(job, due))
        return job

    def add(self, *documents: dict[str, Any]) -> None:
        self.history.update({d["_id"]: d for d in documents})

    def drop(self, job: dict[str, Any], *dues: int) -> None:
        for due in dues:
            del self.history[f"{job['_id']}:{due:013d}"]

    def change(self, job: dict[str, Any], due: int, **fields: Any) -> None:
        self.history[f"{job['_id']}:{due:013d}"] |= fields

    async def verified(self, **fields: Any) -> VerifyReport:
        """Write it all down, and judge it at NOW."""
        await put_jobs(self.db, *self.jobs)
        for name, documents in (
            ("history", list(self.history.values())),
            ("executions", self.owed),
            ("batches", self.batches),
        ):
            if documents:
                await self.db.api[name].insert_many(documents)
        return await judged(self.db, **fields)


async def judged(db: Database, now: int = NOW, since: int = T0 - MINUTE, **fields: Any) -> VerifyReport:
    async def clock(_: Database) -> int:
        return now

    return await verify(db, Scope(since, recheck_seconds=0.01, **fields), clock=clock)


def kinds(report: VerifyReport) -> dict[str, list[str]]:
    """What was found, by job."""
    found: dict[str, list[str]] = {}
    for f in report.findings:
        found.setdefault(f.job_id, []).append(f.kind)
    return {job: sorted(k) for job, k in found.items()}


def past(job: dict[str, Any], to: int, **fields: Any) -> dict[str, Any]:
    return {
        "schedule_version": job["schedule_version"],
        "schedule": job["schedule"],
        "timezone": job["timezone"],
        "anchor": None,
        "start_at": None,
        "end_at": None,
        "from": job["active_from"],
        "to": DatetimeMS(to),
        **fields,
    }


AT = T0 + 5 * MINUTE
"""The occurrence that is made wrong."""

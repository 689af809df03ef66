"""`horae verify`: each kind of wrong record is found in a database made wrong by hand, and a right one has no finding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from bson.datetime_ms import DatetimeMS

from cluster.core.ids import spread_ms
from cluster.store.queries import verify_records
from cluster.usecases.verify import Scope, verify
from tests.support.engine import T0, job_document, put_jobs
from tests.support.verify_records import (
    AT,
    DUES,
    MINUTE,
    NOW,
    Books,
    attempt,
    batch,
    final,
    judged,
    kinds,
    missed,
    owed,
    past,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster.store.mongo.client import Database


def _bad_records(b: Books) -> dict[str, list[str]]:
    """Jobs with one thing wrong in what history says, and what has to be found of each."""

    def wrong(name: str, **fields: Any) -> None:
        b.change(b.job(name), AT, **fields)

    b.drop(b.job("lost"), AT)
    b.add(final(b.job("phantom"), AT + 7000))
    wrong("early", attempts=[attempt(AT - 700)], drift_ms=-700)
    wrong("late", attempts=[attempt(AT + 61_000)], drift_ms=61_000, ended_at=DatetimeMS(AT + 61_010))
    wrong("twice", attempts=[attempt(AT + 20), attempt(AT + 40, node="n2")])
    wrong("after", attempts=[attempt(AT + 20), attempt(AT + 40, number=2, token=2)])
    wrong("reclaimed", attempts=[attempt(AT + 20), attempt(AT + 9000, token=2, node="n2")])
    wrong("unsent", attempts=[], drift_ms=None)
    wrong("unanswered", attempts=[attempt(AT + 20, status=None)])
    wrong("backwards", ended_at=DatetimeMS(AT - 5000))
    wrong("nonsense", state="done")
    wrong("elsewhere", due_at=DatetimeMS(AT + 1000))
    wrong("garbled", attempts="none")
    wrong("drifting", drift_ms=30_017)
    wrong("reopened", state="reopened", attempts=[attempt(AT + 20, status=503)])
    wrong("cancelled", state="cancelled", attempts=[], drift_ms=None, reason="the schedule was changed")
    short = b.job("short", catch_up="none")
    b.drop(short, AT, AT + MINUTE, AT + 2 * MINUTE)
    b.add(missed(short, AT, AT + 2 * MINUTE, 2))
    b.add(final(job_document("stranger"), AT))
    return {
        "lost": ["missing"],
        "phantom": ["unexpected"],
        "early": ["early"],
        "late": ["late"],
        "twice": ["duplicate"],
        "after": ["duplicate"],
        "reclaimed": ["redelivered"],
        "unsent": ["contradiction"],
        "unanswered": ["contradiction"],
        "backwards": ["contradiction"],
        "nonsense": ["contradiction"],
        "elsewhere": ["contradiction"],
        "garbled": ["contradiction"],
        "drifting": ["contradiction"],
        "reopened": ["orphan"],
        "cancelled": ["contradiction"],
        "short": ["missing"],
        "stranger": ["unexpected"],
    }


def _bad_owing(b: Books) -> dict[str, list[str]]:
    """The same with what is still owed, and with jobs."""

    def owing(name: str, *batches: dict[str, Any], **fields: Any) -> None:
        job = b.job(name)
        b.drop(job, AT)
        b.owed.append(owed(job, AT, name, **fields))
        b.batches += batches

    due = f"{AT:013d}"
    owing("batchless")
    owing("unlisted", batch("unlisted", f"unlisted:{AT + MINUTE:013d}"))
    owing("waiting", batch("waiting", f"waiting:{due}"))
    again = DatetimeMS(NOW + 5000)
    tried = [attempt(AT + 20, status=500)]
    owing("retrying", batch("retrying", f"retrying:{due}"), state="retrying", attempts=tried, send_at=again)
    undead = b.job("undead")
    b.owed.append(owed(undead, AT, "undead"))
    b.batches.append(batch("undead", f"undead:{due}"))
    unsettled = b.job("unsettled", unsettled="x", updated_at=DatetimeMS(NOW - 30_000))
    b.drop(unsettled, NOW)
    b.jobs[-1]["unsettled"] = "x"
    forgotten = b.job("forgotten", updated_at=DatetimeMS(NOW - 300_000))
    b.drop(forgotten, NOW)
    b.jobs[-1]["unsettled"] = "x"
    illegible = b.job("illegible")
    illegible["schedule"] = "every now and then"
    broken = b.job("broken")
    broken["active_from"] = "yesterday"
    return {
        "batchless": ["orphan"],
        "unlisted": ["orphan"],
        "waiting": ["late"],
        "undead": ["contradiction"],
        "forgotten": ["missing"],
        "illegible": ["contradiction"],
        "broken": ["contradiction"],
    }


async def test_each_kind_is_found(database: Database) -> None:
    """One wrong thing in a job's records is one finding of the right kind; the jobs beside it have none."""
    b = Books(database)
    for name in ("a", "a-1", "a0", "aB", "Z"):
        b.job(name)
    wanted = _bad_records(b) | _bad_owing(b)
    report = await b.verified()
    assert kinds(report) == wanted
    assert not report.clean
    assert report.counts.jobs == len(b.jobs) - 2  # two cannot be read
    alone = await judged(database, job="lost")
    assert kinds(alone) == {"lost": ["missing"]}
    assert alone.counts.executions == len(DUES) - 1
    assert (await judged(database, job="a")).clean


async def test_a_right_database_has_no_finding(database: Database) -> None:
    """Successes, failures, a run by hand, a repeated request, missed ranges, what expired, what a pause cancelled."""
    b = Books(database)
    b.change(b.job("failed"), AT, state="failed", attempts=[attempt(AT + 20, status=400)])
    tries = [attempt(AT + 20 + n * 1000, n + 1, n + 1, status=500) for n in range(3)]
    b.change(b.job("dead"), AT, state="dead", attempts=tries)
    b.change(b.job("unsendable"), AT, state="dead", attempts=[], drift_ms=None)
    b.add(final(b.job("by-hand"), AT + 7123, trigger=True))
    asked = [*tries, attempt(AT + 200_000)]
    when: dict[str, Any] = {"send_at": DatetimeMS(AT + 199_000), "ended_at": DatetimeMS(AT + 200_010)}
    b.change(b.job("asked-again"), AT, attempts=asked, **when)
    gone = b.job("outage", catch_up="none")
    b.drop(gone, AT, AT + MINUTE)
    b.add(missed(gone, AT, AT + MINUTE, 2))
    before = b.job("outage-before", active_from=T0 - 10 * MINUTE)
    b.drop(before, T0)
    b.add(missed(before, T0 - 5 * MINUTE, T0, 6))
    expired = b.job("expired", retention_days=4 / 1440)
    b.drop(expired, *list(DUES)[:6])
    spread = b.job("spread", spread_seconds=300)
    shift = spread_ms("spread", 300)
    for due in DUES:
        sent = due + shift
        b.change(spread, due, send_at=DatetimeMS(sent), attempts=[attempt(sent + 20)], ended_at=DatetimeMS(sent + 30))
    paused = b.job("paused", state="paused")
    paused["past"] = [past(paused, AT + 1)]
    b.drop(paused, *[d for d in DUES if d > AT])
    b.add(final(paused, AT + MINUTE, state="cancelled", attempts=[], drift_ms=None, reason="the job was paused"))
    row_behind = b.job("not-yet")
    row_behind["schedule_key"] += "|own"
    b.drop(row_behind, NOW)
    await database.api["schedules"].insert_one(
        {"_id": row_behind["schedule_key"], "next_at": DatetimeMS(NOW), "term": 1, "cursor": None}
    )
    report = await b.verified(late_seconds=200.0)
    assert kinds(report) == {}
    assert report.clean
    assert report.counts.missed == 4
    assert report.counts.waiting == 1


async def _on(db: Database, make: Callable[[Books], None]) -> dict[str, list[str]]:
    b = Books(db)
    make(b)
    return kinds(await b.verified())


async def test_changes_within_the_range(database: Database) -> None:
    """Each record is judged by the schedule that held when it was due; what a new schedule owes is owed at once."""

    def make(b: Books) -> None:
        # Every minute until AT + 30 s, then every second minute: what is kept, and what is sent or lost wrongly.
        for name in ("changed", "sent-by-the-old", "lost-by-the-new", "not-owed-again"):
            job = b.job(name, "0 */2 * * * *", active_from=AT + 30_001)
            job["past"] = [
                past(job, AT + 30_000, schedule="0 * * * * *", schedule_version="old", **{"from": DatetimeMS(T0)})
            ]
            for due in DUES:
                if due <= AT:
                    b.change(job, due, schedule_version="old")
                elif due // MINUTE % 2:
                    b.drop(job, due)
        new = [d for d in DUES if d > AT + 30_000]
        even = next(d for d in new if d // MINUTE % 2 == 0 and d > AT + 2 * MINUTE)
        odd = next(d for d in new if d // MINUTE % 2 and d > AT + MINUTE)
        b.add(final({"_id": "sent-by-the-old", "schedule_version": "old"}, odd))
        b.drop({"_id": "lost-by-the-new"}, even)
        b.change({"_id": "not-owed-again"}, even, state="cancelled", schedule_version="old", attempts=[], drift_ms=None)

    assert await _on(database, make) == {
        "sent-by-the-old": ["unexpected"],
        "lost-by-the-new": ["missing"],
        "not-owed-again": ["missing"],
    }


async def test_a_change_a_moment_before_excuses_nothing(database: Database) -> None:
    """What is due half a second after a change is owed by the new schedule; only what the old one sent may be its."""
    unsent: dict[str, Any] = {
        "attempts": [],
        "drift_ms": None,
        "state": "cancelled",
        "reason": "the schedule was changed",
    }

    def make(b: Books) -> None:
        def changed(name: str, at: int, **fields: Any) -> dict[str, Any]:
            job = b.job(name, active_from=at + 1)
            job["past"] = [past(job, at, schedule_version="old", **{"from": DatetimeMS(T0)})]
            b.change(job, AT, **fields)
            return job

        changed("lost-just-then", AT - 500, **unsent, schedule_version="old")
        changed("lost-at-once", AT - 500, **unsent)
        failed = {**unsent, "attempts": [attempt(AT + 20, status=503)], "schedule_version": "old"}
        changed("between-attempts", AT - 500, **failed)
        changed("long-after-the-change", AT - 30_000, **failed)
        late = DatetimeMS(AT + 30_020)
        changed("by-the-change", AT + 30_000, **unsent, schedule_version="old", ended_at=late)
        changed("before-the-change", AT + 30_000, **unsent, schedule_version="old")
        twice = changed("long-held", T0 + 9 * MINUTE - 1, **unsent, schedule_version="old")
        twice["past"] = [{**twice["past"][0], "to": DatetimeMS(AT - 1)}, twice["past"][0] | {"schedule_version": "mid"}]
        twice["past"][1]["from"] = DatetimeMS(AT)
        soon = changed("made-later", T0 - 1)
        del soon["past"]
        soon["active_from"] = DatetimeMS(T0 + 500)

    assert await _on(database, make) == {
        "lost-just-then": ["missing"],
        "lost-at-once": ["contradiction"],
        "between-attempts": ["missing"],
        "long-after-the-change": ["missing"],
        "before-the-change": ["contradiction"],
        "long-held": ["missing"],
        "made-later": ["unexpected"],
    }


async def test_what_a_change_has_outlived_waits_to_be_cancelled(database: Database) -> None:
    """It was written down ahead, and its host is away: nobody has met it yet. Once it is sent it is unexpected."""

    def make(b: Books) -> None:
        for name, attempts in (("waits", []), ("sent", [attempt(AT + 13_020, status=503)])):
            job = b.job(name, active_from=AT - 1000 + 1)
            job["past"] = [
                past(job, AT - 1000, schedule="* * * * * *", schedule_version="old", **{"from": DatetimeMS(AT - 2000)})
            ]
            b.drop(job, *(due for due in DUES if due <= AT - 1000))
            for due in (AT - 2000, AT - 1000):
                b.add(final({"_id": name, "schedule_version": "old"}, due))
            again = {"attempts": attempts, "schedule_version": "old", "send_at": DatetimeMS(NOW)}
            b.owed.append(owed(job, AT + 13_000, name, **again))
            b.batches.append(batch(name, f"{name}:{AT + 13_000:013d}"))

    assert await _on(database, make) == {"sent": ["unexpected"]}


async def test_what_a_live_cluster_moves_between_two_looks_is_no_finding(database: Database) -> None:
    """A result that comes between the first look and the second one is not missing."""
    b = Books(database)
    job = b.job("slow")
    kept = b.history[f"slow:{AT:013d}"]
    b.drop(job, AT)
    looks = 0

    async def clock(db: Database) -> int:
        nonlocal looks
        looks += 1
        if looks == 2:
            await db.api["history"].insert_one(kept)
        return NOW

    await b.verified()
    report = await verify(database, Scope(T0, recheck_seconds=0.01), clock=clock)
    assert looks == 2
    assert report.clean


async def test_a_job_made_meanwhile_is_no_stranger(database: Database) -> None:
    """A run of a job that was made after the list of jobs was read is not called unexpected."""
    b = Books(database)
    b.job("a")
    fresh = job_document("b")
    b.add(final(fresh, AT))
    looks = 0

    async def clock(db: Database) -> int:
        nonlocal looks
        looks += 1
        if looks == 2:
            await put_jobs(db, fresh)
        return NOW

    await b.verified()
    assert (await verify(database, Scope(T0, recheck_seconds=0.01), clock=clock)).clean
    assert looks == 2


async def test_many_pages(database: Database, monkeypatch: Any) -> None:
    """Pages and groups of jobs of any size change nothing: each record is looked at once."""
    from cluster.usecases import verify as command

    monkeypatch.setattr(verify_records, "PAGE", 7)
    monkeypatch.setattr(verify_records, "JOBS", 2)
    monkeypatch.setattr(command, "CHUNK", 3)
    b = Books(database)
    names = ["a", "a-", "a-b", "a0", "a_", "aa", "b", "B", "b-c-d"]
    for name in names:
        b.job(name)
    b.drop({"_id": "a-b"}, AT)
    b.add(final({"_id": "a1", "schedule_version": ""}, AT), final({"_id": "zz", "schedule_version": ""}, AT))
    report = await b.verified()
    assert kinds(report) == {"a-b": ["missing"], "a1": ["unexpected"], "zz": ["unexpected"]}
    assert (report.counts.jobs, report.counts.executions) == (9, 9 * len(DUES) + 1)
    assert [i async for i in verify_records.ids_in_order(database)] == sorted(names, key=lambda n: f"{n}:")


@pytest.mark.parametrize("compared", [2, 5000])
async def test_a_flood_of_one_kind_hides_no_other(database: Database, monkeypatch: Any, compared: int) -> None:
    """So many of each kind are told, the gravest first, whatever came before them; all are counted."""
    from cluster.usecases import verify as command

    monkeypatch.setattr(command, "COMPARED", compared)
    monkeypatch.setattr(command, "CHUNK", 2)
    b = Books(database)
    for name in ("a", "b"):
        job = b.job(name)
        for due in list(DUES)[:4]:
            b.change(job, due, attempts=[attempt(due + 20), attempt(due + 9000, token=2, node="n2")])
        for due in list(DUES)[4:7]:
            b.change(job, due, attempts=[attempt(due + 61_000)], drift_ms=61_000, ended_at=DatetimeMS(due + 61_010))
    b.drop(b.job("z"), AT)
    counted = {"missing": 1, "late": 6, "redelivered": 8}
    report = await b.verified(max_findings=2)
    assert [f.kind for f in report.findings] == ["missing", "late", "late", "redelivered", "redelivered"]
    assert {k: n for k, n in report.counts.findings.items() if n} == counted
    every = await judged(database, max_findings=100)
    assert {k: sum(f.kind == k for f in every.findings) for k in counted} == counted, "whoever wants all gets all"

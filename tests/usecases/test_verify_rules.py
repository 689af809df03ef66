"""`horae verify`, rule by rule: a wrong record, and a similar one that the engine really leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bson.datetime_ms import DatetimeMS

from cluster.core.ids import spread_ms
from cluster.core.timings import Timings
from cluster.core.verify.subjects import REREAD_MS
from cluster.store import meta
from cluster.store.queries import verify_records
from tests.support.engine import T0
from tests.support.job_changes import patch_job
from tests.support.verify_records import (
    AT,
    DAY,
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
    from cluster.store.mongo.client import Database

HOUR = 60 * MINUTE
CHANGED: dict[str, Any] = {"revision": 2, "updated_at": DatetimeMS(NOW)}
"""Of a job that was changed a moment ago: nobody knows how it was defined before."""


def says(b: Books, name: str, *attempts: dict[str, Any], job: dict[str, Any] | None = None, **fields: Any) -> None:
    """A job of this name, and the fields of the record under test."""
    first = int(attempts[0]["sent_at"]) if attempts else AT
    ended = max([AT, *(int(a["sent_at"]) for a in attempts)]) + 10
    fields = {"drift_ms": first - AT if attempts else None, "ended_at": DatetimeMS(ended), **fields}
    b.change(b.job(name, **(job or {})), AT, attempts=list(attempts), **fields)


def answer(b: Books, name: str, status: int) -> None:
    """All other requests of this job were answered so."""
    for d in b.history.values():
        if d["job_id"] == name and int(d["due_at"]) != AT:
            d["attempts"] = [{**a, "status": status} for a in d["attempts"]]


async def test_a_success_is_a_success_and_nothing_else_is(database: Database) -> None:
    """An execution succeeded if and only if it got a success response; unless the job may have had other codes then."""
    b = Books(database)
    ok, no, refused = attempt(AT + 20), attempt(AT + 20, status=503), attempt(AT + 20, status=404)
    second = attempt(AT + 2000, 2, 2)
    later: dict[str, Any] = {"send_at": DatetimeMS(AT + 2000)}
    own: dict[str, Any] = {"success_codes": [404, "3xx"]}

    says(b, "failed-answered", ok, state="failed")
    says(b, "dead-answered", no, second, state="dead")
    says(b, "skipped-answered", ok, state="skipped", job={"overlap": "skip"}, **later)
    says(b, "reopened-answered", ok, state="reopened")
    says(b, "succeeded-503", no, attempt(AT + 2000, 2, 2, status=503), **later)
    says(b, "succeeded-other", ok, job=own)
    says(b, "succeeded-broken-off", {**ok, "error": "reset"})
    says(b, "failed-own", refused, state="failed", job=own)
    for name, sent in (("owed-answered", ok), ("owed-failed", no)):
        waiting = b.job(name)
        b.drop(waiting, AT)
        again = {"state": "retrying", "attempts": [sent], "send_at": DatetimeMS(NOW + 5000)}
        b.owed.append(owed(waiting, AT, name, **again))
        b.batches.append(batch(name, f"{name}:{AT:013d}"))

    says(b, "succeeded-own", attempt(AT + 20, status=302), job=own)
    says(b, "failed-by-own", ok, state="failed", job=own)
    says(b, "failed-before-change", ok, state="failed", job=CHANGED)
    says(b, "succeeded-before-change", refused, job=CHANGED)
    says(b, "replaced", no, second, **later)
    broken = {**attempt(AT + 20), "error": "reset"}  # the answer broke off after its status line
    says(b, "broken-off", broken, state="dead")
    says(b, "broken-off-first", broken, second, **later)
    asked = [ok, attempt(AT + 90_000, status=404)]
    says(b, "asked-again-own", *asked, job=own, send_at=DatetimeMS(AT + 89_000))
    paused = b.job("cancelled-between", state="paused", revision=2, updated_at=DatetimeMS(AT + 1000))
    paused["past"] = [past(paused, AT + 1000)]
    b.drop(paused, *[d for d in DUES if d > AT])
    b.change(paused, AT, state="cancelled", attempts=[no], reason="the job was paused", **later)
    for name in ("succeeded-other", "failed-own", "succeeded-own", "failed-by-own", "asked-again-own"):
        answer(b, name, 404)

    assert kinds(await b.verified()) == {
        "failed-answered": ["contradiction"],
        "dead-answered": ["contradiction"],
        "skipped-answered": ["contradiction"],
        "cancelled-between": ["contradiction"],  # it came due before the pause
        "reopened-answered": ["contradiction", "orphan"],
        "succeeded-503": ["contradiction"],
        "succeeded-other": ["contradiction"],
        "succeeded-broken-off": ["contradiction"],
        "failed-own": ["contradiction"],
        "owed-answered": ["contradiction"],
    }


async def test_second_deliveries_need_a_lost_lease_or_a_replay(database: Database) -> None:
    """A delivery after a lost lease is explained; one that no lease explains is a finding; replays and changes are not."""
    b = Books(database)
    first = attempt(AT + 20, token=2)
    failed = attempt(AT + 20, token=2, status=503)

    says(b, "back-again", first, attempt(AT + 60_000))
    says(b, "back-again-failed", failed, attempt(AT + 60_000))
    says(b, "same-token-failed", failed, attempt(AT + 60_000, token=2))

    says(b, "by-lease", attempt(AT + 20, node="n1"), attempt(AT + 9500, token=2, node="n2"))
    says(b, "by-hand", attempt(AT + 20), attempt(AT + 70, token=2, node="n2"))
    says(b, "did-not-know", first, attempt(AT + 3000))
    says(b, "asked", failed, attempt(AT + 60_000), send_at=DatetimeMS(AT + 59_000))
    # Put back before it was sent, what is asked for by hand is claimed more often than the first attempt had been.
    tries = [attempt(AT + 20, status=503), attempt(AT + 3000, 2, 9, status=503)]
    later = [attempt(AT + 60_000, token=2, status=503), attempt(AT + 63_000, 2, 3)]
    says(b, "asked-and-put-back", *tries, *later, send_at=DatetimeMS(AT + 62_000), ended_at=DatetimeMS(AT + 63_010))
    lost = [attempt(AT + 20) | {"ms": 90_000.0}, attempt(AT + 12_000, token=2, status=503)]
    says(b, "asked-meanwhile", *lost, attempt(AT + 60_000))
    for name, kept in (("both-schedules", "old"), ("both-schedules-later", "older")):
        changed = b.job(name, active_from=AT - 500)
        changed["past"] = [past(changed, AT - 501, schedule_version="old", **{"from": DatetimeMS(T0)})]
        sent = [first, attempt(AT + (300 if kept == "old" else 20_000), node="n2")]
        b.change(changed, AT, attempts=sent, ended_at=DatetimeMS(AT + 20_010))

    report = await b.verified()
    assert kinds(report) == {
        "back-again": ["duplicate"],
        "back-again-failed": ["duplicate"],
        "same-token-failed": ["duplicate"],
        "by-lease": ["redelivered"],
        "by-hand": ["redelivered"],
        "did-not-know": ["redelivered"],
        "asked-meanwhile": ["redelivered"],
        "both-schedules": ["redelivered"],
        "both-schedules-later": ["redelivered"],
    }
    told = {f.job_id: f.text for f in report.findings}
    assert "after its first lease had ended" in told["by-lease"]
    assert "sooner than a lease expires" in told["by-hand"]
    assert "did not know it yet" in told["did-not-know"]
    assert "the job was changed just then" in told["both-schedules"]
    short = await judged(database, job="by-hand", timings=Timings(margin=0.01))
    assert "after its first lease had ended" in short.findings[0].text


async def test_an_execution_that_is_recorded_as_missed_stood_unclaimed_and_its_policy_says_so(
    database: Database,
) -> None:
    """At its first claim, a lease and 2 s after it was claimable; `all` within its window never, `latest` only before another."""
    b = Books(database)

    def missed_by(name: str, late_ms: int, **fields: Any) -> None:
        gone: dict[str, Any] = {"state": "missed", "reason": "why", "ended_at": DatetimeMS(AT + late_ms)}
        gone.update({k: fields.pop(k) for k in ("trigger", "asked_at") if k in fields})
        says(b, name, job=fields, **gone)

    missed_by("none", 20_000, catch_up="none")
    missed_by("latest", 70_000, catch_up="latest")
    missed_by("beyond", 70_000, catch_up_window_seconds=60)
    missed_by("changed", 20_000, **CHANGED)
    sent = attempt(AT + 20, status=503)
    says(
        b,
        "sent-before-it-was-changed",
        sent,
        job=CHANGED,
        state="missed",
        reason="why",
        ended_at=DatetimeMS(AT + 20_000),
    )
    assert kinds(await b.verified()) == {}
    b = Books(database)
    await database.api["jobs"].delete_many({})
    await database.api["history"].delete_many({})
    missed_by("soon", 9000, catch_up="none")
    none = {"catch_up": "none"}
    says(b, "sent", sent, job=none, state="missed", reason="why", ended_at=DatetimeMS(AT + 20_000))
    missed_by("last", 20_000, catch_up="latest")
    missed_by("within", 20_000)
    missed_by("by-hand", 20_000, catch_up="none", trigger=True)
    missed_by("replayed", 20_000, catch_up="none", asked_at=DatetimeMS(AT))
    assert kinds(await b.verified()) == {
        name: ["contradiction"] for name in ("by-hand", "last", "replayed", "sent", "soon", "within")
    }


async def test_nothing_is_missed_while_the_clock_is_in_doubt(database: Database) -> None:
    """Leaders note when most hosts contradicted the primary's clock: what was missed then was missed by a wrong clock."""
    b = Books(database)
    for name, ended in (("then", AT + 30_000), ("leapt", AT + 30_000 + 120_000), ("after", AT + 61_000)):
        made = b.job(name, catch_up="none")
        b.drop(made, AT)
        b.add({**missed(made, AT, AT, 1), "ended_at": DatetimeMS(ended)})
    await meta.record_clock_doubt(database, AT + 20_000, AT + 21_000, 120_000)
    await meta.record_clock_doubt(database, AT + 20_000, AT + 40_000, 120_000)
    report = await b.verified()
    assert kinds(report) == {"then": ["contradiction"], "leapt": ["contradiction"]}
    assert report.doubts == ((AT + 20_000, AT + 40_000, 120_000),)


async def test_skipped_and_missed_records_follow_the_policies_of_the_job(database: Database) -> None:
    """Only `overlap: skip` skips, and `catchUp: all` misses nothing in its window; unless the job may have been different then."""
    b = Books(database)

    def gap(name: str, ended: int, **job: Any) -> dict[str, Any]:
        made = b.job(name, **job)
        b.drop(made, AT)
        b.add({**missed(made, AT, AT, 1), "ended_at": DatetimeMS(ended)})
        return made

    says(b, "skipped", state="skipped")
    gap("given-up-on", AT + 11_000)

    says(b, "overlapping", state="skipped", job={"overlap": "skip"})
    says(b, "overlapped-then", state="skipped", job=CHANGED)
    asked = attempt(AT + 20, status=503)
    says(b, "skipped-when-asked", asked, state="skipped", job={"overlap": "skip"}, send_at=DatetimeMS(AT + 90_000))
    says(b, "skipped-between", asked, state="skipped", job=CHANGED)
    gap("too-old", AT + 61_000, catch_up_window_seconds=60)
    gap("beyond-half-the-retention", AT + 10 * MINUTE, retention_days=20 / 1440)
    gap("not-caught-up", AT + 11_000, catch_up="none")
    gap("policy-changed", AT + 11_000, **CHANGED)
    unread = gap("unread", AT + 11_000)
    b.history[f"unread:{AT:013d}:missed"]["schedule_version"] = ""
    deleted = gap("deleted", AT + 11_000, state="deleted", revision=2, updated_at=DatetimeMS(AT + 10_000))
    deleted["past"] = [past(deleted, AT + 10_000)]
    b.drop(deleted, *[d for d in DUES if d > AT + 10_000])

    assert unread["catch_up"] == "all"
    assert kinds(await b.verified()) == {"skipped": ["contradiction"], "given-up-on": ["contradiction"]}


async def test_early_is_before_the_planned_send_time(database: Database) -> None:
    """A job with `spreadSeconds` has its own send time; an execution written before a change keeps its own."""
    b = Books(database)

    def spread(name: str, sent: int, job: dict[str, Any] | None = None, **fields: Any) -> None:
        """Its records are right, but for one that was sent `sent` ms after it was due."""
        made = b.job(name, spread_seconds=300, **(job or {}))
        shift = spread_ms(name, 300)
        assert shift > 5000
        for due in DUES:
            at = due + shift
            b.change(made, due, send_at=DatetimeMS(at), attempts=[attempt(at + 20)], ended_at=DatetimeMS(at + 30))
        fields = {"attempts": [attempt(AT + sent)], "drift_ms": sent - shift, **fields}
        b.change(made, AT, **fields)

    spread("at-once", 20)
    tried = attempt(AT + 20, status=503)
    again: dict[str, Any] = {"attempts": [tried, attempt(AT + 400_000, 2, 2)], "send_at": DatetimeMS(AT + 400_000)}
    spread("at-once-then-again", 20, **again)
    spread("as-if-none", 20, send_at=DatetimeMS(AT))
    says(b, "before-what-it-says", attempt(AT + 20), send_at=DatetimeMS(AT + 7000), drift_ms=-6980, job=CHANGED)

    spread("punctual", spread_ms("punctual", 300) + 20)
    spread("spread-since", 20, job=CHANGED, send_at=DatetimeMS(AT))
    spread("spread-since-again", 20, job=CHANGED, **again)
    says(b, "asked-before-it-was-due", attempt(AT - 380), send_at=DatetimeMS(AT - 400), drift_ms=20)
    says(b, "spread-before", attempt(AT + 7020), send_at=DatetimeMS(AT + 7000), job=CHANGED)
    says(b, "put-off", attempt(AT + 20, status=503), state="dead", send_at=DatetimeMS(AT + 60_000))
    b.add(final({"_id": "put-off", "schedule_version": ""}, AT + 7123, trigger=True))

    assert kinds(await b.verified(late_seconds=400.0)) == {
        "at-once": ["early"],
        "at-once-then-again": ["early"],
        "as-if-none": ["early"],
        "before-what-it-says": ["early"],
    }


async def test_the_drift_of_a_run_that_waited_counts_from_its_request(database: Database) -> None:
    """With `overlap=wait` the send time moves until the run before it has ended. Of other runs it does not."""
    b = Books(database)
    moved = {"attempts": [attempt(AT + 3217)], "send_at": DatetimeMS(AT + 3000), "ended_at": DatetimeMS(AT + 3300)}
    b.change(b.job("scheduled"), AT, **moved, drift_ms=2817)
    of_none = {"schedule_version": ""}
    for name, drift_ms in (("waited", 2817), ("punctual", 217), ("wrong", 1517)):
        b.add(final({"_id": name, **of_none}, AT + 400, trigger=True, **moved, drift_ms=drift_ms))
    replayed = {**moved, "asked_at": DatetimeMS(AT + 1400)}
    for name, drift_ms in (("replayed", 1817), ("replayed-wrong", 4717)):
        b.add(final({"_id": name, **of_none}, AT - MINUTE, trigger=True, **replayed, drift_ms=drift_ms))

    found = kinds(await b.verified(late_seconds=400.0))
    assert {name for name, kind in found.items() if "contradiction" in kind} == {"scheduled", "wrong", "replayed-wrong"}


async def test_records_that_expired_under_a_shorter_retention_are_not_missing(database: Database) -> None:
    """Records that expired under the shorter retention are not missing; a job with its own retention is verified in full."""
    b = Books(database)
    minutes = 1 / 1440
    await database.api["meta"].update_one({"_id": "retention"}, {"$set": {"days": 4 * minutes}}, upsert=True)
    raised = b.job("raised", retention_days=30.0, revision=2, updated_at=DatetimeMS(NOW - 1000))
    b.drop(raised, *[d for d in DUES if d < NOW - 4 * MINUTE])
    lost = b.job("lost-since", retention_days=30.0, revision=2, updated_at=DatetimeMS(NOW - 1000))
    b.drop(lost, NOW - 2 * MINUTE)
    always = b.job("always", retention_days=30.0)
    b.drop(always, AT)
    long_ago = b.job("long-ago", retention_days=30.0, revision=2, updated_at=DatetimeMS(T0))
    b.drop(long_ago, AT)
    shared = b.job("shared")
    b.drop(shared, AT)

    report = await b.verified()
    assert kinds(report) == {"lost-since": ["missing"], "always": ["missing"], "long-ago": ["missing"]}
    late = await judged(database, now=NOW + 8 * DAY, until_ms=NOW, job="always")
    assert kinds(late) == {}, "what was given up is kept for as long as the operator says, and no longer"


async def test_a_change_of_something_else_hides_no_success(database: Database) -> None:
    """A job that was changed a moment ago is judged by its `successCodes` since they last changed."""
    b = Books(database)
    ok = attempt(AT + 20)
    says(b, "renamed", ok, state="dead", job={**CHANGED, "codes_at": DatetimeMS(T0)})
    says(b, "other-codes", ok, state="dead", job={**CHANGED, "codes_at": DatetimeMS(AT)})
    says(b, "of-an-older-release", ok, state="dead", job=CHANGED)
    assert kinds(await b.verified()) == {"renamed": ["contradiction"]}


async def test_the_time_of_changed_success_codes_is_kept_with_the_job(database: Database) -> None:
    """The time since which the codes are valid is stored with the job, and is in no response of the API."""
    from cluster.core.documents.job_json import job_document, read_job
    from cluster.usecases import jobs
    from tests.support.cranked_cluster import CONTEXT, EACH

    await jobs.put(database, "a", read_job(EACH, CONTEXT), T0)
    for change, now, since in (
        ({"name": "x"}, 1000, 0),
        ({"successCodes": [404]}, 2000, 2000),
        ({"name": "y"}, 3000, 2000),
    ):
        job = await patch_job(database, "a", change, CONTEXT, T0 + now)
        assert job.success_codes_since_ms == T0 + since
        stored = (await verify_records.jobs_to_verify(database, ["a"]))[0]["a"]
        assert (stored.success_codes_since_ms, stored.defined_ms) == (T0 + since + REREAD_MS, T0 + now + REREAD_MS)
        assert not any("codesAt" in name or "codes_at" in name for name in job_document(job.definition))

"""`explain` on what the engine and the use cases really wrote: each reason, in sentences with times."""

from __future__ import annotations

import asyncio
import re
from datetime import datetime
from typing import TYPE_CHECKING

import httpx
import pytest
from bson.datetime_ms import DatetimeMS

from cluster.core.documents.job_json import DocumentLimits, read_job
from cluster.core.errors import NotFound
from cluster.core.instants import format_instant
from cluster.core.limits.permits import Limits
from cluster.store import backfills, batches, leases, missed_ranges, nodes, queues
from cluster.store.backfills import Backfill
from cluster.store.missed_ranges import MissedRange
from cluster.store.queues import Queue
from cluster.usecases import jobs
from cluster.usecases.executions import TriggerRequest, replay, trigger
from cluster.usecases.explain import explain_job
from tests.support.engine import Crank, job_document, lead, put_jobs, settle_all, worker
from tests.support.workers import DUE, SHORT, answering, owed, record_all, retries_now, run_dry

if TYPE_CHECKING:
    from typing import Any

    from cluster.store.mongo.client import Database
    from cluster.usecases.explain import JobExplanation

LONG = 100_000.0
"""Days of retention: what is written at DUE is not too old to be known."""
SPEC = {"schedule": "0 0 3 * * *", "api": "https://api.example.com/x"}
DAY = 86_400_000


async def told(db: Database, at_ms: int | None, job: str = "a") -> tuple[str, str]:
    """The state and all sentences of the last explanation."""
    answer = await explain_job(db, job, at_ms, LONG)
    return answer.occurrences[-1].state, text(answer)


def text(answer: JobExplanation) -> str:
    return "\n".join([x for e in answer.occurrences for x in (e.summary, *(s.text for s in e.sentences))])


def spec(**fields: Any) -> Any:
    return read_job({**SPEC, **fields}, DocumentLimits(()).context)


async def test_a_late_and_retried_success_is_explained(database: Database) -> None:
    """Every request with its node, token and answer; why there was another; how late the first was."""
    await owed(database, "a")
    w = worker(database, answering(503, 200))
    await run_dry(w)
    state, said = await told(database, DUE)
    assert state == "retrying"
    assert "no node holds it" in said
    await retries_now(database)
    await run_dry(w)
    state, said = await told(database, DUE + 400)
    assert state == "succeeded"
    assert "due by `* * * * * *`" in said
    assert "w sent attempt 1 of at most 3 (token 1)" in said
    assert re.search(r"days late \(\d+ days until a node claimed it", said)
    assert "the target answered 503" in said
    assert "by the job's retry policy" in said
    assert "after 2 requests" in said


@pytest.mark.parametrize(("status", "state", "words"), [(404, "failed", "refused"), (503, "dead", "it is dead")])
async def test_failures_are_explained(database: Database, status: int, state: str, words: str) -> None:
    """Refused at once, or out of attempts; then replayed."""
    await owed(database, "a")
    w = worker(database, answering(*[status] * (1 if state == "failed" else 3), 200))
    for _ in range(3):
        await run_dry(w)
        await retries_now(database)
    found, said = await told(database, DUE)
    assert found == state
    assert words in said
    await replay(database, f"a:{DUE}", DUE + 5000, LONG)
    while (await told(database, DUE))[0] != "succeeded":
        await retries_now(database)
        await run_dry(w)
    assert "a replay was requested" in (await told(database, DUE))[1]


async def test_a_second_delivery_after_a_lost_lease_is_explained(database: Database) -> None:
    """The stale owner's answer arrives after the next owner's: both requests are named, and whose lease expired."""
    await owed(database, "a")
    waiting = asyncio.Event()

    async def slow(_: httpx.Request) -> httpx.Response:
        await waiting.wait()
        return httpx.Response(200)

    stale = worker(database, slow, "stale", timings=SHORT)
    assert await stale.claiming.claim_once()
    while not stale.context.slots.in_flight:
        await asyncio.sleep(0.01)
    _, said = await told(database, DUE)
    assert "the lease of stale on its batch b (token 1, claimed 1 times)" in said
    assert "stale has no recent heartbeat" in said
    await database.api["batches"].update_many({}, {"$set": {"claimable_at": DatetimeMS(DUE)}})
    await run_dry(worker(database, answering(200), "heir"))
    state, said = await told(database, DUE)
    assert state == "succeeded"
    assert "claimed once without a result" in said
    waiting.set()
    while not stale.context.records:
        await asyncio.sleep(0.01)
    await record_all(stale)
    _, said = await told(database, DUE)
    assert re.search(r"delivered twice: stale, which is no longer .* lease \(token 1\) expired.*heir claimed", said), (
        said
    )
    await stale.dispatcher.close()


async def test_a_cancellation_by_a_pause_and_the_pause_are_explained(database: Database) -> None:
    """Occurrences during the pause were not owed; executions written ahead were cancelled, and it says when."""
    await owed(database, "a")
    await jobs.pause(database, "a", DUE - 5000)
    await run_dry(worker(database, answering(200)))
    state, said = await told(database, DUE)
    assert state == "cancelled"
    assert "It was not sent: the job was paused before it was due." in said
    assert (await told(database, DUE + DAY))[0] == "paused"
    assert "there is no catch-up" in (await told(database, None))[1]
    await jobs.resume(database, "a", DUE + 2 * DAY)
    state, said = await told(database, DUE + DAY)
    assert state == "paused"
    assert "it was resumed" in said


async def test_each_version_of_a_schedule_explains_its_own_time(database: Database) -> None:
    """Each version of the schedule answers for its own time."""
    await jobs.create(database, "a", spec(), DUE)
    assert (await told(database, DUE - 1000))[1].startswith("The job did not exist")
    await jobs.put(database, "a", spec(schedule="0 0 4 * * *", timezone="Europe/Berlin"), DUE + DAY)
    state, said = await told(database, DUE + DAY // 2 + 1234)
    assert "from `0 0 3 * * *` to `0 0 4 * * * Europe/Berlin`" in said
    assert "It was not due at" in said
    assert state in ("waiting", "notDue")
    midnight = DUE - DUE % DAY
    state, said = await told(database, midnight + 2 * DAY + 3 * 3_600_000)
    assert (state, "Europe/Berlin" in said) == ("waiting", True), said
    await jobs.delete(database, "a", DUE + 3 * DAY)
    assert (await told(database, DUE + 4 * DAY))[0] == "deleted"
    with pytest.raises(NotFound):
        await explain_job(database, "never", None, LONG)


async def test_an_instant_within_a_second_is_explained_from_all_of_that_second(database: Database) -> None:
    await jobs.create(database, "a", spec(schedule="@at 2030-01-05T10:00:00.250Z"), DUE)
    at = int(datetime.fromisoformat("2030-01-05T10:00:00Z").timestamp() * 1000)
    for asked in (at, at + 250, at + 999):
        answer = await explain_job(database, "a", asked, LONG)
        (found,) = answer.occurrences
        assert (found.state, found.due_ms) == ("ahead", at + 250)


async def test_missed_ranges_and_open_ranges_are_explained(database: Database) -> None:
    """A range covers each of its occurrences; an open one says how far the catch-up is; a lost occurrence is called unknown."""
    await put_jobs(database, job_document("a", active_from=0, schedule_version="v"))
    ranges = [MissedRange("a", "v", DUE, DUE + 9000, 10, "catchUp is none")]
    await missed_ranges.record(database, ranges, DUE + 60_000, LONG)
    for at in (DUE, DUE + 4000):
        state, said = await told(database, at)
        assert state == "missed"
        assert "It was missed: catchUp is none." in said
        assert "10 occurrences" in said
    key = "cron|* * * * * *|UTC"
    b = Backfill("x", key, None, DUE + 20_000, DUE + 30_000, DUE + 60_000, DUE + 22_000)
    await backfills.open_ranges(database, b)
    state, said = await told(database, DUE + 25_000)
    assert state == "waiting"
    assert "catch-up has reached this instant" in said
    await database.api["jobs"].update_one({"_id": "a"}, {"$unset": {"unsettled": ""}})
    assert "has not scheduled it yet" in (await told(database, DUE + 40_000))[1]
    await database.api["schedules"].insert_one(
        {"_id": key, "next_at": DatetimeMS(DUE + DAY), "cursor": None, "term": 1}
    )
    assert (await told(database, DUE + 40_000))[0] == "unknown"
    expired = await explain_job(database, "a", DUE + 40_000, 1)
    assert expired.occurrences[-1].state == "expired"


async def test_a_skipped_run_names_the_run_before(database: Database) -> None:
    """The explanation names the run that overlapped."""
    (first,) = await owed(database, "a", overlap="skip")
    await database.api["jobs"].update_one({"_id": "a"}, {"$set": {"running": f"a:{DUE - 1000}"}})
    await database.api["executions"].insert_one(
        {
            **(await database.api["executions"].find_one({"_id": first.id}) or {}),
            "_id": f"a:{DUE - 1000}",
            "due_at": DatetimeMS(DUE - 1000),
            "batch": "other",
        }
    )
    await run_dry(worker(database, answering(200)))
    state, said = await told(database, DUE)
    assert state == "skipped"
    assert f"execution a:{DUE - 1000} is pending" in said
    other = await database.api["executions"].find_one({"_id": f"a:{DUE - 1000}"})
    await database.api["executions"].insert_one({**(other or {}), "_id": f"a:{DUE - 1}", "waits": True})
    assert f"execution a:{DUE - 1000} is pending" in (await told(database, DUE))[1], "the other one waits itself"


async def test_a_run_by_hand_that_waits_names_the_run_that_it_waits_for(database: Database) -> None:
    """Whether a node holds it or not; it is not about to be sent."""
    (first,) = await owed(database, "a", overlap="skip")
    now_ms = int(await nodes.primary_clock_ms(database) or 0)
    name = await trigger(database, "a", now_ms, request=TriggerRequest("r", waits=True))
    for owner in (None, "w"):
        await database.api["batches"].update_many({}, {"$set": {"owner": owner}})
        await database.api["jobs"].update_one({"_id": "a"}, {"$set": {"running": first.id}})
        _, said = await told(database, int(name.rpartition(":")[2]))
        assert f"It waits for the end of execution {first.id}." in said
        assert "about to" not in said
        assert "on time" not in said
        for running in (name, None):  # its own turn, or nobody's
            await database.api["jobs"].update_one({"_id": "a"}, {"$set": {"running": running}})
            assert "It waits for the end" not in (await told(database, int(name.rpartition(":")[2])))[1]


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"queue": "mail"}, "the limit of the queue 'mail'"),
        ({"max_per_second": 1.0, "gate": "j:a"}, "the limit of the job"),
        ({}, "its host"),
    ],
)
async def test_what_was_put_off_says_by_what_and_until_when(
    database: Database, fields: dict[str, Any], why: str
) -> None:
    """Its send time has passed: it is not what it will be sent at."""
    await queues.put(database, Queue("mail", Limits(1.0), 0))
    await put_jobs(database, job_document("a", "0 0 3 * * *", active_from=0, **fields))
    now_ms = int(await nodes.primary_clock_ms(database) or 0)
    name = await trigger(database, "a", now_ms - 10_000)
    at_ms = int(name.rpartition(":")[2])
    await database.api["batches"].update_many({}, {"$set": {"claimable_at": DatetimeMS(now_ms + 30_000)}})
    _, said = await told(database, at_ms)
    assert f"It was put off by {why}. A node" in said
    assert f"again at {format_instant(now_ms + 30_000)}" in said
    await database.api["batches"].update_many({}, {"$set": {"owner": "w"}})
    await nodes.write_heartbeat(
        database,
        "w",
        {"host": "h", "pid": 1, "version": "1"}
        | dict.fromkeys(("clock_offset_ms", "in_flight", "waiting"), 0)
        | dict.fromkeys(("leading", "draining"), False),
    )
    _, said = await told(database, at_ms)
    assert ("w is sending it or about to, as the limit of " in said) is bool(fields)


async def test_occurrences_ahead_and_waiting_are_explained(database: Database) -> None:
    """Ahead of the look-ahead, owed in a batch, without a leader, held by a breaker."""
    clock = Crank()
    await put_jobs(database, job_document("a", "*/30 * * * * *"))
    ahead = clock.now + 3600_000 - clock.now % 30_000
    state, said = await told(database, ahead)
    assert state == "ahead"
    assert "no node leads" in said
    leader = await lead(database, clock)
    await nodes.write_heartbeat(
        database,
        "a",
        {"host": "h", "pid": 1, "version": "1"}
        | dict.fromkeys(("clock_offset_ms", "in_flight", "waiting"), 0)
        | dict.fromkeys(("leading", "draining"), False),
    )
    assert (await leases.leadership(database)).node == "a"
    await settle_all(leader, clock)
    due = clock.now - clock.now % 30_000
    due += 30_000 if due < clock.now else 0
    state, said = await told(database, due)
    assert state == "pending"
    assert "It is owed and will be sent at" in said
    await database.api["breakers"].insert_one(
        {"_id": "127.0.0.1:1", "opened_at": DatetimeMS(DUE), "until": DatetimeMS(due * 2), "why": "20 of 20 failed"}
    )
    assert "the circuit breaker of 127.0.0.1:1 is open" in (await told(database, due))[1]
    assert (await batches.backlog(database)).ready == 0


async def test_a_run_that_was_requested_just_now_blames_no_node(database: Database) -> None:
    """Between the two writes of the request, and before a node had time to claim it. Two seconds later it says so."""
    now_ms = int(await nodes.primary_clock_ms(database) or 0)
    await put_jobs(database, job_document("a", "0 0 3 * * *", active_from=now_ms))
    fields = dict.fromkeys(("clock_offset_ms", "in_flight", "waiting"), 0) | {"leading": False, "draining": False}
    await nodes.write_heartbeat(database, "n", {"host": "h", "pid": 1, "version": "1", **fields})
    name = await trigger(database, "a", now_ms)
    _, said = await told(database, int(name.rpartition(":")[2]))
    assert "It is due now: a node claims it within a moment." in said
    assert "no node" not in said
    (document,) = await database.api["batches"].find().to_list()
    await database.api["batches"].delete_many({})
    _, said = await told(database, int(name.rpartition(":")[2]))
    assert "about to be written" in said
    assert "no node" not in said
    ago = DatetimeMS(now_ms - 60_000)
    await database.api["batches"].insert_one({**document, "claimable_at": ago})
    await database.api["executions"].update_many({}, {"$set": {"send_at": ago}})
    _, said = await told(database, int(name.rpartition(":")[2]))
    assert "no node has claimed it yet" in said

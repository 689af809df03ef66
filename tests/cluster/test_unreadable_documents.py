"""A document that cannot be read or computed stops no other; it is logged, and nothing of it is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from bson.datetime_ms import DatetimeMS
from structlog.testing import capture_logs

from cluster.core.ids import execution_id
from cluster.core.schedule.schedule import parse_schedule
from cluster.store import batches, executions
from tests.support.engine import T0, Crank, check_books, job_document, lead, put_jobs, rows, settle_all, worker
from tests.support.leaders import crank, due_of
from tests.support.workers import DUE, answering, owed, run_dry

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database

EVERY_SECOND = parse_schedule("* * * * * *").key


def _names(logs: Any, event: str) -> list[str]:
    return [line["id"] for line in logs if line["event"] == event]


@pytest.mark.parametrize(
    "spoiled",
    [
        {"$unset": {"schedule_version": ""}},
        {"$set": {"spread_seconds": "many"}},
        {"$set": {"schedule_key": "cron|61 * * * * *|UTC"}},
        {"$set": {"schedule_key": "cron|0 * * * * *|Mars/Olympus"}},
        {"$set": {"past": [{"schedule": "nonsense"}]}},
    ],
    ids=["no version", "wrong type", "impossible cron", "unknown zone", "nonsense in its past"],
)
async def test_a_job_that_cannot_be_settled_keeps_its_change_pending_and_holds_up_no_other(
    database: Database, spoiled: dict[str, Any]
) -> None:
    """The others are settled; once the document is corrected, the job gets everything it owes."""
    clock = Crank()
    await put_jobs(database, job_document("a"), job_document("bad"), job_document("c"))
    good = await database.api["jobs"].find_one({"_id": "bad"})
    assert good is not None
    await database.api["jobs"].update_one({"_id": "bad"}, spoiled)
    leader = await lead(database, clock)
    with capture_logs() as logs:
        await settle_all(leader, clock)
        await crank(leader, clock, 2)
    assert set(_names(logs, "document_quarantined")) == {"bad"}
    assert len(await due_of(database, "a")) > 15
    assert len(await due_of(database, "c")) > 15
    assert await due_of(database, "bad") == []
    assert [j["_id"] for j in await rows(database, "jobs") if "unsettled" in j] == ["bad"]
    await database.api["jobs"].replace_one({"_id": "bad"}, good)
    leader.settler.quarantine.clear()
    await settle_all(leader, clock)
    assert (await due_of(database, "bad"))[:3] == [0, 1, 2]
    await check_books(database)


async def test_a_settled_job_that_becomes_unreadable_is_missed_and_the_row_goes_on(database: Database) -> None:
    """Its occurrences are recorded as missed with the reason; other jobs of the row are not affected."""
    clock = Crank()
    await put_jobs(database, job_document("a"), job_document("bad"))
    leader = await lead(database, clock)
    await settle_all(leader, clock)
    before = await due_of(database, "bad")
    await database.api["jobs"].update_one({"_id": "bad"}, {"$unset": {"active_from": ""}})
    await crank(leader, clock, 12)
    dues = await due_of(database, "a")
    assert dues == list(range(len(dues)))
    assert dues[-1] >= 12 + 10
    missed = [h for h in await rows(database, "history") if h["state"] == "missed"]
    assert {h["job_id"] for h in missed} == {"bad"}
    assert "could not be read" in missed[0]["reason"]
    gone = {s for h in missed for s in range(*((int(h[k]) - T0) // 1000 for k in ("first_at", "last_at")))}
    gone |= {(int(h["last_at"]) - T0) // 1000 for h in missed}
    assert sorted({*before, *gone}) == dues, "an occurrence of it was neither written nor recorded as missed"


@pytest.mark.parametrize(
    "row",
    [
        {"_id": "cron|*/2 * * * * *|UTC", "next_at": DatetimeMS(T0)},
        {"_id": "cron|*/2 * * * * *|Mars/Olympus", "next_at": DatetimeMS(T0), "cursor": None, "term": 0},
        {"_id": "what is this", "next_at": DatetimeMS(T0), "cursor": {"until": 7}, "term": 0},
    ],
    ids=["no term", "unknown zone", "no schedule at all"],
)
async def test_a_schedule_row_that_cannot_be_materialised_stops_no_other(
    database: Database, row: dict[str, Any]
) -> None:
    """The row comes first, is quarantined, stays where it is, and the others move on."""
    clock = Crank()
    bad = job_document("bad", "*/2 * * * * *", schedule_key=row["_id"])
    del bad["unsettled"]
    await put_jobs(database, bad, job_document("a"))
    await database.api["schedules"].insert_one(dict(row))
    leader = await lead(database, clock)
    with capture_logs() as logs:
        await settle_all(leader, clock)
        await crank(leader, clock, 12)
    assert set(_names(logs, "document_quarantined")) == {row["_id"]}
    dues = await due_of(database, "a")
    assert dues == list(range(len(dues)))
    assert dues[-1] >= 12 + 10
    (still,) = [r for r in await rows(database, "schedules") if r["_id"] == row["_id"]]
    assert still["next_at"] == DatetimeMS(T0) or int(still["next_at"]) == T0


async def test_a_range_that_cannot_be_read_stops_neither_the_others_nor_the_sweep(database: Database) -> None:
    """Catching up continues with the next range."""
    clock = Crank()
    await put_jobs(database, job_document("a"))
    leader = await lead(database, clock, "before")
    await settle_all(leader, clock)
    await database.api["backfills"].insert_many(
        [{"_id": "bad", "counted": False}, {"_id": "worse", "counted": True, "cursor_at": DatetimeMS(0)}]
    )
    clock.now += 60_000
    leader = await lead(database, clock, "after")
    await settle_all(leader, clock)
    dues = await due_of(database, "a")
    assert dues == list(range(len(dues)))
    assert dues[-1] >= 70
    assert [b["_id"] for b in await rows(database, "backfills")] == ["bad", "worse"]


@pytest.mark.parametrize("spoiled", [{"$unset": {"due_at": ""}}, {"$set": {"attempts": [1]}}, {"$set": {"state": "?"}}])
async def test_an_unreadable_execution_is_dead_and_its_batch_goes_on(
    database: Database, monkeypatch: pytest.MonkeyPatch, spoiled: dict[str, Any]
) -> None:
    """It is recorded under its id with the reason, and can be replayed; the other executions of its batch are sent."""
    await owed(database, "a", "bad", "c")
    real = executions.stamp

    async def spoiling(*args: Any) -> int:
        stamped = await real(*args)
        await database.api["executions"].update_one({"_id": execution_id("bad", DUE)}, spoiled)
        return stamped

    monkeypatch.setattr(executions, "stamp", spoiling)
    await run_dry(worker(database, answering(200)))
    found = {h["job_id"]: (h["state"], h["reason"], int(h["due_at"])) for h in await rows(database, "history")}
    assert found["a"][0] == found["c"][0] == "succeeded"
    assert (found["bad"][0], found["bad"][2]) == ("dead", DUE)
    assert "could not be read" in found["bad"][1]
    assert await rows(database, "executions") == []
    assert await rows(database, "batches") == []


async def test_an_unreadable_execution_without_a_batch_is_found_by_the_sweep(database: Database) -> None:
    """No node claims it, so the sweep alone can record it."""
    await owed(database, "a", "bad")
    await database.api["batches"].delete_many({})
    await database.api["executions"].update_one({"_id": execution_id("bad", DUE)}, {"$unset": {"lane": ""}})
    leader = await lead(database, Crank())
    assert await leader.sweeper.repair_orphans() == 1
    assert [(h["job_id"], h["state"]) for h in await rows(database, "history")] == [("bad", "dead")]
    assert [e["job_id"] for e in await rows(database, "executions")] == ["a"]
    await check_books(database)


@pytest.mark.parametrize(
    "spoiled",
    [{"$set": {"token": "first"}}, {"$unset": {"lane": ""}}, {"$set": {"ids": 7}}, {"$unset": {"claims": ""}}],
    ids=["token", "lane", "ids", "claims"],
)
async def test_a_batch_that_cannot_be_claimed_is_replaced(database: Database, spoiled: dict[str, Any]) -> None:
    """It would come first in every claim of every node; its executions have all of its contents."""
    await owed(database, "a", "b", batch="bad")
    await owed(database, "c", batch="good")
    await database.api["batches"].update_one({"_id": "bad"}, spoiled)
    w = worker(database, answering(200))
    with capture_logs() as logs:
        for _ in range(3):
            await run_dry(w)
    assert [line["batches"] for line in logs if line["event"] == "batches_corrupt"] == [["bad"]]
    assert {h["_id"]: h["state"] for h in await rows(database, "history")} == {
        execution_id(j, DUE): "succeeded" for j in "abc"
    }
    assert await rows(database, "batches") == []


@pytest.mark.parametrize(
    "spoiled",
    [{"$unset": {"url": ""}}, {"$set": {"headers": [["X-Number", 5]]}}, {"$set": {"retry": None}}],
    ids=["no target", "a header that is no text", "no policy"],
)
async def test_an_execution_whose_request_cannot_be_made_is_dead_and_its_batch_goes_on(
    database: Database, spoiled: dict[str, Any]
) -> None:
    """It is found shortly before sending: the rest of the batch must not wait for it."""
    await owed(database, "a", "bad", "c")
    await database.api["jobs"].update_one({"_id": "bad"}, spoiled)
    await run_dry(worker(database, answering(200)))
    found = {h["job_id"]: h for h in await rows(database, "history")}
    assert [found[j]["state"] for j in ("a", "bad", "c")] == ["succeeded", "dead", "succeeded"]
    assert "could not be" in found["bad"]["reason"]
    assert await rows(database, "executions") == []
    assert await rows(database, "batches") == []


async def test_only_corrupt_batches_are_deleted(database: Database) -> None:
    """A batch that a claim can take is never deleted."""
    await owed(database, "a", batch="good")
    assert await batches.delete_corrupt(database) == []
    assert [b["_id"] for b in await rows(database, "batches")] == ["good"]

"""`horae verify` about messages, callbacks and chains: each rule finds the fault that is put into the database, and only that."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from bson.datetime_ms import DatetimeMS

from cluster.usecases import jobs
from tests.support.engine import worker
from tests.support.message_world import LATER_MS, answer, build
from tests.support.messages import send
from tests.support.verify_records import judged
from tests.support.workers import run_dry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cluster.store.mongo.client import Database
    from tests.support.message_world import World


async def test_what_the_engine_writes_has_no_findings(database: Database) -> None:
    world = await build(database)
    assert await world.findings() == {}
    states = {d["_id"]: d["state"] async for d in database.api["history"].find()}
    assert states == {
        world.run: "succeeded",
        world.chained: "succeeded",
        world.fine: "succeeded",
        world.bad: "failed",
        world.told("run", "success"): "succeeded",
        world.told("fine", "success"): "succeeded",
        world.told("bad", "failure"): "succeeded",
    }
    report = await judged(database, now=world.now + 1000, since=world.now - 3_600_000, job=world.name("fine"))
    assert (report.clean, report.counts.executions) == (True, 1)


# -- faults, each with what is found -----------------------------------------------------------------------------------


async def _still_waits(w: World) -> dict[str, list[str]]:
    (late,) = await send(w.db, w.now - 2 * LATER_MS, w.now - LATER_MS)
    return {late.partition(":")[0]: ["late"]}


async def _no_batch(w: World) -> dict[str, list[str]]:
    await w.db.api["batches"].delete_many({})
    return {w.name("owed"): ["orphan"]}


async def _not_listed(w: World) -> dict[str, list[str]]:
    await w.db.api["batches"].update_many({}, {"$set": {"ids": ["another"]}})
    return {w.name("owed"): ["orphan"]}


async def _not_sent(w: World) -> dict[str, list[str]]:
    (late,) = await send(w.db, w.now - LATER_MS, w.now - LATER_MS)
    return {late.partition(":")[0]: ["late"]}


async def _cancelled_and_sent(w: World) -> dict[str, list[str]]:
    await w.change("bad", {"state": "cancelled"})
    return {w.name("bad"): ["contradiction"]}


async def _success_without_success(w: World) -> dict[str, list[str]]:
    """Its other callback is owed then, too."""
    await w.change("bad", {"state": "succeeded"})
    return {w.name("bad"): ["contradiction", "missing"]}


async def _success_by_other_codes(w: World) -> dict[str, list[str]]:
    (own,) = await send(w.db, w.now, w.now, headers=(("bad", "1"),), success_codes=(404,))
    await run_dry(worker(w.db, answer))
    assert await w.findings() == {}
    await w.db.api["history"].update_one({"_id": own}, {"$set": {"success_codes": [200]}})
    return {own.partition(":")[0]: ["contradiction"]}


async def _sent_early(w: World) -> dict[str, list[str]]:
    at = DatetimeMS(w.now - 5000)
    await w.change("fine", {"attempts.0.sent_at": at, "send_at": DatetimeMS(w.now), "drift_ms": -5000})
    return {w.name("fine"): ["early"]}


async def _sent_late(w: World) -> dict[str, list[str]]:
    at = DatetimeMS(w.now + LATER_MS)
    await w.change("fine", {"attempts.0.sent_at": at, "ended_at": at, "drift_ms": LATER_MS})
    return {w.name("fine"): ["late"]}


async def _sent_twice(w: World) -> dict[str, list[str]]:
    record = await w.db.api["history"].find_one({"_id": w.bad})
    assert record is not None
    await w.change("bad", {"attempts": record["attempts"] * 2})
    return {w.name("bad"): ["duplicate"]}


async def _final_and_owed(w: World) -> dict[str, list[str]]:
    owed = await w.db.api["executions"].find_one({"_id": w.owed})
    record = await w.db.api["history"].find_one({"_id": w.fine})
    assert owed is not None
    assert record is not None
    more = {name: record[name] for name in ("_id", "job_id", "due_at", "send_at")}
    long_ago = {"send_at": DatetimeMS(w.now - LATER_MS), "ended_at": DatetimeMS(w.now - LATER_MS)}
    await w.db.api["executions"].insert_one({**owed, **more, "send_at": long_ago["send_at"]})
    await w.db.api["batches"].update_one({"_id": owed["batch"]}, {"$push": {"ids": w.fine}})
    sent = {"attempts.0.sent_at": long_ago["send_at"], "due_at": record["due_at"]}
    await w.change("fine", {**long_ago, **sent})
    return {w.name("fine"): ["contradiction", "early"]}


async def _no_such_id(w: World) -> dict[str, list[str]]:
    record = await w.db.api["history"].find_one({"_id": w.fine})
    assert record is not None
    await w.db.api["history"].insert_one({**record, "_id": "msg.SHORT:x", "callback": False})
    return {"msg.SHORT": ["unexpected"]}


async def _skipped(w: World) -> dict[str, list[str]]:
    await w.change("bad", {"state": "skipped", "attempts": [], "reason": "the window x", "drift_ms": None})
    return {w.name("bad"): ["contradiction"]}


async def _missed(w: World) -> dict[str, list[str]]:
    await w.change("bad", {"state": "missed", "attempts": [], "reason": "no node was there", "drift_ms": None})
    return {w.name("bad"): ["contradiction"]}


async def _success_not_told(w: World) -> dict[str, list[str]]:
    await w.remove(w.told("fine", "success"))
    return {w.name("fine"): ["missing"]}


async def _failure_not_told(w: World) -> dict[str, list[str]]:
    await w.remove(w.told("bad", "failure"))
    return {w.name("bad"): ["missing"]}


async def _job_not_told(w: World) -> dict[str, list[str]]:
    await w.remove(w.told("run", "success"))
    return {"p": ["missing"]}


async def _chained_did_not_run(w: World) -> dict[str, list[str]]:
    await w.remove(w.chained)
    return {"c": ["missing"]}


async def _callback_without_batch(w: World) -> dict[str, list[str]]:
    owed = await w.db.api["executions"].find_one({"_id": w.owed})
    assert owed is not None
    name = w.told("bad", "failure")
    await w.remove(name)
    more = {"_id": name, "job_id": name.partition(":")[0], "batch": "none", "due_at": DatetimeMS(w.now)}
    await w.db.api["executions"].insert_one({**owed, **more, "asked_at": DatetimeMS(w.now)})
    return {name.partition(":")[0]: ["orphan"]}


async def _cannot_be_read(w: World) -> dict[str, list[str]]:
    await w.change("fine", {"attempts": "none"})
    return {w.name("fine"): ["contradiction"]}


ALONE = (
    _still_waits,
    _no_batch,
    _not_listed,
    _not_sent,
    _cancelled_and_sent,
    _success_without_success,
    _success_by_other_codes,
    _sent_early,
    _sent_late,
    _sent_twice,
    _final_and_owed,
    _skipped,
    _missed,
    _success_not_told,
    _failure_not_told,
    _callback_without_batch,
    _cannot_be_read,
)
FAULTS = (*ALONE, _no_such_id, _chained_did_not_run, _job_not_told)


@pytest.mark.parametrize("fault", FAULTS)
async def test_each_fault_is_found_and_nothing_else(
    database: Database, fault: Callable[[World], Awaitable[dict[str, list[str]]]]
) -> None:
    world = await build(database)
    wanted = await fault(world)
    assert await world.findings() == wanted
    if fault in ALONE:  # asked for alone, it is found as well
        assert await world.findings(job=next(iter(wanted))) == wanted


# -- what only looks like a fault --------------------------------------------------------------------------------------


async def _due_a_moment_ago(w: World) -> None:
    await send(w.db, w.now - 30_000, w.now - 10_000)


async def _waits_for_a_year(w: World) -> None:
    await send(w.db, w.now, w.now + 365 * 86_400_000)


async def _told_next(w: World) -> None:
    """The callback is owed."""
    await w.db.api["history"].delete_one({"_id": w.told("bad", "failure")})
    owed = await w.db.api["executions"].find_one({"_id": w.owed})
    assert owed is not None
    name = w.told("bad", "failure")
    more = {"_id": name, "job_id": name.partition(":")[0], "due_at": DatetimeMS(w.now), "asked_at": DatetimeMS(w.now)}
    await w.db.api["executions"].insert_one({**owed, **more})
    await w.db.api["batches"].update_one({"_id": owed["batch"]}, {"$push": {"ids": name}})


async def _marked(w: World) -> None:
    """A late result: whoever finds the mark writes what follows."""
    await w.remove(w.told("fine", "success"))
    await w.change("fine", {"unfollowed": True})


async def _not_followed_yet(w: World) -> None:
    """It is final and still owed: whoever claims it writes what follows."""
    await w.remove(w.told("fine", "success"))
    owed = await w.db.api["executions"].find_one({"_id": w.owed})
    record = await w.db.api["history"].find_one({"_id": w.fine})
    assert owed is not None
    assert record is not None
    more = {name: record[name] for name in ("_id", "job_id", "due_at", "send_at")}
    await w.db.api["executions"].insert_one({**owed, **more})
    await w.db.api["batches"].update_one({"_id": owed["batch"]}, {"$push": {"ids": w.fine}})


async def _nobody_to_tell(w: World) -> None:
    (name,) = await send(w.db, w.now, w.now)
    await run_dry(worker(w.db, answer))
    assert await w.db.api["history"].count_documents({"_id": name, "state": "succeeded"}) == 1


async def _expired_since(w: World) -> None:
    """What followed it is kept no longer."""
    old = DatetimeMS(w.now - 8 * 86_400_000)
    await w.remove(w.told("fine", "success"))
    await w.change("fine", {"ended_at": old, "attempts.0.sent_at": old, "drift_ms": None, "attempts.0.late": None})
    await w.db.api["history"].update_one({"_id": w.fine}, {"$set": {"send_at": old}})


async def _chained_lately(w: World) -> None:
    """It is not known whether the node knew it when it sent the request."""
    await w.remove(w.chained)
    await w.db.api["jobs"].update_one({"_id": "c"}, {"$set": {"active_from": DatetimeMS(w.now - 20_000)}})


async def _after_other_results(w: World) -> None:
    await w.remove(w.chained)
    await w.db.api["jobs"].update_one({"_id": "c"}, {"$set": {"after.on": "failed"}})


async def _was_deleted(w: World) -> None:
    await w.remove(w.told("run", "success"))
    await w.remove(w.chained)
    for job in ("p", "c"):
        await jobs.delete(w.db, job, w.now + 500)


FINE = (
    _due_a_moment_ago,
    _waits_for_a_year,
    _told_next,
    _marked,
    _not_followed_yet,
    _nobody_to_tell,
    _chained_lately,
    _after_other_results,
    _was_deleted,
)


@pytest.mark.parametrize("change", FINE)
async def test_what_only_looks_like_a_fault_is_not_found(
    database: Database, change: Callable[[World], Awaitable[None]]
) -> None:
    world = await build(database)
    await change(world)
    assert await world.findings() == {}


async def test_what_followed_an_expired_result_is_not_missing(database: Database) -> None:
    world = await build(database)
    await _expired_since(world)
    assert "missing" not in str(await world.findings())

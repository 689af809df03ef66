"""Adopting: what a changed job owed already moves to its present schedule, however many batches that takes."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from cluster.core.execution.planning import plan_batches
from cluster.core.ids import execution_id
from cluster.store import batches, engine_jobs, enqueue, executions
from cluster.store.batches import ClaimFilter
from cluster.store.enqueue import insert_owed
from tests.support.engine import rows, worker
from tests.support.workers import DUE, answering, owed, run_dry

if TYPE_CHECKING:
    from cluster.core.execution.model import Batch
    from cluster.core.execution.planning import Plan
    from cluster.store.mongo.client import Database

SECONDS = 20


def new_id() -> str:
    return uuid.uuid4().hex


async def planned(db: Database) -> Plan:
    """What the present schedule of job `a` owes: a run each second, so a batch each second."""
    job = await engine_jobs.get_schedule(db, "a")
    assert job is not None
    return plan_batches([(job, [DUE + n * 1000 for n in range(SECONDS)])], 2, new_id)


async def written_and_changed(db: Database) -> None:
    """All of it is written for the first schedule of the job, which has another one now."""
    await owed(db, "a")
    first = await planned(db)
    await insert_owed(db, first.executions, first.batches, new_id)
    await db.api["jobs"].update_one({"_id": "a"}, {"$set": {"schedule_version": "v2"}})


async def test_executions_of_many_batches_are_adopted_by_few_writes(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write for each batch would take seconds where a majority is far: so long a change would hold up others. One that
    was claimed since it was read is not adopted with the others, but after them; each is sent once.
    """
    await written_and_changed(database)
    adopt, insert, calls = executions.adopt, batches.insert, {"adopt": 0, "insert": 0}

    async def adopting(*arguments: Any) -> set[str]:
        calls["adopt"] += 1
        if calls["adopt"] == 1:
            claimed = await worker(database, answering(200), "other").claiming.claimer.step(ClaimFilter())
            assert claimed is not None
        return await adopt(*arguments)

    async def inserting(*arguments: Any) -> None:
        calls["insert"] += 1
        await insert(*arguments)

    monkeypatch.setattr(executions, "adopt", adopting)
    monkeypatch.setattr(batches, "insert", inserting)
    second = await planned(database)
    done = await insert_owed(database, second.executions, second.batches, new_id)
    assert done.adopted == SECONDS
    assert calls["adopt"] <= 2
    assert calls["insert"] <= 4
    found = await rows(database, "executions")
    assert {e["_id"] for e in found} == {execution_id("a", DUE + n * 1000) for n in range(SECONDS)}
    assert {e["schedule_version"] for e in found} == {"v2"}
    listed = {b["_id"]: b["ids"] for b in await rows(database, "batches")}
    assert all(e["_id"] in listed[e["batch"]] for e in found)
    w = worker(database, answering(200))
    await run_dry(w)
    history = await rows(database, "history")
    assert [(h["state"], h["schedule_version"], len(h["attempts"])) for h in history] == [
        ("succeeded", "v2", 1)
    ] * SECONDS


async def test_a_leader_that_dies_between_the_two_writes_of_an_adoption_leaves_nothing_unsent(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The executions name batches that do not exist. The next pass over the job makes them, under those names."""
    await written_and_changed(database)

    insert = batches.insert

    async def dying(db: Database, made: list[Batch]) -> None:
        if made:
            raise ConnectionAbortedError
        await insert(db, made)

    second = await planned(database)
    with monkeypatch.context() as patch:
        patch.setattr(batches, "insert", dying)
        with pytest.raises(ConnectionAbortedError):
            await insert_owed(database, second.executions, second.batches, new_id)
    names = {e["batch"] for e in await rows(database, "executions")}
    assert not names & {b["_id"] for b in await rows(database, "batches")}
    again = [replace(e, batch=f"{e.batch}-again") for e in second.executions]
    its_batches = [replace(b, id=f"{b.id}-again") for b in second.batches]
    await insert_owed(database, again, its_batches, new_id)
    assert names <= {b["_id"] for b in await rows(database, "batches")}
    await run_dry(worker(database, answering(200)))
    history = await rows(database, "history")
    assert [(h["state"], h["schedule_version"]) for h in history] == [("succeeded", "v2")] * SECONDS


async def test_what_an_interrupted_adoption_left_has_its_batches_before_others_are_adopted(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is what is to be sent first."""
    await written_and_changed(database)
    adopt, adopted = executions.adopt, 0

    async def failing(*arguments: Any) -> set[str]:
        await adopt(*arguments)
        raise ConnectionAbortedError

    async def looking(*arguments: Any) -> set[str]:
        nonlocal adopted
        adopted += 1
        there = {b["_id"] for b in await rows(database, "batches")}
        moved = [e for e in await rows(database, "executions") if e["schedule_version"] == "v2"]
        assert len(moved) >= 5 * adopted
        assert {e["batch"] for e in moved} <= there
        return await adopt(*arguments)

    monkeypatch.setattr(enqueue, "CHUNK", 5)
    second = await planned(database)
    with monkeypatch.context() as patch:
        patch.setattr(executions, "adopt", failing)
        with pytest.raises(ConnectionAbortedError):
            await insert_owed(database, second.executions, second.batches, new_id)
    monkeypatch.setattr(executions, "adopt", looking)
    third = await planned(database)
    done = await insert_owed(database, third.executions, third.batches, new_id)
    assert (done.adopted, adopted) == (SECONDS - 5, 3)


async def test_what_another_leader_adopts_meanwhile_has_its_batches(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was killed, and the server goes on with its write when its successor has read the executions."""
    await written_and_changed(database)
    adopt = executions.adopt

    async def after_another(db: Database, older: Any, wanted: Any, to: dict[str, str]) -> set[str]:
        await adopt(db, older, wanted, {i: f"dead-{name}" for i, name in to.items()})
        return await adopt(db, older, wanted, to)

    monkeypatch.setattr(executions, "adopt", after_another)
    second = await planned(database)
    await insert_owed(database, second.executions, second.batches, new_id)
    listed = {b["_id"]: b["ids"] for b in await rows(database, "batches")}
    found = await rows(database, "executions")
    assert all(e["batch"].startswith("dead-") and e["_id"] in listed[e["batch"]] for e in found)
    await run_dry(worker(database, answering(200)))
    assert [h["state"] for h in await rows(database, "history")] == ["succeeded"] * SECONDS


async def test_what_many_hosts_owe_is_adopted_in_batches_that_they_share(database: Database) -> None:
    """A thousand jobs with a host each, changed together, are no thousand batches."""
    names = [f"j{n}" for n in range(40)]
    await owed(database, *names)
    for i, name in enumerate(names):
        await database.api["jobs"].update_one({"_id": name}, {"$set": {"host": f"h{i}:80", "schedule_version": "v2"}})
    jobs = (await engine_jobs.get_schedules(database, names)).values()
    plan = plan_batches([(job, [DUE]) for job in jobs], 2, new_id)
    assert (await insert_owed(database, plan.executions, plan.batches, new_id)).adopted == len(names)
    adopted = await rows(database, "executions")
    assert {e["schedule_version"] for e in adopted} == {"v2"}
    assert len({e["batch"] for e in adopted}) == 1
    sent = answering(200)
    await run_dry(worker(database, sent))
    assert len(await rows(database, "history")) == len(names)

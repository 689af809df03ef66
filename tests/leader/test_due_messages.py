"""Messages that come due are moved to the executions by the leader, whoever dies or comes late at whatever write."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from bson.datetime_ms import DatetimeMS

from cluster.core.errors import Conflict
from cluster.leader.due_messages import MessageMover
from cluster.store import batches, executions, messages
from cluster.usecases.messages import cancel
from tests.support.engine import T0, Crank, check_books, lead, noting, rows, worker
from tests.support.leaders import Crashed, crash_after
from tests.support.messages import send
from tests.support.workers import deliver_until

if TYPE_CHECKING:
    from cluster.leader.leader import Leader
    from cluster.store.mongo.client import Database

WRITES = [("executions", "insert"), ("batches", "insert"), ("messages", "delete")]
SOON, LATER, FAR = T0 + 16_000, T0 + 60_000, T0 + 3_600_000


async def move(leader: Leader, clock: Crank) -> None:
    while (await leader.message_mover.step(clock.now_ms(), 2)).more:
        pass


async def ids(db: Database, collection: str) -> list[str]:
    return [d["_id"] for d in await rows(db, collection)]


async def deliver(db: Database, came: list[str]) -> None:
    await deliver_until(db, worker(db, noting(came)), T0 + 10_000_000)


async def test_what_comes_due_within_the_look_ahead_is_moved_and_nothing_else_is_read(database: Database) -> None:
    """However many wait for longer: the index says which ones."""
    clock = Crank()
    leader = await lead(database, clock)
    wanted = await send(database, T0, SOON, SOON + 1)
    await send(database, T0, *(FAR + n for n in range(300)))
    await move(leader, clock)
    assert await ids(database, "executions") == sorted(wanted)
    assert len(await rows(database, "messages")) == 300
    await check_books(database)
    query = {"due_at": {"$gte": DatetimeMS(0), "$lt": DatetimeMS(LATER)}}
    plan = await database.api["messages"].find(query).sort([("due_at", 1), ("_id", 1)]).limit(1000).explain()
    assert plan["executionStats"]["totalDocsExamined"] == 0


async def test_a_hundred_messages_of_one_second_share_batches(database: Database) -> None:
    clock = Crank()
    leader = await lead(database, clock)
    await send(database, T0, *(SOON + n for n in range(100)))
    await move(leader, clock)
    assert len(await rows(database, "batches")) <= 4
    await check_books(database)


@pytest.mark.parametrize(("module", "name"), WRITES)
async def test_a_leader_that_dies_at_any_write_loses_and_doubles_no_message(
    database: Database, monkeypatch: pytest.MonkeyPatch, module: str, name: str
) -> None:
    clock, came = Crank(), list[str]()
    wanted = await send(database, T0, SOON, SOON + 500)
    with monkeypatch.context() as patched:
        crash_after(patched, module, name, 1)
        with contextlib.suppress(Crashed):
            await move(await lead(database, clock, "a"), clock)
    await move(await lead(database, clock, "b"), clock)
    await check_books(database)
    await deliver(database, came)
    assert sorted(came) == sorted(wanted)
    assert await rows(database, "executions") == await rows(database, "messages") == []


@pytest.mark.parametrize(("module", "name"), WRITES)
async def test_a_leader_that_comes_late_with_any_write_sends_nothing_again(
    database: Database, monkeypatch: pytest.MonkeyPatch, module: str, name: str
) -> None:
    """It froze before the write. Meanwhile its successor moved the messages and they were sent."""
    clock, came = Crank(), list[str]()
    wanted = await send(database, T0, SOON, SOON + 500)
    stale = MessageMover((await lead(database, clock, "a")).message_mover._context)
    owner = {"executions": executions, "batches": batches, "messages": messages}[module]
    real = getattr(owner, name)

    async def late(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(owner, name, real)
        await move(await lead(database, clock, "b"), clock)
        await deliver(database, came)
        return await real(*args, **kwargs)

    monkeypatch.setattr(owner, name, late)
    stale._context = (await lead(database, clock, "c"))._context  # its term is not what protects here
    await stale.step(clock.now_ms(), 2)
    await deliver(database, came)
    assert sorted(came) == sorted(wanted)
    assert await rows(database, "executions") == await rows(database, "messages") == []


async def test_a_cancellation_between_the_read_and_the_insert_of_a_leader_holds(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its documents are gone when the insert comes: the record in history keeps the message from being sent."""
    clock, came = Crank(), list[str]()
    (wanted,) = await send(database, T0, SOON)
    leader = await lead(database, clock)
    real = executions.insert

    async def late(*args: Any) -> list[str]:
        monkeypatch.setattr(executions, "insert", real)
        await cancel(database, wanted.partition(":")[0], clock.now_ms(), 7.0)
        return await real(*args)

    monkeypatch.setattr(executions, "insert", late)
    await move(leader, clock)
    await deliver(database, came)
    assert came == []
    (record,) = await rows(database, "history")
    assert record["state"] == "cancelled"
    assert await rows(database, "executions") == await rows(database, "messages") == []


async def test_a_leader_between_the_read_and_the_insert_of_a_cancellation_was_first(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message was moved, sent and recorded meanwhile: too late, and nothing of the cancellation stays."""
    clock, came = Crank(), list[str]()
    (wanted,) = await send(database, T0, SOON)
    leader = await lead(database, clock)
    real = executions.insert

    async def late(*args: Any) -> list[str]:
        monkeypatch.setattr(executions, "insert", real)
        await move(leader, clock)
        await deliver(database, came)
        return await real(*args)

    monkeypatch.setattr(executions, "insert", late)
    with pytest.raises(Conflict):
        await cancel(database, wanted.partition(":")[0], clock.now_ms(), 7.0)
    assert came == [wanted]
    assert await rows(database, "executions") == []


@pytest.mark.parametrize("name", ["insert", "take_unsent"])
async def test_a_cancellation_whose_node_dies_after_its_first_write_is_finished_by_a_claim(
    database: Database, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The message was taken: it is not sent, and recorded as cancelled."""
    clock, came = Crank(), list[str]()
    due = SOON if name == "insert" else T0 + 5000
    (wanted,) = await send(database, T0, due)
    with monkeypatch.context() as patched:
        crash_after(patched, "executions", name, 1)
        with pytest.raises(Crashed):
            await cancel(database, wanted.partition(":")[0], clock.now_ms(), 7.0)
    leader = await lead(database, clock)
    await move(leader, clock)
    await leader.sweeper.repair_orphans()
    await deliver(database, came)
    assert came == []
    (record,) = await rows(database, "history")
    assert (record["state"], record["reason"]) == ("cancelled", "it was cancelled before it was sent")
    assert await rows(database, "executions") == await rows(database, "messages") == []


async def test_a_message_that_cannot_be_read_is_dead_and_delays_no_other(database: Database) -> None:
    clock, came = Crank(), list[str]()
    broken, fine = await send(database, T0, SOON, SOON + 1)
    await database.api["messages"].update_one({"_id": broken}, {"$unset": {"lane": ""}})
    await move(await lead(database, clock), clock)
    await deliver(database, came)
    assert came == [fine]
    states = {h["_id"]: h["state"] for h in await rows(database, "history")}
    assert states == {broken: "dead", fine: "succeeded"}

"""Late work that was spread because its host was slow, or its limit granted nothing, goes on as soon as there is room."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast
from unittest.mock import AsyncMock

import httpx
import pytest
from bson.datetime_ms import DatetimeMS

from cluster.clock import Clock
from cluster.core.errors import StoreUnavailable
from cluster.core.execution.model import Batch
from cluster.store import deferred_batches
from cluster.store.deferred_batches import Pace
from cluster.worker.claiming import LATE_EVERY
from cluster.worker.context import WorkerContext
from cluster.worker.late_work import MAX_NAMES, LateWork
from tests.support.engine import rows, worker
from tests.support.waiting import eventually
from tests.support.workers import owed, recorded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cluster.store.mongo.client import Database

HOST = "bad.example:81"
BAD = f"http://{HOST}/"


async def answered(_: httpx.Request) -> httpx.Response:
    return httpx.Response(200)


async def late_batches(db: Database, count: int, size: int = 1, **fields: Any) -> None:
    for b in range(count):
        await owed(db, *(f"a{b}-{i}" for i in range(size)), batch=f"b{b:03}", url=BAD, **fields)
    await db.api["batches"].update_many({}, {"$set": {"late": True}})


async def spread(db: Database, field: str = "host", name: str = HOST) -> None:
    """As a node does that finds the host slow, or the limit saturated: over some minutes."""
    assert await deferred_batches.spread_late(db, field, [name], Pace(5000)) > 0
    # One of them may be left for now: a node looks for more when it has claimed one.
    now = DatetimeMS(Clock().now_ms() - 1000)
    await db.api["batches"].update_one({"_id": "b000"}, {"$set": {"claimable_at": now}})


@pytest.mark.parametrize(("field", "limits"), [("host", {}), ("gate", {"max_concurrent": 50, "gate": "j:same"})])
async def test_a_backlog_goes_on_when_its_host_or_limit_has_room_again(
    database: Database, field: str, limits: dict[str, Any]
) -> None:
    """Another node had spread it over 200 s, and died. All of it is sent as soon as one of it is claimed."""
    await late_batches(database, 40, **limits)
    batch = (await rows(database, "batches"))[0]
    await spread(database, field, str(batch[field]))
    w = worker(database, answered)
    w.start()
    try:
        await eventually(lambda: recorded(database, 40), 15, "the backlog")
    finally:
        await w.shutdown(5)


async def test_what_waits_for_another_reason_is_left_alone(database: Database) -> None:
    """A batch that was deferred anew, one with an owner, one of another host, and one that was never spread."""
    await late_batches(database, 20)
    await spread(database)
    later = DatetimeMS(Clock().now_ms() + 600_000)
    change = database.api["batches"].update_one
    await change({"_id": "b001"}, {"$set": {"claimable_at": later}})
    await change({"_id": "b002"}, {"$set": {"owner": "another"}})
    await change({"_id": "b003"}, {"$set": {"host": "good.example:80"}})
    await change({"_id": "b004"}, {"$set": {"claimable_at": later}, "$unset": {"spread": ""}})
    assert await deferred_batches.bring_forward(database, "host", HOST, 100, 100) == 15
    now = Clock().now_ms()
    assert {b["_id"] for b in await rows(database, "batches") if int(b["claimable_at"]) > now + 100} == {
        "b001",
        "b002",
        "b003",
        "b004",
    }


class _Between:
    """A database in which something happens behind each query of `batches`, before the write that follows it."""

    def __init__(self, work: Any, happens: Callable[[], Awaitable[Any]]) -> None:
        self._batches, self._happens = work["batches"], happens
        self.update_many = self._batches.update_many

    def __getitem__(self, _: str) -> _Between:
        return self

    async def aggregate(self, pipeline: Any) -> Any:
        found = await (await self._batches.aggregate(pipeline)).to_list()
        await self._happens()
        return SimpleNamespace(to_list=AsyncMock(return_value=found))


@pytest.mark.parametrize("change", [{"owner": "another"}, {"claimable_at": "later"}, {"spread": None}])
async def test_what_changes_while_late_work_is_brought_forward_is_left_alone(
    database: Database, change: dict[str, Any]
) -> None:
    """A batch was chosen; before it is written, a node claims it, or another reason defers it."""
    await late_batches(database, 20)
    await spread(database)
    later = DatetimeMS(Clock().now_ms() + 600_000)
    changed = {name: later if value == "later" else value for name, value in change.items()}

    async def meanwhile() -> None:
        await database.api["batches"].update_many({"_id": {"$in": ["b001", "b002"]}}, {"$set": changed})

    before = {b["_id"]: b["claimable_at"] for b in await rows(database, "batches")} | (
        dict.fromkeys(("b001", "b002"), later) if "claimable_at" in change else {}
    )
    db = replace(database, work=cast("Any", _Between(database.work, meanwhile)))
    assert await deferred_batches.bring_forward(db, "host", HOST, 100, 100) == 17
    after = {b["_id"]: b["claimable_at"] for b in await rows(database, "batches")}
    assert {name: after[name] for name in ("b001", "b002")} == {name: before[name] for name in ("b001", "b002")}


async def test_no_more_is_brought_forward_than_there_is_room_for(database: Database) -> None:
    """The first to come, up to so many batches and executions; one in any case, or a large one would never come."""
    await late_batches(database, 20, size=3)
    assert await deferred_batches.spread_late(database, "host", [HOST], Pace(5000)) == 20
    order = [b["_id"] for b in sorted(await rows(database, "batches"), key=lambda b: b["claimable_at"])]
    assert await deferred_batches.bring_forward(database, "host", HOST, 100, 7) == 2
    assert await deferred_batches.bring_forward(database, "host", HOST, 3, 100) == 3
    assert await deferred_batches.bring_forward(database, "host", HOST, 100, 1) == 1
    now = Clock().now_ms()
    assert {b["_id"] for b in await rows(database, "batches") if int(b["claimable_at"]) <= now} == set(order[:6])


async def test_the_oldest_batches_come_back_first(database: Database) -> None:
    """Of those that are spread together, an old one waits for no younger one, however often all are spread."""
    await late_batches(database, 40)
    for b in range(40):
        sent = DatetimeMS(Clock().now_ms() - 10_000_000 + b * 100_000)
        await database.api["batches"].update_one({"_id": f"b{b:03}"}, {"$set": {"send_at": sent}})
    assert await deferred_batches.spread_late(database, "host", [HOST], Pace(500)) == 40
    order = [b["_id"] for b in sorted(await rows(database, "batches"), key=lambda b: b["claimable_at"])]
    assert max(abs(place - int(name[1:])) for place, name in enumerate(order)) <= 8


async def test_a_slow_host_gets_as_much_as_it_has_slots_for(database: Database) -> None:
    """No more than a quarter of the slots of a node while the host is not trusted; nothing while it is blocked."""
    await late_batches(database, 40)
    await spread(database)
    w = worker(database, answered, slots=32)
    work = LateWork(w.context, 512)
    assert await work.bring_forward((), ()) == 0  # it knows of no late work
    await w.claiming.claim_once()  # b000
    held = next(iter(w.context.held.values())).batch
    work.note(held)
    assert work.watches
    assert await work.bring_forward([HOST], ()) == 0
    assert await work.bring_forward((), ()) == 8
    await w.dispatcher.close()


async def test_names_of_late_work_are_bounded_and_forgotten(database: Database) -> None:
    """However many hosts have late work, a node remembers some; one of which nothing is found is asked for once."""
    w = worker(database, answered)
    work = LateWork(w.context, 512)
    for n in range(MAX_NAMES + 10):
        work.note(Batch("b", ("a",), 0, 0, 0, 0, host=f"h{n}:80"))
    assert len(work._hosts) == MAX_NAMES
    for _ in range(MAX_NAMES // 16):
        await work.bring_forward((), ())
    assert not work._hosts
    assert not work.watches
    w.claiming._late_work.note(Batch("b", ("a",), 0, 0, 0, 0, host=HOST))
    w.claiming.pause()
    assert isinstance(await w._release_turn(), float), "a node that holds nothing does not rest before it has looked"
    w.claiming.resume()
    assert isinstance(await w._release_turn(), asyncio.Event)
    await w.dispatcher.close()


@pytest.mark.parametrize(("unsent", "claims"), [(0, 1), (640, LATE_EVERY), (1200, 0)])
async def test_a_node_that_is_behind_with_current_work_claims_late_work_now_and_then(
    database: Database, monkeypatch: pytest.MonkeyPatch, unsent: int, claims: int
) -> None:
    """A node claims ahead for a quick host as much as it leaves to late work, all the time. So one claim in ten has more room."""
    await late_batches(database, 1)
    w = worker(database, answered)
    monkeypatch.setattr(WorkerContext, "due_soon", lambda _: unsent)
    tried = 0
    while tried < 2 * LATE_EVERY:
        tried += 1
        if await w.claiming.claim_once():
            break
    assert tried == (claims or 2 * LATE_EVERY)
    assert bool(w.held) is bool(claims)
    await w.dispatcher.close()


@pytest.mark.parametrize(("of_others", "looked_for"), [(0, 1), (15, 1), (40, 1)])
async def test_hosts_of_which_nothing_is_spread_are_asked_for_together(
    database: Database, monkeypatch: pytest.MonkeyPatch, of_others: int, looked_for: int
) -> None:
    """A long backlog of one host is not read once for each other host of which late work was claimed."""
    await late_batches(database, 20)
    await spread(database)
    looked = list[str]()
    real = deferred_batches.bring_forward

    async def counted(db: Database, field: str, name: str, *most: int) -> int:
        looked.append(name)
        return await real(db, field, name, *most)

    monkeypatch.setattr(deferred_batches, "bring_forward", counted)
    late = LateWork(worker(database, answered).context, 512)
    for name in (*(f"other{n}.example:80" for n in range(of_others)), HOST):
        late.note(Batch("b", (), 0, 0, 0, 0, late=True, host=name))
    for _ in range(3):
        await late.bring_forward((), ())
    assert looked[:looked_for] == [HOST]
    assert set(looked) == {HOST}


@pytest.mark.parametrize("query", ["bring_forward", "spread_names"])
async def test_a_name_that_could_not_be_asked_for_is_asked_for_again(
    database: Database, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    """The database was not available for a moment."""
    await late_batches(database, 20)
    await spread(database)
    late = LateWork(worker(database, answered).context, 512)
    for name in ("other.example:80", HOST):
        late.note(Batch("b", (), 0, 0, 0, 0, late=True, host=name))

    async def unavailable(*_: Any) -> Any:
        raise StoreUnavailable("no primary")

    with monkeypatch.context() as patched:
        patched.setattr(deferred_batches, query, unavailable)
        with pytest.raises(StoreUnavailable):
            await late.bring_forward((), ())
    assert await late.bring_forward((), ()) == 19

"""`horae verify` on what the engine itself leaves behind: changes of every kind within the range are judged right."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cluster.usecases import jobs
from cluster.usecases.executions import trigger
from tests.support.cranked_cluster import CONTEXT, EACH, Cluster
from tests.support.engine import rows
from tests.support.job_changes import patch_job

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cluster.store.mongo.client import Database

THIRD = {**EACH, "schedule": "*/3 * * * * *"}


async def _pause_and_resume(c: Cluster) -> None:
    await jobs.pause(c.db, "a", c.clock.now_ms())
    await c.run(4)
    await jobs.resume(c.db, "a", c.clock.now_ms())


async def _pause_at_once_resumed(c: Cluster) -> None:
    await jobs.pause(c.db, "a", c.clock.now_ms())
    c.clock.now += 100
    await jobs.resume(c.db, "a", c.clock.now_ms())


async def _new_schedule(c: Cluster) -> None:
    await c.put("a", THIRD)


async def _and_back(c: Cluster) -> None:
    await c.put("a", THIRD)
    await c.run(2)
    await c.put("a", EACH)


async def _delete(c: Cluster) -> None:
    await jobs.delete(c.db, "a", c.clock.now_ms())


async def _recreate(c: Cluster) -> None:
    await jobs.delete(c.db, "a", c.clock.now_ms())
    await c.run(3)
    await c.put("a", THIRD)


async def _time_zone(c: Cluster) -> None:
    change = {"timezone": "Asia/Kathmandu", "schedule": "*/2 * * * * *"}
    await patch_job(c.db, "a", change, CONTEXT, c.clock.now_ms())


async def _every(c: Cluster) -> None:
    await c.put("a", {**EACH, "schedule": "@every 2s"})
    await c.run(3)
    await patch_job(c.db, "a", {"name": "the anchor stays"}, CONTEXT, c.clock.now_ms())


async def _end(c: Cluster) -> None:
    from cluster.core.instants import format_instant

    await c.put("a", {**EACH, "endAt": format_instant(c.clock.now + 3000)})


async def _trigger(c: Cluster) -> None:
    c.clock.now += 123
    await trigger(c.db, "a", c.clock.now_ms())


async def _success_codes(c: Cluster) -> None:
    """What was a success so far fails from now on."""
    await patch_job(c.db, "a", {"successCodes": [404]}, CONTEXT, c.clock.now_ms())


CHANGES = [
    _pause_and_resume,
    _pause_at_once_resumed,
    _new_schedule,
    _and_back,
    _delete,
    _recreate,
    _time_zone,
    _every,
    _end,
    _trigger,
    _success_codes,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__.strip("_"))
async def test_a_change(database: Database, change: Callable[[Cluster], Awaitable[None]]) -> None:
    """A job that is changed while it runs leaves nothing behind that is found; then something is lost, and that is."""
    c = await Cluster.begin(database)
    await c.put("a", EACH)
    await c.run(8)
    c.clock.now += 300
    await change(c)
    await c.run(8)
    assert await c.findings() == {}
    sent = [d for d in await rows(database, "history") if d["state"] == "succeeded" and not d["trigger"]]
    for lost in (sent[1], sent[-1]):
        await database.api["history"].delete_one({"_id": lost["_id"]})
        assert await c.findings() == {"a": ["missing"]}
        await database.api["history"].insert_one(lost)


@pytest.mark.parametrize("change", [_new_schedule, _delete, _pause_and_resume], ids=lambda f: f.__name__.strip("_"))
async def test_a_change_before_anybody_looked(database: Database, change: Callable[[Cluster], Awaitable[None]]) -> None:
    """A job that is created, is due twice while nobody leads, and is changed again: what it owed is not forgotten."""
    c = await Cluster.begin(database)
    await c.put("b", EACH)
    await c.run(3)
    c.clock.now += 300
    await c.put("a", EACH)
    c.clock.now += 2000
    await change(c)
    await c.run(4)
    assert await c.findings() == {}

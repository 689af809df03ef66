"""Maintenance windows that mute: notices wait for the end, and what is no news then is dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cluster.core.documents.alerts import AlertSpec
from cluster.core.windows import Window
from cluster.leader.alerting import Alerter
from cluster.store import channels, windows
from cluster.store.channels import Channel
from tests.support.engine import Crank, rows, worker
from tests.support.workers import DUE, answering, owed, run_dry

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database

ONCE = {"max_attempts": 1, "initial_delay_seconds": 1.0, "multiplier": 1.0, "max_delay_seconds": 1.0, "jitter": 0.0}
HOUR = 3_600_000


async def a_dead_execution(db: Database, clock: Crank) -> None:
    await channels.put(db, Channel("ops", "webhook", "http://ops.example/alerts"))
    await owed(db, "bad", batch="b-bad", retry={**ONCE}, tags=["billing"])
    rules = AlertSpec.model_validate({"channels": ["ops"], "onDead": True}).to_json()
    watch = {"channels": ["ops"], "marks": True, "drift_over_ms": None}
    await db.api["jobs"].update_many({}, {"$unset": {"unsettled": ""}, "$set": {"alerts": rules, "watch": watch}})
    await run_dry(worker(db, answering(503), clock=clock))


async def notified(db: Database) -> list[Any]:
    return [d["channel"] for d in await rows(db, "jobs") if d.get("channel")]


async def test_notices_of_a_muted_job_wait_for_the_end_of_the_window(database: Database) -> None:
    """The incident is there at once."""
    clock = Crank(DUE + 1000)
    window = Window("quiet", "mute", tags=("billing",), from_ms=clock.now - 1000, until_ms=clock.now + HOUR)
    await windows.put(database, window, clock.now)
    await a_dead_execution(database, clock)
    alerter = Alerter(database, clock, 7)
    for _ in range(3):
        await alerter.step()
    assert [i["open"] for i in await rows(database, "incidents")] == [True]
    assert await notified(database) == []
    clock.now += HOUR
    await alerter.step()
    assert await notified(database) == ["ops"]


async def test_an_incident_that_began_and_ended_within_a_window_is_no_news(database: Database) -> None:
    """Nothing is sent about it, then or later."""
    clock = Crank(DUE + 1000)
    window = Window("quiet", "mute", tags=("billing",), from_ms=clock.now - 1000, until_ms=clock.now + HOUR)
    await windows.put(database, window, clock.now)
    await a_dead_execution(database, clock)
    alerter = Alerter(database, clock, 7)
    await alerter.step()
    await database.api["jobs"].update_one({"_id": "bad"}, {"$set": {"alerts": None, "watch": None}})  # no rule any more
    for _ in range(3):
        clock.now += 60_000
        await alerter.step()
    assert [i["open"] for i in await rows(database, "incidents")] == [False]
    clock.now += HOUR
    await alerter.step()
    assert await notified(database) == []

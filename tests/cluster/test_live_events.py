"""Live events: what viewers get, from which stream, and what they are told when something is missing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from cluster import event_viewer, live_events
from cluster.core.alerts import Incident, IncidentKind
from cluster.core.errors import HistoryLost
from cluster.core.events import position_time
from cluster.core.execution.model import Ending, Rescheduled
from cluster.core.lifecycle import State
from cluster.core.limits.circuit_breaker import Breaker
from cluster.live_events import EventsClosed, TooManyViewers, ViewerLimits
from cluster.store import breakers, executions, history, incidents, leases
from cluster.store.queries.change_feed import COMMENT, ChangeFeed
from tests.support.event_viewers import hub
from tests.support.execution_values import attempt, execution
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database

DUE = 1_900_000_020_000


async def end(db: Database, job_id: str, due: int = DUE, state: State = State.SUCCEEDED, **more: Any) -> None:
    attempts = (attempt(1, due + 40, 200 if state is State.SUCCEEDED else 500),)
    ending = Ending(execution(job_id, due), state, due + 200, attempts, drift_ms=40, **more)
    await history.record(db, [ending], 7)


async def streams(db: Database) -> set[int]:
    """The cursors of the change streams that the database serves for live events. One that a test before this one left in
    the middle of its beginning is among them until the server ends it.
    """
    found = await db.api.client.admin.aggregate(
        [
            {"$currentOp": {"idleCursors": True, "allUsers": True}},
            {"$match": {"ns": {"$regex": f"^{db.api.name}\\."}, "cursor.originatingCommand.comment": COMMENT}},
        ]
    )
    return {int(op["cursor"]["cursorId"]) async for op in found}


async def serves(db: Database, count: int, before: set[int]) -> bool:
    return len(await streams(db) - before) == count


async def test_what_ends_is_shown_with_its_last_attempt_and_without_the_answer(database: Database) -> None:
    """The names are those of `GET /executions`."""
    async with hub(database) as h:
        seen = await h.watch()
        await end(database, "a", reason=None)
        await seen.gets(1)
        assert seen.data() == [
            {
                "executionId": f"a:{DUE}",
                "jobId": "a",
                "state": "succeeded",
                "scheduledAt": "2030-03-17T17:47:00.000Z",
                "timestamp": "2030-03-17T17:47:00.040Z",
                "attempt": 1,
                "status": 200,
                "duration": "120ms",
                "error": None,
                "node": "node-1",
                "driftMs": 40,
                "endedAt": "2030-03-17T17:47:00.200Z",
            }
        ]


async def test_a_failed_attempt_that_is_tried_again_is_an_event(database: Database) -> None:
    """`retrying`, with the attempt that failed and the time of the next one; what nodes write beside it is none."""
    async with hub(database) as h:
        seen = await h.watch()
        x = execution("a", DUE)
        await executions.insert(database, [x])
        await executions.stamp(database, [x.id], "b", "node-1", 1)
        owed = (await executions.owed(database, [x.id]))[x.id]
        failed = attempt(1, DUE + 5, None, "timeout")
        await executions.move(database, [Rescheduled(owed, (failed,), DUE + 3000)], {owed.id: "b2"})
        await end(database, "z")
        await seen.gets(2)
        assert seen.states() == [(x.id, "retrying"), (f"z:{DUE}", "succeeded")]
        first = seen.data()[0]
        assert (first["attempt"], first["error"]) == (1, "timeout")
        assert first["nextAttemptAt"] == "2030-03-17T17:47:03.000Z"


async def test_filters_choose_by_job_tag_and_state(database: Database) -> None:
    """Each viewer gets what it asked for, from one stream; tags are those of the job."""
    await database.api["jobs"].insert_many(
        [{"_id": "a", "tags": ["billing", "x"]}, {"_id": "b", "tags": ["mail"]}, {"_id": "c", "tags": []}]
    )
    async with hub(database) as h:
        by_job = await h.watch(jobs=["b"])
        by_tag = await h.watch(tags=["billing", "mail"])
        by_state = await h.watch(states=["dead", "missed"])
        by_both = await h.watch(tags=["billing"], states=["dead"])
        everything = await h.watch()
        for job in ("a", "b", "c"):
            await end(database, job)
            await end(database, job, DUE + 1000, State.DEAD)
        await everything.gets(6)
        await by_state.gets(3)
        await by_tag.gets(4)
        await by_job.gets(2)
        await by_both.gets(1)
        assert {e["jobId"] for e in by_job.data()} == {"b"}
        assert {e["jobId"] for e in by_tag.data()} == {"a", "b"}
        assert {e["state"] for e in by_state.data()} == {"dead"}
        assert by_both.states() == [(f"a:{DUE + 1000}", "dead")]


async def test_one_stream_serves_all_viewers_and_ends_with_the_last_one(database: Database) -> None:
    """A viewer that wants more makes it begin again, where it was; nobody gets anything twice."""
    before = await streams(database)
    async with hub(database) as h:
        few = await h.watch(states=["dead"])
        await end(database, "a", DUE, State.DEAD)
        others = [await h.watch() for _ in range(5)]
        await end(database, "a", DUE + 1000, State.DEAD)
        await end(database, "a", DUE + 2000)
        for other in others:
            await other.gets(2)
        await few.gets(2)
        assert few.states() == [(f"a:{DUE}", "dead"), (f"a:{DUE + 1000}", "dead")]
        await eventually(lambda: serves(database, 1, before))
        assert all(o.states() == [(f"a:{DUE + 1000}", "dead"), (f"a:{DUE + 2000}", "succeeded")] for o in others)
        for viewer in h.watching:
            viewer.viewer.end("enough")
        await eventually(lambda: serves(database, 0, before))
        assert h.live.viewers == 0
        assert (await h.watch()).viewer is not None


async def test_a_viewer_goes_on_at_any_node_behind_the_event_it_saw(database: Database) -> None:
    """Exactly what came since, once, whatever the viewers of that node want; also from a position without an event."""
    async with hub(database) as one, hub(database) as other:
        first = await one.watch()
        for i in range(5):
            await end(database, "a", DUE + i * 1000, State.DEAD if i % 2 else State.SUCCEEDED)
        events = await first.gets(5)
        narrow = await other.watch(states=["failed"])
        resumed = await other.watch(events[1].id)
        filtered = await other.watch(events[0].id, states=["dead"])
        from_start = await other.watch(first.viewer.position)
        await end(database, "a", DUE + 9000)
        assert [e.id for e in await resumed.gets(4)] == [e.id for e in (await first.gets(6))[2:]]
        assert [e["state"] for e in filtered.data()] == ["dead", "dead"]
        await from_start.gets(1)
        assert len(resumed.events) == len(set(resumed.states())) == 4
        assert narrow.events == []


async def test_a_slow_viewer_is_told_what_it_lost(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest events make room; others lose nothing."""
    monkeypatch.setattr(event_viewer, "BUFFERED", 3)
    async with hub(database) as h:
        seen = await h.watch()
        await history.record(
            database, [Ending(execution("a", DUE + i * 1000), State.SUCCEEDED, DUE) for i in range(10)], 7
        )
        await seen.gets(3)
        assert [e["executionId"] for e in seen.data()] == [f"a:{DUE + i * 1000}" for i in (7, 8, 9)]
        assert [d.counts for d in seen.dropped] == [{"execution": 7}]
        assert "slower" in seen.dropped[0].reason


async def test_what_the_log_of_the_database_does_not_keep_is_said(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The viewer is told, and gets what comes from now on; so it is if there is too much."""
    async with hub(database) as h:
        first = await h.watch()
        begin = h.live.position
        await end(database, "a")
        await end(database, "a", DUE + 1000)
        await first.gets(2)
        monkeypatch.setattr(live_events, "REPLAYED", 1)
        flooded = await h.watch(begin)
        await eventually(lambda: _some(flooded.dropped))
        monkeypatch.setattr(live_events, "REPLAYED", 1000)

        async def lost(*_: object) -> ChangeFeed:
            raise HistoryLost("the log of the database does not reach back so far")

        monkeypatch.setattr(ChangeFeed, "open", lost)
        late = await h.watch(begin)
        await eventually(lambda: _some(late.dropped))
        await end(database, "a", DUE + 2000)
        assert [e.data["scheduledAt"][-8:] for e in await late.gets(1)] == [":02.000Z"]
        assert "reach back" in late.dropped[0].reason
        assert "too much" in flooded.dropped[0].reason


async def _some(values: list[Any]) -> bool:
    return bool(values)


async def test_viewers_are_bounded_and_leave_their_places(database: Database) -> None:
    """In all, and from one address."""
    async with hub(database, ViewerLimits(3, 2)) as h:
        first = await h.watch(address="a")
        await h.watch(address="a")
        with pytest.raises(TooManyViewers) as refused:
            await h.watch(address="a")
        assert refused.value.of_address
        await h.watch(address="b")
        with pytest.raises(TooManyViewers) as refused:
            await h.watch(address="c")
        assert not refused.value.of_address
        first.viewer.end("enough")
        await first.task
        assert first.closing == "enough"
        await h.watch(address="c")


async def test_a_node_that_is_drained_ends_its_viewers_and_takes_none(database: Database) -> None:
    """With the reason, and a position at which another node goes on."""
    async with hub(database) as h:
        seen = await h.watch()
        h.closed = "an operator drained this node"
        await seen.task
        assert seen.closing == "an operator drained this node"
        assert position_time(seen.position) is not None
        with pytest.raises(EventsClosed, match="drained"):
            await h.watch()


async def test_leader_and_breakers_are_events_of_no_job(database: Database) -> None:
    """Renewals of the lease are none."""
    breaker = Breaker("h:80", False, DUE, 1, 1, DUE, "5 of 5 requests failed", "n")
    async with hub(database) as h:
        seen = await h.watch()
        of_job = await h.watch(jobs=["a"])
        assert await leases.take_over(database, await leases.read(database), "n1", "n1")
        assert await leases.renew(database, "n1", 1)
        assert await breakers.trip(database, breaker)
        assert await breakers.close(database, breaker)
        assert await leases.resign(database, "n1", 1)
        await seen.gets(4)
        shown = [(e.kind, {k: v for k, v in e.data.items() if k != "at"}) for e in seen.events]
        assert shown == [
            ("leader", {"nodeId": "n1", "term": 1}),
            ("breaker", {"host": "h:80", "state": "open", "reason": "5 of 5 requests failed"}),
            ("breaker", {"host": "h:80", "state": "closed"}),
            ("leader", {"nodeId": None}),
        ]
        assert of_job.events == []


async def test_incidents_are_events_of_their_job(database: Database) -> None:
    """When one begins and when it ends; what the leader notes in between is none."""
    opened = Incident(
        job_id="a",
        kind=IncidentKind.MISSED,
        open=True,
        opened_ms=DUE,
        last_symptom_ms=DUE,
        detail="3 occurrences were missed",
        execution=None,
        notified_ms=DUE,
        checked_ms=DUE,
    )
    async with hub(database) as h:
        seen = await h.watch(jobs=["a"], kinds=["alert"])
        assert await incidents.write(database, opened)
        assert await incidents.write(database, replace(opened, rev=1, checked_ms=DUE + 5000))
        assert await incidents.write(database, replace(opened, rev=2, open=False, closed_ms=DUE + 9000))
        await seen.gets(2)
        shown = [(e["jobId"], e["kind"], e["state"]) for e in seen.data("alert")]
        assert shown == [("a", "missed", "open"), ("a", "missed", "closed")]
        assert seen.data("alert")[0]["detail"] == "3 occurrences were missed"

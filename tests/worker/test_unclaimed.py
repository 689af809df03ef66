"""What stood unclaimed: executions written in time that no node was there to claim. `catchUp` binds them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from bson.datetime_ms import DatetimeMS

from cluster.clock import Clock
from cluster.core.execution.model import Batch, Execution
from cluster.core.ids import execution_id
from cluster.core.lifecycle import State
from cluster.core.windows import Window
from cluster.store import batches, deferred_batches, executions, windows
from cluster.store.batches import ClaimFilter
from cluster.store.enqueue import insert_owed, repair_batches
from tests.support.engine import job_document, noting, put_jobs, worker
from tests.support.waiting import eventually
from tests.support.workers import ended, run_dry

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database
    from cluster.worker.worker import Worker

UNCLAIMED_MS = 12_000
HOST = "127.0.0.1:1"


async def _owed(database: Database, age_s: float, *, job: dict[str, Any] | None = None, **fields: Any) -> str:
    """A job of every second and one execution of it that has been due for so long, in a batch of its own."""
    now = Clock().now_ms()
    due = (now - int(age_s * 1000)) // 1000 * 1000
    document = job_document("j", **{"active_from": 0, "schedule_version": "v1", **(job or {})})
    await put_jobs(database, document)
    of_batch = {k: fields.pop(k) for k in ("claims", "unclaimed", "attempt", "limit_key") if k in fields}
    e = Execution(execution_id("j", due), "j", due, due, "v1", "b", document["lane"], host=HOST, **fields)
    batch = Batch("b", (e.id,), e.lane, 0, due, due - 1000, host=HOST, **of_batch)
    await insert_owed(database, [e], [batch], lambda: "new")
    return e.id


async def _end(database: Database, execution: str) -> tuple[str, str | None, list[str]]:
    """How it ended, why, and the requests."""
    came: list[str] = []
    w = worker(database, noting(came))
    await run_dry(w)
    d = await database.api["history"].find_one({"_id": execution})
    assert d is not None
    assert await database.api["executions"].count_documents({}) == 0
    assert await database.api["batches"].count_documents({}) == 0
    assert w.stats.counters["missed"] == (d["state"] == "missed")
    return d["state"], d["reason"], came


@pytest.mark.parametrize(
    ("job", "age_s", "reason"),
    [
        ({"catch_up": "none"}, 20, "catchUp is none"),
        ({"catch_up": "none", "schedule": "@at 2023-01-01T00:00:00Z"}, 20, "catchUp is none"),
        ({"catch_up": "none"}, 8, None),
        ({"catch_up": "latest"}, 20, "a later occurrence was due"),
        ({"catch_up": "latest", "schedule": "0 0 0 1 1 *"}, 20, None),
        (
            {"catch_up": "latest", "schedule": "0 0 0 1 1 *", "catch_up_window_seconds": 5},
            20,
            "catchUpWindowSeconds (5)",
        ),
        ({"catch_up": "all"}, 20, None),
        ({"catch_up": "all", "catch_up_window_seconds": 15}, 20, "catchUpWindowSeconds (15)"),
        ({"catch_up": "all", "catch_up_window_seconds": 5}, 8, None),
        ({"catch_up": "all", "retention_days": 20 / 86_400}, 20, "catchUpWindowSeconds (3600)"),
        ({"catch_up": "none", "spread_seconds": 3600}, 8, None),
        ({"catch_up": "none", "state": "completed"}, 20, "catchUp is none"),
    ],
)
async def test_what_stood_unclaimed_follows_catch_up(
    database: Database, job: dict[str, Any], age_s: float, reason: str | None
) -> None:
    """`none` misses it, `latest` if a later occurrence is due, every policy what is beyond the window; in time: sent."""
    execution = await _owed(database, age_s, job=job)
    state, why, came = await _end(database, execution)
    assert (state, bool(came)) == (("succeeded", True) if reason is None else ("missed", False))
    assert reason is None or (why is not None and reason in why)


@pytest.mark.parametrize(
    "fields",
    [{"trigger": True}, {"replayed_ms": 1_700_000_000_000}, {"unclaimed": False}, {"claims": 1}],
    ids=["a run by hand", "a replay", "catch-up, or what was held back", "claimed before"],
)
async def test_what_catch_up_does_not_bind_is_sent_however_late(database: Database, fields: dict[str, Any]) -> None:
    """Only what a schedule owed, no node held back and no node can have sent is judged."""
    state, _, came = await _end(database, await _owed(database, 20, job={"catch_up": "none"}, **fields))
    assert (state, len(came)) == ("succeeded", 1)


@pytest.mark.parametrize(
    ("mode", "from_s", "until_s", "outcome"),
    [
        ("hold", -60, -5, "succeeded"),
        ("hold", -60, -15, "missed"),
        ("hold", -10, -5, "missed"),
        ("hold", -18, -3, "succeeded"),
        ("hold", -60, 600, None),
        ("skip", -60, -5, "skipped"),
        ("skip", -10, -5, "missed"),
        ("mute", -60, 600, "missed"),
    ],
)
@pytest.mark.parametrize("by", ["tags", "hosts"])
async def test_the_time_in_which_a_window_held_an_execution_does_not_count(
    database: Database, by: str, mode: Any, from_s: int, until_s: int, outcome: str | None
) -> None:
    """No node was there for 20 s. What a window held until 5 s ago, or holds still, could not have been sent; what a window
    skips is skipped, with its name."""
    now = Clock().now_ms()
    tags, hosts = (("billing",), ()) if by == "tags" else ((), (HOST,))
    window = Window("works", mode, tags, hosts, from_ms=now + from_s * 1000, until_ms=now + until_s * 1000)
    await windows.put(database, window, now)
    execution = await _owed(database, 20, job={"catch_up": "none", "tags": ["billing"], "url": f"http://{HOST}/x"})
    if outcome is not None:
        state, why, came = await _end(database, execution)
        assert (state, len(came)) == (outcome, outcome == "succeeded")
        assert outcome != "skipped" or why == "the window 'works' was in force when it was due"
        return
    w = worker(database, noting(came := []))
    await w.claiming.claim_once()
    await eventually(lambda: _waits_for_window(w), 5, "the window")
    assert came == []
    assert await database.api["history"].count_documents({}) == 0


@pytest.mark.parametrize(("window_s", "outcome"), [(18, "succeeded"), (12, "missed")])
async def test_the_age_that_catch_up_bounds_is_without_what_a_window_held(
    database: Database, window_s: int, outcome: str
) -> None:
    """It was due 20 s ago, a window held it for some 5 s, and for 15 s no node was there."""
    now = Clock().now_ms()
    await windows.put(
        database, Window("works", "hold", hosts=(HOST,), from_ms=now - 60_000, until_ms=now - 15_000), now
    )
    job = {"catch_up": "all", "catch_up_window_seconds": window_s, "url": f"http://{HOST}/x"}
    state, _, came = await _end(database, await _owed(database, 20, job=job))
    assert (state, len(came)) == (outcome, outcome == "succeeded")


@pytest.mark.parametrize(
    ("mode", "change", "gone_s", "outcome"),
    [
        ("hold", "delete", 5, "succeeded"),
        ("hold", "delete", 15, "missed"),
        ("hold", "move", 5, "succeeded"),
        ("hold", "move", 15, "missed"),
        ("skip", "delete", 5, "succeeded"),
        ("mute", "delete", 5, "missed"),
    ],
)
async def test_a_window_that_went_before_a_node_came_has_held_until_then(
    database: Database, mode: Any, change: str, gone_s: int, outcome: str
) -> None:
    """No node was there for 20 s, and the window was deleted, or moved to tomorrow, some seconds ago."""
    now = Clock().now_ms()
    window = Window("works", mode, hosts=(HOST,), from_ms=now - 60_000, until_ms=now + 600_000)
    await windows.put(database, window, now - 60_000)
    if change == "delete":
        await windows.delete(database, "works", now - gone_s * 1000)
    else:
        moved = replace(window, from_ms=now + 86_400_000, until_ms=now + 90_000_000)
        await windows.put(database, moved, now - gone_s * 1000)
    # The database notes the end of what a window was by its own clock.
    await database.api["windows"].update_one({"_id": "works"}, {"$set": {"past.0.to": DatetimeMS(now - gone_s * 1000)}})
    execution = await _owed(database, 20, job={"catch_up": "none", "url": f"http://{HOST}/x"})
    state, _, came = await _end(database, execution)
    assert (state, len(came)) == (outcome, outcome == "succeeded")


async def _waits_for_window(w: Worker) -> bool:
    return [d.by_window for d in w.dispatcher.paused.deferrals()] == [True]


async def test_a_cancelled_job_says_that_and_not_that_it_was_missed(database: Database) -> None:
    """What its job does not owe any more is cancelled, whatever `catchUp` says."""
    state, why, _ = await _end(database, await _owed(database, 20, job={"catch_up": "none", "state": "deleted"}))
    assert (state, why) == ("cancelled", "the job was deleted")


@pytest.mark.parametrize(
    ("catch_up", "change", "reason"),
    [
        ("none", {"to_s": 15, "by": "change"}, "catchUp is none"),
        ("none", {"to_s": 15, "by": "pause"}, "catchUp is none"),
        ("latest", {"to_s": 15, "by": "change"}, "a later occurrence was due"),
        ("latest", {"to_s": 20, "by": "change"}, "a later occurrence was due"),
        ("latest", {"to_s": 20, "by": "change", "now": "0 0 0 1 1 *"}, None),
        ("all", {"to_s": 15, "by": "change"}, None),
    ],
)
async def test_what_came_due_before_a_change_follows_catch_up_all_the_same(
    database: Database, catch_up: str, change: dict[str, Any], reason: str | None
) -> None:
    """It is owed under its earlier schedule. `latest`: a later occurrence of that one or of the present one."""
    now = Clock().now_ms() // 1000 * 1000
    to_ms = now - change["to_s"] * 1000
    job: dict[str, Any] = {"catch_up": catch_up, "schedule_version": "v2", "past": ended(to_ms, change["by"])}
    job |= {"schedule": change.get("now", "* * * * * *"), "active_from": to_ms + 1, "created_at": DatetimeMS(0)}
    execution = await _owed(database, (Clock().now_ms() - now) / 1000 + 20, job=job)
    state, why, came = await _end(database, execution)
    assert (state, bool(came)) == (("succeeded", True) if reason is None else ("missed", False))
    assert reason is None or (why is not None and reason in why)


@pytest.mark.parametrize("way", ["adopted", "repaired"])
async def test_what_a_node_may_have_sent_before_it_died_is_sent_in_its_new_batch_too(
    database: Database, way: str
) -> None:
    """A claimed execution gets another batch: a changed schedule owes it too, or its batch was lost."""
    execution = await _owed(database, 20, job={"catch_up": "none"})
    assert await worker(database, noting([]), "dead").claiming.claimer.step(ClaimFilter()) is not None
    (e,) = (await executions.owed(database, [execution])).values()
    if way == "adopted":
        await database.api["jobs"].update_one({"_id": "j"}, {"$set": {"schedule_version": "v2"}})
        again = replace(e, schedule_version="v2", batch="b2", owner=None, token=0, state=State.PENDING)
        done = await insert_owed(
            database, [again], [Batch("b2", (e.id,), e.lane, 0, e.due_ms, 0, host=HOST)], lambda: "n"
        )
        assert done.adopted == 1
        await database.api["batches"].delete_one({"_id": "b"})  # it ends with its lease
    else:
        await database.api["batches"].delete_many({})
        assert await repair_batches(database, [e]) == 1
    state, _, came = await _end(database, execution)
    assert (state, len(came)) == ("succeeded", 1)


async def test_nothing_is_judged_while_the_clock_is_in_doubt(database: Database) -> None:
    """By that clock it may only look late."""
    execution = await _owed(database, 20, job={"catch_up": "none"})
    came: list[str] = []
    clock = Clock()
    clock.hold(100)
    await run_dry(worker(database, noting(came), clock=clock))
    assert came == [execution]


async def test_cluster_time_has_to_agree_with_the_primary(database: Database) -> None:
    """In the second until a node notices that the primary's clock was set, its claims find everything overdue."""
    execution = await _owed(database, 2, job={"catch_up": "none"})
    await database.api["batches"].update_one({"_id": "b"}, {"$set": {"claimable_at": DatetimeMS(0)}})
    assert (await _end(database, execution))[0] == "succeeded"


async def _unclaimed(database: Database) -> Any:
    d = await database.api["batches"].find_one({"_id": "b"})
    assert d is not None
    return d.get("unclaimed")


@pytest.mark.parametrize(("age_s", "noted"), [(0, None), (90, False), (300, None)])
async def test_what_a_full_host_or_a_limit_holds_back_is_noted_in_time(
    database: Database, age_s: float, noted: bool | None
) -> None:
    """Not when it has only just become claimable, and not when no node was there for so long that it stood unclaimed."""
    await _owed(database, age_s)
    await deferred_batches.note_held_back(database, [HOST], [], unclaimed_ms=200_000, since_ms=60_000)
    assert await _unclaimed(database) is noted


async def test_a_node_that_leaves_a_host_alone_says_so(database: Database) -> None:
    """The release loop notes it once a second."""
    await _owed(database, 8, job={"catch_up": "none"})
    w = worker(database, noting([]))
    w.context.breakers.hosts_blocked = lambda: [HOST]  # type: ignore[method-assign]
    await w.releaser.release_deferred()
    assert await _unclaimed(database) is False


@pytest.mark.parametrize("unsent", [0, 600])
async def test_a_quick_host_that_uses_all_its_slots_holds_its_backlog_back(database: Database, unsent: int) -> None:
    """The node that sends the backlog in its order is there, whether it would claim more of it just now or not."""
    await _owed(database, 8, job={"catch_up": "none"})
    w = worker(database, noting([]), slots=32)
    slots = w.context.slots
    for n in range(40):
        slots.take(HOST, f"r{n}")
        if n < 16:
            slots.free(HOST, f"r{n}")
    w.context.unsent.count = unsent
    await w.releaser.release_deferred()
    assert await _unclaimed(database) is False


@pytest.mark.parametrize(("age_s", "stood"), [(8, False), (20, True)])
async def test_a_deferral_tells_what_was_held_back_from_what_stood_unclaimed(
    database: Database, age_s: float, stood: bool
) -> None:
    """A host whose breaker is open holds back what it was there for, and not what no node was there for."""
    await _owed(database, age_s)
    assert await deferred_batches.defer_hosts(database, {HOST: Clock().now_ms() + 60_000}, UNCLAIMED_MS) == 1
    assert await _unclaimed(database) is stood
    assert await deferred_batches.release_host(database, HOST) == 1
    batch = await batches.claim(database, "w", 10.0, ClaimFilter(late=stood, unclaimed_ms=UNCLAIMED_MS), 5.0)
    assert batch is not None
    assert batch.unclaimed is stood


async def test_a_batch_released_at_a_shutdown_counts_anew(database: Database) -> None:
    """All nodes stop cleanly and come back after a minute: it stood unclaimed since then, not before."""
    await _owed(database, 2)
    which = ClaimFilter(unclaimed_ms=UNCLAIMED_MS)
    first = await batches.claim(database, "w", 10.0, which, 5.0)
    assert first is not None
    assert first.unclaimed is False
    await batches.release(database, first, None, nothing_sent=True)
    assert await _unclaimed(database) is None
    minute_ago = DatetimeMS(Clock().now_ms() - 60_000)
    await database.api["batches"].update_one(
        {"_id": "b"}, {"$set": {"claimable_at": minute_ago, "send_at": minute_ago}}
    )
    second = await batches.claim(database, "w", 10.0, which, 5.0)
    assert second is not None
    assert second.unclaimed is True


async def test_a_batch_that_could_not_be_judged_still_stands_unclaimed(database: Database) -> None:
    """Its jobs could not be read: the stray is released, and the next claim judges it."""
    await _owed(database, 20)
    which = ClaimFilter(unclaimed_ms=UNCLAIMED_MS)
    first = await batches.claim(database, "w", 10.0, which, 5.0)
    assert first is not None
    await batches.release(database, first, None, nothing_sent=True)
    late = ClaimFilter(late=True, unclaimed_ms=UNCLAIMED_MS)  # it is overdue: it comes back as late work
    second = await batches.claim(database, "w", 10.0, late, 5.0)
    assert second is not None
    assert (first.unclaimed, second.unclaimed) == (True, True)

"""Maintenance windows on a node: what is held waits in the database, what is skipped is recorded, and verify agrees."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from cluster.core.documents.window import read_window
from cluster.core.errors import StoreUnavailable
from cluster.core.instants import format_instant
from cluster.store import windows
from cluster.usecases import executions, jobs
from cluster.usecases.explain import explain_job
from cluster.worker.windows import JOINED_SECONDS, WindowWatch
from tests.support.cranked_cluster import EACH, Cluster
from tests.support.engine import T0, Crank, rows
from tests.support.messages import send
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database

TAGGED = {**EACH, "schedule": "*/5 * * * * *", "tags": ["billing"]}


async def put_window(cluster: Cluster, mode: str, seconds: int, **fields: Any) -> None:
    """In force from now on, for so long."""
    now = cluster.clock.now
    body = {
        "mode": mode,
        "tags": ["billing"],
        "from": format_instant(now),
        "until": format_instant(now + seconds * 1000),
        "spreadSeconds": 0,
        **fields,
    }
    await windows.put(cluster.db, read_window(body, "works"), now)
    read_again(cluster)


def read_again(cluster: Cluster) -> None:
    """A second has passed on the node."""
    cluster.worker.context.windows._read_at = float("-inf")


async def release_held(cluster: Cluster) -> None:
    await cluster.worker.releaser.release_paused()


async def pass_time(cluster: Cluster, seconds: int) -> None:
    for _ in range(seconds):
        await cluster.run(1)
        await release_held(cluster)


def states(found: list[dict[str, Any]]) -> set[str]:
    return {str(d["state"]) for d in found}


async def test_what_is_due_in_a_window_that_holds_leaves_after_its_end(database: Database) -> None:
    """Nothing is sent within, nothing is lost, and verify finds nothing late or missing."""
    sent: list[str] = []

    def target(request: httpx.Request) -> httpx.Response:
        sent.append(request.headers["idempotency-key"])
        return httpx.Response(200)

    cluster = await Cluster.begin(database, target)
    await cluster.put("a", TAGGED)
    await cluster.put("b", {**TAGGED, "tags": []})
    await pass_time(cluster, 7)
    before = len(sent)
    await put_window(cluster, "hold", 20)
    ends = cluster.clock.now + 20_000
    await pass_time(cluster, 15)
    held = [e for e in await rows(database, "executions") if int(e["due_at"]) <= cluster.clock.now]
    assert {e["job_id"] for e in held} == {"a"}
    assert len(held) >= 3
    assert len(sent) > before, "the window is not about b"
    await pass_time(cluster, 20)
    final = [d for d in await rows(database, "history") if d["job_id"] == "a"]
    assert states(final) == {"succeeded"}
    within = [d for d in final if ends - 18_000 <= int(d["attempts"][0]["sent_at"]) < ends]
    assert not within
    late = [d for d in final if int(d["due_at"]) < ends <= int(d["attempts"][0]["sent_at"])]
    assert late, "held ones left"
    (told,) = (await explain_job(database, "a", int(late[-1]["due_at"]), 7.0)).occurrences
    assert f"the window 'works' held it until {format_instant(ends)}" in [s.text for s in told.sentences]
    assert await cluster.findings() == {}


async def test_what_is_due_in_a_window_that_skips_is_recorded_with_its_name(database: Database) -> None:
    """A retry of what came due before waits for the end instead."""
    status = [503]
    cluster = await Cluster.begin(database, lambda _: httpx.Response(status[0]))
    await cluster.put("a", {**TAGGED, "retry": {"initialDelaySeconds": 2, "jitter": 0}})
    while not [e for e in await rows(database, "executions") if e["attempts"]]:
        await cluster.run(1)
    status[0] = 200
    retried = next(e["_id"] for e in await rows(database, "executions") if e["attempts"])
    await put_window(cluster, "skip", 12)
    await pass_time(cluster, 10)
    skipped = [d for d in await rows(database, "history") if d["state"] == "skipped"]
    assert len(skipped) >= 2
    assert {d["reason"] for d in skipped} == {"the window 'works' was in force when it was due"}
    assert retried not in {d["_id"] for d in await rows(database, "history")}
    await pass_time(cluster, 22)
    record = await database.api["history"].find_one({"_id": retried})
    assert record is not None
    assert record["state"] == "succeeded"
    assert await cluster.findings() == {}


async def test_a_run_by_hand_within_a_window_is_sent(database: Database) -> None:
    """A person asked for it in spite of the window."""
    cluster = await Cluster.begin(database)
    await cluster.put("a", {**TAGGED, "schedule": "0 0 3 1 1 *"})
    await cluster.run(2)
    await put_window(cluster, "hold", 60)
    cluster.clock.now += 1500
    name = await executions.trigger(database, "a", cluster.clock.now)
    await pass_time(cluster, 3)
    record = await database.api["history"].find_one({"_id": getattr(name, "execution_id", name)})
    assert record is not None
    assert record["state"] == "succeeded"


@pytest.mark.parametrize("mode", ["hold", "skip"])
async def test_messages_wait_for_the_end_of_a_window(database: Database, mode: str) -> None:
    """No person asked for them in spite of the window, and what was accepted is sent."""
    cluster = await Cluster.begin(database)
    await cluster.run(2)
    await put_window(cluster, mode, 10)
    ends = cluster.clock.now + 10_000
    now = cluster.clock.now
    named = await send(database, now, now, now + 5000, tags=("billing",))
    await pass_time(cluster, 8)
    assert await rows(database, "history") == []
    await pass_time(cluster, 15)
    found = await rows(database, "history")
    assert {(d["_id"], d["state"]) for d in found} == {(name, "succeeded") for name in named}
    assert min(int(d["attempts"][0]["sent_at"]) for d in found) >= ends


async def test_a_paused_job_in_a_window_waits_for_its_resume(database: Database) -> None:
    """And for the end of the window, whichever is later."""
    cluster = await Cluster.begin(database)
    await cluster.put("a", TAGGED)
    await pass_time(cluster, 6)
    await put_window(cluster, "hold", 10)
    await pass_time(cluster, 4)
    await jobs.pause(database, "a", cluster.clock.now)
    await pass_time(cluster, 12)
    assert [e for e in await rows(database, "executions") if e["job_id"] == "a"]
    await jobs.resume(database, "a", cluster.clock.now)
    await pass_time(cluster, 22)
    assert states(await rows(database, "history")) <= {"succeeded", "cancelled"}
    assert await cluster.findings() == {}


async def test_a_window_keeps_what_it_was(database: Database) -> None:
    """A change and a deletion keep the periods before them; the same window again changes nothing."""
    cluster = await Cluster.begin(database)
    await put_window(cluster, "hold", 60)
    await windows.put(database, (await windows.list_all(database))[0].window, cluster.clock.now + 5)
    await put_window(cluster, "skip", 60)
    assert await windows.delete(database, "works", cluster.clock.now + 10)
    assert not await windows.delete(database, "works", cluster.clock.now + 20)
    assert (await windows.list_all(database), await windows.present(database)) == ([], [])
    assert [p.window.mode for p in await windows.periods(database, 0)] == ["hold", "skip"]
    assert (await windows.periods(database, 0))[0].from_ms >= T0


async def test_nothing_is_sent_while_the_windows_cannot_be_read(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And every node reads them again after a second, before it reads a job: so a window is in force within two."""
    clock = Crank()
    watch = WindowWatch(database, clock)
    await watch.refresh()
    window = read_window({"mode": "hold", "tags": ["x"], "schedule": "* * * * * *", "durationSeconds": 2}, "works")
    await windows.put(database, window, clock.now)
    now = [clock.monotonic()]
    monkeypatch.setattr(clock, "monotonic", lambda: now[0])
    await watch.refresh()
    assert watch._windows == []
    now[0] += 1.0
    await watch.refresh()
    assert watch._windows == [window]

    async def unavailable(*_: Any) -> Any:
        raise StoreUnavailable("the database is away")

    now[0] += 1.0
    monkeypatch.setattr(windows, "present", unavailable)
    with pytest.raises(StoreUnavailable):
        await watch.refresh()


async def test_batches_of_one_instant_read_the_windows_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that gives up keeps no other from them; what begins later than a moment after reads for itself."""
    clock, begun, go = Crank(), list[float](), asyncio.Event()
    watch, now = WindowWatch(database, clock), [clock.monotonic()]
    monkeypatch.setattr(clock, "monotonic", lambda: now[0])
    present = windows.present

    async def slow(db: Database) -> Any:
        begun.append(now[0])
        await go.wait()
        return await present(db)

    monkeypatch.setattr(windows, "present", slow)
    readers = [asyncio.create_task(watch.refresh()) for _ in range(5)]
    await eventually(lambda: asyncio.sleep(0, len(begun) == 1), 5, "the first read")
    readers[0].cancel()
    now[0] += JOINED_SECONDS + 0.01
    readers.append(asyncio.create_task(watch.refresh()))
    await eventually(lambda: asyncio.sleep(0, len(begun) == 2), 5, "a read of its own")
    go.set()
    done = await asyncio.gather(*readers, return_exceptions=True)
    assert [type(d) for d in done] == [asyncio.CancelledError, *[type(None)] * 5]
    await watch.refresh()
    assert len(begun) == 2


async def test_explain_names_the_window_that_holds_or_skipped_an_execution(database: Database) -> None:
    """And until when it holds."""
    cluster = await Cluster.begin(database)
    await cluster.put("a", TAGGED)
    await put_window(cluster, "hold", 600, **{"from": "2020-01-01T00:00:00Z"})
    await pass_time(cluster, 7)
    due = min(int(e["due_at"]) for e in await rows(database, "executions"))
    (waiting,) = (await explain_job(database, "a", due, 7.0)).occurrences
    assert (waiting.state, "the window 'works' holds it until" in waiting.summary) == ("pending", True)
    await put_window(cluster, "skip", 600)
    await pass_time(cluster, 8)
    later = next(int(d["due_at"]) for d in await rows(database, "history") if d["state"] == "skipped")
    (skipped,) = (await explain_job(database, "a", later, 7.0)).occurrences
    assert "the window 'works' was in force when it was due" in skipped.summary
    assert any("by a maintenance window" in s.text for s in skipped.sentences)

"""Loops continue after any error of a turn; a node whose loops do not is not ready; a failing leader steps aside."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx
from structlog.testing import capture_logs

from cluster.core.errors import ConfigurationError
from cluster.core.timings import Timings
from cluster.loops import Loop, cancel_and_wait
from cluster.node import Node, NodeSettings
from cluster.outbound.sender import Sender
from cluster.store import leases, nodes
from cluster.store.mongo import schema
from tests.support.engine import Crank, job_document, lead, put_jobs, rows, worker
from tests.support.waiting import eventually
from tests.support.workers import DUE, answering, owed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest

    from cluster.store.mongo.client import Database

import pytest_asyncio


async def _is(value: Any) -> Any:
    return value


def failing(real: Any, times: int, error: Exception) -> Any:
    """A coroutine function that fails so many times and then does its work."""
    left = [times]

    async def call(*args: Any, **kwargs: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise error
        return await real(*args, **kwargs)

    return call


async def test_a_loop_that_waits_for_an_event_is_healthy_however_long_it_waits() -> None:
    """Its turn has ended, and the errors before it count no more."""
    event, turns = asyncio.Event(), 0

    async def turn() -> asyncio.Event | None:
        nonlocal turns
        turns += 1
        if turns == 1:
            raise KeyError("unforeseen")
        return event if turns == 2 else None

    loop = Loop("waiting", turn)
    task = loop.start()
    await eventually(lambda: _is(turns == 2), 5)
    assert loop.healthy(0.0)
    event.set()
    await task
    assert turns == 3


async def test_an_unexpected_error_does_not_end_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is logged with its traceback, the loop counts as failing, and it recovers by itself."""
    monkeypatch.setattr("cluster.loops.FIRST_PAUSE", 0.001)
    turns = 0
    failing_at: list[float | None] = []

    async def turn() -> float:
        nonlocal turns
        turns += 1
        failing_at.append(loop.failing_since)
        if turns < 4:
            raise KeyError("unforeseen")
        return 0.001

    loop = Loop("testing", turn)
    with capture_logs() as logs:
        loop.start()
        await eventually(lambda: _is(turns > 5), 5)
        assert loop.healthy(0.0)
        assert loop.task is not None
        await cancel_and_wait([loop.task])
    assert [line["loop"] for line in logs if line["event"] == "loop_failed"] == ["testing"] * 3
    assert all(line["exc_info"] for line in logs if line["event"] == "loop_failed")
    assert failing_at[1] is not None
    assert failing_at[-1] is None
    assert not loop.healthy(1000.0), "a loop that was cancelled does not run"


async def test_a_loop_that_keeps_failing_is_unhealthy_and_one_that_ended_by_itself_is_healthy() -> None:
    """The first is broken; the second has finished."""

    async def wrong() -> float:
        raise TypeError("always")

    async def once() -> None:
        return None

    broken, done = Loop("broken", wrong), Loop("done", once)
    broken.start()
    done.start()
    await eventually(lambda: _is(broken.failing_since is not None and done.task is not None and done.task.done()), 5)
    assert broken.healthy(1000.0)
    assert not broken.healthy(0.0)
    assert done.healthy(0.0)
    assert broken.task is not None
    await cancel_and_wait([broken.task])


async def test_a_worker_survives_unexpected_errors_in_every_loop(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Claiming, renewing and releasing fail unexpectedly; afterwards the worker delivers everything."""
    await owed(database, "a", "b")
    w = worker(database, answering(200), timings=Timings(batch_lease=1.5, margin=0.2))
    renewals: list[int] = []
    renew, deferrals = w.lease_keeper.renew_once, w.dispatcher.host_queues.deferrals

    async def counted() -> set[str]:
        renewals.append(1)
        return await renew()

    monkeypatch.setattr(w.claiming, "claim_once", failing(w.claiming.claim_once, 3, TypeError("a bug")))
    monkeypatch.setattr(w.lease_keeper, "renew_once", failing(counted, 1, KeyError("a document nobody foresaw")))
    calls = [0]

    def odd(*seconds: float) -> Any:
        calls[0] += 1
        if calls[0] == 1:
            raise ValueError("odd")
        return deferrals(*seconds)

    monkeypatch.setattr(w.dispatcher.host_queues, "deferrals", odd)
    w.start()
    await eventually(lambda: rows(database, "history"), 10)
    await eventually(lambda: _is(len(renewals) >= 2 and calls[0] >= 2), 10)
    # The counts say that the second turn has begun; a loop is sound again only when that turn has ended.
    await eventually(lambda: _is(all(loop.healthy(0.0) for loop in w.loops)), 10)
    await w.shutdown(2)
    assert {h["state"] for h in await rows(database, "history")} == {"succeeded"}


async def test_a_result_that_cannot_be_recorded_does_not_hold_up_others(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flush fails as a whole, the results are recorded one by one, and the bad one without what the target said."""
    await owed(database, "a", "bad", "c")
    w = worker(database, answering(200))
    real = w.recorder.record_final

    async def picky(ended: Any, exclusive: Any = ()) -> Any:
        if any(e.execution.job_id == "bad" and e.attempts[0].excerpt for e in ended):
            raise TypeError("cannot be encoded")
        return await real(ended, exclusive)

    monkeypatch.setattr(w.recorder, "record_final", picky)
    w.start()
    await eventually(lambda: _all_final(database, 3), 10)
    found = {h["job_id"]: h for h in await rows(database, "history")}
    assert [found[j]["state"] for j in ("a", "bad", "c")] == ["succeeded"] * 3
    assert found["a"]["attempts"][0]["excerpt"] == "body"
    assert "could not be recorded" in found["bad"]["reason"]
    await eventually(lambda: _is(not w.held), 5)
    assert await rows(database, "executions") == []
    await w.shutdown(2)


async def _all_final(db: Database, count: int) -> bool:
    return len(await rows(db, "history")) == count


async def test_a_result_that_can_never_be_recorded_is_left_to_its_lease(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is lost silently: the execution stays owed, the batch is not renewed any more, and an event is logged."""
    await owed(database, "a")
    w = worker(database, answering(200))

    async def never(*_: Any) -> Any:
        raise TypeError("never")

    monkeypatch.setattr(w.recorder, "record_final", never)
    with capture_logs() as logs:
        w.start()
        await eventually(lambda: _is(w.stats.counters["results_lost"] == 1), 10)
    assert [line["execution"] for line in logs if line["event"] == "result_abandoned"] == [f"a:{DUE}"]
    assert not w.held
    assert [e["_id"] for e in await rows(database, "executions")] == [f"a:{DUE}"]
    await w.shutdown(1)


async def test_a_leader_whose_work_always_fails_steps_aside(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It must not hold the lease and write nothing: after failing for a lease it resigns and steps aside."""
    timings = Timings(leader_lease=0.3, batch_lease=3)
    leader = await lead(database, Crank(), "broken", timings)

    async def broken(*_: Any) -> Any:
        raise RuntimeError("a bug")

    monkeypatch.setattr(leader.settler, "step", broken)
    term = (await leases.read(database)).term
    with capture_logs() as logs:
        leader.start()
        await eventually(lambda: _resigned(database), 10)
        await leader.stop()
    assert "leader_failed" in [line["event"] for line in logs]
    assert "leader_stepped_aside" in [line["event"] for line in logs]
    assert await leader._elector.step() is None, "it took the lease again at once"
    other = await lead(database, Crank(), "other", timings)
    assert other._elector.trusted_term().number == term + 1


async def _resigned(db: Database) -> bool:
    return (await leases.read(db)).holder is None


async def test_failures_of_catch_up_and_sweep_do_not_stop_the_main_pass(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both fail in each turn; occurrences are materialised nevertheless."""
    leader = await lead(database, Crank())

    async def broken(*_: Any) -> Any:
        raise RuntimeError("a bug")

    monkeypatch.setattr(leader.catch_up, "step", broken)
    monkeypatch.setattr(leader.sweeper, "step", broken)
    await put_jobs(database, job_document("a"))
    with capture_logs() as logs:
        for _ in range(4):
            await leader.step()
    failures = [line["step"] for line in logs if line["event"] == "leader_step_failed"]
    assert sorted(failures) == ["catch_up", "sweep"], "each is tried again only after a pause"
    assert len(await rows(database, "executions")) > 10


@pytest_asyncio.fixture
async def node(mongodb_uri: str, db_name: str) -> AsyncIterator[Node]:
    """A whole node in this process, not started."""
    n = Node(NodeSettings(mongodb_uri, db_name, shutdown_seconds=2), Sender(httpx.MockTransport(answering(200))))
    yield n
    await n.shutdown()


async def test_a_node_with_a_loop_that_does_not_run_is_not_ready(node: Node) -> None:
    """Every loop is watched; the node is ready only while all of them run."""
    await node.start()
    await eventually(lambda: _is(node.ready), 10)
    assert len([*node._loops, *node.worker.loops, *node.leader.loops]) == 22
    renew = next(loop for loop in node.worker.loops if loop.name == "renew")
    for loop in (node.leader.loops[0], renew, node._loops[2]):
        assert loop.task is not None
        await cancel_and_wait([loop.task])
        assert not node.ready
        assert node.broken_loops() == [loop.name]
        loop.start()
        assert node.ready


async def test_the_heartbeat_survives_unforeseen_documents(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """The heartbeat document of another release may lack anything; without a heartbeat this node would count as dead."""
    monkeypatch.setattr(nodes, "heartbeats_and_clock", failing(nodes.heartbeats_and_clock, 1, KeyError("load")))
    await node.start()
    await node.db.api["nodes"].insert_one({"_id": "of another release", "rev": "seven"})
    await eventually(lambda: _is(node.ready), 10)
    before = await _rev(node)
    await eventually(lambda: _beat_on(node, before + 2), 10)


async def _rev(n: Node) -> int:
    found = await n.db.api["nodes"].find_one({"_id": n.id})
    return 0 if found is None else int(found["rev"])


async def _beat_on(n: Node, rev: int) -> bool:
    return await _rev(n) >= rev


async def test_a_node_waits_for_a_database_that_fits_and_logs_the_problem(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong setting found at boot is an error in the log, and the node is not ready; once it is corrected, the node boots."""
    monkeypatch.setattr("cluster.node.BOOT_PAUSE_MOST", 0.1)
    real = schema.ensure

    async def unfit(_: Any) -> None:
        raise ConfigurationError(["the database is of the future"])

    monkeypatch.setattr(schema, "ensure", unfit)
    with capture_logs() as logs:
        await node.start()
        await eventually(lambda: _is([line for line in logs if line["event"] == "node_misconfigured"]), 5)
    assert not node.ready
    assert next(line for line in logs if line["event"] == "node_misconfigured")["problems"] == (
        "the database is of the future",
    )
    monkeypatch.setattr(schema, "ensure", real)
    await eventually(lambda: _is(node.ready), 10)


async def test_the_lease_is_resigned_before_the_worker_shuts_down_and_not_taken_again(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shutdown may take 9 s; a job created meanwhile must not wait for it."""
    await node.start()
    await eventually(lambda: _is(node.elector.term), 10)
    holders: list[str | None] = []
    real = node.worker.shutdown

    async def slow(seconds: float) -> None:
        holders.append((await leases.read(node.db)).holder)
        assert await node.elector.step() is None
        holders.append((await leases.read(node.db)).holder)
        await real(seconds)

    monkeypatch.setattr(node.worker, "shutdown", slow)
    await node.shutdown()
    assert holders == [None, None]


async def test_a_shutdown_ends_in_time_although_the_database_is_unavailable(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Releasing and recording hang; the shutdown is cut short and logs that, and the leases expire."""
    await owed(database, "a")
    await owed(database, "b", batch="b2")

    async def hang(*_: Any, **__: Any) -> Any:
        await asyncio.Event().wait()

    gate = asyncio.Event()

    async def slow(_: httpx.Request) -> httpx.Response:
        await gate.wait()
        return httpx.Response(200)

    w = worker(database, slow)
    w.start()
    await eventually(lambda: _is(len(w.held) == 2), 5)
    for module, name in (
        ("batches", "release"),
        ("executions", "move"),
        ("history", "record"),
        ("batches", "owned_by"),
    ):
        monkeypatch.setattr(f"cluster.store.{module}.{name}", hang)
    gate.set()
    began = asyncio.get_running_loop().time()
    with capture_logs() as logs:
        await w.shutdown(1.0)
    assert asyncio.get_running_loop().time() - began < 2.5
    assert "shutdown_cut_short" in [line["event"] for line in logs]
    assert len(await rows(database, "executions")) == 2


async def test_a_shutdown_goes_on_when_one_of_its_steps_fails(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a bug in one part would leave the lease held and every loop running."""
    await node.start()
    await eventually(lambda: _is(node.ready), 10)

    async def broken(*_: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(node.worker, "shutdown", broken)
    with capture_logs() as logs:
        await node.shutdown()
    assert [line["step"] for line in logs if line["event"] == "shutdown_step_failed"] == ["worker"]
    assert logs[-1]["event"] == "node_stopped"
    monkeypatch.undo()
    await cancel_and_wait(loop.task for loop in node.worker.loops if loop.task is not None)

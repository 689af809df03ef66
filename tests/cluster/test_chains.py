"""Chained jobs: they run once after each execution of another one, whoever dies, and no change closes a cycle."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from bson.datetime_ms import DatetimeMS

from cluster.core.documents.job_json import apply_patch, read_job
from cluster.core.errors import Conflict, InvalidInput
from cluster.core.ids import is_chained
from cluster.store import chain_links
from cluster.store import jobs as stored
from cluster.store.history import DAY_MS
from cluster.usecases import executions, explain, jobs
from cluster.usecases.imports import ImportLine, import_chunk
from tests.support.chains import FAR, Target, chain, deliver, fault_of, put
from tests.support.cranked_cluster import CONTEXT
from tests.support.engine import T0, Crank, check_books, lead, rows, worker
from tests.support.leaders import Crashed, crash_after
from tests.support.verify_records import judged
from tests.support.workers import deliver_until

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database


async def test_a_chained_job_runs_once_after_each_execution_of_the_other(database: Database) -> None:
    """Under the due time of what it follows, and with an id that no tick or trigger can have."""
    target = Target()
    await put(database, "p")
    await chain(database, "c", "p")
    await chain(database, "d", "c", "any")
    first = await executions.trigger(database, "p", T0)
    second = await executions.trigger(database, "p", T0 + 100)
    await deliver(database, target)
    assert sorted(target.came) == ["c", "c", "d", "d", "p", "p"]
    of_c = [h for h in await rows(database, "history") if h["job_id"] == "c"]
    assert {h["request"] for h in of_c} == {first, second}
    for h in of_c:
        assert is_chained(h["_id"])
        assert h["_id"].split(":")[1] == h["request"].split(":")[1]
    assert await rows(database, "executions") == await rows(database, "batches") == []


@pytest.mark.parametrize(
    ("status", "ran"), [(200, ["any", "succeeded"]), (404, ["any", "failed"]), (500, ["any", "failed"])]
)
async def test_it_runs_after_the_results_that_it_names(database: Database, status: int, ran: list[str]) -> None:
    target = Target(p=status)
    await put(database, "p", retry={"maxAttempts": 1})
    for on in ("succeeded", "failed", "any"):
        await chain(database, on, "p", on)
    await executions.trigger(database, "p", T0)
    await deliver(database, target)
    assert sorted(target.came[1:]) == ran


async def test_nothing_runs_after_what_was_cancelled_or_skipped(database: Database) -> None:
    target = Target()
    await put(database, "p")
    await chain(database, "c", "p", "any")
    await executions.trigger(database, "p", T0)
    await jobs.delete(database, "p", T0 + 10)
    await deliver(database, target)
    assert target.came == []
    assert [h["state"] for h in await rows(database, "history")] == ["cancelled"]


WRITES = [
    ("history", "record"),
    ("executions", "insert"),
    ("followed", "recorded"),
    ("batches", "insert"),
    ("executions", "delete_final"),
]


@pytest.mark.parametrize(("module", "name"), WRITES)
async def test_a_node_that_dies_at_any_write_runs_what_follows_once(
    database: Database, monkeypatch: pytest.MonkeyPatch, module: str, name: str
) -> None:
    target = Target()
    await put(database, "p")
    await chain(database, "c", "p")
    await executions.trigger(database, "p", T0)
    with monkeypatch.context() as patched:
        crash_after(patched, module, name, 1)
        with contextlib.suppress(Crashed):
            await deliver_until(database, worker(database, target, "dead", clock=Crank(T0 + 1000)), T0 + 5000)
    await deliver(database, target)
    await (await lead(database, Crank())).sweeper.repair_orphans()
    await deliver(database, target)
    assert sorted(target.came) == ["c", "p"]
    assert await rows(database, "executions") == []
    await check_books(database)


async def test_a_node_that_has_read_the_job_before_knows_that_it_is_followed(database: Database) -> None:
    """Chaining a job to another one changes no revision of that; the node's copy of it is outdated all the same."""
    target = Target()
    await put(database, "p")
    w = worker(database, target, clock=Crank(T0 + 1000))
    await executions.trigger(database, "p", T0)
    await deliver_until(database, w, FAR)
    before = await stored.get(database, "p")
    await chain(database, "c", "p")
    after = await stored.get(database, "p")
    assert before is not None
    assert after is not None
    assert before.revision == after.revision
    await executions.trigger(database, "p", T0 + 200)
    await deliver_until(database, w, FAR)
    await deliver_until(database, w, FAR)
    assert target.came == ["p", "p", "c"]


async def test_during_a_pause_nothing_is_owed_and_what_was_owed_before_waits(database: Database) -> None:
    target = Target()
    await put(database, "p")
    await chain(database, "c", "p")
    await executions.trigger(database, "p", T0)
    await deliver_until(database, worker(database, target, clock=Crank(T0 + 1000)), T0 + 500)
    await jobs.pause(database, "c", T0 + 2000)
    await executions.trigger(database, "p", T0 + 3000)
    await deliver_until(database, worker(database, target, clock=Crank(T0 + 4000)), FAR)
    assert target.came == ["p", "p"]
    await jobs.resume(database, "c", T0 + 5000)
    await database.api["batches"].update_many({}, {"$set": {"claimable_at": DatetimeMS(0)}})
    await deliver_until(database, worker(database, target, clock=Crank(T0 + 6000)), FAR)
    assert target.came == ["p", "p", "c"]


async def test_a_deleted_chained_job_cancels_what_it_owed(database: Database) -> None:
    target = Target()
    await put(database, "p")
    await chain(database, "c", "p")
    await executions.trigger(database, "p", T0)
    await deliver_until(database, worker(database, target, clock=Crank(T0 + 1000)), T0 + 500)
    await jobs.delete(database, "c", T0 + 2000)
    await executions.trigger(database, "p", T0 + 3000)
    await deliver(database, target)
    assert target.came == ["p", "p"]
    assert [h["state"] for h in await rows(database, "history") if h["job_id"] == "c"] == ["cancelled"]


@pytest.mark.parametrize("forgotten", [False, True])
async def test_a_job_whose_other_job_is_deleted_goes_on_when_that_is_created_again(
    database: Database, *, forgotten: bool
) -> None:
    """Also if nothing is left of the deleted one."""
    target = Target()
    await put(database, "p")
    await chain(database, "c", "p")
    await jobs.delete(database, "p", T0 - 4000)
    if forgotten:
        await database.api["jobs"].delete_one({"_id": "p"})
    assert (await stored.get(database, "c")) is not None
    await put(database, "p", at_ms=T0 - 3000)
    await executions.trigger(database, "p", T0)
    await deliver(database, target)
    assert target.came == ["p", "c"]


async def test_a_chained_job_can_be_triggered_paused_and_given_a_schedule(database: Database) -> None:
    target = Target()
    await put(database, "p")
    await chain(database, "c", "p")
    name = await executions.trigger(database, "c", T0)
    assert not is_chained(name)
    await deliver(database, target)
    assert target.came == ["c"]
    await jobs.patch(
        database,
        "c",
        lambda d: apply_patch(d, {"after": None, "schedule": "@hourly"}, CONTEXT),
        (),
        T0,
    )
    await executions.trigger(database, "p", T0 + 100)
    await deliver(database, target)
    assert target.came == ["c", "p"]


# -- cycles ----------------------------------------------------------------------------------------------------------


async def test_a_change_that_would_close_a_cycle_is_refused(database: Database) -> None:
    """By naming the field; the jobs stay as they are, and another order is accepted."""
    for job in ("a", "b", "c"):
        await put(database, job)
    await chain(database, "b", "a")
    await chain(database, "c", "b")
    for job, after in (("a", "c"), ("a", "b"), ("a", "a")):
        path, message = await fault_of(database, job, after)
        assert path == "after.jobId"
        assert "cycle" in message or "itself" in message
    await put(database, "b", at_ms=T0)
    await chain(database, "a", "c", at_ms=T0)
    assert [d["_id"] for d in await rows(database, "jobs") if d["after"]] == ["a", "c"]


async def test_a_job_that_does_not_exist_cannot_be_named(database: Database) -> None:
    await put(database, "gone")
    await jobs.delete(database, "gone", T0 - 4000)
    for after in ("never", "gone"):
        path, message = await fault_of(database, "c", after)
        assert (path, "there is no job" in message) == ("after.jobId", True)


async def test_two_changes_at_once_close_no_cycle(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has written what it is about to do before it looks."""
    for n in range(6):
        await put(database, f"a{n}")
        await put(database, f"b{n}")
    real, waiting = chain_links.parents, asyncio.Barrier(2)
    looked = set[int]()

    async def together(*args: Any) -> Any:
        task = id(asyncio.current_task())
        if task not in looked:
            looked.add(task)
            await waiting.wait()
        return await real(*args)

    monkeypatch.setattr(chain_links, "parents", together)
    for n in range(6):
        both = (chain(database, f"a{n}", f"b{n}", at_ms=T0), chain(database, f"b{n}", f"a{n}", at_ms=T0))
        done = await asyncio.gather(*both, return_exceptions=True)
        looked.clear()
        assert sum(d is None for d in done) <= 1
        assert all(d is None or isinstance(d, InvalidInput) for d in done)
        after = {d["_id"] for d in await rows(database, "jobs") if d["after"] and d["_id"].endswith(str(n))}
        assert len(after) == sum(d is None for d in done)


async def test_an_intent_that_came_to_nothing_is_forgotten(database: Database) -> None:
    """A node died between the intent and the change: for a minute it stands in the way, and a day later it is gone."""
    await put(database, "a")
    await put(database, "b")
    assert await chain_links.intend(database, "a", "b", T0, "left")
    path, _ = await fault_of_at(database, "b", "a", T0 + 1000)
    assert path == "after.jobId"
    await chain(database, "b", "a", at_ms=T0 + 61_000)
    assert (await chain_links.trim(database, T0 + 10)).entries == 1
    by_job = {d["_id"]: d.get("followed_by") for d in await rows(database, "jobs")}
    assert by_job["b"] == []
    assert [e["job"] for e in by_job["a"] or ()] == ["b"]


async def test_entries_in_use_keep_no_others_from_being_removed(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One job a time: the first ones stay as they are, and the sweep comes to the last one all the same."""
    monkeypatch.setattr(chain_links, "TRIMMED_AT_ONCE", 1)
    clock = Crank(T0 + 2 * DAY_MS)
    for name in ("a", "b", "z"):
        await put(database, name)
        await chain(database, f"c-{name}", name)
    await chain(database, "c-z", "a", at_ms=T0 - 1000)
    sweeper = (await lead(database, clock)).sweeper
    for _ in range(4):
        await sweeper.step()
    by_job = {d["_id"]: [e["job"] for e in d.get("followed_by") or ()] for d in await rows(database, "jobs")}
    assert (by_job["a"], by_job["b"], by_job["z"]) == (["c-a", "c-z"], ["c-b"], [])


async def fault_of_at(db: Database, job: str, after: str, at_ms: int) -> tuple[str, str]:
    with pytest.raises(InvalidInput) as refused:
        await chain(db, job, after, at_ms=at_ms)
    return refused.value.faults[0].path, refused.value.faults[0].message


async def test_an_import_takes_chained_jobs_in_any_order(database: Database) -> None:
    """One chunk: what the others name may stand behind them. A cycle among its lines is refused."""

    def line(number: int, job: str, after: str | None) -> ImportLine:
        body: dict[str, Any] = {"api": "http://127.0.0.1:1/x"}
        body |= {"schedule": "@yearly"} if after is None else {"after": {"jobId": after}}
        return ImportLine(number, job, read_job(body, CONTEXT))

    order = [("c", "b"), ("b", "a"), ("a", None), ("x", "y"), ("y", "x")]
    result = await import_chunk(database, [line(n, *pair) for n, pair in enumerate(order, 1)], T0)
    assert (result.created, len(result.refused)) == (3, 2)
    assert {fault.path for _, exc in result.refused for fault in exc.faults} == {"after.jobId"}


async def test_chains_need_the_schema_of_this_release(database: Database) -> None:
    """A node of the release before would forget what follows."""
    await put(database, "p")
    await database.api["meta"].update_one({"_id": "schema"}, {"$set": {"version": 3}})
    with pytest.raises(Conflict, match="db migrate"):
        await chain(database, "c", "p")
    with pytest.raises(Conflict, match="db migrate"):
        await put(database, "q", onSuccess={"api": "http://127.0.0.1:1/told"})


async def test_explain_says_what_a_run_follows(database: Database) -> None:
    target = Target()
    await put(database, "p")
    await chain(database, "c", "p")
    name = await executions.trigger(database, "p", T0)
    await deliver(database, target)
    explained = await explain.explain_job(database, "c", T0, 7.0)
    texts = [s.text for o in explained.occurrences for s in o.sentences]
    assert any(name in text for text in texts), texts
    idle = await explain.explain_job(database, "c", T0 - 1000, 7.0)
    assert "runs after job 'p'" in idle.occurrences[0].summary


async def test_verify_finds_a_run_and_a_callback_that_are_missing(database: Database) -> None:
    """Nothing is found as long as they are there."""
    target = Target(cb=200)
    await put(database, "p", at_ms=T0 - 100_000, onSuccess={"api": "http://127.0.0.1:1/told"})
    await chain(database, "c", "p", at_ms=T0 - 90_000)
    name = await executions.trigger(database, "p", T0)
    await deliver_with_callbacks(database, target)
    assert await missing(database) == set()
    await database.api["history"].delete_many({"request": name})
    assert await missing(database) == {"c", "p"}


async def missing(db: Database) -> set[str]:
    """Send times are set by hand here, so other findings say nothing."""
    report = await judged(db, now=T0 + 60_000, since=T0 - 200_000)
    return {f.job_id for f in report.findings if f.kind == "missing"}


async def deliver_with_callbacks(db: Database, target: Target) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        return target(request) if "horae-job-id" in request.headers else httpx.Response(200)

    for _ in range(2):
        await deliver_until(db, worker(db, handler, clock=Crank(T0 + 1000)), FAR)

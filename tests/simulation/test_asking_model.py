"""The model of what is asked for is kept honest: the same calls to it and to a real MongoDB get the same answers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cluster.core.execution.model import Ending, Execution
from cluster.core.ids import execution_id
from cluster.core.job import changes
from cluster.core.job.changes import ChangeStamp
from cluster.core.job.definition import Definition
from cluster.core.lifecycle import JobState, State
from cluster.store import actions, executions, history, jobs, missed_ranges, requested_backfills
from cluster.store.actions import Action
from cluster.store.missed_ranges import MissedRange
from cluster.store.queries import action_targets
from cluster.store.queries.action_targets import filter_document
from cluster.store.queries.job_filter import JobFilter
from cluster.store.requested_backfills import RequestedBackfill
from tests.simulation import model_requests as model
from tests.simulation.model import Final, at_once
from tests.simulation.model_requests import AskedStore

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database

STATES = tuple(s.value for s in JobState if s is not JobState.DELETED)
FILTER = filter_document(JobFilter(STATES), {"all": True})
NOW = 1_900_000_000_000


async def test_actions_answer_as_mongodb_does(database: Database) -> None:
    """Which is next, what a stale save changes, what a page that is done twice counts, and which jobs are left."""
    store = AskedStore(lambda: NOW)
    for name, next_ms in (("a", 5), ("b", 3)):
        action = Action(name, "pause", FILTER, 10, NOW, 3, f"p{name}", next_ms=next_ms)
        assert await actions.insert(database, action)
        store.actions[name] = action
        await actions.insert_page(database, f"p{name}", 0, ["j0", "j1", "gone"], NOW)
        store.pages[f"p{name}:00000000"] = ["j0", "j1", "gone"]
    for n in range(2):
        made = changes.define(None, f"j{n}", Definition("@daily", "http://t/", 0), ChangeStamp(NOW - 1, "v", f"c{n}"))
        assert made is not None
        assert await jobs.insert(database, made)
        store.documents[f"j{n}"] = jobs.new_document(made)

    async def both(name: str, real: Any, *args: Any, **more: Any) -> Any:
        ours, theirs = at_once(model.TWINS[name](store, *args, **more)), await real(database, *args, **more)
        assert ours == theirs, name
        return theirs

    first = await both("actions.next_due", actions.next_due)
    assert first.id == "b"
    begun = await both("actions.save", actions.save, replace(first, page_ms=NOW))
    assert await both("actions.save", actions.save, replace(first, page_ms=1)) is None
    assert await both("actions.page_of", actions.page_of, begun) == ["j0", "j1", "gone"]
    targets = await both("queries.action_targets.read", action_targets.read, begun, ["j0", "j1", "gone"])
    decided = [changes.pause(j, ChangeStamp(NOW, "v2", "c9")) for j in targets.jobs]
    assert await both("jobs.update_many", jobs.update_many, decided[:1], action="b")
    assert not await both("jobs.update_many", jobs.update_many, decided[:1], action="b")
    await both("queries.action_targets.read", action_targets.read, begun, ["j0", "j1", "gone"])
    for _ in range(2):
        await both("actions.save_page", actions.save_page, begun, replace(begun, page=1, page_ms=0, done=2))
    again = await both("actions.next_due", actions.next_due)
    assert (again.id, again.done) == ("b", 2)
    assert await both("actions.page_of", actions.page_of, again) is None
    await both("actions.save", actions.save, replace(again, state="done", ended_ms=NOW))
    await both("actions.delete_pages", actions.delete_pages, "pb")
    assert (await both("actions.next_due", actions.next_due)).id == "a"


async def test_backfills_answer_as_mongodb_does(database: Database) -> None:
    """Which is next, what a stale save changes, what a page that is owed twice counts, and what of history counts."""
    store = AskedStore(lambda: NOW)
    backfill = RequestedBackfill(
        id="f" * 32, job_id="j", key="k", schedule_version="v", from_ms=0, until_ms=9000, again=False, per_second=5,
        created_ms=NOW, known_ms=0, count=3, cursor_ms=0,
    )  # fmt: skip
    assert await requested_backfills.insert(database, backfill)
    store.asked[backfill.id] = backfill
    ids = [execution_id("j", t) for t in (1000, 2000, 3000)]
    for name, state in zip(ids, (State.SUCCEEDED, State.MISSED), strict=False):
        x = Execution(name, "j", int(name[-13:]), 0, "v", "b", 0)
        await history.record(database, [Ending(x, state, NOW, (), "why")], 3650)
        store.history[name] = Final(state, "v", [], "why")
    for first in (1000, 8000):
        missed = MissedRange("j", "v", first, first + 1000, 2, "why")
        await missed_ranges.record(database, [missed], NOW, 3650)
        store.missed[f"j:{first:013d}:missed"] = missed
    owed = Execution(ids[2], "j", 3000, 0, "v", "b", 0)
    await executions.insert(database, [owed])
    store.executions[owed.id] = owed

    async def both(name: str, real: Any, *args: Any) -> Any:
        ours, theirs = at_once(model.TWINS[name](store, *args)), await real(database, *args)
        assert ours == theirs, name
        return theirs

    found = await both("requested_backfills.next_due", requested_backfills.next_due)
    paged = replace(found, page=(1000, 2000), page_ms=NOW)
    begun = await both("requested_backfills.save", requested_backfills.save, paged)
    assert await both("requested_backfills.save", requested_backfills.save, found) is None
    assert await both("executions.existing_ids", executions.existing_ids, ids) == {ids[2]}
    assert await both("requested_backfills.not_missed", requested_backfills.not_missed, ids) == {ids[0]}
    await both("requested_backfills.reopen_missed", requested_backfills.reopen_missed, ids, NOW, NOW, 7)
    for _ in range(2):
        await both("requested_backfills.save_page", requested_backfills.save_page, begun)
    await both("requested_backfills.delete_missed_ranges", requested_backfills.delete_missed_ranges, begun, 0, 9000)
    assert (await both("requested_backfills.next_due", requested_backfills.next_due)).sent == 2
    left = [d["_id"] async for d in database.api["history"].find({"_id": {"$regex": ":missed$"}})]
    assert left == list(store.missed) == ["j:0000000008000:missed"]

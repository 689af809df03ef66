"""`history`: which records are final, what a later result or replay changes, and missed ranges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pymongo.asynchronous.collection import AsyncCollection

from cluster.core.execution.model import Attempt, Ending, Execution
from cluster.core.ids import execution_id
from cluster.core.lifecycle import State
from cluster.store import history, missed_ranges, replayable
from cluster.store.history import DAY_MS
from cluster.store.missed_ranges import MissedRange
from cluster.store.replays import Replay, ReplayFilter
from tests.support.engine import T0, job_document, put_jobs, rows

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database


def ended(state: State, token: int, sent_ms: int, replayed_ms: int | None = None, status: int = 503) -> Ending:
    execution = Execution(execution_id("a", T0), "a", T0, T0, "v1", "b", 0, token=token, replayed_ms=replayed_ms)
    attempt = Attempt(1, sent_ms, "n", token, 5.0, status)
    return Ending(execution, state, sent_ms + 10, (attempt,), "why", 3)


async def replayed_at(db: Database) -> int | None:
    (record,) = await rows(db, "history")
    return None if record["asked_at"] is None else int(record["asked_at"])


async def test_a_cancelled_execution_is_final_for_its_schedule_version_only(database: Database) -> None:
    """A sent execution is final under every version; a reopened one is not final."""
    await database.api["history"].insert_many(
        [
            {"_id": "s", "state": "succeeded", "schedule_version": "v1"},
            {"_id": "c", "state": "cancelled", "schedule_version": "v1"},
            {"_id": "d", "state": "cancelled", "schedule_version": "v0"},
            {"_id": "r", "state": history.REOPENED, "schedule_version": "v1"},
        ]
    )
    assert await history.final_ids(database, dict.fromkeys("scdrx", "v1")) == {"s", "c"}


def forgone(state: State, version: str, ended_ms: int, *attempts: Attempt) -> Ending:
    execution = Execution(execution_id("a", T0), "a", T0, T0, version, "b", 0, token=9)
    return Ending(execution, state, ended_ms, attempts, f"{state} under {version}", 3)


@pytest.mark.parametrize("then", [State.CANCELLED, State.SKIPPED, State.MISSED])
@pytest.mark.parametrize("first", [State.CANCELLED, State.SKIPPED, State.MISSED])
async def test_an_occurrence_that_is_owed_again_keeps_the_result_of_the_later_schedule(
    database: Database, first: State, then: State
) -> None:
    """It ended under one schedule version, was owed under the next, sent in vain, and ended there for good.

    Its record says how it ended then, with all attempts, and is final for that version. A write of the first result that
    is repeated changes nothing. A cancellation does not replace what only the owing version does.
    """
    attempts = [Attempt(n, T0 + 100 * n, "n", n, 5.0, 503) for n in (1, 2, 3)]
    old = forgone(first, "v1", T0 + 500, attempts[0])
    new = forgone(then, "v2", T0 + 9000, *attempts)
    await history.record(database, [old], 7)
    await history.record(database, [new], 7)
    await history.record(database, [old], 7)
    (record,) = await rows(database, "history")
    kept = old if then is State.CANCELLED and first is not State.CANCELLED else new
    version = kept.execution.schedule_version
    assert (record["state"], record["reason"], record["schedule_version"]) == (kept.state, kept.reason, version)
    assert [int(record[k]) - kept.ended_ms for k in ("ended_at", "expire_at")] == [0, 7 * DAY_MS]
    assert [a["n"] for a in record["attempts"]] == [1, 2, 3]
    assert ("first_at" in record, "count" in record) == (kept.state is State.MISSED,) * 2
    id_ = old.execution.id
    assert await history.final_ids(database, {id_: version}) == {id_}
    assert await history.final_ids(database, {id_: "v1" if version == "v2" else "v2"}) == set()


@pytest.mark.parametrize("state", [State.SKIPPED, State.MISSED])
@pytest.mark.parametrize("late_ms", [-500, 500], ids=["that ended before", "that ended after"])
async def test_a_late_cancellation_by_an_earlier_schedule_leaves_the_end_under_the_one_that_owed_it(
    database: Database, state: State, late_ms: int
) -> None:
    """A leader that was frozen writes it under the old version; its node cancels it. Only its attempts are added."""
    attempt = Attempt(1, T0 + 100, "n", 1, 5.0, 503)
    await history.record(database, [forgone(state, "v2", T0 + 9000)], 7)
    await history.record(database, [forgone(State.CANCELLED, "v1", T0 + 9000 + late_ms, attempt)], 7)
    (record,) = await rows(database, "history")
    assert (record["state"], record["schedule_version"], len(record["attempts"])) == (state, "v2", 1)
    id_ = execution_id("a", T0)
    assert await history.final_ids(database, {id_: "v2"}) == await history.recorded_ids(database, {id_: "v2"}) == {id_}


@pytest.mark.parametrize("state", [State.CANCELLED, State.DEAD, State.FAILED])
async def test_a_result_that_is_written_again_does_not_end_the_replay_that_was_asked_for_since(
    database: Database, state: State
) -> None:
    """The outcome of the first write was unknown. The replay's own result ends it, also under the same version."""
    first = ended(state, 1, T0)
    await history.record(database, [first], 7)
    assert await history.reopen(database, first.execution.id, T0 + 1000, 7)
    await history.record(database, [first], 7)
    (record,) = await rows(database, "history")
    assert record["state"] == history.REOPENED
    assert await history.final_ids(database, {first.execution.id: "v1"}) == set()
    await history.record(database, [ended(state, 1, T0 + 1100, T0 + 1000)], 7)
    (record,) = await rows(database, "history")
    assert (record["state"], len(record["attempts"])) == (state, 2)


async def test_of_three_ends_the_last_one_stays_although_the_second_is_written_last(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its writer had read the first one, and compares what it read: neither state nor attempts tell the two apart."""
    await history.record(database, [forgone(State.CANCELLED, "v1", T0 + 100)], 7)
    find_one = AsyncCollection[Any].find_one
    between = [forgone(State.CANCELLED, "v3", T0 + 900)]

    async def read_early(*args: Any, **kwargs: Any) -> Any:
        found = await find_one(*args, **kwargs)
        if between:
            await history.record(database, [between.pop()], 7)
        return found

    monkeypatch.setattr(AsyncCollection, "find_one", read_early)
    await history.record(database, [forgone(State.CANCELLED, "v2", T0 + 500)], 7)
    (record,) = await rows(database, "history")
    assert (record["schedule_version"], int(record["ended_at"])) == ("v3", T0 + 900)


async def test_a_success_takes_away_that_an_occurrence_counts_as_missed(database: Database) -> None:
    """Else a search for missed ranges by their fields would still find it."""
    await history.record(database, [forgone(State.MISSED, "v1", T0 + 500)], 7)
    await history.record(database, [ended(State.SUCCEEDED, 2, T0 + 50, status=200)], 7)
    (record,) = await rows(database, "history")
    assert (record["state"], "first_at" in record, "count" in record) == ("succeeded", False, False)


async def test_the_latest_replay_time_is_kept_in_any_order_of_results(database: Database) -> None:
    """Reopened, sent, failed, reopened: a success of an earlier attempt that comes late does not undo the time."""
    first = ended(State.DEAD, 1, T0)
    await history.record(database, [first], 3650)
    assert await replayed_at(database) is None
    assert await history.reopen(database, first.execution.id, T0 + 1000, 3650)
    assert await replayed_at(database) == T0 + 1000
    await history.record(database, [ended(State.FAILED, 1, T0 + 1100, T0 + 1000)], 3650)
    assert await history.reopen(database, first.execution.id, T0 + 2000, 3650)
    await history.record(database, [ended(State.SUCCEEDED, 2, T0 + 50, status=200)], 3650)
    assert await replayed_at(database) == T0 + 2000
    await history.record(database, [ended(State.DEAD, 1, T0 + 3100, T0 + 3000)], 3650)
    assert await replayed_at(database) == T0 + 3000, "it lost to the success, but was sent all the same"


async def test_a_replay_of_a_page_keeps_the_time_of_the_first_call(database: Database) -> None:
    """A page that is reopened once more, after a crash, stores no new time."""
    await put_jobs(database, job_document("a", active_from=0))
    await history.record(database, [ended(State.DEAD, 1, T0)], 3650)
    replay = Replay("r", ReplayFilter(), 10.0, T0 + 5000, 1, page=(execution_id("a", T0),))
    assert len(await replayable.reopen_page(database, replay, T0 + 6000, 3650)) == 1
    assert await replayed_at(database) == T0 + 6000
    assert len(await replayable.reopen_page(database, replay, T0 + 7000, 3650)) == 1
    assert await replayed_at(database) == T0 + 6000


async def test_a_record_of_an_older_release_stays_silent_about_replays(database: Database) -> None:
    """It has no replay time until a replay is asked for: a later result does not make it say that there was none."""
    await history.record(database, [ended(State.DEAD, 1, T0)], 3650)
    await database.api["history"].update_many({}, {"$unset": {"asked_at": ""}})
    await history.record(database, [ended(State.SUCCEEDED, 2, T0 + 50, status=200)], 3650)
    (record,) = await rows(database, "history")
    assert (record["state"], "asked_at" in record) == ("succeeded", False)


async def test_a_missed_range_is_kept_for_the_retention_of_its_job(database: Database) -> None:
    """A range of a job without a retention of its own is kept for the configured one."""
    ranges = [MissedRange("a", "v", T0, T0, 1, "x", 30.0), MissedRange("b", "v", T0, T0, 1, "x")]
    await missed_ranges.record(database, ranges, T0, 7.0)
    records = await rows(database, "history")
    assert {r["job_id"]: (int(r["expire_at"]) - int(r["ended_at"])) / DAY_MS for r in records} == {"a": 30, "b": 7}


async def test_missed_ranges_that_begin_together_extend_to_the_longest(database: Database) -> None:
    """The policy left two out; then the job was changed, and the rest of what was being caught up is missed as well."""
    for last, count in ((T0 + 1000, 2), (T0 + 4000, 5), (T0 + 2000, 3)):
        await missed_ranges.record(database, [MissedRange("a", "v1", T0, last, count, "why")], last, 7.0)
    (record,) = await rows(database, "history")
    assert (int(record["last_at"]), record["count"]) == (T0 + 4000, 5)
    assert (int(record["ended_at"]), int(record["extended_at"])) == (T0 + 1000, T0 + 4000)

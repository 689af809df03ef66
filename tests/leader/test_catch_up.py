"""Catching up after a time without a leader: each policy, oldest first, nothing lost, nothing twice."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest

from cluster.leader.catch_up import SLICE_MS
from tests.support.engine import T0, Crank, check_books, job_document, lead, noting, put_jobs, rows, settle_all, worker
from tests.support.workers import deliver_until

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database


async def after_an_absence(db: Database, seconds: int, *jobs: dict[str, Any]) -> tuple[Crank, Any]:
    """Jobs materialised at T0, then no leader for so many seconds, then a new leader until it has nothing to do."""
    clock = Crank()
    await put_jobs(db, *jobs)
    leader = await lead(db, clock, "before")
    await settle_all(leader, clock)
    clock.now += seconds * 1000
    leader = await lead(db, clock, "after")
    await settle_all(leader, clock)
    return clock, leader


def seconds_of(documents: list[dict[str, Any]], job: str) -> list[int]:
    return [(int(d["due_at"]) - T0) // 1000 for d in documents if d["job_id"] == job]


async def test_catch_up_all_runs_every_occurrence_within_the_window(database: Database) -> None:
    """`catchUp: all`: there is no gap between the executions written before the absence and those that are due now."""
    await after_an_absence(database, 90, job_document("a"))
    found = await rows(database, "executions")
    dues = seconds_of(found, "a")
    assert dues == list(range(len(dues)))
    assert dues[-1] >= 90 + 14
    late = {i for b in await rows(database, "batches") if b["late"] for i in b["ids"]}
    assert {f"a:{T0 + s * 1000}" for s in range(25, 90)} <= late
    assert not any(f"a:{T0 + s * 1000}" in late for s in range(91, 104))
    assert await rows(database, "backfills") == []
    await check_books(database)


async def test_catch_up_latest_runs_one_and_records_the_rest_as_missed(database: Database) -> None:
    """`catchUp: latest`: one range with first, last and count."""
    await after_an_absence(database, 90, job_document("a", catch_up="latest"))
    (missed,) = await rows(database, "history")
    dues = seconds_of(await rows(database, "executions"), "a")
    assert missed["state"] == "missed"
    assert "latest" in missed["reason"]
    first, last = (int(missed["first_at"]) - T0) // 1000, (int(missed["last_at"]) - T0) // 1000
    assert sorted([*dues, *range(first, last + 1)]) == list(range(dues[-1] + 1))
    assert missed["count"] == last - first + 1
    assert last == 88
    await check_books(database)


async def test_catch_up_none_records_every_occurrence_as_missed(database: Database) -> None:
    """`catchUp: none`: all occurrences that were not materialised before are one missed range."""
    await after_an_absence(database, 90, job_document("a", catch_up="none"))
    (missed,) = await rows(database, "history")
    dues = seconds_of(await rows(database, "executions"), "a")
    first, last = (int(missed["first_at"]) - T0) // 1000, (int(missed["last_at"]) - T0) // 1000
    assert sorted([*dues, *range(first, last + 1)]) == list(range(dues[-1] + 1))
    assert last == 89


async def test_occurrences_left_out_by_a_changed_policy_are_missed(database: Database) -> None:
    """`catchUp` becomes `none` when the missed part is recorded and half of the range is written; another job keeps `all`."""
    clock = Crank()
    await put_jobs(database, job_document("a"), job_document("b"))
    await settle_all(await lead(database, clock, "before"), clock)
    clock.now += 200_000
    leader = await lead(database, clock, "after")
    for _ in range(50):
        if 60 in seconds_of(await rows(database, "executions"), "a"):
            break
        await leader.step()
    await database.api["jobs"].update_one({"_id": "a"}, {"$set": {"catch_up": "none"}})
    await settle_all(leader, clock)
    found, told = await rows(database, "executions"), await rows(database, "history")
    gaps = [range((int(m["first_at"]) - T0) // 1000, (int(m["last_at"]) - T0) // 1000 + 1) for m in told]
    dues = sorted(seconds_of(found, "a"))
    assert gaps
    assert {m["job_id"] for m in told} == {"a"}
    assert all("catchUp was changed to none" in m["reason"] for m in told)
    assert sorted([*dues, *(s for gap in gaps for s in gap)]) == list(range(dues[-1] + 1))
    assert sorted(seconds_of(found, "b")) == list(range(dues[-1] + 1))


async def test_occurrences_older_than_the_window_are_missed(database: Database) -> None:
    """`catchUpWindowSeconds` counts back from when the gap was found."""
    await after_an_absence(database, 90, job_document("a", catch_up_window_seconds=30))
    (missed,) = await rows(database, "history")
    dues = seconds_of(await rows(database, "executions"), "a")
    assert (int(missed["last_at"]) - T0) // 1000 == 59
    assert set(range(60, 104)) <= set(dues)
    assert "30" in missed["reason"]


async def test_a_job_created_without_a_leader_catches_up_from_its_creation(database: Database) -> None:
    """Settling puts a long past into a range of the job's own."""
    clock = Crank(T0 + 60_000)
    await put_jobs(database, job_document("a"))
    leader = await lead(database, clock)
    await settle_all(leader, clock)
    dues = seconds_of(await rows(database, "executions"), "a")
    assert dues == list(range(len(dues)))
    assert dues[-1] >= 74
    await check_books(database)


@pytest.mark.parametrize("nth", range(1, 7))
async def test_catch_up_continues_after_a_leader_dies_at_any_write(
    database: Database, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    """After any write of the progress; the next leader completes the range, and each occurrence runs once."""
    from cluster.store import backfills

    class Died(BaseException):
        pass

    calls = 0
    real = backfills.save_progress

    async def dying(*args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == nth:
            raise Died
        await real(*args)

    monkeypatch.setattr("cluster.leader.catch_up.JOBS", 3)
    with monkeypatch.context() as patch:
        patch.setattr(backfills, "save_progress", dying)
        with pytest.raises(Died):
            await after_an_absence(database, 60, *(job_document(f"j{i}", "*/5 * * * * *") for i in range(7)))
    clock = Crank(T0 + 61_000)
    leader = await lead(database, clock, "third")
    await settle_all(leader, clock)
    sent: list[str] = []
    w = worker(database, noting(sent))
    await deliver_until(database, w, T0 + 60_000)
    assert sorted(sent) == sorted(f"j{i}:{T0 + s * 1000}" for i in range(7) for s in range(0, 60, 5))


async def test_the_number_of_late_batches_alive_is_bounded(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Late batches of a long gap are added behind current work, the oldest first, as earlier ones are finished."""
    monkeypatch.setattr("cluster.leader.catch_up.LIVE_BATCHES", 3)
    clock, leader = await after_an_absence(database, 100, *(job_document(f"j{i}") for i in range(60)))
    late = [b for b in await rows(database, "batches") if b["late"]]
    assert 3 <= len(late) <= 3 + 5
    sent: list[str] = []
    w = worker(database, noting(sent))
    for _ in range(40):
        await deliver_until(database, w, T0 + 100_000)
        await settle_all(leader, clock)
    assert len(sent) == len(set(sent))
    assert {i for i in sent if i.startswith("j0:")} == {f"j0:{T0 + s * 1000}" for s in range(100)}
    order = [int(i.split(":")[1]) for i in sent if i.startswith("j0:")]
    behind = [later - due for later, due in zip(itertools.accumulate(order, max), order, strict=True)]
    assert max(behind) <= 3 * SLICE_MS, "no more than the batches alive at once change places"


@pytest.mark.parametrize("kind", ["pause", "delete", "reschedule"])
@pytest.mark.parametrize("when", ["before", "during"])
async def test_occurrences_that_a_change_takes_away_unwritten_are_recorded_as_missed(
    database: Database, monkeypatch: pytest.MonkeyPatch, kind: str, when: str
) -> None:
    """The job was changed without a leader, and its old schedule still owed occurrences: they are a missed range.
    The change comes `before` the next leader, or `during` its catch-up."""
    import uuid

    from bson.datetime_ms import DatetimeMS

    from cluster.core.schedule.schedule import parse_schedule

    monkeypatch.setattr("cluster.leader.catch_up.LIVE_BATCHES", 1)
    clock = Crank()
    document = job_document("a")
    await put_jobs(database, document, *(job_document(f"o{i}") for i in range(40)))
    leader = await lead(database, clock, "first")
    await settle_all(leader, clock)
    clock.now += 60_000
    if when == "during":
        leader = await lead(database, clock, "second")
        await settle_all(leader, clock)
        assert await rows(database, "backfills") != []
    period = {k: document[k] for k in ("schedule_version", "schedule", "timezone", "anchor", "start_at", "end_at")}
    period |= {"from": document["active_from"], "to": DatetimeMS(clock.now)}
    fields: dict[str, Any] = {"unsettled": uuid.uuid4().hex}
    if kind == "reschedule":
        fields |= {
            "schedule": "0 0 0 1 1 *",
            "schedule_key": parse_schedule("0 0 0 1 1 *").key,
            "schedule_version": "v2",
        }
        fields |= {"active_from": DatetimeMS(clock.now + 1)}
    else:
        fields["state"] = {"pause": "paused", "delete": "deleted"}[kind]
    await database.api["jobs"].update_one({"_id": "a"}, {"$set": fields, "$push": {"past": period}})
    if when == "before":
        leader = await lead(database, clock, "second")
    await settle_all(leader, clock)
    (missed,) = [h for h in await rows(database, "history") if h["state"] == "missed"]
    first, last = ((int(missed[k]) - T0) // 1000 for k in ("first_at", "last_at"))
    owed = seconds_of(await rows(database, "executions"), "a")
    assert "changed" in missed["reason"]
    assert set(range(60)) <= set(owed) | set(range(first, last + 1))
    assert missed["count"] == last - first + 1


@pytest.mark.parametrize("policy", ["all", "latest", "none"])
async def test_a_long_absence_is_recorded_to_its_end(
    database: Database, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    """The absence is longer than one step may record: several missed ranges follow without a gap, and the same ones run."""
    monkeypatch.setattr("cluster.leader.catch_up.OCCURRENCES", 17)
    monkeypatch.setattr("cluster.leader.catch_up.JOBS", 2)
    jobs = [job_document(f"j{i}", catch_up=policy, catch_up_window_seconds=20) for i in range(3)]
    await after_an_absence(database, 120, *jobs)
    history, owed = await rows(database, "history"), await rows(database, "executions")
    for i in range(3):
        ranges = [h for h in history if h["job_id"] == f"j{i}"]
        assert len(ranges) > 3
        missed: list[int] = []
        for h in ranges:
            first, last = ((int(h[k]) - T0) // 1000 for k in ("first_at", "last_at"))
            assert h["count"] == last - first + 1
            missed += range(first, last + 1)
        dues = seconds_of(owed, f"j{i}")
        assert sorted(missed + dues) == list(range(dues[-1] + 1)), "a hole, or the same twice"
        late = [d for d in dues if 40 <= d < 120]
        assert late == {"all": list(range(100, 120)), "latest": [119], "none": []}[policy]
    assert await rows(database, "backfills") == []
    await check_books(database)


async def test_every_change_without_a_leader_is_accounted_for(database: Database) -> None:
    """A job changes three times without a leader: each earlier schedule has missed ranges, not only the last one."""
    import uuid

    from bson.datetime_ms import DatetimeMS

    clock = Crank()
    document = job_document("a")
    await put_jobs(database, document, job_document("keeps the row"))
    leader = await lead(database, clock, "first")
    await settle_all(leader, clock)
    before = seconds_of(await rows(database, "executions"), "a")
    start = document["active_from"]
    unsettled = None
    for i, end in enumerate((40_000, 50_000, 60_000)):
        period = {k: document[k] for k in ("schedule", "timezone", "anchor", "start_at", "end_at")}
        period |= {"schedule_version": f"v{i}", "from": start, "to": DatetimeMS(T0 + end)}
        period |= {} if unsettled is None else {"unsettled": unsettled}
        start, unsettled = DatetimeMS(T0 + end + 1), uuid.uuid4().hex
        change = {"schedule_version": f"v{i + 1}", "active_from": start, "unsettled": unsettled}
        await database.api["jobs"].update_one({"_id": "a"}, {"$set": change, "$push": {"past": period}})
    clock.now += 60_500
    leader = await lead(database, clock, "second")
    await settle_all(leader, clock)
    missed: list[int] = []
    for h in await rows(database, "history"):
        if h["job_id"] == "a" and h["state"] == "missed":
            missed += range(*((int(h[k]) - T0) // 1000 for k in ("first_at", "last_at")))
            missed.append((int(h["last_at"]) - T0) // 1000)
    owed = seconds_of(await rows(database, "executions"), "a")
    assert set(range(60)) <= set(missed) | set(before) | set(owed)
    assert len(missed) == len(set(missed))
    await check_books(database)

"""Changes inside the look-ahead window, at every point of the leader's pass: owed occurrences run, and no others."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest
from bson.datetime_ms import DatetimeMS

from cluster.core.schedule.schedule import parse_schedule
from tests.support.engine import T0, Crank, check_books, job_document, lead, noting, put_jobs, rows, settle_all, worker
from tests.support.workers import deliver_until

if TYPE_CHECKING:
    from cluster.leader.leader import Leader
    from cluster.store.mongo.client import Database

POINTS = [
    ("engine_jobs", "unsettled"),
    ("schedules", "stamp"),
    ("engine_jobs", "of_schedules"),
    ("executions", "insert"),
    ("batches", "insert"),
    ("schedules", "advance"),
    ("engine_jobs", "mark_settled"),
]
CHANGES = ["reschedule", "pause", "resume", "delete", "recreate", "reschedule_back"]


def _set(db: Database, job: str, **fields: Any) -> Any:
    return db.api["jobs"].update_one(
        {"_id": job}, {"$set": {**fields, "unsettled": uuid.uuid4().hex}, "$inc": {"revision": 1}}
    )


async def change(db: Database, kind: str, now: int) -> list[int]:
    """Change the job of this name as the use cases do. Returns when it is due (s after T0) from now on, up to +40 s."""
    fresh = {"schedule_version": uuid.uuid4().hex, "active_from": DatetimeMS(now + 1)}
    every_second, every_third = "* * * * * *", "*/3 * * * * *"

    async def schedule(text: str) -> None:
        await _set(
            db,
            kind,
            schedule=text,
            schedule_key=parse_schedule(text).key,
            state="active",
            **{**fresh, "schedule_version": uuid.uuid4().hex},
        )

    if kind == "reschedule":
        await schedule(every_third)
        text = every_third
    elif kind == "pause":
        await _set(db, kind, state="paused")
        return []
    elif kind == "delete":
        await _set(db, kind, state="deleted")
        return []
    elif kind == "resume":
        await _set(db, kind, state="paused")
        await _set(db, kind, state="active", **fresh)
        text = every_second
    elif kind == "recreate":
        await _set(db, kind, state="deleted")
        await schedule(every_third)
        text = every_third
    else:
        await schedule(every_third)
        await schedule(every_second)
        text = every_second
    dues = parse_schedule(text).between(now + 1, T0 + 40_000, 100)
    return [(t - T0) // 1000 for t in dues]


async def play(leader: Leader, clock: Crank, seconds: int) -> None:
    for _ in range(seconds * 2):
        clock.now += 500
        await settle_all(leader, clock)


@pytest.mark.parametrize("point", POINTS, ids=".".join)
async def test_a_change_at_any_point_of_the_pass_loses_and_doubles_nothing(
    database: Database, monkeypatch: pytest.MonkeyPatch, point: tuple[str, str]
) -> None:
    """Jobs change, each in another way, just before one write of the leader, while 15 s are materialised. Afterwards
    exactly the owed occurrences are delivered: each one from the change on, none twice, and no others."""
    import importlib

    clock = Crank()
    await put_jobs(database, *(job_document(kind) for kind in CHANGES), job_document("other", "*/5 * * * * *"))
    leader = await lead(database, clock)
    await settle_all(leader, clock)
    await play(leader, clock, 4)
    # Whether by the main pass or by settling, the point must be passed with work to do.
    await put_jobs(database, job_document("c", active_from=clock.now))
    expected: dict[str, list[int]] = {}
    changed_at = 0
    module, name = point
    owner = importlib.import_module(f"cluster.store.{module}")
    real = getattr(owner, name)

    async def interrupting(*args: Any, **kwargs: Any) -> Any:
        nonlocal changed_at
        if not changed_at:
            changed_at = clock.now
            expected.update({kind: await change(database, kind, clock.now) for kind in CHANGES})
        return await real(*args, **kwargs)

    monkeypatch.setattr(owner, name, interrupting)
    await play(leader, clock, 6)
    assert changed_at, "the point was never passed"
    await play(leader, clock, 14)
    assert not [j for j in await rows(database, "jobs") if "unsettled" in j]
    sent: list[str] = []
    w = worker(database, noting(sent))
    # Nothing before the change was sent here, so those occurrences may run or be cancelled; later ones are exact.
    await deliver_until(database, w, T0 + 40_000)
    horizon = 24 + 15
    for kind, owed in expected.items():
        due = sorted((int(i.split(":")[1]) - T0) // 1000 for i in sent if i.startswith(f"{kind}:"))
        after = [s for s in due if T0 + s * 1000 > changed_at]
        assert after == [s for s in owed if s <= max(after, default=-1)], kind
        assert not owed or max(after) >= horizon - 5, kind
    assert len(sent) == len(set(sent))
    await check_books(database)


async def test_a_job_created_just_before_its_next_occurrence_runs_it(database: Database) -> None:
    """The row is 15 s ahead already; settling writes what lies before it."""
    clock = Crank()
    await put_jobs(database, job_document("old"))
    leader = await lead(database, clock)
    await settle_all(leader, clock)
    await play(leader, clock, 5)
    clock.now += 200
    await put_jobs(database, job_document("new", active_from=clock.now))
    await settle_all(leader, clock)
    dues = [(int(e["due_at"]) - T0) // 1000 for e in await rows(database, "executions") if e["job_id"] == "new"]
    assert dues[:3] == [6, 7, 8]


async def test_a_long_import_opens_ranges_only_for_missed_occurrences(database: Database) -> None:
    """Jobs that are settled long after their creation get a range to catch up if, and only if, they missed something.

    Otherwise an import of a hundred thousand monthly jobs would leave as many empty ranges to be worked through.
    """
    clock = Crank()
    created = clock.now
    monthly = [job_document(f"m{i}", "0 0 0 1 * *", active_from=created) for i in range(3)]
    # The one that is younger than the other on the same schedule has missed nothing.
    minutely = [
        job_document("old", "0 * * * * *", active_from=created),
        job_document("young", "0 * * * * *", active_from=created + 90_000),
    ]
    await put_jobs(database, *monthly, *minutely)
    clock.now += 110_000
    leader = await lead(database, clock)
    assert (await leader.settler.step(clock.now, 1)).jobs == 5
    assert [b["job_id"] for b in await rows(database, "backfills")] == ["old"]


async def test_an_end_completes_the_job_after_its_last_occurrence(database: Database) -> None:
    """`endAt` is inclusive; nothing later is owed; the state changes when it is past."""
    clock = Crank()
    end = T0 + 7000
    await put_jobs(database, job_document("a", end_at=DatetimeMS(end), ends_at=DatetimeMS(end)))
    leader = await lead(database, clock)
    await settle_all(leader, clock)
    await play(leader, clock, 10)
    await leader.completer.step(clock.now_ms())
    dues = [(int(e["due_at"]) - T0) // 1000 for e in await rows(database, "executions")]
    assert dues == list(range(8))
    (job,) = await rows(database, "jobs")
    assert job["state"] == "completed"


async def test_an_at_schedule_runs_once_even_without_a_leader_at_its_time(database: Database) -> None:
    """A one-off job whose instant passed a moment before it was settled still runs."""
    clock = Crank(T0 + 3000)
    at = "@at 2030-03-17T17:47:02Z"
    assert parse_schedule(at).next_after(0) == T0 + 2000
    await put_jobs(database, job_document("a", at, active_from=T0 + 1000, ends_at=DatetimeMS(T0 + 2000)))
    leader = await lead(database, clock)
    await settle_all(leader, clock)
    assert [e["_id"] for e in await rows(database, "executions")] == [f"a:{T0 + 2000}"]
    await play(leader, clock, 3)
    await check_books(database)


async def test_spread_moves_the_sending_and_not_the_id(database: Database) -> None:
    """`due_at` and the id are nominal; `send_at` is up to `spreadSeconds` later, the same every time."""
    clock = Crank()
    await put_jobs(database, *(job_document(f"j{i}", "0 * * * * *", spread_seconds=30) for i in range(40)))
    leader = await lead(database, clock)
    await settle_all(leader, clock)
    found = await rows(database, "executions")
    offsets = [(int(e["send_at"]) - int(e["due_at"])) // 1000 for e in found]
    assert all(0 <= o < 30 for o in offsets)
    assert len(set(offsets)) > 10
    assert all(e["_id"] == f"{e['job_id']}:{int(e['due_at'])}" for e in found)

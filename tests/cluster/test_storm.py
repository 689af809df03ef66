"""One job is created, changed, paused, resumed and deleted at random while leaders come, die between writes and go.

Whatever the order, afterwards every occurrence that it owed is sent, cancelled with a reason or recorded as missed, and
nothing was sent twice. The storm of a seed is the same each time.
"""

from __future__ import annotations

import contextlib
import importlib
import random
from typing import TYPE_CHECKING, Any

import pytest

from cluster.core.documents.job_json import read_job
from cluster.core.errors import Conflict, NotFound, OwnershipLost
from cluster.core.schedule.schedule import parse_schedule
from cluster.usecases import jobs
from tests.support.engine import T0, Crank, check_books, job_document, lead, noting, put_jobs, rows, settle_all, worker
from tests.support.leaders import Crashed
from tests.support.workers import deliver_until

if TYPE_CHECKING:
    from cluster.leader.leader import Leader
    from cluster.store.mongo.client import Database

SCHEDULES = ("* * * * * *", "*/2 * * * * *", "*/3 * * * * *", "@every 4s")
WRITES = [
    ("executions", "insert"),
    ("batches", "insert"),
    ("schedules", "advance"),
    ("schedules", "stamp"),
    ("schedules", "insert_missing"),
    ("executions", "adopt"),
    ("engine_jobs", "mark_settled"),
    ("backfills", "open_ranges"),
    ("backfills", "save_progress"),
    ("missed_ranges", "record"),
]
STEPS = 45


def spec(schedule: str, state: str | None = None) -> Any:
    text = {"schedule": schedule, "api": "https://target.example/x", "type": "ATLEAST_ONCE", "catchUpWindowSeconds": 25}
    return read_job({**text, "state": state}, {})


async def change(db: Database, dice: random.Random, now_ms: int) -> None:
    """One change as the API makes it; one that the job's state forbids changes nothing."""
    kind = dice.choice(("put", "put", "pause", "resume", "delete"))
    with contextlib.suppress(Conflict, NotFound):
        if kind == "put":
            state = dice.choice((None, None, "active", "paused"))
            await jobs.put(db, "a", spec(dice.choice(SCHEDULES), state), now_ms)
        else:
            await {"pause": jobs.pause, "resume": jobs.resume, "delete": jobs.delete}[kind](db, "a", now_ms)


async def reign(leader: Leader, dice: random.Random, patch: pytest.MonkeyPatch) -> bool:
    """Some steps of a leader. False if it died in the middle of one, before or after a write."""
    dies = dice.random() < 0.3
    if dies:
        module, name = dice.choice(WRITES)
        owner = importlib.import_module(f"cluster.store.{module}")
        real, before, left = getattr(owner, name), dice.random() < 0.5, [dice.randint(0, 2)]

        async def dying(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] < 0 and before:
                raise OwnershipLost("died before")
            result = await real(*args, **kwargs)
            if left[0] < 0:
                raise OwnershipLost("died after")
            return result

        patch.setattr(owner, name, dying)
    try:
        for _ in range(dice.randint(1, 6)):
            await leader.step()
    except (OwnershipLost, Crashed):
        return False
    finally:
        patch.undo()
    return True


def owed_until(document: dict[str, Any], until_ms: int) -> set[int]:
    """The due times (ms) that the job owed, by its own book of the periods its schedules held."""
    periods = [(p["schedule"], p["anchor"], int(p["from"]), int(p["to"])) for p in document["past"]]
    if document["state"] == "active":
        periods.append((document["schedule"], document["anchor"], int(document["active_from"]), until_ms))
    dues: set[int] = set()
    for text, anchor, start, end in periods:
        schedule = parse_schedule(text, "UTC", 0 if anchor is None else int(anchor))
        dues.update(schedule.between(start, end + 1, 100_000))
    return dues


@pytest.mark.takes(5)
@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.long) for n in range(1, 4))])
async def test_whatever_happens_to_a_job_every_occurrence_is_accounted_for(
    database: Database, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """See the top of the file."""
    dice = random.Random(seed)
    clock = Crank()
    await put_jobs(database, job_document("neighbour", "*/2 * * * * *"))
    await jobs.put(database, "a", spec(SCHEDULES[0]), clock.now)
    sent: list[str] = []
    w = worker(database, noting(sent))
    leader = await lead(database, clock, "leader-0")
    for i in range(STEPS):
        clock.now += dice.randint(25_000, 40_000) if dice.random() < 0.06 else dice.randint(50, 2500)
        for _ in range(dice.choice((0, 0, 1, 1, 2, 3))):
            await change(database, dice, clock.now)
            clock.now += dice.randint(1, 700)
        with monkeypatch.context() as patch:
            if not await reign(leader, dice, patch) or dice.random() < 0.1:
                leader = await lead(database, clock, f"leader-{i + 1}")
        if dice.random() < 0.5:
            await deliver_until(database, w, clock.now)
    leader = await lead(database, clock, "the last one")
    await settle_all(leader, clock)
    await leader.sweeper.repair_orphans()
    for _ in range(30):
        await deliver_until(database, w, clock.now)
        await settle_all(leader, clock)
    assert len(sent) == len(set(sent)), "something was sent twice"
    assert await rows(database, "backfills") == []
    await check_books(database)
    (document,) = [j for j in await rows(database, "jobs") if j["_id"] == "a"]
    dues = {t for t in owed_until(document, clock.now - 1) if t < clock.now}
    known = {int(h["due_at"]) for h in await rows(database, "history") if h["job_id"] == "a" and "count" not in h}
    for h in await rows(database, "history"):
        if h["job_id"] == "a" and "count" in h:
            known |= {t for t in dues if int(h["first_at"]) <= t <= int(h["last_at"])}
    if document["state"] == "paused":  # what came due before the pause waits for the resume
        known |= {int(e["due_at"]) for e in await rows(database, "executions") if e["job_id"] == "a"}
    lost = sorted(t for t in dues - known)
    assert not lost, f"{len(lost)} of {len(dues)} were lost, such as +{(lost[0] - T0) / 1000} s"
    delivered = {int(i.split(":")[1]) for i in sent if i.startswith("a:")}
    assert delivered <= dues, f"sent what was not owed: {sorted(delivered - dues)[:3]}"

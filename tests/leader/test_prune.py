"""History leaves when it has expired, bit by bit, and nothing else does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from bson.datetime_ms import DatetimeMS

from cluster.leader import prune
from cluster.leader.prune import Pruned, Pruner
from tests.support.engine import T0, Crank

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database


async def fill(db: Database, count: int) -> None:
    """`count` documents that expire one ms after the other, the last one at T0."""
    await db.api["history"].insert_many(
        [
            {"_id": f"j:{n:013d}", "state": "succeeded", "expire_at": DatetimeMS(T0 - count + 1 + n)}
            for n in range(count)
        ]
    )


async def left(db: Database) -> list[int]:
    found = await db.api["history"].find().sort("_id", 1).to_list()
    return [int(d["expire_at"]) - T0 for d in found]


async def test_what_has_expired_goes_and_nothing_else(database: Database) -> None:
    """Up to this very instant; what expires a millisecond later stays."""
    await fill(database, 10)
    pruner = Pruner(database, Crank(T0 - 4))
    assert await pruner.step() == Pruned(6)
    assert await left(database) == [-3, -2, -1, 0]
    assert await pruner.step() == Pruned(0)


async def test_a_step_is_bounded_and_takes_the_oldest_first(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many portions of so many; what is left is left for the next step."""
    monkeypatch.setattr(prune, "PORTION", 4)
    monkeypatch.setattr(prune, "PORTIONS", 2)
    await fill(database, 11)
    pruner = Pruner(database, Crank(T0))
    assert await pruner.step() == Pruned(8, more=True)
    assert await left(database) == [-2, -1, 0]
    assert await pruner.step() == Pruned(3)
    assert await left(database) == []


async def test_what_expires_behind_its_back_goes_within_a_minute(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on from where it was, for speed; now and then it looks from the very beginning."""
    await fill(database, 3)
    pruner = Pruner(database, Crank(T0))
    assert (await pruner.step()).documents == 3
    await database.api["history"].insert_one({"_id": "late", "expire_at": DatetimeMS(T0 - 1000)})
    assert (await pruner.step()).documents == 0
    monkeypatch.setattr(prune, "RESTART_SECONDS", 0.0)
    assert (await pruner.step()).documents == 1


async def test_many_that_expire_in_one_ms_do_not_hold_it_up(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A herd was recorded in one millisecond: it goes in one portion, however large."""
    monkeypatch.setattr(prune, "PORTION", 4)
    await database.api["history"].insert_many([{"_id": f"j:{n}", "expire_at": DatetimeMS(T0 - 1)} for n in range(50)])
    assert (await Pruner(database, Crank(T0)).step()).documents == 50


def test_it_works_between_the_full_seconds() -> None:
    """In the middle of the next second when there was something, seconds later when not, at once when there is more."""
    clock = Crank(T0)
    pruner = Pruner(None, clock)  # type: ignore[arg-type] # it only waits
    for now in range(0, 1000, 7):
        clock.now = T0 + now
        for done, seconds in ((Pruned(5), 1), (Pruned(), prune.IDLE_SECONDS)):
            wait = pruner.seconds_until_next(done)
            assert (now + wait * 1000) % 1000 == pytest.approx(prune.AT_MS, abs=1)
            assert seconds - 1 + 0.1 < wait <= seconds + 0.1
        assert pruner.seconds_until_next(Pruned(5, more=True)) < 0.1

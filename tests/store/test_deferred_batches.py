"""`deferred_batches`: a long backlog of one host comes back little by little."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cluster.clock import Clock
from cluster.core.execution.model import Batch
from cluster.core.execution.planning import MAX_CROWD_BATCH
from cluster.store import batches, deferred_batches
from cluster.store.deferred_batches import Pace
from tests.support.engine import rows

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database


async def test_a_long_late_backlog_of_a_host_is_spread_over_time(database: Database) -> None:
    """40 late batches become claimable over 20 s, and those of other hosts stay as they are."""
    past = Clock().now_ms() - 60_000
    await batches.insert(
        database,
        [Batch(f"b{i}", (f"a{i}:1",), 0, 0, past, past, late=True, host="bad.example:81") for i in range(40)],
    )
    assert await deferred_batches.spread_late(database, "host", ["other:1"], Pace(500)) == 0
    assert await deferred_batches.spread_late(database, "host", ["bad.example:81"], Pace(500)) == 40
    now = Clock().now_ms()
    at = [int(b["claimable_at"]) - now for b in await rows(database, "batches")]
    assert -1000 < min(at) < max(at) <= 20_000
    assert len(set(at)) > 30


async def test_a_backlog_is_spread_by_what_its_host_answers_if_that_is_faster(database: Database) -> None:
    """40 batches of 5 executions, and 100 answers a second: two seconds, and not twenty."""
    past = Clock().now_ms() - 60_000
    await batches.insert(
        database,
        [
            Batch(
                f"b{i}", tuple(f"a{i}-{n}:1" for n in range(5)), 0, 0, past - i, past, late=True, host="bad.example:81"
            )
            for i in range(40)
        ],
    )
    assert await deferred_batches.spread_late(database, "host", ["bad.example:81"], Pace(500, 100)) == 40
    now = Clock().now_ms()
    assert 500 < max(int(b["claimable_at"]) - now for b in await rows(database, "batches")) <= 2000


async def test_large_batches_are_spread_as_what_they_hold(database: Database) -> None:
    """Six of a crowd count as 24 of the usual size: they would stand in the way of everything else likewise."""
    past = Clock().now_ms() - 60_000
    ids = tuple(f"a{n}:1" for n in range(MAX_CROWD_BATCH))
    await batches.insert(
        database,
        [Batch(f"b{i}", ids, 0, 0, past - i, past, late=True, host="bad.example:81") for i in range(6)],
    )
    assert await deferred_batches.spread_late(database, "host", ["bad.example:81"], Pace(500)) == 6
    now = Clock().now_ms()
    assert 8000 < max(int(b["claimable_at"]) - now for b in await rows(database, "batches")) <= 12_000


@pytest.mark.parametrize("damage", [{"$unset": {"ids": ""}}, {"$set": {"ids": "x"}}, {"$set": {"send_at": "x"}}])
async def test_a_batch_that_cannot_be_read_keeps_no_other_from_being_spread_and_brought_forward(
    database: Database, damage: dict[str, Any]
) -> None:
    """It stays claimable: whoever claims it rebuilds it."""
    past = Clock().now_ms() - 60_000
    await batches.insert(
        database,
        [Batch(f"b{i}", (f"a{i}:1",), 0, 0, past - i, past, late=True, host="bad.example:81") for i in range(40)],
    )
    await database.api["batches"].update_one({"_id": "b7"}, damage)
    assert await deferred_batches.spread_late(database, "host", ["bad.example:81"], Pace(5000)) == 39
    await database.api["batches"].update_one({"_id": "b8"}, damage)
    assert await deferred_batches.bring_forward(database, "host", "bad.example:81", 100, 100) == 38


@pytest.mark.parametrize("count", [60, 61, 240])
async def test_the_oldest_come_back_first_however_many_there_are(database: Database, count: int) -> None:
    """More than fit into five minutes at this pace are spread over five minutes, all of them by their age."""
    past = Clock().now_ms() - 10_000_000
    await batches.insert(
        database,
        [
            Batch(f"b{i:03}", (f"a{i}:1",), 0, 0, past + i * 1000, past + i, late=True, host="bad.example:81")
            for i in range(count)
        ],
    )
    assert await deferred_batches.spread_late(database, "host", ["bad.example:81"], Pace(5000)) == count
    back = sorted(await rows(database, "batches"), key=lambda b: int(b["claimable_at"]))
    assert int(back[-1]["claimable_at"]) <= Clock().now_ms() + 300_000
    assert max(abs(place - int(b["_id"][1:])) for place, b in enumerate(back)) <= count // 8 + 1

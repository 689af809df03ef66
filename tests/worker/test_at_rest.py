"""What keeps a node at rest from claiming: neither a breaker that cannot be read, nor the back-off of an earlier claim."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from cluster.store import batches, breakers, claimable_batches
from cluster.store.mongo.batch_codec import batch_to_document
from cluster.worker import claiming
from cluster.worker import worker as worker_module
from tests.support.engine import rows, worker
from tests.support.waiting import eventually
from tests.support.workers import answering, owed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import pytest

    from cluster.core.limits.circuit_breaker import Breaker
    from cluster.store.mongo.client import Database


async def _sent(db: Database) -> bool:
    return bool(await rows(db, "history"))


def _at_rest(patch: pytest.MonkeyPatch) -> Callable[[], Awaitable[bool]]:
    """Whether the node has looked twice for what may be claimed: after a claim that found nothing, and once more."""
    looks = 0
    look = claimable_batches.next_claimable

    async def counted(db: Database, **how: bool) -> Any:
        nonlocal looks
        found = await look(db, **how)
        looks += 1
        return found

    patch.setattr(claimable_batches, "next_claimable", counted)

    async def rests() -> bool:
        return looks >= 2

    return rests


async def test_an_unreadable_breaker_blocks_no_claim(database: Database) -> None:
    """The node claims by what it knows."""
    await database.api["breakers"].insert_one({"_id": "bad.example:81"})
    await owed(database, "a")
    w = worker(database, answering(200))
    w.start()
    try:
        await eventually(lambda: _sent(database), 6)
    finally:
        await database.api["breakers"].delete_many({})
        await w.shutdown(5.0)


async def test_what_a_poll_finds_is_claimed_without_a_back_off(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process wrote it: nobody tells this one."""
    monkeypatch.setattr(claiming, "MIN_IDLE", 5.0)
    monkeypatch.setattr(claiming, "MAX_IDLE", 5.0)
    w = worker(database, answering(200))
    rests = _at_rest(monkeypatch)
    w.start()
    try:
        await eventually(rests, 10)
        monkeypatch.setattr(database.upcoming, "note", lambda _: None)
        await owed(database, "a")
        await eventually(lambda: _sent(database), 2.5)
    finally:
        monkeypatch.undo()
        await w.shutdown(5.0)


async def test_the_breakers_are_read_once_for_all_claimers(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no reading overlaps another."""
    monkeypatch.setattr(worker_module, "BREAKERS_SECONDS", 60.0)
    under_way, most, readings = 0, 0, 0
    seen = breakers.list_all

    async def slow(db: Database) -> list[Breaker]:
        nonlocal under_way, most, readings
        under_way, readings = under_way + 1, readings + 1
        most = max(most, under_way)
        await asyncio.sleep(0.05)
        found = await seen(db)
        under_way -= 1
        return found

    monkeypatch.setattr(breakers, "list_all", slow)
    w = worker(database, answering(200))
    await asyncio.gather(w._refresh_breakers(), w.share_breakers(), w._refresh_breakers())
    assert most == 1
    assert readings <= 2


async def test_a_batch_whose_instant_cannot_be_read_is_found_at_rest(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look sees it too, so that a claim has it rebuilt, although nothing else is claimable."""
    w = worker(database, answering(200))
    rests = _at_rest(monkeypatch)
    w.start()
    try:
        await eventually(rests, 10)
        monkeypatch.setattr(database.upcoming, "note", lambda _: None)
        written = batch_to_document
        monkeypatch.setattr(batches, "batch_to_document", lambda b: {**written(b), "claimable_at": None})
        await owed(database, "a", batch="bad")

        async def deleted() -> bool:
            return "bad" not in [b["_id"] for b in await rows(database, "batches")]

        await eventually(deleted, 6)
    finally:
        monkeypatch.undo()
        await w.shutdown(5.0)

"""`horae backlog`."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support.commands import Commands


def test_backlog_fails_when_the_oldest_waits_too_long(horae: Commands) -> None:
    """Counts are read from the database; exit status 1."""
    assert horae("backlog").exit_code == 0
    waiting = {"ids": ["a:1", "a:2"], "lane": 1, "attempt": 0, "late": True, "owner": None, "token": 0, "claims": 0}
    times = dict.fromkeys(("send_at", "claimable_at"), datetime(2024, 1, 1, tzinfo=UTC))
    horae.on(lambda db: db.api["batches"].insert_one({"_id": "b", **waiting, **times, "claimed_at": None}))
    late = horae("backlog", "--json")
    assert late.exit_code == 1
    told = json.loads(late.stdout)
    assert (told["ready"], told["late"], told["oldestDueAt"]) == (2, 2, "2024-01-01T00:00:00.000Z")
    assert "2 executions are due and not claimed" in horae("backlog").stdout


def test_what_is_held_back_is_counted_apart(horae: Commands) -> None:
    """More nodes would not send it sooner: its host, its limit, a pause or a window keeps it."""
    batch = {"ids": ["a:1"], "lane": 1, "attempt": 0, "late": False, "owner": None, "token": 0, "claims": 0}
    times = dict.fromkeys(("send_at", "claimable_at"), datetime(2024, 1, 1, tzinfo=UTC))
    held = {**batch, **times, "claimed_at": None, "held": True, "ids": ["a:2", "a:3"]}
    horae.on(lambda db: db.api["batches"].insert_many([{"_id": "b", **batch, **times}, {"_id": "c", **held}]))
    told = json.loads(horae("backlog", "--json").stdout)
    assert (told["ready"], told["heldBack"]) == (3, 2)
    assert "2 of those that are due are held back" in horae("backlog").stdout

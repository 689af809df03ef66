"""`schedules`: rows are fenced by the term of the leader that writes them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cluster.core.execution.model import Term
from cluster.store import schedules
from cluster.store.schedules import ScheduleRow
from tests.support.engine import T0

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database

KEY = "cron|* * * * * *|UTC"


def term(number: int) -> Term:
    return Term(number, "holder", float("inf"))


async def test_an_old_term_stamps_and_moves_no_row(database: Database) -> None:
    """A leader of an old term reads the newer term back, and advances, deletes and replaces nothing."""
    await schedules.insert_missing(database, [ScheduleRow(KEY, T0, 3)])
    assert (await schedules.stamp(database, [KEY], term(2)))[KEY].term == 3
    row = (await schedules.stamp(database, [KEY], term(4)))[KEY]
    assert row.term == 4
    assert await schedules.advance(database, [(row, T0 + 1000)], term(3)) == 0
    assert await schedules.advance(database, [(row, None)], term(3)) == 0
    assert await schedules.advance(database, [(replace(row, next_ms=T0 - 1000), T0 + 1000)], term(4)) == 0
    assert (await schedules.get_many(database, [KEY]))[KEY].next_ms == T0
    assert await schedules.advance(database, [(row, T0 + 1000)], term(4)) == 1
    await schedules.insert_missing(database, [ScheduleRow(KEY, T0, 9)])
    assert (await schedules.get_many(database, [KEY]))[KEY] == ScheduleRow(KEY, T0 + 1000, 4)

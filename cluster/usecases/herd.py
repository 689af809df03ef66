"""How many requests are due at the same time, and how crowded the seconds of a schedule would be. Reads only."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.core.schedule.density import OccurrenceCounter
from cluster.core.schedule.forecast import Forecast
from cluster.store.queries.load_groups import load_groups

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.store.mongo.client import Database
    from cluster.store.queries.load_groups import LoadGroup

TURN = 5000
MOST_WORK = 1_000_000
"""So many additions take about half a second."""
AROUND_SECONDS = 300


async def herd(db: Database, from_ms: int, seconds: int) -> Forecast:
    """How many requests of active jobs are due in each of `seconds` from `from_ms` (a whole second) on."""
    return await _forecast(await load_groups(db, None, None), from_ms, seconds)


@dataclass(frozen=True, slots=True)
class CrowdedSecond:
    """What else is due from one occurrence of a schedule on: in its second, and at most with a spread of so many seconds."""

    at_ms: int
    others: float
    worst_if_spread: dict[int, float]
    mean_if_spread: dict[int, float]


async def crowd(db: Database, occurrences: Sequence[int], spreads: Sequence[int]) -> tuple[list[CrowdedSecond], int]:
    """How crowded these occurrences (ms) are, and how many jobs there was no time to count for the last of them."""
    groups = await load_groups(db, None, None)
    found, left_out = [], 0
    for at in occurrences:
        load = await _forecast(groups, at, AROUND_SECONDS)
        left_out = max(left_out, load.jobs_not_counted)
        worst = {s: max(load.per_second[:s]) for s in spreads}
        mean = {s: sum(load.per_second[:s]) / s for s in spreads}
        found.append(CrowdedSecond(at, load.per_second[0], worst, mean))
    return found, left_out


async def _forecast(groups: Sequence[LoadGroup], from_ms: int, seconds: int) -> Forecast:
    start = from_ms // 1000
    counters: dict[int, OccurrenceCounter] = {}
    steps = [0.0] * (seconds + 1)  # up and down, summed up at the end: a spread is two of them, however long it is
    left_out = paused_at = 0
    for group in groups:
        work = sum(c.work for c in counters.values())
        if work > MOST_WORK:
            left_out += group.jobs
            continue
        if work - paused_at > TURN:
            paused_at = work
            await asyncio.sleep(0)
        width = max(1, group.spread_seconds)
        counter = counters.get(width)
        if counter is None:
            counter = counters[width] = OccurrenceCounter(start - width + 1, start + seconds, 1)
        try:
            counts = counter.count(group.key)
        except ValueError:  # a key of a later release
            continue
        for i, n in counts.items():
            first = i - width + 1
            if _is_active(group, (start + first) * 1000):
                share = n * group.jobs / width
                steps[max(0, first)] += share
                steps[min(seconds, first + width)] -= share
    per_second, level = [], 0.0
    for change in steps[:seconds]:
        level += change
        per_second.append(round(max(0.0, level), 3))
    return Forecast(from_ms, per_second, left_out)


def _is_active(group: LoadGroup, at_ms: int) -> bool:
    return (group.start_ms is None or at_ms >= group.start_ms) and (group.end_ms is None or at_ms <= group.end_ms)

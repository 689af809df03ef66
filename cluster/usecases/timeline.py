"""What was and what will be, on one axis of time: counts per step and row. Reads only.

The past comes from the roll-ups, where they are fine enough and nothing is filtered, else from history. What will be due
is counted from the schedules. All of it is bounded; what does not fit is said, and never left out in silence.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cluster.core.histogram import BOUNDS_MS
from cluster.core.schedule.density import OccurrenceCounter
from cluster.core.stats_series import KEPT_MINUTES_S, span, whole_steps
from cluster.store import stats
from cluster.store.queries import timeline as records
from cluster.store.queries.load_groups import load_groups
from cluster.store.queries.timeline import LATE_MS, REST, Cell

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cluster.core.stats_series import Point
    from cluster.store.mongo.client import Database
    from cluster.store.queries.load_groups import LoadGroup
    from cluster.store.queries.timeline import TimelineQuery

MOST_STEPS = 1500
STEPS_BELOW_A_MINUTE = (1, 2, 5, 10, 15, 30)
TURN = 5000
"""So many additions of a forecast take a few ms; then other tasks of the node run."""
MOST_WORK = 1_000_000
"""So many take about half a second."""
MOST_NAMES = 2000
"""Jobs that are counted apart; of more, the others are counted together."""
ROLLED_UP = ("succeeded", "failed", "dead", "cancelled", "skipped", "retried")


@dataclass(slots=True)
class Row:
    """One row: by number of the step, counts by outcome, `late` and `due` among them. `name` None: all, or the rest."""

    name: str | None
    steps: defaultdict[int, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    total: float = 0

    def add(self, step: int, what: str, n: float) -> None:
        """Add to one step."""
        self.steps[step][what] += n  # type: ignore[assignment] # spread occurrences are fractions
        if what != "late":
            self.total += n


@dataclass(frozen=True, slots=True)
class Timeline:
    """Rows, those with most first; `rest`: all others together (`rest_rows` of those that are known).

    `source` of the past: `rollup` or `history`. `jobs_left_out`: active jobs that there was no time to count ahead.
    """

    rows: list[Row]
    rest: Row
    rest_rows: int
    source: str
    jobs_left_out: int


def uses_rollups(q: TimelineQuery) -> bool:
    """Whether the past of this query comes from the roll-ups."""
    return q.filter is None and q.by != "job" and q.step_s % 60 == 0


def least_step(q: TimelineQuery) -> int:
    """The smallest step (s) that is kept for this time: whole hours, where minutes are not kept any more."""
    kept_s = KEPT_MINUTES_S[q.by or stats.CLUSTER]
    return 60 if q.now_ms - q.from_ms < kept_s * 1000 else 3600


async def read_timeline(db: Database, q: TimelineQuery, most_rows: int, kept_days: Sequence[float]) -> Timeline:
    """The timeline. Raises `records.TooManyRecords`."""
    rows: dict[str | None, Row] = {}
    source = "rollup" if uses_rollups(q) else "history"
    past = _rolled_up(db, q) if source == "rollup" else _recorded(db, q, kept_days)
    for cell in await past:
        row = rows.setdefault(cell.name, Row(cell.name))
        if 0 <= cell.step * q.step_s * 1000 < q.until_ms - q.from_ms:
            row.add(cell.step, cell.state, cell.n)
            for what, n in (("late", cell.late), ("retried", cell.retried)):
                if n:
                    row.add(cell.step, what, n)
    left_out = 0
    if q.until_ms > q.now_ms:
        left_out = await _Ahead(q, rows).count(await load_groups(db, q.filter, q.by))
    rest = rows.pop(REST, Row(None))
    ordered = sorted(rows.values(), key=lambda r: (-r.total, r.name or ""))
    for row in ordered[most_rows:]:
        for step, counts in row.steps.items():
            for what, n in counts.items():
                rest.add(step, what, n)
    return Timeline(ordered[:most_rows], rest, max(0, len(ordered) - most_rows), source, left_out)


async def _rolled_up(db: Database, q: TimelineQuery) -> list[Cell]:
    by = q.by or stats.CLUSTER
    until = min(q.until_ms, q.now_ms)
    if until <= q.from_ms:
        return []
    s = span(by, q.from_ms, until, q.step_s, q.now_ms)
    points = whole_steps(await stats.read(db, by, s), s)
    cells = [cell for p in points for cell in _of_point(q, p)]
    return cells + await records.missed(db, q, [0], None)


def _of_point(q: TimelineQuery, p: Point) -> Iterable[Cell]:
    step = (p.at_ms - q.from_ms) // (q.step_s * 1000)
    late = sum(n for bound, n in zip((*BOUNDS_MS, LATE_MS + 1), p.drift.counts, strict=True) if bound > LATE_MS)
    for what in ROLLED_UP:
        if p.counts[what]:
            yield Cell(p.name, step, what, p.counts[what])
    if late:
        yield Cell(p.name, step, "late", late)


async def _recorded(db: Database, q: TimelineQuery, kept_days: Sequence[float]) -> list[Cell]:
    if q.from_ms >= q.now_ms:
        return []
    ids = await records.few_jobs(db, q.filter)
    return [
        *await records.ended(db, q, kept_days, ids),
        *await records.unfinished(db, q, ids),
        *await records.missed(db, q, kept_days, ids),
    ]


class _Ahead:
    """Adds what will be due to rows."""

    def __init__(self, q: TimelineQuery, rows: dict[str | None, Row]) -> None:
        self._q = q
        self._rows = rows
        step = q.step_s
        now_s = max(q.from_ms, q.now_ms) // 1000 + 1
        self._first = -(-(now_s - q.from_ms // 1000) // step)
        """The number of the first step that lies ahead as a whole."""
        self._start = q.from_ms // 1000 + self._first * step
        self._until = q.until_ms // 1000
        unit = 1 if step < 3600 else 60  # the step of now: its rest is counted by itself
        begin = -(-now_s // unit) * unit
        self._rest = OccurrenceCounter(begin, self._start, unit) if begin < self._start else None
        self._counters: dict[int, OccurrenceCounter] = {}

    async def count(self, groups: Sequence[LoadGroup]) -> int:
        """Returns how many jobs there was no time to count."""
        left_out = paused_at = 0
        for group in groups:
            work = sum(c.work for c in self._counters.values()) + (self._rest.work if self._rest else 0)
            if work > MOST_WORK:
                left_out += group.jobs
                continue
            if work - paused_at > TURN:
                paused_at = work
                await asyncio.sleep(0)
            self._add(group)
        return left_out

    def _add(self, g: LoadGroup) -> None:
        step = self._q.step_s
        width = max(1, -(-g.spread_seconds // step))
        """Over how many steps each occurrence is spread."""
        lead = width - 1
        counter = self._counters.get(lead)
        if counter is None:
            counter = OccurrenceCounter(self._start - lead * step, max(self._start, self._until), step)
            self._counters[lead] = counter
        steps: Counter[int] = Counter()
        try:
            for i, n in counter.count(g.key).items():
                for later in range(width):
                    if i - lead + later >= 0:
                        steps[self._first + i - lead + later] += n / width  # type: ignore[assignment]
            if self._rest is not None:
                steps[self._first - 1] += sum(self._rest.count(g.key).values())
        except ValueError:  # a key of a later release
            return
        self._add_steps(g, steps)

    def _add_steps(self, g: LoadGroup, steps: Counter[int]) -> None:
        last = (self._until - self._q.from_ms // 1000 - 1) // self._q.step_s
        kept = {i: n for i, n in steps.items() if n and i <= last and self._within(g, i)}
        if not kept:
            return
        if self._q.by == "job":
            named = [i for i in g.ids if i in self._rows or len(self._rows) < MOST_NAMES]
            for job_id in named:
                self._add_row(job_id, kept, 1)
            if g.jobs > len(named):
                self._add_row(REST, kept, g.jobs - len(named))
        else:
            self._add_row(g.name, kept, g.jobs)

    def _within(self, g: LoadGroup, step: int) -> bool:
        begin = self._q.from_ms + step * self._q.step_s * 1000
        return (g.start_ms is None or begin + self._q.step_s * 1000 > g.start_ms) and (
            g.end_ms is None or begin <= g.end_ms
        )

    def _add_row(self, name: str | None, steps: Mapping[int, float], jobs: int) -> None:
        row = self._rows.setdefault(name, Row(name))
        for i, n in steps.items():
            row.add(i, "due", n * jobs)

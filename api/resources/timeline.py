"""`/timeline`: what was and what will be, on one axis of time."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

from api.http.responses import send_json
from api.resources.job_list import VISIBLE_STATES, JobLister, JobListParameters
from api.resources.jobs import Resource
from cluster.core.errors import Fault, InvalidInput
from cluster.core.instants import format_instant
from cluster.store.queries import timeline as records
from cluster.store.queries.job_filter import JobFilter
from cluster.store.queries.timeline import TimelineQuery
from cluster.usecases import timeline

if TYPE_CHECKING:
    from falcon.asgi import Request, Response

    from api.http.context import Services
    from cluster.usecases.timeline import Row

HOUR_MS = 3_600_000
YEAR_MS = 366 * 86_400_000
FILTERS = ("state", "tag", "anyTag", "q", "host", "schedule", "failing")
BY = ("tag", "queue", "host", "job")
DEFAULT_ROWS, MOST_ROWS = 20, 50
CHOSEN_STEPS = 240
STEPS_S = (1, 2, 5, 10, 15, 30, 60, 300, 900, 3600, 6 * 3600, 86_400, 7 * 86_400)
RETENTIONS_KEPT_SECONDS = 60.0
_STEP = re.compile(r"(\d{1,8})([smhd]?)\Z", re.ASCII)
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


class _Parameters(JobListParameters):
    def times(self, now_ms: int) -> tuple[int, int]:
        """From when until when: half an hour before and after now, unless asked otherwise."""
        first, until = self.instant("from"), self.instant("until")
        if first is None:
            first = (now_ms if until is None else until - HOUR_MS // 2) - HOUR_MS // 2
        if until is None:
            until = first + HOUR_MS
        if until <= first:
            self._fault("until", "must be later than from")
        elif until - first > YEAR_MS:
            self._fault("until", "must be at most 366 days after from")
        return first, max(until, first + 1000)

    def step(self, span_ms: int) -> int:
        """The step in seconds; chosen for the time if it is absent."""
        value = self.text("step", 20)
        least = -(-span_ms // 1000 // timeline.MOST_STEPS)
        smallest = next((s for s in STEPS_S if s >= least), STEPS_S[-1])
        if value is None:
            return next((s for s in STEPS_S if span_ms / 1000 / s <= CHOSEN_STEPS), STEPS_S[-1])
        match = _STEP.match(value)
        step = int(match[1]) * _UNITS[match[2]] if match else 0
        if not (step in timeline.STEPS_BELOW_A_MINUTE or (60 <= step <= YEAR_MS // 1000 and step % 60 == 0)):
            self._fault("step", "must be 1, 2, 5, 10, 15 or 30 seconds, or whole minutes, such as 30s, 5m, 1h or 1d")
        elif step < least:
            self._fault("step", f"makes more than {timeline.MOST_STEPS} steps of this time: choose {smallest}s or more")
        else:
            return step
        return smallest


class Timeline(Resource):
    """`/timeline`. One is computed at a time, so that no number of viewers takes a node's time from the engine."""

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self._lister = JobLister(services)
        self._default_days = services.settings.rules.retention_days
        self._computing = asyncio.Lock()
        self._kept_days: list[float] = []
        self._read_at = float("-inf")

    async def on_get(self, req: Request, resp: Response) -> None:
        """Counts by outcome of what was, and what will be due, per step and row."""
        q = _Parameters(req, ("from", "until", "step", "by", "rows", *FILTERS))
        now_ms = self.clock.now_ms()
        first, until = q.times(now_ms)
        step = q.step(until - first)
        by = q.choice("by", BY)
        rows = q.number("rows", DEFAULT_ROWS, MOST_ROWS)
        wanted, words = await self._lister.wanted(q)
        q.raise_faults()
        step_ms = step * 1000
        query = TimelineQuery(
            from_ms=first - first % step_ms,
            until_ms=-(-until // step_ms) * step_ms,
            step_s=step,
            by=by,
            filter=None if wanted == JobFilter(VISIBLE_STATES) else wanted,
            now_ms=now_ms,
        )
        if timeline.uses_rollups(query) and query.from_ms < now_ms and step % timeline.least_step(query):
            raise InvalidInput([Fault("step", "is finer than what is kept of so long ago: choose 1h, or whole hours")])
        if words == ():  # a search for punctuation: no job has such a word
            send_json(resp, _json(query, timeline.Timeline([], timeline.Row(None), 0, "history", 0)))
            return
        async with self._computing:
            try:
                found = await timeline.read_timeline(self.db, query, rows, await self._retentions())
            except records.TooManyRecords as exc:
                raise InvalidInput([_too_many(query, exc)]) from exc
        send_json(resp, _json(query, found))

    async def _retentions(self) -> list[float]:
        now = self.clock.monotonic()
        if now - self._read_at > RETENTIONS_KEPT_SECONDS:
            self._kept_days = await records.retentions(self.db, self._default_days)
            self._read_at = now
        return self._kept_days


def _too_many(q: TimelineQuery, exc: records.TooManyRecords) -> Fault:
    since = "" if exc.since_ms is None else f" (from {format_instant(exc.since_ms)} on, for instance)"
    advice = f"choose a shorter time{since}, or a filter that fewer jobs match"
    if q.step_s < 60 and q.by != "job" and q.filter is None:
        return Fault("step", f"more than {records.MOST_RECORDS} executions ended in this time: choose 1m or more")
    if q.by != "job" and q.filter is not None:
        advice += "; or no filter, with a step of 1m or more"
    return Fault("from", f"more than {records.MOST_RECORDS} executions ended in this time: {advice}")


def _json(q: TimelineQuery, found: timeline.Timeline) -> dict[str, Any]:
    return {
        "from": format_instant(q.from_ms),
        "until": format_instant(q.until_ms),
        "now": format_instant(q.now_ms),
        "step": q.step_s,
        "by": q.by,
        "source": found.source,
        "rows": [_row_json(q, row) for row in found.rows],
        "rest": {"rows": found.rest_rows, "steps": _row_json(q, found.rest)["steps"]},
        "jobsLeftOut": found.jobs_left_out,
    }


def _row_json(q: TimelineQuery, row: Row) -> dict[str, Any]:
    steps = []
    for number in sorted(row.steps):
        counts = {what: _number(n) for what, n in sorted(row.steps[number].items()) if n}
        if counts:
            steps.append({"at": format_instant(q.from_ms + number * q.step_s * 1000), **counts})
    return {"name": row.name, "steps": steps}


def _number(n: float) -> float:
    """A whole number where it is one; a share of spread occurrences to a thousandth."""
    rounded = round(n, 3)
    return int(rounded) if rounded == int(rounded) else rounded

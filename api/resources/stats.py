"""`/stats`: numbers over time."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from api.http.requests import QueryParameters
from api.http.responses import send_json
from api.resources.jobs import Resource, job_id_or_not_found
from api.resources.rendering import lateness_json
from cluster.core.errors import Fault, InvalidInput
from cluster.core.instants import format_instant
from cluster.core.stats_series import KEPT_HOURS_S, KEPT_MINUTES_S, Point, span, whole_steps, with_empty_steps
from cluster.store import jobs, stats
from cluster.store.queries import job_stats, jobs_and_executions
from cluster.store.queries.timeline import MOST_RECORDS, TooManyRecords
from cluster.usecases.jobs import require_job

if TYPE_CHECKING:
    from falcon.asgi import Request, Response

    from cluster.core.stats_series import StatsSpan

HOUR_MS = 3_600_000
KINDS = tuple(KEPT_MINUTES_S)
JOB = "job"
BY = (*KINDS, JOB)
MOST_NAMES = 50
"""Of more hosts, queues or tags, those with the most requests in the span are shown."""
_STEP = re.compile(r"(\d{1,7})([smhd]?)\Z", re.ASCII)
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


class _Parameters(QueryParameters):
    def step(self) -> int | None:
        """A step in seconds, or with a unit."""
        value = self.text("step", 20)
        if value is None:
            return None
        match = _STEP.match(value)
        seconds = int(match[1]) * _UNITS[match[2]] if match else 0
        if not 60 <= seconds <= KEPT_HOURS_S or seconds % 60:
            self._fault("step", "must be whole minutes, such as 60, 5m, 1h or 1d, and at most 90d")
            return None
        return seconds

    def kind(self) -> tuple[str, str | None]:
        """By what, and of which job: `by=job` may be left out where a job is named."""
        value, job_id = self.text("by", 20), self.text("job", 200)
        if value is not None and value not in BY:
            self._fault("by", f"must be one of {', '.join(BY)}")
        elif value == JOB and job_id is None:
            self._fault("job", "is required with by=job: numbers of one job are added up from its history")
        elif job_id is not None and value not in (None, JOB):
            self._fault("by", "must be job, or left out, beside job")
        else:
            return (value or KINDS[0], None) if job_id is None else (JOB, job_id_or_not_found(job_id))
        return KINDS[0], None

    def times(self, now_ms: int) -> tuple[int, int]:
        """From when until when, in ms: the last hour unless asked otherwise."""
        until_ms = self.instant("until")
        from_ms = self.instant("from")
        until = now_ms if until_ms is None else min(until_ms, now_ms)
        first = until - HOUR_MS if from_ms is None else max(from_ms, now_ms - KEPT_HOURS_S * 1000)
        if until_ms is not None and (first if from_ms is None else from_ms) >= until_ms:
            self._fault("until", "must be later than from")
        return first, max(until, first)


class Stats(Resource):
    """`/stats`."""

    async def on_get(self, req: Request, resp: Response) -> None:
        """Counts and quantiles per step, of the cluster or of each host, queue or tag."""
        q = _Parameters(req, ("from", "until", "step", "by", "job"))
        now_ms = self.clock.now_ms()
        (by, job_id), step_s, (from_ms, until_ms) = q.kind(), q.step(), q.times(now_ms)
        q.raise_faults()
        s = span(stats.CLUSTER if by == JOB else by, from_ms, until_ms, step_s, now_ms)
        if job_id is not None:
            shown = with_empty_steps(await self._of_job(job_id, s), s, job_id)
        else:
            points = whole_steps(await stats.read(self.db, by, s), s)
            shown = with_empty_steps(points, s) if by == stats.CLUSTER else _busiest(points)
        send_json(resp, {"step": s.step_s, "by": by, "series": [_point_json(p, by) for p in shown]})

    async def _of_job(self, job_id: str, s: StatsSpan) -> list[Point]:
        try:
            points = await job_stats.read(self.db, job_id, s)
        except TooManyRecords as exc:
            advice = f"more than {MOST_RECORDS} executions of the job ended in this time: choose a shorter one"
            raise InvalidInput([Fault("from", advice)]) from exc
        if not points and not await jobs_and_executions.has_executions(self.db, job_id):
            require_job(await jobs.get(self.db, job_id), job_id)  # a deleted job has a history until its retention ends
        return points


def _busiest(points: list[Point]) -> list[Point]:
    sent: Counter[str | None] = Counter()
    for p in points:
        sent[p.name] += p.counts["attempts"]
    names = {name for name, _ in sent.most_common(MOST_NAMES)}
    return [p for p in points if p.name in names]


def _point_json(p: Point, by: str) -> dict[str, Any]:
    named = {} if by == stats.CLUSTER else {"name": p.name}
    return {
        "at": format_instant(p.at_ms),
        **named,
        "sent": p.counts["attempts"],
        "succeeded": p.counts["succeeded"],
        "failed": p.counts["failed"] + p.counts["dead"],
        "retried": p.counts["retried"],
        # What the leader records as missed is not counted by host, queue and tag.
        "missed": p.counts["missed"] if by in (stats.CLUSTER, JOB) else None,
        "latenessP50Ms": p.drift.quantile(0.5),
        "latenessP99Ms": p.drift.quantile(0.99),
        "durationP50Ms": p.duration.quantile(0.5),
        "durationP99Ms": p.duration.quantile(0.99),
        "latenessParts": None if p.lateness is None else lateness_json(p.lateness),
    }

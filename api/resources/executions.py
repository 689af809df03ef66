"""`/jobs/{jobId}/executions` and `/executions`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from api.http import cursors
from api.http.requests import QueryParameters
from api.http.responses import send_json
from api.resources import rendering
from api.resources.jobs import Resource, job_id_or_not_found, waits_for_overlap, with_overlap_note
from cluster.core.errors import NotFound
from cluster.core.execution.view import STATES
from cluster.core.ids import MISSED_SUFFIX, parse_execution_id
from cluster.store import jobs
from cluster.store.queries import execution_pages, follow_up_pages, jobs_and_executions
from cluster.store.queries.execution_pages import ExecutionQuery, PagePosition
from cluster.store.queries.jobs_and_executions import JobExecutionQuery
from cluster.store.queries.narrowed_executions import ENDED_WITH, Narrowed
from cluster.usecases.executions import replay
from cluster.usecases.jobs import require_job

if TYPE_CHECKING:
    from falcon.asgi import Request, Response

NARROWED_BY = ("host", "error", "status", "node", "batch", "queue")
DEFAULT_OF_JOB, DEFAULT_PAGE, MAX_PAGE = 5, 50, 500


class JobExecutions(Resource):
    """`/jobs/{jobId}/executions`."""

    async def on_get(self, req: Request, resp: Response, job_id: str) -> None:
        """The executions of a job, latest first."""
        name = job_id_or_not_found(job_id)
        q = QueryParameters(req, ("limit", "before", "state"))
        limit, before, states = (
            q.number("limit", DEFAULT_OF_JOB, MAX_PAGE),
            q.text("before"),
            q.choices("state", STATES),
        )
        place = None
        if before is not None:
            occurrence = parse_execution_id(before.removesuffix(MISSED_SUFFIX))
            if occurrence is not None and occurrence.job_id == name:
                place = before
            else:
                at = q.instant("before")
                place = None if at is None else f"{name}:{at:013d}"
        q.raise_faults()
        job, executions = await asyncio.gather(
            jobs.get(self.db, name),
            jobs_and_executions.executions_of(
                self.db, JobExecutionQuery(name, limit, self.clock.now_ms(), place, states)
            ),
        )
        if job is None and not executions and not await jobs_and_executions.has_executions(self.db, name):
            require_job(job, name)  # a deleted job has a history until its retention ends
        if len(executions) == limit:
            next_page = {"limit": limit, "before": executions[-1].id} | (
                {"state": ",".join(sorted(states))} if states else {}
            )
            resp.set_header("Link", f'</jobs/{name}/executions?{urlencode(next_page)}>; rel="next"')
        send_json(
            resp,
            [rendering.execution_json(r) for r in await jobs_and_executions.with_breaker_reasons(self.db, executions)],
        )


class Executions(Resource):
    """`/executions`."""

    async def on_get(self, req: Request, resp: Response) -> None:
        """The executions of all jobs: owed ones first, then final ones, latest first."""
        q = QueryParameters(req, ("state", "since", "until", "limit", "cursor", *NARROWED_BY))
        states, limit, cursor = (
            q.choices("state", STATES),
            q.number("limit", DEFAULT_PAGE, MAX_PAGE),
            q.text("cursor", 400),
        )
        since, until = q.instant("since"), q.instant("until")
        narrowed = _narrowed(q)
        q.raise_faults()
        after = None
        if cursor is not None:
            owed, at, name = cursors.decode(cursor, (int, int, str))
            after = PagePosition(owed == 1, at, name)
        page, place = await execution_pages.page(
            self.db,
            ExecutionQuery(
                limit=limit,
                now_ms=self.clock.now_ms(),
                states=states,
                since_ms=since,
                until_ms=until,
                after=after,
                narrowed=narrowed,
            ),
        )
        next_page = None if place is None else cursors.encode(int(place.owed), place.at_ms, place.id)
        explained = await jobs_and_executions.with_breaker_reasons(self.db, page)
        send_json(
            resp,
            {"items": [rendering.execution_json(r) | {"jobId": r.job_id} for r in explained], "nextCursor": next_page},
        )


def _narrowed(q: QueryParameters) -> Narrowed:
    """What narrows the list further. The caller raises the faults."""
    host = q.text("host", 300)
    return Narrowed(
        host=None if host is None else host.lower(),
        error=q.choice("error", ENDED_WITH),
        status=q.number("status", 0, 599) or None,
        node=q.text("node", 300),
        batch=q.text("batch", 64),
        queue=q.text("queue", 64),
    )


class ReplayExecution(Resource):
    """`/executions/{executionId}/retry`."""

    async def on_post(self, req: Request, resp: Response, execution_id: str) -> None:
        """Replay a failed, dead or cancelled execution: 202."""
        waits = waits_for_overlap(req)
        if parse_execution_id(execution_id.removesuffix(MISSED_SUFFIX)) is None:
            raise NotFound(f"there is no execution '{execution_id[:128]}'")
        await replay(self.db, execution_id, self.clock.now_ms(), self.retention_days, waits=waits)
        resp.set_header("Location", f"/executions/{execution_id}")
        send_json(resp, await with_overlap_note(self.db, execution_id, waits=waits, path=req.path), 202)


class Execution(Resource):
    """`/executions/{executionId}`."""

    async def on_get(self, _req: Request, resp: Response, execution_id: str) -> None:
        """One execution with all its attempts."""
        run = None
        if parse_execution_id(execution_id.removesuffix(MISSED_SUFFIX)) is not None:
            run = await jobs_and_executions.get_execution(self.db, execution_id, self.clock.now_ms())
        if run is None:
            raise NotFound(f"there is no execution '{execution_id[:128]}', or its retention has ended")
        shown = rendering.full_execution_json((await jobs_and_executions.with_breaker_reasons(self.db, [run]))[0])
        written = await follow_up_pages.of_execution(self.db, run, self.clock.now_ms())
        send_json(resp, shown | {"followUps": [rendering.follow_up_json(f) for f in written]})

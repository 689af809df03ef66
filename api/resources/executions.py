"""`/jobs/{jobId}/executions` and `/executions`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from api.http import cursors
from api.http.requests import Query
from api.http.responses import send
from api.resources import rendering
from api.resources.jobs import Base, known
from cluster.core.errors import NotFound
from cluster.core.execution.view import STATES
from cluster.core.ids import parse_execution_id
from cluster.store import jobs
from cluster.store.queries import execution_pages, jobs_and_executions
from cluster.store.queries.execution_pages import AcrossQuery, Place
from cluster.store.queries.jobs_and_executions import RunQuery
from cluster.usecases.jobs import existing, retry

if TYPE_CHECKING:
    from falcon.asgi import Request, Response

LAST, PAGE, MOST = 5, 50, 500
MISSED = ":missed"


class JobExecutions(Base):
    """`/jobs/{jobId}/executions`."""

    async def on_get(self, req: Request, resp: Response, job_id: str) -> None:
        """What became of its occurrences, the latest first."""
        name = known(job_id)
        q = Query(req, ("limit", "before", "state"))
        limit, before, states = q.number("limit", LAST, MOST), q.text("before"), q.choices("state", STATES)
        place = None
        if before is not None:
            occurrence = parse_execution_id(before.removesuffix(MISSED))
            if occurrence is not None and occurrence.job_id == name:
                place = before
            else:
                at = q.instant("before")
                place = None if at is None else f"{name}:{at:013d}"
        q.done()
        job, found = await asyncio.gather(
            jobs.one(self.db, name),
            jobs_and_executions.runs_of(self.db, RunQuery(name, limit, self.clock.now_ms(), place, states)),
        )
        existing(job, name)
        if len(found) == limit:
            following = {"limit": limit, "before": found[-1].id} | (
                {"state": ",".join(sorted(states))} if states else {}
            )
            resp.set_header("Link", f'</jobs/{name}/executions?{urlencode(following)}>; rel="next"')
        send(resp, [rendering.run(r) for r in await jobs_and_executions.explained(self.db, found)])


class Executions(Base):
    """`/executions`."""

    async def on_get(self, req: Request, resp: Response) -> None:
        """Executions of all jobs: what is owed, then what is final, the latest first."""
        q = Query(req, ("state", "since", "until", "limit", "cursor"))
        states, limit, cursor = q.choices("state", STATES), q.number("limit", PAGE, MOST), q.text("cursor", 400)
        since, until = q.instant("since"), q.instant("until")
        q.done()
        after = None
        if cursor is not None:
            owed, at, name = cursors.decode(cursor, (int, int, str))
            after = Place(owed == 1, at, name)
        found, place = await execution_pages.page(
            self.db, AcrossQuery(limit, self.clock.now_ms(), states, since, until, after)
        )
        following = None if place is None else cursors.encode(int(place.owed), place.at_ms, place.id)
        shown = await jobs_and_executions.explained(self.db, found)
        send(resp, {"items": [rendering.run(r) | {"jobId": r.job_id} for r in shown], "nextCursor": following})


class Retry(Base):
    """`/executions/{executionId}/retry`."""

    async def on_post(self, _req: Request, resp: Response, execution_id: str) -> None:
        """Send a failed or dead execution again: 202."""
        if parse_execution_id(execution_id.removesuffix(MISSED)) is None:
            raise NotFound(f"there is no execution '{execution_id[:96]}'")
        await retry(self.db, execution_id, self.clock.now_ms(), self.retention_days)
        resp.set_header("Location", f"/executions/{execution_id}")
        send(resp, {"executionId": execution_id}, 202)


class Execution(Base):
    """`/executions/{executionId}`."""

    async def on_get(self, _req: Request, resp: Response, execution_id: str) -> None:
        """One execution with every attempt."""
        run = None
        if parse_execution_id(execution_id.removesuffix(MISSED)) is not None:
            run = await jobs_and_executions.run(self.db, execution_id, self.clock.now_ms())
        if run is None:
            raise NotFound(f"there is no execution '{execution_id[:96]}', or its retention has ended")
        send(resp, rendering.run_in_full((await jobs_and_executions.explained(self.db, [run]))[0]))

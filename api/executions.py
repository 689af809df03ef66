"""`/jobs/{jobId}/executions` and `/executions`."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

from api import render
from api.incoming import Query
from api.jobs import Base, known
from api.outgoing import send
from cluster.core.errors import NotFound
from cluster.core.ids import parse_execution_id
from cluster.core.run import STATES
from cluster.jobs import existing
from cluster.store import jobs as stored
from cluster.store import reads
from cluster.store.reads import RunQuery

if TYPE_CHECKING:
    from falcon.asgi import Request, Response

LAST, MOST = 5, 500
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
        existing(await stored.one(self.db, name), name)
        found = await reads.runs_of(self.db, RunQuery(name, limit, self.clock.now_ms(), place, states))
        if len(found) == limit:
            following = {"limit": limit, "before": found[-1].id} | (
                {"state": ",".join(sorted(states))} if states else {}
            )
            resp.set_header("Link", f'</jobs/{name}/executions?{urlencode(following)}>; rel="next"')
        send(resp, [render.run(r) for r in found])


class Execution(Base):
    """`/executions/{executionId}`."""

    async def on_get(self, _req: Request, resp: Response, execution_id: str) -> None:
        """One execution with every attempt."""
        run = None
        if parse_execution_id(execution_id.removesuffix(MISSED)) is not None:
            run = await reads.run(self.db, execution_id, self.clock.now_ms())
        if run is None:
            raise NotFound(f"there is no execution '{execution_id[:96]}', or its retention has ended")
        send(resp, render.run_in_full(run))

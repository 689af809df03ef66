"""`/jobs/{jobId}/explain`: why it did or did not run then, in sentences with times."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from api.http.requests import Query
from api.http.responses import send
from api.resources.jobs import Base, known
from cluster.core.instants import render_optional
from cluster.usecases.explain import why

if TYPE_CHECKING:
    from falcon.asgi import Request, Response

    from cluster.usecases.explain import Answer


class Explain(Base):
    """`/jobs/{jobId}/explain`."""

    async def on_get(self, req: Request, resp: Response, job_id: str) -> None:
        """What became of the occurrences of that second, or why there are none; without `at` the last run and the next."""
        q = Query(req, ("at",))
        at_ms = q.instant("at")
        q.done()
        send(resp, shown(await why(self.db, known(job_id), at_ms, self.retention_days)))


def shown(answer: Answer) -> dict[str, Any]:
    """The answer as JSON."""
    return {
        "jobId": answer.job_id,
        "jobState": answer.state,
        "at": render_optional(answer.at_ms),
        "explanations": [
            {
                "state": e.state,
                "summary": e.summary,
                "scheduledAt": render_optional(e.due_ms),
                "executionId": e.execution,
                "facts": [{"at": render_optional(s.at_ms), "text": s.text} for s in e.sentences],
            }
            for e in answer.found
        ],
    }

"""`/jobs/{jobId}/explain`: why a job did or did not run, in sentences with times."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from api.http.requests import QueryParameters
from api.http.responses import send_json
from api.resources.jobs import Resource, job_id_or_not_found
from cluster.core.instants import format_optional_instant
from cluster.usecases.explain import explain_job

if TYPE_CHECKING:
    from falcon.asgi import Request, Response

    from cluster.usecases.explain import JobExplanation


class Explain(Resource):
    """`/jobs/{jobId}/explain`."""

    async def on_get(self, req: Request, resp: Response, job_id: str) -> None:
        """Explains the occurrences of one second, or why there are none; without `at`, the last run and the next one."""
        q = QueryParameters(req, ("at",))
        at_ms = q.instant("at")
        q.raise_faults()
        send_json(
            resp, explanation_json(await explain_job(self.db, job_id_or_not_found(job_id), at_ms, self.retention_days))
        )


def explanation_json(answer: JobExplanation) -> dict[str, Any]:
    """The explanation as JSON."""
    return {
        "jobId": answer.job_id,
        "jobState": answer.state,
        "at": format_optional_instant(answer.at_ms),
        "explanations": [
            {
                "state": e.state,
                "summary": e.summary,
                "scheduledAt": format_optional_instant(e.due_ms),
                "executionId": e.execution,
                "facts": [{"at": format_optional_instant(s.at_ms), "text": s.text} for s in e.sentences],
            }
            for e in answer.occurrences
        ],
    }

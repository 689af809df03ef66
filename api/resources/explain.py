"""`/jobs/{jobId}/explain` and `/messages/{messageId}/explain`: why something was or was not sent, in sentences with times."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from api.http.requests import QueryParameters
from api.http.responses import send_json
from api.resources.jobs import Resource, job_id_or_not_found
from cluster.core.errors import NotFound
from cluster.core.ids import MESSAGE_ID
from cluster.core.instants import format_optional_instant
from cluster.usecases import explain_messages
from cluster.usecases.explain import explain_job

if TYPE_CHECKING:
    from falcon.asgi import Request, Response

    from cluster.core.explain.sentences import Explanation
    from cluster.usecases.explain import JobExplanation
    from cluster.usecases.explain_messages import MessageExplanation


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


class ExplainMessage(Resource):
    """`/messages/{messageId}/explain`."""

    async def on_get(self, req: Request, resp: Response, message_id: str) -> None:
        """Explains where the message is, what it waits for, or how it ended."""
        QueryParameters(req, ()).raise_faults()
        if not MESSAGE_ID.match(message_id):
            raise NotFound(f"there is no message '{message_id[:64]}'")
        lookahead_ms = int(self.services.settings.lookahead_seconds * 1000)
        answer = await explain_messages.explain(
            self.db, message_id, self.clock.now_ms(), self.retention_days, lookahead_ms
        )
        send_json(resp, message_explanation_json(answer))


def explanation_json(answer: JobExplanation) -> dict[str, Any]:
    """The explanation as JSON."""
    return {
        "jobId": answer.job_id,
        "jobState": answer.state,
        "at": format_optional_instant(answer.at_ms),
        "explanations": [_answer_json(e) for e in answer.occurrences],
    }


def message_explanation_json(answer: MessageExplanation) -> dict[str, Any]:
    """The explanation of a message as JSON."""
    return {"messageId": answer.message_id, "explanations": [_answer_json(answer.answer)]}


def _answer_json(e: Explanation) -> dict[str, Any]:
    return {
        "state": e.state,
        "summary": e.summary,
        "scheduledAt": format_optional_instant(e.due_ms),
        "executionId": e.execution,
        "facts": [{"at": format_optional_instant(s.at_ms), "text": s.text} for s in e.sentences],
    }

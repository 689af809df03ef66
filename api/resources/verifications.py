"""`/verifications`: what `horae verify` does, in the background of a node. Needs the scope admin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import falcon
from pydantic import AfterValidator, Field, ValidationError
from pydantic_core import PydanticCustomError

from api.http.requests import QueryParameters, read_json
from api.http.responses import send_json
from api.resources.jobs import Resource
from cluster.core.documents.base import Model
from cluster.core.documents.job import Instant
from cluster.core.documents.job_json import faults_of
from cluster.core.errors import Fault, InvalidInput, NotFound
from cluster.core.ids import JOB_ID
from cluster.core.instants import format_instant, format_optional_instant
from cluster.store import verifications
from cluster.store.queries import verify_records

if TYPE_CHECKING:
    from falcon.asgi import Request, Response

    from cluster.store.verifications import Verification

HOUR_MS = 3_600_000
LISTED, MOST_LISTED = 20, 100


def _job(job_id: str) -> str:
    if not JOB_ID.match(job_id):
        raise PydanticCustomError("job", "is not a job id")
    return job_id


class VerificationSpec(Model):
    """What to verify."""

    since: Instant | None = Field(
        default=None, description="Occurrences due at or after this time; an hour ago if absent."
    )
    until: Instant | None = Field(default=None, description="Occurrences due up to this time; now if absent.")
    job_id: Annotated[str, AfterValidator(_job)] | None = Field(
        default=None, max_length=64, description="Only this job."
    )
    late_seconds: float = Field(
        default=60.0, gt=0, le=86_400, allow_inf_nan=False, description="What was sent later than this is a finding."
    )


class Verifications(Resource):
    """`/verifications`."""

    async def on_get(self, req: Request, resp: Response) -> None:
        """The runs that were asked for last, with their counts and without their findings."""
        q = QueryParameters(req, ("limit",))
        limit = q.number("limit", LISTED, MOST_LISTED)
        q.raise_faults()
        now_ms = self.clock.now_ms()
        found = await verifications.latest(self.db, limit)
        send_json(resp, {"items": [_json(v, now_ms, findings=False) for v in found]})

    async def on_post(self, req: Request, resp: Response) -> None:
        """Begin a run: 202 and its id."""
        try:
            spec = VerificationSpec.model_validate(await read_json(req))
        except ValidationError as exc:
            raise InvalidInput(faults_of(exc)) from exc
        since = self.clock.now_ms() - HOUR_MS if spec.since is None else spec.since
        if spec.until is not None and spec.until < since:
            raise InvalidInput([Fault("until", "must not be before since")])
        runs = self.services.verifications
        if runs is None:
            raise falcon.HTTPNotImplemented(description="this process verifies nothing: ask a node")
        if spec.job_id is not None and not (await verify_records.jobs_to_verify(self.db, [spec.job_id]))[0]:
            raise NotFound(f"there is no job '{spec.job_id}', and no record of one")
        begun = await runs.begin(since, spec.until, spec.job_id, spec.late_seconds)
        resp.set_header("Location", f"/verifications/{begun.id}")
        send_json(resp, {"verificationId": begun.id}, 202)


class VerificationRun(Resource):
    """`/verifications/{verificationId}`."""

    async def on_get(self, _req: Request, resp: Response, verification_id: str) -> None:
        """One run, with its findings."""
        found = await verifications.get(self.db, verification_id)
        if found is None:
            raise NotFound(f"there is no verification '{verification_id[:64]}'")
        send_json(resp, _json(found, self.clock.now_ms(), findings=True))


def _json(v: Verification, now_ms: int, *, findings: bool) -> dict[str, Any]:
    lost = v.is_lost(now_ms)
    report = v.report
    if report is not None and not findings:
        report = {name: value for name, value in report.items() if name not in ("findings", "findingsLeftOut")}
    return {
        "verificationId": v.id,
        "state": "failed" if lost else v.state,
        "nodeId": v.node,
        "askedAt": format_instant(v.asked_ms),
        "endedAt": format_optional_instant(v.ended_ms),
        "since": format_instant(v.since_ms),
        "until": format_optional_instant(v.until_ms),
        "jobId": v.job_id,
        "lateSeconds": v.late_seconds,
        "error": "its node ended" if lost else v.error,
        "report": report,
    }

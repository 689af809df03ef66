"""`/jobs/{jobId}/backfill`: run a job for a time that has passed."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import Field, ValidationError

from api.http import cursors
from api.http.idempotency import idempotency_key, run_once, send_stored
from api.http.requests import QueryParameters, read_object
from api.http.responses import send_json
from api.resources.job_list import CURSOR_LENGTH, DEFAULT_PAGE, MAX_PAGE
from api.resources.jobs import Resource, job_id_or_not_found
from cluster.core.documents.base import Model
from cluster.core.documents.job import Instant
from cluster.core.documents.job_json import faults_of
from cluster.core.errors import InvalidInput
from cluster.core.instants import format_instant, format_optional_instant
from cluster.store import jobs, requested_backfills
from cluster.store.idempotency import Reservation, StoredResponse
from cluster.usecases import backfill
from cluster.usecases.backfill import BackfillRequest
from cluster.usecases.jobs import require_job

if TYPE_CHECKING:
    from falcon.asgi import Request, Response

    from cluster.store.requested_backfills import RequestedBackfill


class BackfillSpec(Model):
    """The time for which a job is to run."""

    from_: Instant = Field(alias="from", description="The first occurrence is at or after this time.")
    until: Instant = Field(description="Occurrences before this time; not in the future.")
    again: bool = Field(
        default=False,
        description="Also send what has run, under ids of its own. Needed for times whose results may have expired.",
    )
    dry_run: bool = Field(default=False, description="Only say what would be sent; send nothing.")
    max_per_second: float = Field(
        default=50.0,
        ge=0.1,
        le=1000,
        allow_inf_nan=False,
        description="How many executions to send per second, at most; work that is due is sent first.",
    )


def backfill_json(b: RequestedBackfill) -> dict[str, Any]:
    """A backfill with its progress."""
    return {
        "backfillId": b.id,
        "jobId": b.job_id,
        "state": b.state,
        "reason": b.reason,
        "from": format_instant(b.from_ms),
        "until": format_instant(b.until_ms),
        "again": b.again,
        "count": b.count,
        "sent": b.sent,
        "alreadyRun": b.already,
        "unknown": b.unknown,
        "reached": format_instant(b.cursor_ms),
        "maxPerSecond": b.per_second,
        "createdAt": format_instant(b.created_ms),
        "endedAt": format_optional_instant(b.ended_ms),
    }


class Backfills(Resource):
    """`/jobs/{jobId}/backfill`."""

    async def on_post(self, req: Request, resp: Response, job_id: str) -> None:
        """Say what would be sent (`dryRun`: 200), or begin (202)."""
        name = job_id_or_not_found(job_id)
        body = await read_object(req)
        try:
            spec = BackfillSpec.model_validate(body)
        except ValidationError as exc:
            raise InvalidInput(faults_of(exc)) from exc
        now_ms = self.clock.now_ms()
        request = BackfillRequest(
            job_id=name,
            from_ms=spec.from_,
            until_ms=spec.until,
            again=spec.again,
            per_second=spec.max_per_second,
            now_ms=now_ms,
        )
        if spec.dry_run:
            idempotency_key(req)
            planned = await backfill.plan(self.db, request, self.retention_days)
            answer = {
                "dryRun": True,
                "count": planned.count,
                "first": format_optional_instant(planned.first_ms),
                "last": format_optional_instant(planned.last_ms),
                "alreadyRun": planned.already,
                "toSend": planned.count - (0 if spec.again else planned.already),
                "remarks": list(planned.remarks),
            }
            send_json(resp, answer)
            return

        async def work(reservation: Reservation | None) -> StoredResponse:
            planned = await backfill.plan(self.db, request, self.retention_days)
            backfill_id = fresh_id if reservation is None else reservation.name
            begun = await backfill.start(self.db, backfill_id, request, planned)
            headers = (("Location", f"/jobs/{name}/backfill/{begun.id}"),)
            return StoredResponse(202, orjson.dumps({"backfillId": begun.id, "count": begun.count}), headers)

        fresh_id = uuid.uuid4().hex
        response, replayed = await run_once(self.services, req, body, fresh_id, work)
        send_stored(resp, response, replayed=replayed)

    async def on_get(self, req: Request, resp: Response, job_id: str) -> None:
        """The backfills of a job, the latest first."""
        name = job_id_or_not_found(job_id)
        q = QueryParameters(req, ("limit", "cursor"))
        limit, cursor = q.number("limit", DEFAULT_PAGE, MAX_PAGE), q.text("cursor", CURSOR_LENGTH)
        q.raise_faults()
        before = None
        if cursor is not None:
            created_ms, backfill_id = cursors.decode(cursor, (int, str))
            before = (created_ms, backfill_id)
        found = await requested_backfills.of_job(self.db, name, limit + 1, before)
        if not found:
            require_job(await jobs.get(self.db, name), name)
        page = found[:limit]
        more = cursors.encode(page[-1].created_ms, page[-1].id) if len(found) > limit else None
        send_json(resp, {"items": [backfill_json(b) for b in page], "nextCursor": more})


class Backfill(Resource):
    """`/jobs/{jobId}/backfill/{backfillId}`."""

    async def on_get(self, _req: Request, resp: Response, job_id: str, backfill_id: str) -> None:
        """The progress of the backfill."""
        found = await requested_backfills.get(self.db, backfill_id)
        send_json(resp, backfill_json(backfill.require(found, job_id, backfill_id)))

    async def on_delete(self, _req: Request, resp: Response, job_id: str, backfill_id: str) -> None:
        """Stop the backfill: 204. What it has begun is sent."""
        await backfill.stop(self.db, job_id, backfill_id, self.clock.now_ms())
        resp.status = 204

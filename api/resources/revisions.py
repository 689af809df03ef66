"""`/jobs/{jobId}/revisions`: the earlier definitions of a job, what differs between them, and the way back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson

from api.http import cursors
from api.http.idempotency import run_once, send_stored
from api.http.requests import QueryParameters, read_preconditions
from api.http.responses import etag, send_json
from api.resources import rendering
from api.resources.audit import actor_json
from api.resources.jobs import Resource, job_id_or_not_found
from cluster.core.documents.job_differences import job_differences
from cluster.core.documents.job_json import job_document, read_job
from cluster.core.documents.json_source import fragment
from cluster.core.errors import NotFound
from cluster.core.instants import format_instant
from cluster.core.job.definition import PAUSE_AS_IT_IS
from cluster.store import jobs as stored
from cluster.store.idempotency import StoredResponse
from cluster.store.queries import job_revisions, jobs_and_executions
from cluster.store.queries.jobs_and_executions import JobExecutionQuery
from cluster.store.revisions import KEPT
from cluster.usecases import revisions
from cluster.usecases.jobs import require_job

if TYPE_CHECKING:
    from falcon.asgi import Request, Response

    from cluster.store.idempotency import Reservation
    from cluster.store.queries.job_revisions import Revision

DEFAULT_PAGE = 20
LONGEST_LISTED_BODY = 8 * 1024


def _revision_json(r: Revision, *, listed: bool) -> dict[str, Any]:
    definition = job_document(r.job.definition)
    size = len(r.job.definition.body)
    if listed and size > LONGEST_LISTED_BODY:
        definition["body"] = None
    return {
        "revision": r.number,
        "at": format_instant(r.at_ms),
        "action": r.action,
        "by": None if r.by is None else actor_json(r.by),
        "state": r.job.state.value,
        "bodyBytes": size,
        "definition": definition,
    }


class _Revisions(Resource):
    async def _revision(self, job_id: str, text: str) -> Revision:
        """Raises `NotFound`."""
        require_job(await stored.get(self.db, job_id_or_not_found(job_id)), job_id)
        number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
        found = await job_revisions.get(self.db, job_id, number) if number else None
        if found is None:
            raise NotFound(f"job '{job_id}' has no revision {text[:20]}, or it is older than the last {KEPT}")
        return found


class Revisions(_Revisions):
    """`/jobs/{jobId}/revisions`."""

    async def on_get(self, req: Request, resp: Response, job_id: str) -> None:
        """The last revisions of the job, the latest first."""
        q = QueryParameters(req, ("limit", "cursor"))
        limit, cursor = q.number("limit", DEFAULT_PAGE, KEPT), q.text("cursor", 400)
        q.raise_faults()
        require_job(await stored.get(self.db, job_id_or_not_found(job_id)), job_id)
        below = None if cursor is None else int(cursors.decode(cursor, (int,))[0])
        found = await job_revisions.page(self.db, job_id, limit + 1, below)
        after = cursors.encode(found[limit - 1].number) if len(found) > limit else None
        send_json(resp, {"items": [_revision_json(r, listed=True) for r in found[:limit]], "nextCursor": after})


class RevisionOfJob(_Revisions):
    """`/jobs/{jobId}/revisions/{revision}`."""

    async def on_get(self, req: Request, resp: Response, job_id: str, revision: str) -> None:
        """One revision, and how it differs from another one."""
        q = QueryParameters(req, ("against",))
        against = q.number("against", 0, 999_999_999)
        q.raise_faults()
        found = await self._revision(job_id, revision)
        rendered = _revision_json(found, listed=False)
        if against:
            other = await self._revision(job_id, str(against))
            rendered |= {"against": against, "changes": job_differences(other.job, found.job)}
        send_json(resp, rendered)


class Revert(_Revisions):
    """`/jobs/{jobId}/revisions/{revision}/revert`."""

    async def on_post(self, req: Request, resp: Response, job_id: str, revision: str) -> None:
        """Give the job the definition of this revision. The secrets that the job has now stay as they are."""
        expect, now_ms = read_preconditions(req), self.clock.now_ms()
        found = await self._revision(job_id, revision)
        wanted = read_job(job_document(found.job.definition), self.validation_context)
        wanted = replace(wanted, pause=PAUSE_AS_IT_IS)

        async def work(_: Reservation | None) -> StoredResponse:
            job = await revisions.revert(self.db, job_id, (found.number, wanted), now_ms, expect)
            last = await jobs_and_executions.executions_of(self.db, JobExecutionQuery(job_id, 1, now_ms))
            content = orjson.dumps(rendering.full_job_json(job, last[0] if last else None, now_ms), fragment)
            return StoredResponse(200, content, (("ETag", etag(job.revision)),))

        response, replayed = await run_once(self.services, req, None, f"{job_id}:{found.number}", work)
        send_stored(resp, response, replayed=replayed)

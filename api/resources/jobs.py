"""`/jobs`: create, read, change, delete, pause, resume and trigger jobs."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import orjson
from pydantic_core import PydanticCustomError

from api.http.idempotency import run_once, send_stored
from api.http.off_loop import off_loop
from api.http.requests import QueryParameters, body_size, read_job_object, read_optional_object, read_preconditions
from api.http.responses import etag, send_json
from api.resources import rendering
from api.resources.job_list import JobLister
from cluster.core.documents.follow_ups import callback_channels
from cluster.core.documents.job import check_job_id
from cluster.core.documents.job_json import apply_patch, channels_in_patch, read_job
from cluster.core.documents.pause import read_pause
from cluster.core.errors import Fault, InvalidInput, NotFound
from cluster.core.ids import JOB_ID, trigger_due_ms
from cluster.store import idempotency
from cluster.store import jobs as stored
from cluster.store.idempotency import Reservation, StoredResponse
from cluster.store.queries import jobs_and_executions
from cluster.store.queries.jobs_and_executions import JobExecutionQuery
from cluster.usecases import executions, jobs

if TYPE_CHECKING:
    from falcon.asgi import Request, Response

    from api.http.context import Services
    from cluster.core.job.definition import Definition, StoredJob
    from cluster.core.job.wanted import WantedJob
    from cluster.store.mongo.client import Database


def checked_job_id(job_id: Any) -> str:
    """The id in a body or path that may create a job. Raises `InvalidInput` if it is not valid."""
    if not isinstance(job_id, str):
        raise InvalidInput([Fault("jobId", "must be a string")])
    try:
        return check_job_id(job_id)
    except PydanticCustomError as exc:
        raise InvalidInput([Fault("jobId", exc.message())]) from exc


def job_id_or_not_found(job_id: str) -> str:
    """The id of a job that may exist. Raises `NotFound` for an id that no job can have."""
    if not JOB_ID.match(job_id):
        raise NotFound(f"there is no job '{job_id[:64]}'")
    return job_id


class Resource:
    """What all resources share."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.db = services.db
        self.clock = services.clock
        self.validation_context = services.settings.rules.context
        self.retention_days = services.settings.rules.retention_days

    async def send_job(
        self, resp: Response, job: StoredJob, status: int = 200, runs: int = rendering.NEXT_RUNS_SHOWN
    ) -> None:
        """Send the job with its next and last executions, and its ETag."""
        now_ms = self.clock.now_ms()
        last = await jobs_and_executions.executions_of(self.db, JobExecutionQuery(job.id, 1, now_ms))
        resp.set_header("ETag", etag(job.revision))
        send_json(resp, rendering.full_job_json(job, last[0] if last else None, now_ms, runs), status)


class Jobs(Resource):
    """`/jobs`."""

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self._lister = JobLister(services)

    async def on_post(self, req: Request, resp: Response) -> None:
        """Create a job: 201 and its id."""
        body = await read_job_object(req)
        faults: list[Fault] = []
        job_id = None
        if "jobId" in body:
            try:
                job_id = checked_job_id(body.pop("jobId"))
            except InvalidInput as exc:
                faults.extend(exc.faults)
        try:
            wanted = await off_loop(body_size(req), read_job, body, self.validation_context)
        except InvalidInput as exc:
            raise InvalidInput([*faults, *exc.faults]) from exc
        if faults:
            raise InvalidInput(faults)
        now_ms = self.clock.now_ms()
        fresh_id = job_id or jobs.new_job_id(now_ms)

        async def work(reservation: Reservation | None) -> StoredResponse:
            name, repeated = (fresh_id, False) if reservation is None else (reservation.name, reservation.takeover)
            job = await jobs.create(self.db, name, wanted, now_ms, repeated=repeated)
            headers = (("Location", f"/jobs/{job.id}"), ("ETag", etag(job.revision)))
            return StoredResponse(201, orjson.dumps({"jobId": job.id}), headers)

        response, replayed = await run_once(self.services, req, [job_id, body], fresh_id, work)
        send_stored(resp, response, replayed=replayed)

    async def on_get(self, req: Request, resp: Response) -> None:
        """A page of jobs, the newest first unless another order is asked for."""
        await self._lister.send(req, resp)


class Job(Resource):
    """`/jobs/{jobId}`."""

    async def on_get(self, req: Request, resp: Response, job_id: str) -> None:
        """The job with its next and last executions."""
        name = job_id_or_not_found(job_id)
        q = QueryParameters(req, ("nextRuns",))
        runs = q.number("nextRuns", rendering.NEXT_RUNS_SHOWN, rendering.MOST_NEXT_RUNS)
        q.raise_faults()
        await self.send_job(resp, jobs.require_job(await stored.get(self.db, name), job_id), runs=runs)

    async def on_put(self, req: Request, resp: Response, job_id: str) -> None:
        """Create or replace the job: 201 or 200."""
        name, expect = checked_job_id(job_id), read_preconditions(req)
        body = await read_job_object(req)
        if body.get("jobId") == name:
            del body["jobId"]
        wanted = await off_loop(body_size(req), read_job, body, self.validation_context)
        job, created = await jobs.put(self.db, name, wanted, self.clock.now_ms(), expect)
        if created:
            resp.set_header("Location", f"/jobs/{job.id}")
        await self.send_job(resp, job, 201 if created else 200)

    async def on_patch(self, req: Request, resp: Response, job_id: str) -> None:
        """Change some fields of the job (merge patch, RFC 7396)."""
        name, expect = job_id_or_not_found(job_id), read_preconditions(req)
        change = await read_job_object(req)
        job = await stored.get(self.db, name)
        expect.check(job)
        before = jobs.require_job(job, name).definition
        patched = await off_loop(
            body_size(req) + len(before.body), apply_patch, before, change, self.validation_context
        )

        def revise(definition: Definition) -> WantedJob:
            if definition == before:
                return patched
            return apply_patch(definition, change, self.validation_context)  # another request changed the job meanwhile

        await jobs.require_callback_channels(self.db, callback_channels(change))
        job = await jobs.patch(self.db, name, revise, channels_in_patch(change), self.clock.now_ms(), expect)
        await self.send_job(resp, job)

    async def on_delete(self, req: Request, resp: Response, job_id: str) -> None:
        """Delete the job: 204."""
        await jobs.delete(self.db, job_id_or_not_found(job_id), self.clock.now_ms(), read_preconditions(req))
        resp.status = 204


class Pause(Resource):
    """`/jobs/{jobId}/pause`."""

    async def on_post(self, req: Request, resp: Response, job_id: str) -> None:
        """Pause the job from now on, until a time if the body names one. A paused job gets what the body names."""
        name, expect = job_id_or_not_found(job_id), read_preconditions(req)
        wanted = read_pause(await read_optional_object(req))
        await self.send_job(resp, await jobs.pause(self.db, name, self.clock.now_ms(), expect, wanted))


class Resume(Resource):
    """`/jobs/{jobId}/resume`."""

    async def on_post(self, req: Request, resp: Response, job_id: str) -> None:
        """Resume the job from now on. Occurrences during the pause are not caught up."""
        await self.send_job(
            resp, await jobs.resume(self.db, job_id_or_not_found(job_id), self.clock.now_ms(), read_preconditions(req))
        )


class Trigger(Resource):
    """`/jobs/{jobId}/trigger`."""

    async def on_post(self, req: Request, resp: Response, job_id: str) -> None:
        """Run the job once, now: 202 and the id of the execution."""
        now_ms, waits = self.clock.now_ms(), waits_for_overlap(req)

        async def work(reservation: Reservation | None) -> StoredResponse:
            async def rename_reservation(due: int) -> None:
                if reservation is not None:
                    await idempotency.rename(self.db, reservation, str(due))

            name = await executions.trigger(
                self.db,
                job_id_or_not_found(job_id),
                now_ms,
                request=_trigger_request(reservation, waits=waits),
                on_due_moved=rename_reservation,
            )
            content = await with_overlap_note(self.db, name, waits=waits, path=req.path)
            return StoredResponse(202, orjson.dumps(content), (("Location", f"/executions/{name}"),))

        response, replayed = await run_once(
            self.services, req, "wait" if waits else None, str(trigger_due_ms(now_ms)), work
        )
        send_stored(resp, response, replayed=replayed)


def _trigger_request(reservation: Reservation | None, *, waits: bool) -> executions.TriggerRequest:
    if reservation is None:
        return executions.TriggerRequest(uuid.uuid4().hex, waits=waits)
    reserved_due_ms = int(reservation.name) if reservation.takeover else None
    return executions.TriggerRequest(reservation.key, reserved_due_ms, waits)


def waits_for_overlap(req: Request) -> bool:
    """Whether the request says `overlap=wait`: its run waits for the end of the run before it."""
    q = QueryParameters(req, ("overlap",))
    chosen = q.choice("overlap", ("skip", "wait"))
    q.raise_faults()
    return chosen == "wait"


async def with_overlap_note(db: Database, execution_id: str, *, waits: bool, path: str) -> dict[str, str]:
    """The answer to a request for a run, with a word on the run that is in its way under `overlap: skip`."""
    answer = {"executionId": execution_id}
    running = await jobs_and_executions.exclusive_run(db, execution_id.partition(":")[0])
    if running is None or running == execution_id:
        return answer
    if waits:
        note = f"execution {running} of this job has not ended: this run is sent when it has"
    else:
        note = (
            f"execution {running} of this job has not ended, and `overlap` is `skip`: unless it ends within the next "
            f"moment, this run is skipped. POST {path}?overlap=wait waits for its end"
        )
    return answer | {"running": running, "note": note}

"""`/jobs`: parse, one call, render."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from pydantic_core import PydanticCustomError

from api.http import cursors
from api.http.idempotency import once, respond
from api.http.requests import Query, expectation, read_object
from api.http.responses import etag, send
from api.resources import rendering
from cluster.core.documents.job import check_job_id
from cluster.core.documents.job_json import read_spec
from cluster.core.errors import Fault, InvalidInput, NotFound
from cluster.core.ids import JOB_ID, trigger_ms
from cluster.core.lifecycle import JobState
from cluster.store import idempotency
from cluster.store import jobs as stored
from cluster.store.idempotency import Answer, Mine
from cluster.store.queries import jobs_and_executions
from cluster.store.queries.jobs_and_executions import JobQuery, JobsAfter, RunQuery
from cluster.usecases import jobs

if TYPE_CHECKING:
    from falcon.asgi import Request, Response

    from api.http.context import Services
    from cluster.core.job.definition import StoredJob

SHOWN_STATES = tuple(s.value for s in JobState if s is not JobState.DELETED)
PAGE, PAGE_MOST = 50, 500


def named(job_id: Any) -> str:
    """A job id from outside. Raises `InvalidInput`."""
    if not isinstance(job_id, str):
        raise InvalidInput([Fault("jobId", "must be a string")])
    try:
        return check_job_id(job_id)
    except PydanticCustomError as exc:
        raise InvalidInput([Fault("jobId", exc.message())]) from exc


def known(job_id: str) -> str:
    """A job id that may exist. Raises `NotFound` for what can be none."""
    if not JOB_ID.match(job_id):
        raise NotFound(f"there is no job '{job_id[:64]}'")
    return job_id


class Base:
    """What the resources share."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.db = services.db
        self.clock = services.clock
        self.context = services.settings.rules.context
        self.retention_days = services.settings.rules.retention_days

    async def show(self, resp: Response, job: StoredJob, status: int = 200) -> None:
        """The job in full, with its ETag."""
        now_ms = self.clock.now_ms()
        last = await jobs_and_executions.runs_of(self.db, RunQuery(job.id, 1, now_ms))
        resp.set_header("ETag", etag(job.revision))
        send(resp, rendering.job_in_full(job, last[0] if last else None, now_ms), status)


class Jobs(Base):
    """`/jobs`."""

    async def on_post(self, req: Request, resp: Response) -> None:
        """Create a job: 201 and its id."""
        body = await read_object(req)
        faults: list[Fault] = []
        job_id = None
        if "jobId" in body:
            try:
                job_id = named(body.pop("jobId"))
            except InvalidInput as exc:
                faults.extend(exc.faults)
        try:
            spec = read_spec(body, self.context)
        except InvalidInput as exc:
            raise InvalidInput([*faults, *exc.faults]) from exc
        if faults:
            raise InvalidInput(faults)
        now_ms = self.clock.now_ms()
        fresh = job_id or jobs.new_job_id(now_ms)

        async def work(mine: Mine | None) -> Answer:
            name, again = (fresh, False) if mine is None else (mine.name, mine.again)
            job = await jobs.create(self.db, name, spec, now_ms, again=again)
            headers = (("Location", f"/jobs/{job.id}"), ("ETag", etag(job.revision)))
            return Answer(201, orjson.dumps({"jobId": job.id}), headers)

        answer, replayed = await once(self.services, req, [job_id, body], fresh, work)
        respond(resp, answer, replayed=replayed)

    async def on_get(self, req: Request, resp: Response) -> None:
        """A page of jobs, the newest first."""
        q = Query(req, ("state", "tag", "q", "limit", "cursor"))
        states, tag, text = q.choices("state", SHOWN_STATES), q.text("tag", 64), q.text("q")
        limit, cursor = q.number("limit", PAGE, PAGE_MOST), q.text("cursor", 400)
        q.done()
        after = None if cursor is None else JobsAfter(*cursors.decode(cursor, (int, str)))
        page = await jobs_and_executions.jobs_page(
            self.db, JobQuery(tuple(sorted(states)) or SHOWN_STATES, limit, tag, text, after)
        )
        following = None if page.after is None else cursors.encode(page.after.created_ms, page.after.job_id)
        answer: dict[str, Any] = {"items": [rendering.job(j) for j in page.jobs], "nextCursor": following}
        if page.unreadable:
            answer["unreadable"] = [{"jobId": i, "reason": why} for i, why in page.unreadable.items()]
        send(resp, answer)


class Job(Base):
    """`/jobs/{jobId}`."""

    async def on_get(self, _req: Request, resp: Response, job_id: str) -> None:
        """The job in full."""
        await self.show(resp, jobs.existing(await stored.one(self.db, known(job_id)), job_id))

    async def on_put(self, req: Request, resp: Response, job_id: str) -> None:
        """Create or replace it: 201 or 200."""
        name, expect = named(job_id), expectation(req)
        body = await read_object(req)
        if body.get("jobId") == name:
            del body["jobId"]
        spec = read_spec(body, self.context)
        job, created = await jobs.put(self.db, name, spec, self.clock.now_ms(), expect)
        if created:
            resp.set_header("Location", f"/jobs/{job.id}")
        await self.show(resp, job, 201 if created else 200)

    async def on_patch(self, req: Request, resp: Response, job_id: str) -> None:
        """Change some fields (RFC 7396)."""
        name, expect = known(job_id), expectation(req)
        change = await read_object(req)
        await self.show(resp, await jobs.patch(self.db, name, change, self.context, self.clock.now_ms(), expect))

    async def on_delete(self, req: Request, resp: Response, job_id: str) -> None:
        """Delete it: 204."""
        await jobs.delete(self.db, known(job_id), self.clock.now_ms(), expectation(req))
        resp.status = 204


class Pause(Base):
    """`/jobs/{jobId}/pause`."""

    async def on_post(self, req: Request, resp: Response, job_id: str) -> None:
        """Owe nothing from now on; pausing what is paused changes nothing."""
        await self.show(resp, await jobs.pause(self.db, known(job_id), self.clock.now_ms(), expectation(req)))


class Resume(Base):
    """`/jobs/{jobId}/resume`."""

    async def on_post(self, req: Request, resp: Response, job_id: str) -> None:
        """Owe again from now on; nothing is caught up for the pause."""
        await self.show(resp, await jobs.resume(self.db, known(job_id), self.clock.now_ms(), expectation(req)))


class Trigger(Base):
    """`/jobs/{jobId}/trigger`."""

    async def on_post(self, req: Request, resp: Response, job_id: str) -> None:
        """Run it once, now: 202 and the execution's id."""
        now_ms = self.clock.now_ms()

        async def work(mine: Mine | None) -> Answer:
            async def moved(due: int) -> None:
                if mine is not None:
                    await idempotency.rename(self.db, mine, str(due))

            earlier = int(mine.name) if mine is not None and mine.again else None
            name = await jobs.trigger(self.db, known(job_id), now_ms, earlier=earlier, moved=moved)
            return Answer(202, orjson.dumps({"executionId": name}), (("Location", f"/executions/{name}"),))

        answer, replayed = await once(self.services, req, None, str(trigger_ms(now_ms)), work)
        respond(resp, answer, replayed=replayed)

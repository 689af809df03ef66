"""`/queues`: limits that several jobs share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationError
from pydantic_core import PydanticCustomError

from api.http.requests import QueryParameters, read_object
from api.http.responses import send_json
from api.resources.jobs import Resource
from cluster.core.documents.base import Model
from cluster.core.documents.job_json import faults_of
from cluster.core.documents.request_fields import check_queue
from cluster.core.errors import Fault, InvalidInput, NotFound
from cluster.core.instants import format_instant
from cluster.core.limits.permits import QUEUE_PREFIX, Limits
from cluster.store import permits, queues
from cluster.store.queues import Queue as Stored

if TYPE_CHECKING:
    from falcon.asgi import Request, Response


class QueueSpec(Model):
    """The limits of a queue, for all nodes together."""

    max_per_second: float | None = Field(
        default=None, ge=0.001, le=100_000, allow_inf_nan=False, description="Requests per second."
    )
    max_concurrent: int | None = Field(
        default=None, ge=1, le=10_000, description="Requests in flight at the same time."
    )


def _checked_name(name: str) -> str:
    try:
        return check_queue(name)
    except PydanticCustomError as exc:
        raise InvalidInput([Fault("name", exc.message())]) from exc


def _queue_json(q: Stored, running: int) -> dict[str, Any]:
    return {
        "name": q.name,
        "maxPerSecond": q.limits.per_second,
        "maxConcurrent": q.limits.concurrent,
        "running": running if q.limits.concurrent is not None else None,
        "updatedAt": format_instant(q.updated_ms),
    }


class Queues(Resource):
    """`/queues`."""

    async def on_get(self, req: Request, resp: Response) -> None:
        """All queues, by name."""
        QueryParameters(req, ()).raise_faults()
        all_queues = await queues.list_all(self.db)
        running = await permits.running_counts(self.db, [QUEUE_PREFIX + q.name for q in all_queues])
        send_json(resp, {"items": [_queue_json(q, running.get(QUEUE_PREFIX + q.name, 0)) for q in all_queues]})


class Queue(Resource):
    """`/queues/{name}`."""

    async def on_get(self, _req: Request, resp: Response, name: str) -> None:
        """One queue."""
        await self._show(resp, await queues.get(self.db, name), name)

    async def on_put(self, req: Request, resp: Response, name: str) -> None:
        """Create the queue or replace its limits. They take effect within two seconds."""
        checked_name = _checked_name(name)
        body = await read_object(req)
        try:
            spec = QueueSpec.model_validate(body)
        except ValidationError as exc:
            raise InvalidInput(faults_of(exc)) from exc
        queue = Stored(checked_name, Limits(spec.max_per_second, spec.max_concurrent), self.clock.now_ms())
        created = await queues.put(self.db, queue)
        if created:
            resp.set_header("Location", f"/queues/{checked_name}")
        await self._show(resp, queue, name, 201 if created else 200)

    async def on_delete(self, _req: Request, resp: Response, name: str) -> None:
        """Delete the queue. The jobs that name it are no longer limited."""
        if not await queues.delete(self.db, name, self.clock.now_ms()):
            raise NotFound(f"there is no queue '{name[:64]}'")
        await permits.delete(self.db, QUEUE_PREFIX + name)
        resp.status = 204

    async def _show(self, resp: Response, queue: Stored | None, name: str, status: int = 200) -> None:
        if queue is None:
            raise NotFound(f"there is no queue '{name[:64]}'")
        running = await permits.running_counts(self.db, [QUEUE_PREFIX + queue.name])
        send_json(resp, _queue_json(queue, running.get(QUEUE_PREFIX + queue.name, 0)), status)

"""`/messages`: one request, sent once, now or later. A batch is NDJSON of any length, in bounded memory."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson

from api.http.idempotency import IDEMPOTENCY_HEADER, run_once, send_stored
from api.http.off_loop import off_loop
from api.http.problems import faults_json
from api.http.requests import (
    body_size,
    body_too_slow,
    check_content_type,
    read_chunks,
    read_job_object,
    split_lines,
    wait_for_chunk,
)
from api.http.responses import send_json
from api.resources import rendering
from api.resources.jobs import Resource
from cluster.core.documents import json_source, strict_json
from cluster.core.documents.follow_ups import CALLBACKS
from cluster.core.documents.job import BODY_LIMIT
from cluster.core.documents.message import read_message
from cluster.core.errors import CallerError, Fault, InvalidInput, NotFound
from cluster.core.ids import MESSAGE_ID
from cluster.core.instants import format_instant, format_optional_instant
from cluster.store.idempotency import StoredResponse
from cluster.store.mongo.codec import instant
from cluster.store.queries import message_states
from cluster.usecases import messages
from cluster.usecases.messages import Accepted, new_execution_id

if TYPE_CHECKING:
    from collections.abc import Mapping

    from falcon.asgi import Request, Response

    from api.http.context import Services
    from cluster.core.job.message import NewMessage
    from cluster.store.idempotency import Reservation
    from cluster.store.queries.message_states import MessageView
    from cluster.usecases.message_intake import MessageIntake

TYPES = ("application/x-ndjson", "application/ndjson", "application/jsonl")
CHUNK_LINES = 500
CHUNK_BYTES = 4 * 1024 * 1024
"""A chunk is written when it has this many lines or bytes, so that long lines do not fill the memory."""
MAX_ERRORS_SHOWN = 100
TURN_SECONDS = 0.005
"""After this time the event loop runs other tasks, so that a batch does not delay executions."""


def message_id_or_not_found(message_id: str) -> str:
    """The id of a message that may exist. Raises `NotFound` for an id that no message can have."""
    if not MESSAGE_ID.match(message_id):
        raise NotFound(f"there is no message '{message_id[:64]}'")
    return message_id


class MessageResource(Resource):
    """What the resources of messages share: the intake of this node."""

    def __init__(self, services: Services, intake: MessageIntake) -> None:
        super().__init__(services)
        self.intake = intake

    def read(self, value: Any, *, repeatable: bool = False) -> NewMessage:
        """The message in a JSON value, with now as the time of its acceptance. Raises `InvalidInput`."""
        now_ms = self.clock.now_ms()
        return read_message(value, self.validation_context, now_ms, self.retention_days, repeatable=repeatable)


class Messages(MessageResource):
    """`/messages`."""

    async def on_post(self, req: Request, resp: Response) -> None:
        """Accept a message: 202 and its ids."""
        self.intake.require_room()  # before the body is read: a refusal must cost less than an acceptance
        body = await read_job_object(req)
        keyed = req.get_header(IDEMPOTENCY_HEADER) is not None
        message = await off_loop(body_size(req), partial(self.read, repeatable=keyed), body)
        name = new_execution_id(message)

        async def work(reservation: Reservation | None) -> StoredResponse:
            chosen = replace(message, execution_id=name if reservation is None else reservation.name)
            if message.passed and message.dedup_id is None:
                if reservation is None or not reservation.takeover:
                    raise InvalidInput(message.passed)
                chosen = replace(chosen, passed=())  # the request that it repeats was in time
            return await self._accept(chosen)

        response, replayed = await run_once(self.services, req, body, name, work)
        send_stored(resp, response, replayed=replayed)

    async def _accept(self, message: NewMessage) -> StoredResponse:
        (result,) = await self.intake.accept([message])
        if not isinstance(result, Accepted):
            raise result
        content = {"messageId": result.message_id, "executionId": result.execution_id}
        return StoredResponse(202, orjson.dumps(content), (("Location", f"/messages/{result.message_id}"),))


class Message(MessageResource):
    """`/messages/{messageId}`."""

    async def on_get(self, _req: Request, resp: Response, message_id: str) -> None:
        """The message: state, due time, attempts, and its request while it may be sent."""
        name = message_id_or_not_found(message_id)
        view = await message_states.view(self.db, name, self.clock.now_ms())
        if view is None:
            raise NotFound(f"there is no message '{name}', or its retention has ended")
        send_json(resp, message_json(name, view))

    async def on_delete(self, _req: Request, resp: Response, message_id: str) -> None:
        """Cancel the message: 204, or 409 if it is too late."""
        name = message_id_or_not_found(message_id)
        await messages.cancel(replace(self.db, work=self.db.api), name, self.clock.now_ms(), self.retention_days)
        resp.status = 204


def message_json(message_id: str, view: MessageView) -> dict[str, Any]:
    """A message. Of its request it shows no secret, and no body: that may be large."""
    shown = rendering.full_execution_json(view.execution)
    for name in ("jobId", "trigger", "scheduleVersion", "scheduledAt", "follows"):
        shown.pop(name, None)
    request = view.request
    content: dict[str, Any] = {
        "messageId": message_id,
        "dueAt": format_instant(view.execution.due_ms),
        **shown,
        "waiting": view.waits,
    }
    if request is not None:
        content |= {
            "api": request["url"],
            "tags": list(request.get("tags", ())),
            "queue": request.get("queue"),
            "createdAt": format_optional_instant(instant(request.get("created_at"))),
            "expiresAt": format_optional_instant(instant(request.get("expires_at"))),
            **{name: _callback_json(request.get(stored)) for name, stored in CALLBACKS.items()},
        }
    return content


def _callback_json(stored: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """To whom a result is told; what else a callback says may be secret."""
    if stored is None:
        return None
    return {"channel": stored["channel"]} if "channel" in stored else {"api": stored["url"]}


class BatchProgress:
    """The counts and errors of a batch so far."""

    member = "batch"
    """Its name in a problem."""

    def __init__(self) -> None:
        self.accepted = self.duplicates = self.failed = 0
        self.errors: list[dict[str, Any]] = []

    def add_accepted(self, *, duplicate: bool) -> None:
        """Count a message, or one that had been accepted before."""
        self.duplicates += duplicate
        self.accepted += not duplicate

    def add_failed(self, number: int, faults: tuple[Fault, ...]) -> None:
        """Count an invalid line, and list its errors unless `MAX_ERRORS_SHOWN` lines are listed already."""
        self.failed += 1
        if len(self.errors) < MAX_ERRORS_SHOWN:
            self.errors.append({"line": number, "errors": faults_json(faults[:20])})

    def to_json(self) -> dict[str, Any]:
        """The response."""
        return {
            "accepted": self.accepted,
            "duplicates": self.duplicates,
            "failed": self.failed,
            "errors": sorted(self.errors, key=lambda e: int(e["line"])),
            "errorsNotShown": self.failed - len(self.errors),
        }


class MessageBatch(MessageResource):
    """`/messages/batch`."""

    async def on_post(self, req: Request, resp: Response) -> None:
        """Accept one message per line."""
        check_content_type(req, TYPES)
        if req.get_header(IDEMPOTENCY_HEADER) is not None:
            raise InvalidInput([Fault(IDEMPOTENCY_HEADER, "is not for batches: give each message a dedupId instead")])
        self.intake.require_room()
        progress = req.context.progress = BatchProgress()
        try:
            async with asyncio.timeout(None) as patience:
                await self._accept(req, progress, patience)
        except TimeoutError:
            raise body_too_slow() from None
        send_json(resp, progress.to_json())

    async def _accept(self, req: Request, progress: BatchProgress, patience: asyncio.Timeout) -> None:
        chunk: list[tuple[int, NewMessage]] = []
        number = size = 0
        turn_ends = self.clock.monotonic() + TURN_SECONDS
        async for raw in split_lines(read_chunks(req.stream, patience)):
            number += 1
            if self.clock.monotonic() > turn_ends:
                await asyncio.sleep(0)
                turn_ends = self.clock.monotonic() + TURN_SECONDS
            if raw is not None and not raw.strip():
                continue
            message = await off_loop(len(raw or b""), self._read_line, number, raw, progress)
            if message is None:
                continue
            if len(chunk) == CHUNK_LINES or size > CHUNK_BYTES:
                await self._write(chunk, progress, patience)
                size = 0
            size += message.size
            chunk.append((number, message))
        await self._write(chunk, progress, patience)

    def _read_line(self, number: int, raw: bytes | None, progress: BatchProgress) -> NewMessage | None:
        try:
            if raw is None:
                raise InvalidInput([Fault("", f"the line must not exceed {BODY_LIMIT} bytes")])
            value = strict_json.loads(raw)
            if isinstance(value, dict):
                value = json_source.keep_body(raw, value)
            return self.read(value)
        except InvalidInput as exc:
            progress.add_failed(number, exc.faults)
        except CallerError as exc:
            progress.add_failed(number, (Fault("", str(exc)),))
        return None

    async def _write(
        self, chunk: list[tuple[int, NewMessage]], progress: BatchProgress, patience: asyncio.Timeout
    ) -> None:
        if not chunk:
            return
        patience.reschedule(None)  # the caller is not to blame for a slow database
        await self.intake.wait_for_room()  # a batch that is under way must not fail for what others send
        results = await self.intake.accept([m for _, m in chunk])
        wait_for_chunk(patience)
        for (number, _), result in zip(chunk, results, strict=True):
            if not isinstance(result, Accepted):
                progress.add_failed(number, result.faults)
            else:
                progress.add_accepted(duplicate=result.duplicate)
        chunk.clear()

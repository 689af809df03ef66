"""Errors as `application/problem+json` (RFC 9457): one table from error to status. Responses show no internals."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import falcon
import orjson
import structlog

from cluster.core.documents.strict_json import NotJson
from cluster.core.errors import (
    CallerError,
    Conflict,
    Fault,
    InvalidInput,
    NotFound,
    OutcomeUnknown,
    PreconditionFailed,
    StoreUnavailable,
    TooMany,
    UnreadableDocument,
)
from cluster.core.schedule.schedule import InvalidSchedule
from cluster.store.idempotency import InProgress

if TYPE_CHECKING:
    from falcon.asgi import App, Request, Response

log = structlog.get_logger()

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 2

PROBLEMS: tuple[tuple[type[Exception], int, str, str], ...] = (
    (NotJson, 400, "not-json", "Invalid JSON"),
    (InvalidInput, 422, "invalid-input", "Invalid request"),
    (InvalidSchedule, 422, "invalid-input", "Invalid request"),
    (NotFound, 404, "not-found", "Not found"),
    (InProgress, 409, "in-progress", "Request in progress"),
    (TooMany, 429, "too-many-requests", "Too many requests"),
    (Conflict, 409, "conflict", "Conflict"),
    (PreconditionFailed, 412, "precondition-failed", "Precondition failed"),
    (CallerError, 400, "bad-request", "Bad request"),
    (OutcomeUnknown, 503, "outcome-unknown", "Outcome unknown"),
    (StoreUnavailable, 503, "database-away", "Database unavailable"),
    (UnreadableDocument, 500, "unreadable", "Stored document unreadable"),
)
"""The first row that matches is used. An error that matches no row is an internal error: 500."""

_DETAILS = {
    "outcome-unknown": "MongoDB did not confirm the change in time: read the resource to see whether it was made, "
    "or repeat the request",
    "database-away": "MongoDB did not answer in time and nothing was changed: try again",
}


def write_problem(resp: Response, status: int, slug: str, title: str, detail: str | None, **extra: Any) -> None:
    """Turn this response into a problem."""
    problem: dict[str, Any] = {"type": f"urn:horae:problem:{slug}", "title": title, "status": status}
    if detail:
        problem["detail"] = detail
    problem |= extra
    resp.status = status
    resp.content_type = MEDIA_TYPE
    resp.data = orjson.dumps(problem)
    if status == 503:
        resp.set_header("Retry-After", str(RETRY_AFTER_SECONDS))


def faults_json(faults: tuple[Fault, ...]) -> list[dict[str, str]]:
    """Faults as JSON."""
    return [{"path": f.path, "message": f.message} for f in faults]


def install_error_handlers(app: App[Any, Any]) -> None:
    """Turn every error of this application into a problem."""
    app.add_error_handler(Exception, _unexpected)
    for error, *_ in PROBLEMS:
        app.add_error_handler(error, _expected)
    app.set_error_serializer(_from_falcon)


async def _expected(req: Request, resp: Response, exc: Exception, _params: dict[str, Any]) -> None:
    _, status, slug, title = next(row for row in PROBLEMS if isinstance(exc, row[0]))
    if isinstance(exc, InvalidSchedule):
        exc = InvalidInput([Fault(exc.field, exc.message)])
    extra: dict[str, Any] = {}
    detail = _DETAILS.get(slug, str(exc))
    if isinstance(exc, InvalidInput):
        extra["errors"] = faults_json(exc.faults)
        detail = f"{len(exc.faults)} error(s); nothing was changed"
    progress = getattr(req.context, "progress", None)
    if progress is not None:  # an import that failed midway reports what was stored
        extra[progress.member] = progress.to_json()
    if status >= 500:
        extra["instance"] = _instance()
        log.warning("request_failed", method=req.method, path=req.path, instance=extra["instance"], error=str(exc))
    if isinstance(exc, InProgress | TooMany):
        resp.set_header("Retry-After", "1")
    write_problem(resp, status, slug, title, detail, **extra)


def _instance() -> str:
    """An id of one error: the response shows it, and the log has it with the details."""
    return f"urn:uuid:{uuid.uuid4()}"


async def _unexpected(req: Request, resp: Response, exc: Exception, _params: dict[str, Any]) -> None:
    instance = _instance()
    log.error("request_crashed", method=req.method, path=req.path, instance=instance, exc_info=exc)
    write_problem(
        resp,
        500,
        "internal",
        "Internal error",
        "this is a bug; the log of the node has the details under this `instance`",
        instance=instance,
    )


def _from_falcon(_req: Request, resp: Response, exc: falcon.HTTPError) -> None:
    status = falcon.http_status_to_code(exc.status)
    detail = exc.description
    if detail is None and status == 404:
        detail = "no resource has this path; see /docs or /openapi.json for all of them"
    if detail is None and status == 405:
        detail = f"allowed methods: {dict(exc.headers or {}).get('Allow', 'see /docs')}"
    title = exc.title or "Error"
    if title[:3].isdigit():  # Falcon's own titles are such as "404 Not Found"
        title = title.split(" ", 1)[-1]
    write_problem(resp, status, title.lower().replace(" ", "-"), title.capitalize(), detail)

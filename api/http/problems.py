"""Every error as `application/problem+json` (RFC 9457): one table from error to status, and nothing from inside."""

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
    (NotJson, 400, "not-json", "The body is not JSON"),
    (InvalidInput, 422, "invalid-input", "The request has faults"),
    (InvalidSchedule, 422, "invalid-input", "The request has faults"),
    (NotFound, 404, "not-found", "There is no such thing"),
    (InProgress, 409, "in-progress", "The first request is being worked on"),
    (Conflict, 409, "conflict", "Its state does not allow this"),
    (PreconditionFailed, 412, "precondition-failed", "It was changed meanwhile"),
    (CallerError, 400, "bad-request", "The request is wrong"),
    (OutcomeUnknown, 503, "outcome-unknown", "It may or may not have been done"),
    (StoreUnavailable, 503, "database-away", "The database cannot be reached"),
    (UnreadableDocument, 500, "unreadable", "What is stored cannot be read"),
)
"""The first row that fits counts. Whatever fits none is a fault of ours: 500."""

_DETAILS = {
    "outcome-unknown": "MongoDB did not confirm in time: read it again to see whether it was done, or repeat the request",
    "database-away": "MongoDB could not be reached in time and nothing was changed; try again",
}


def write_problem(resp: Response, status: int, slug: str, title: str, detail: str | None, **more: Any) -> None:
    """Make this response a problem."""
    problem: dict[str, Any] = {"type": f"urn:horae:problem:{slug}", "title": title, "status": status}
    if detail:
        problem["detail"] = detail
    problem |= more
    resp.status = status
    resp.content_type = MEDIA_TYPE
    resp.data = orjson.dumps(problem)
    if status == 503:
        resp.set_header("Retry-After", str(RETRY_AFTER_SECONDS))


def faults_json(faults: tuple[Fault, ...]) -> list[dict[str, str]]:
    """Faults as the outside sees them."""
    return [{"path": f.path, "message": f.message} for f in faults]


def install_error_handlers(app: App[Any, Any]) -> None:
    """Let every error of this application become a problem."""
    app.add_error_handler(Exception, _unexpected)
    for error, *_ in PROBLEMS:
        app.add_error_handler(error, _expected)
    app.set_error_serializer(_from_falcon)


async def _expected(req: Request, resp: Response, exc: Exception, _params: dict[str, Any]) -> None:
    _, status, slug, title = next(row for row in PROBLEMS if isinstance(exc, row[0]))
    if isinstance(exc, InvalidSchedule):
        exc = InvalidInput([Fault(exc.field, exc.message)])
    more: dict[str, Any] = {}
    detail = _DETAILS.get(slug, str(exc))
    if isinstance(exc, InvalidInput):
        more["errors"] = faults_json(exc.faults)
        detail = f"{len(exc.faults)} fault(s); nothing was changed"
    progress = getattr(req.context, "progress", None)
    if progress is not None:  # an import that broke off says how far it came
        more["imported"] = progress.shown()
    if status >= 500:
        more["instance"] = _instance()
        log.warning("request_failed", method=req.method, path=req.path, instance=more["instance"], error=str(exc))
    if isinstance(exc, InProgress):
        resp.set_header("Retry-After", "1")
    write_problem(resp, status, slug, title, detail, **more)


def _instance() -> str:
    """An id for one fault, told outside and logged inside."""
    return f"urn:uuid:{uuid.uuid4()}"


async def _unexpected(req: Request, resp: Response, exc: Exception, _params: dict[str, Any]) -> None:
    instance = _instance()
    log.error("request_crashed", method=req.method, path=req.path, instance=instance, exc_info=exc)
    write_problem(
        resp,
        500,
        "internal",
        "A fault of ours",
        "It is in the log of this node under the instance id",
        instance=instance,
    )


def _from_falcon(_req: Request, resp: Response, exc: falcon.HTTPError) -> None:
    status = falcon.http_status_to_code(exc.status)
    detail = exc.description
    if detail is None and status == 404:
        detail = "there is nothing at this address; /openapi.json lists what there is, /docs shows it"
    if detail is None and status == 405:
        detail = f"this address knows only {dict(exc.headers or {}).get('Allow', 'other methods')}"
    title = exc.title or "Error"
    slug = title.split(" ", 1)[-1].lower().replace(" ", "-")
    write_problem(resp, status, slug, title.split(" ", 1)[-1] if title[:3].isdigit() else title, detail)

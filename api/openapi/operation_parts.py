"""What the operations of `/openapi.json` are built from: parameters, bodies, responses."""

from __future__ import annotations

from typing import Any

Operation = dict[str, Any]
CURSOR = {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,400}$"}
TIME = {"type": "string", "format": "date-time"}


def schema_ref(name: str) -> dict[str, str]:
    """A reference to a component of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


def query_parameter(name: str, schema: dict[str, Any], text: str, example: Any = None) -> Operation:
    """An optional query parameter."""
    parameter = {"name": name, "in": "query", "schema": schema, "description": text}
    return parameter if example is None else {**parameter, "example": example}


def overlap_parameter() -> Operation:
    """How a run by hand meets `overlap: skip`."""
    text = "Of a job with `overlap: skip`: `wait` for the end of the run before it, or be skipped while that runs (`skip`)."
    return query_parameter("overlap", {"type": "string", "enum": ["skip", "wait"], "default": "skip"}, text)


def state_parameter(known: list[str], example: str) -> Operation:
    """The parameter `state`: one or several of these words."""
    schema = {"type": "array", "items": {"type": "string", "enum": known}, "minItems": 1}
    parameter = query_parameter("state", schema, "Only in these states, separated by commas.", [example])
    return {**parameter, "style": "form", "explode": False}


def limit_parameter(default: int, most: int = 500) -> Operation:
    """The parameter `limit`."""
    return query_parameter(
        "limit", {"type": "integer", "minimum": 1, "maximum": most, "default": default}, "The largest number of items."
    )


def cursor_parameter() -> Operation:
    """The parameter `cursor`."""
    return query_parameter("cursor", CURSOR, "The `nextCursor` of the previous page.")


def header_parameter(name: str, schema: dict[str, Any], text: str) -> Operation:
    """An optional request header."""
    return {"name": name, "in": "header", "schema": schema, "description": text}


def if_match_header() -> Operation:
    """The header `If-Match` with the ETag of a job."""
    return header_parameter(
        "If-Match",
        {"type": "string", "pattern": '^("[0-9]{1,15}"|\\*)$'},
        "Change the job only if it still has this ETag; otherwise the response is 412.",
    )


def idempotency_header() -> Operation:
    """The header `Idempotency-Key`."""
    return header_parameter(
        "Idempotency-Key",
        {"type": "string", "pattern": "^[!-~]([ -~]{0,253}[!-~])?$"},
        "Makes the request safe to repeat: for 24 hours, the same request with the same key gets the response of the "
        "first one, and the work is done once. The same key with another body: 422.",
    )


def id_parameter(name: str, example: str) -> Operation:
    """The id of a job or execution in the path."""
    pattern = (
        "^((alert\\.)?[A-Za-z0-9_-]{1,64}|msg\\.[0-9A-HJKMNP-TV-Z]{26})(:[0-9]{13})(:missed|:[0-9a-f]{32})?$"
        if name == "executionId"
        else "^(?!(?:actions|import)$)[A-Za-z0-9_-]{1,64}$"
    )
    return {
        "name": name,
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": pattern},
        "example": example,
    }


def request_body(kinds: list[str], schema: dict[str, Any], examples: dict[str, Any]) -> Operation:
    """A request body of one of these content types. `examples` are by name."""
    shown = {name: {"value": value} for name, value in examples.items()}
    return {"required": True, "content": {kind: {"schema": schema, "examples": shown} for kind in kinds}}


def responses(by_status: dict[int, tuple[str, str | None]], headers: dict[int, list[str]] | None = None) -> Operation:
    """Responses by status: (description, component or None); `[Execution]` is a list. `headers` are names by status.

    Every operation may also answer 414 and a problem.
    """
    rendered: Operation = {}
    for status, (text, model) in by_status.items():
        rendered[str(status)] = {"description": text}
        if model is not None:
            schema = (
                {"type": "array", "items": schema_ref("Execution")} if model == "[Execution]" else schema_ref(model)
            )
            rendered[str(status)]["content"] = {"application/json": {"schema": schema}}
        if headers and status in headers:
            rendered[str(status)]["headers"] = {h: {"schema": {"type": "string"}} for h in headers[status]}
    too_long = {"description": "The URL is too long.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    return {**rendered, "414": too_long, "default": {"$ref": "#/components/responses/Problem"}}

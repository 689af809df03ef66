"""The fields of a request, which jobs and messages have in common: target, body, tags, success codes, auth, queue."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, WithJsonSchema

from cluster.core.documents import strict_json
from cluster.core.documents.json_source import JsonText
from cluster.core.documents.secret_fields import AuthSpec, invalid
from cluster.core.errors import InvalidInput
from cluster.core.execution import templates
from cluster.core.targets import InvalidTarget, check_target


def _target(url: str, info: ValidationInfo) -> str:
    try:
        check_target(url, (info.context or NO_CONTEXT).get("networks", ()))
    except InvalidTarget as exc:
        raise invalid(str(exc)) from exc
    return url


def _tags(tags: list[str]) -> list[str]:
    if len(set(tags)) != len(tags):
        raise invalid("must not contain the same tag twice")
    return tags


def _code(code: Any) -> Any:
    number = isinstance(code, int) and not isinstance(code, bool) and 200 <= code <= 599
    if not number and code not in CLASSES:
        raise invalid("must be a status from 200 to 599, or one of 2xx, 3xx, 4xx, 5xx")
    return code


def _codes(codes: list[int | str]) -> list[int | str]:
    if len(set(codes)) != len(codes):
        raise invalid("must not contain the same status twice")
    return codes


def _body(body: Any, info: ValidationInfo) -> Any:
    if isinstance(body, str) and info.data.get("body_type") == "json":
        body = _json_in(body)
    if info.data.get("templates", True) and (name := templates.unknown_name_in_body(*encode_body(body))) is not None:
        raise invalid(templates.unknown_name_message(name))
    return body


def _json_in(text: str) -> JsonText:
    raw = text.strip(" \t\r\n").encode()
    try:
        strict_json.loads(raw)
    except strict_json.NotJson as exc:
        raise invalid("must hold JSON, because bodyType is json") from exc
    except InvalidInput as exc:
        raise invalid(exc.faults[0].message) from exc
    return JsonText(raw)


def _one_authorization(auth: AuthSpec | None, info: ValidationInfo) -> AuthSpec | None:
    if auth is not None and any(name.lower() == "authorization" for name in info.data.get("headers", ())):
        raise invalid("sets the Authorization header, and headers does too; remove one of them")
    return auth


def check_queue(name: str) -> str:
    """Check the name of a queue. Raises a fault."""
    if not QUEUE_NAME.match(name):
        raise invalid("must have 1 to 64 characters out of A-Z a-z 0-9 _ - . and not start with a dot")
    return name


def _queue(name: str, info: ValidationInfo) -> str:
    if info.data.get("max_per_second") is not None or info.data.get("max_concurrent") is not None:
        raise invalid("must not be combined with maxPerSecond or maxConcurrent: set the limits of the queue instead")
    return check_queue(name)


NO_CONTEXT: dict[str, Any] = {}


QUEUE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}\Z")
CLASSES = ("2xx", "3xx", "4xx", "5xx")
Code = Annotated[
    Any,
    BeforeValidator(_code),
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 200, "maximum": 599}, {"type": "string", "enum": list(CLASSES)}]}
    ),
]


Tag = Annotated[str, Field(min_length=1, max_length=64)]
TargetField = Annotated[str, AfterValidator(_target)]
TagsField = Annotated[list[Tag], AfterValidator(_tags)]
CodesField = Annotated[list[Code], AfterValidator(_codes)]
BodyField = Annotated[Any, AfterValidator(_body)]
AuthField = Annotated[AuthSpec | None, AfterValidator(_one_authorization)]
QueueField = Annotated[str, AfterValidator(_queue)]
"""What a message has in common with a job."""


def encode_body(body: Any) -> tuple[bytes, str]:
    """The bytes to send, and their kind."""
    if body is None:
        return b"", "none"
    if isinstance(body, str):
        return body.encode(), "text"
    if isinstance(body, JsonText):
        return body.text, "json"
    return strict_json.dumps(body), "json"

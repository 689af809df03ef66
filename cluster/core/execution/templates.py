"""Names in bodies and header values that each attempt fills in, such as `{{executionId}}`. Nothing is evaluated.

The values contain no character that JSON or a header would have to escape, so that a plain replacement is safe. A name in
four braces, `{{{{name}}}}`, is sent as `{{name}}`. All other bytes stay as they are. In JSON a name lies within one
string, so it contains no quote; braces of the JSON itself never match.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from cluster.core import instants

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cluster.core.execution.model import Execution, Target

NAMES = ("scheduledAt", "executionId", "jobId", "attempt")
# One try for each run of braces, and none again within it (possessive), so that a long body is read once and fast. Of a
# longer run the last braces count: `{{{attempt}}}` is a brace, a name and a brace.
_PATTERN = r"(?<!\{)(\{{2,}+)(NAME)(\}\}(?:\}\})?)"
_PLAIN = _PATTERN.replace("NAME", "[^{}]*+")
_IN_JSON = _PATTERN.replace("NAME", r'(?:[^{}"\\]++|\\.)*+')
_TEXT = re.compile(_PLAIN, re.DOTALL)
_BYTES = {"text": re.compile(_PLAIN.encode(), re.DOTALL), "json": re.compile(_IN_JSON.encode(), re.DOTALL)}


def unknown_name(text: str) -> str | None:
    """The first unknown name in a text. None if there is none."""
    if "{{" not in text or "}}" not in text:
        return None
    names = (m[2].strip() for m in _TEXT.finditer(text) if not _is_escaped(m))
    return next((name[:64] for name in names if name not in NAMES), None)


def unknown_name_in_body(body: bytes, kind: str) -> str | None:
    """The first unknown name in a body of this kind. None if there is none."""
    if b"{{" not in body or b"}}" not in body:
        return None
    names = (m[2].decode("utf-8", "replace").strip() for m in _BYTES[kind].finditer(body) if not _is_escaped(m))
    return next((name[:64] for name in names if name not in NAMES), None)


def _is_escaped(match: re.Match[str] | re.Match[bytes]) -> bool:
    """Whether the name stands in four braces."""
    return len(match[1]) >= 4 and len(match[3]) == 4


def unknown_name_message(name: str, *, or_none: bool = True) -> str:
    """The fault of an unknown name. `or_none`: the document may say that nothing in it is replaced."""
    allowed = ", ".join(f"{{{{{n}}}}}" for n in NAMES)
    return (
        f"contains the unknown name {{{{{name}}}}}; use {allowed}, or write {{{{{{{{{name}}}}}}}}} to send it as it is"
        + (", or set templates to false" if or_none else "")
    )


def values_of(execution_id: str, job_id: str, due_ms: int, attempt: int) -> dict[str, str]:
    """What the names stand for."""
    return {
        "scheduledAt": instants.format_instant(due_ms),
        "executionId": execution_id,
        "jobId": job_id,
        "attempt": str(attempt),
    }


def _in_text(text: str, values: Mapping[str, str]) -> str:
    def value_of(match: re.Match[str]) -> str:
        opening, name, closing = match.groups()
        if _is_escaped(match):
            return f"{opening[2:]}{name}{closing[2:]}"
        value = values.get(name.strip())
        return match[0] if value is None else f"{opening[2:]}{value}{closing[2:]}"

    return _TEXT.sub(value_of, text)


def fill_in_headers(headers: Iterable[tuple[str, str]], values: Mapping[str, str]) -> list[list[str]]:
    """The headers of a callback, with the values of the execution that it tells."""
    return [[name, _in_text(value, values)] for name, value in headers]


def fill_in(target: Target, execution: Execution, attempt: int) -> Target:
    """The target with the names filled in for one attempt. Secret headers are left unchanged."""
    values = values_of(execution.id, execution.job_id, execution.due_ms, attempt)

    def raw(match: re.Match[bytes]) -> bytes:
        opening, name, closing = match.groups()
        if _is_escaped(match):
            return opening[2:] + name + closing[2:]
        value = values.get(name.strip().decode("utf-8", "replace"))
        return match[0] if value is None else opening[2:] + value.encode() + closing[2:]

    body = _BYTES["json" if target.body_is_json else "text"].sub(raw, target.body)
    headers = tuple((n, v if v in target.secrets else _in_text(v, values)) for n, v in target.headers)
    return replace(target, body=body, headers=headers)

"""Names in bodies and header values that each attempt fills in, such as `{{executionId}}`. Nothing is evaluated.

The values contain no character that JSON or a header would have to escape, so that a plain replacement is safe.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cluster.core import instants

if TYPE_CHECKING:
    from cluster.core.execution.model import Execution, Target

NAMES = ("scheduledAt", "executionId", "jobId", "attempt")
_TEXT = re.compile(r"\{\{([^{}]{0,256})\}\}")
_BYTES = re.compile(rb"\{\{([^{}]{0,256})\}\}")


def unknown_name(text: str) -> str | None:
    """The first unknown name in a text. None if there is none."""
    if "}}" not in text:
        return None
    return next((name.strip()[:64] for name in _TEXT.findall(text) if name.strip() not in NAMES), None)


def unknown_name_in(value: Any) -> str | None:
    """An unknown name in any string of a JSON value, including the names of fields."""
    parts = [value]
    while parts:
        part = parts.pop()
        if isinstance(part, str):
            if "{{" in part and (name := unknown_name(part)) is not None:
                return name
        elif isinstance(part, dict):
            parts.extend(part)
            parts.extend(part.values())
        elif isinstance(part, list):
            parts.extend(part)
    return None


def unknown_name_message(name: str) -> str:
    """The fault of an unknown name."""
    allowed = ", ".join(f"{{{{{n}}}}}" for n in NAMES)
    return f"contains the unknown name {{{{{name}}}}}; use {allowed}"


def fill_in(target: Target, execution: Execution, attempt: int) -> Target:
    """The target with the names filled in for one attempt. Secret headers are left unchanged."""
    values = {
        "scheduledAt": instants.format_instant(execution.due_ms),
        "executionId": execution.id,
        "jobId": execution.job_id,
        "attempt": str(attempt),
    }

    def text(match: re.Match[str]) -> str:
        return values.get(match[1].strip(), match[0])

    def raw(match: re.Match[bytes]) -> bytes:
        value = values.get(match[1].strip().decode("utf-8", "replace"))
        return match[0] if value is None else value.encode()

    body = _BYTES.sub(raw, target.body)
    headers = tuple((n, v if v in target.secrets else _TEXT.sub(text, v)) for n, v in target.headers)
    return replace(target, body=body, headers=headers)

"""Names in bodies and header values that are filled in for each attempt: `{{executionId}}`. Nothing is evaluated.

Every value consists of characters that mean themselves in JSON and in headers, so filling in is replacing.
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
    """The first name that is not known, None if all are."""
    return next((name.strip()[:64] for name in _TEXT.findall(text) if name.strip() not in NAMES), None)


def unknown_name_in(value: Any) -> str | None:
    """The same for every string inside a JSON value, names of fields included."""
    if isinstance(value, str):
        return unknown_name(value) if "{{" in value else None
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list):
        return next((name for part in value if (name := unknown_name_in(part)) is not None), None)
    return None


def unknown_name_message(name: str) -> str:
    """The sentence about a name that is not known."""
    shown = ", ".join(f"{{{{{known}}}}}" for known in NAMES)
    return f"holds {{{{{name}}}}}, which is not known: only {shown} are filled in"


def fill_in(target: Target, execution: Execution, attempt: int) -> Target:
    """The target with the names filled in for one attempt. Secret headers are never looked into."""
    values = {
        "scheduledAt": instants.format_instant(execution.due_ms),
        "executionId": execution.id,
        "jobId": execution.job_id,
        "attempt": str(attempt),
    }

    def text(match: re.Match[str]) -> str:
        return values.get(match[1].strip(), match[0])

    def raw(match: re.Match[bytes]) -> bytes:
        found = values.get(match[1].strip().decode("utf-8", "replace"))
        return match[0] if found is None else found.encode()

    body = _BYTES.sub(raw, target.body)
    headers = tuple((n, v if v in target.secrets else _TEXT.sub(text, v)) for n, v in target.headers)
    return replace(target, body=body, headers=headers)

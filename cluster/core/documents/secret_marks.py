"""Secret values in a job's document: given as `{"secret": "value"}`, shown as `{"secret": true}`.

Whoever sends the mark back keeps what is stored.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

LOCKED_PREFIX = "\0"
"""In front of a secret that this node has no key for: no value that a user may give begins with it."""
NEEDS_KEY = "is a secret, and secrets are only stored encrypted: set HORAE_SECRET_KEY on the nodes first"
SECRET_PLACEHOLDER: dict[str, Any] = {"secret": True}
SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "string"},
        {
            "type": "object",
            "required": ["secret"],
            "additionalProperties": False,
            "properties": {"secret": {"anyOf": [{"type": "string"}, {"const": True}]}},
        },
    ]
}


@dataclass(frozen=True, slots=True)
class SecretValue:
    """A secret as its user gave it."""

    value: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeepSecret:
    """The mark: what is stored stays."""


KEEP_SECRET = KeepSecret()


def parse_secret(value: Any) -> str | SecretValue | KeepSecret | None:
    """A string as it is, a secret or the mark as values; None for anything else."""
    if isinstance(value, str | SecretValue | KeepSecret):
        return value
    if isinstance(value, dict) and list(value) == ["secret"]:
        secret = value["secret"]
        if secret is True:
            return KEEP_SECRET
        if isinstance(secret, str):
            return SecretValue(secret)
    return None

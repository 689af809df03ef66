"""Secret values in a document: written as `{"secret": "value"}`, shown as the placeholder `{"secret": true}`.

A client that sends the placeholder back keeps the stored secret.
"""

from __future__ import annotations

from typing import Any

from cluster.core.job.wanted import KEEP_SECRET, KeepSecret, SecretValue

LOCKED_PREFIX = "\0"
"""The first character of a secret that this node cannot decrypt. No value of a user may start with it."""
NEEDS_KEY = "is a secret, and secrets are stored encrypted only: set HORAE_SECRET_KEY on the nodes first"
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


def parse_secret(value: Any) -> str | SecretValue | KeepSecret | None:
    """A string as it is, a secret or the placeholder as values. None for any other JSON value."""
    if isinstance(value, str | SecretValue | KeepSecret):
        return value
    if isinstance(value, dict) and list(value) == ["secret"]:
        secret = value["secret"]
        if secret is True:
            return KEEP_SECRET
        if isinstance(secret, str):
            return SecretValue(secret)
    return None

"""The parts of a document that may contain secrets: headers, auth, signing secrets."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from cluster.core.documents import secret_marks
from cluster.core.documents.base import Model
from cluster.core.documents.header_rules import HEADER_NAME, HEADER_VALUE, is_reserved
from cluster.core.documents.secret_marks import NEEDS_KEY
from cluster.core.execution import templates
from cluster.core.job.wanted import KeepSecret, SecretValue, WantedAuth

HEADERS_LIMIT = 16 * 1024
MAX_HEADERS = 64
SECRET_LIMIT = 4096
_TOKEN = re.compile(r"[\x21-\x7e]+\Z")
_PRINTABLE = re.compile(r"[^\x00-\x1f\x7f]*\Z")


def invalid(message: str) -> PydanticCustomError:
    """The fault of the value that is validated."""
    return PydanticCustomError("horae", "{message}", {"message": message})


def require_secret_key(info: ValidationInfo) -> None:
    """Raises a fault if this node has no key to store secrets with."""
    if not (info.context or {}).get("can_encrypt", True):
        raise invalid(NEEDS_KEY)


def _header_name(name: str) -> str:
    if not HEADER_NAME.match(name):
        raise invalid("is not a header name: use letters, digits and !#$%&'*+.^_`|~- (RFC 9110)")
    if is_reserved(name):
        raise invalid("is set by Horae or by the connection; remove it")
    return name


def _header_value(value: Any, info: ValidationInfo) -> str | SecretValue | KeepSecret:
    parsed = secret_marks.parse_secret(value)
    if parsed is None:
        raise invalid('must be a string, or {"secret": "..."} for a value that is never shown')
    if isinstance(parsed, KeepSecret):
        return parsed
    if isinstance(parsed, SecretValue):
        require_secret_key(info)
    if not HEADER_VALUE.match(parsed if isinstance(parsed, str) else parsed.value):
        raise invalid("must be printable Latin-1 without spaces at its start or end (RFC 9110)")
    if (
        isinstance(parsed, str)
        and info.data.get("templates", True)
        and (name := templates.unknown_name(parsed)) is not None
    ):
        raise invalid(templates.unknown_name_message(name, or_none="templates" in info.data))
    if isinstance(parsed, SecretValue) and not parsed.value:
        raise invalid("must not be an empty secret")
    return parsed


HeaderValue = Annotated[Any, AfterValidator(_header_value), WithJsonSchema(secret_marks.SCHEMA)]


def _few_headers(headers: Any) -> Any:
    """Refuses many headers before each of them is checked."""
    if isinstance(headers, dict) and len(headers) > MAX_HEADERS:
        raise invalid(f"must have at most {MAX_HEADERS} entries")
    return headers


def _headers(headers: dict[str, Any]) -> dict[str, Any]:
    if len({name.lower() for name in headers}) != len(headers):
        raise invalid("must not contain one name twice; upper and lower case are the same")
    if (
        sum(len(n) + len(getattr(v, "value", v if isinstance(v, str) else "")) for n, v in headers.items())
        > HEADERS_LIMIT
    ):
        raise invalid(f"must have at most {HEADERS_LIMIT} characters in total")
    return headers


Headers = Annotated[
    dict[Annotated[str, AfterValidator(_header_name)], HeaderValue],
    BeforeValidator(_few_headers),
    AfterValidator(_headers),
]


def _secret_text(value: Any, info: ValidationInfo) -> SecretValue | KeepSecret | None:
    parsed = secret_marks.parse_secret(value)
    if value is None:
        return None
    if isinstance(parsed, KeepSecret):
        return parsed
    require_secret_key(info)
    text = parsed.value if isinstance(parsed, SecretValue) else parsed
    if not text or len(text) > SECRET_LIMIT or not _PRINTABLE.match(text):
        raise invalid(f"must be a string of 1 to {SECRET_LIMIT} characters without control characters")
    return SecretValue(text)


SecretText = Annotated[
    Any, AfterValidator(_secret_text), WithJsonSchema({"anyOf": [*secret_marks.SCHEMA["anyOf"], {"type": "null"}]})
]


class AuthSpec(Model):
    """The `Authorization` header: `basic` with username and password, or `bearer` with a token."""

    type: Literal["basic", "bearer"]
    username: str | None = Field(default=None, max_length=256)
    password: SecretText = Field(default=None, description='Never shown: reads as `{"secret": true}`.')
    token: SecretText = Field(default=None, description='Never shown: reads as `{"secret": true}`.')

    @model_validator(mode="after")
    def _has_its_fields(self) -> AuthSpec:
        if self.type == "basic":
            if self.username is None or self.password is None or self.token is not None:
                raise invalid("of type basic must have username and password, and no token")
            if ":" in self.username or not _PRINTABLE.match(self.username):
                raise invalid("must have a username without colons and control characters (RFC 7617)")
        else:
            if self.token is None or self.username is not None or self.password is not None:
                raise invalid("of type bearer must have a token, and no username or password")
            if isinstance(self.token, SecretValue) and not _TOKEN.match(self.token.value):
                raise invalid("must have a token of printable ASCII without spaces (RFC 6750)")
        return self

    def to_wanted(self) -> WantedAuth:
        """The value."""
        secret = self.password if self.type == "basic" else self.token
        return WantedAuth(self.type, self.username or "", secret)


def _signing_secret(value: Any, info: ValidationInfo) -> SecretValue | KeepSecret | None:
    parsed = secret_marks.parse_secret(value)
    if value is None:
        return None
    if isinstance(parsed, KeepSecret):
        return parsed
    require_secret_key(info)
    secret = parsed.value if isinstance(parsed, SecretValue) else parsed or ""
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith("whsec_") or not 24 <= len(key) <= 64:
        raise invalid("must be whsec_ followed by the base64 of 24 to 64 random bytes (Standard Webhooks)")
    return SecretValue(secret)


SigningSecret = Annotated[
    Any,
    AfterValidator(_signing_secret),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": "^whsec_", "maxLength": 128},
                secret_marks.SCHEMA["anyOf"][1],
                {"type": "null"},
            ]
        }
    ),
]

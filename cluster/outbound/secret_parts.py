"""The parts of a secret that are secrets too.

A header is `Bearer token`, `Basic dXNlcjpw...` or `session=token; theme=dark`, and a target that refuses it repeats the
token alone, the name and the password that it has decoded, or one of the values.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MIN_PART = 8
"""A part with fewer letters and digits would turn up by chance."""
MIN_PASSWORD = 4
MAX_PARTS = 16
_BETWEEN = re.compile(r"[\s;,&]+")
_VALUE = re.compile(r"[^=:]*[=:](.+)", re.DOTALL)
_BASIC = re.compile(r"basic[ \t]+([A-Za-z0-9+/_-]+)=*\s*\Z", re.IGNORECASE)


def parts_of(secret: str) -> list[str]:
    """The secret, and its parts that must not be seen either."""
    parts = dict.fromkeys((secret, *_decoded(secret)))
    for part in _pieces(secret):
        if len(parts) < MAX_PARTS and sum(c.isalnum() for c in part) >= MIN_PART:
            parts[part] = None
    return list(parts)


def _pieces(secret: str) -> Iterator[str]:
    """What stands behind the name of a scheme, what stands between separators, and what is given to a name."""
    yield secret.strip().partition(" ")[2].strip()
    for piece in _BETWEEN.split(secret):
        yield piece
        if (named := _VALUE.match(piece)) is not None:
            yield named[1].strip("\"'")


def _decoded(secret: str) -> Iterator[str]:
    """The user and password of `Basic`, and the password alone."""
    encoded = _BASIC.match(secret.strip())
    if encoded is None:
        return
    try:
        raw = base64.urlsafe_b64decode(encoded[1].replace("+", "-").replace("/", "_") + "===")
    except binascii.Error:
        return
    both = raw.decode("utf-8", "replace")
    yield both
    password = both.partition(":")[2]
    if len(password) >= MIN_PASSWORD:
        yield password

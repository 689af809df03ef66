"""Opaque cursors: a position in a fixed order, so that pages neither repeat nor skip an item that stays."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import orjson

from cluster.core.errors import Fault, InvalidInput


def encode(*place: Any) -> str:
    """The cursor of a position, which consists of integers and strings."""
    return base64.urlsafe_b64encode(orjson.dumps(place)).rstrip(b"=").decode()


def decode(cursor: str, kinds: tuple[type, ...]) -> list[Any]:
    """The position of a cursor, whose parts must have these types. Raises `InvalidInput` for any other text."""
    try:
        place = orjson.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError):
        place = None
    if (
        not isinstance(place, list)
        or len(place) != len(kinds)
        or any(type(part) is not kind for part, kind in zip(place, kinds, strict=True))
        or any(isinstance(part, int) and not 0 <= part < 2**53 for part in place)
    ):
        raise InvalidInput([Fault("cursor", "is not a cursor of this API; leave it out to start at the first page")])
    return place

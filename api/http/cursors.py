"""Opaque cursors: the place in an order that never changes, so pages neither repeat nor leave out what stays."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import orjson

from cluster.core.errors import Fault, InvalidInput


def encode(*place: Any) -> str:
    """A cursor for a place: whole numbers and texts."""
    return base64.urlsafe_b64encode(orjson.dumps(place)).rstrip(b"=").decode()


def decode(cursor: str, kinds: tuple[type, ...]) -> list[Any]:
    """The place a cursor names, its parts of these types. Raises `InvalidInput` for what is no cursor of ours."""
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
        raise InvalidInput([Fault("cursor", "is not one that this API gave; begin again without it")])
    return place

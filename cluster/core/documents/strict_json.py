"""Bytes to JSON values, strictly: what would be read one way here and another way elsewhere is refused.

orjson refuses what is no JSON (bad UTF-8, lone surrogates, NaN, infinite numbers). Names that come twice, whole numbers
beyond 64 bits and deep nesting are JSON, so they are faults.
"""

from __future__ import annotations

import json
from typing import Any

import orjson

from cluster.core.errors import CallerError, Fault, InvalidInput

MAX_DEPTH = 64
_LEAST, _MOST = -(2**63), 2**64 - 1


class NotJson(CallerError):
    """The bytes are not JSON; the message says where."""


class _Refused(ValueError):
    pass


def loads(raw: bytes) -> Any:
    """The value. Raises `NotJson` or `InvalidInput`."""
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as exc:
        raise NotJson(f"the body is not JSON: {exc}"[:300]) from exc
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH and is_deeper_than(value, MAX_DEPTH):
        raise InvalidInput([Fault("", f"must not be nested deeper than {MAX_DEPTH} levels")])
    try:
        json.loads(raw, object_pairs_hook=_once, parse_int=_whole, parse_float=_fraction)
    except _Refused as exc:
        raise InvalidInput([Fault("", str(exc))]) from exc
    return value


def dumps(value: Any) -> bytes:
    """JSON without blanks; names stay in their order."""
    return orjson.dumps(value)


def is_deeper_than(value: Any, depth: int) -> bool:
    """Whether a value is nested deeper than `depth` containers."""
    level = [value]
    for _ in range(depth):
        level = [c for v in level if isinstance(v, dict | list) for c in (v.values() if isinstance(v, dict) else v)]
        if not level:
            return False
    return any(isinstance(v, dict | list) for v in level)


def _once(pairs: list[tuple[str, Any]]) -> None:
    if len(pairs) != len({name for name, _ in pairs}):
        names = [name for name, _ in pairs]
        twice = next(n for i, n in enumerate(names) if n in names[:i])
        raise _Refused(f"the name '{twice[:64]}' comes twice in one object; write it once")


def _whole(digits: str) -> None:
    if len(digits) > 20 or not _LEAST <= int(digits) <= _MOST:
        raise _Refused(f"the number {digits[:24]} has more than 64 bits and would lose digits; write it as a string")


def _fraction(_digits: str) -> None:
    return None

"""Bytes to JSON values, strictly: JSON that other parsers would read differently is refused.

orjson refuses invalid JSON (bad UTF-8, lone surrogates, NaN). Duplicate names and deep nesting are valid JSON; here they
are faults. A number of any size is read, as the nearest double if it has more than 64 bits: a field with bounds refuses
it, and a job's body is sent as it was written (`json_source`).
"""

from __future__ import annotations

import json
from typing import Any

import orjson

from cluster.core.documents import json_source
from cluster.core.errors import CallerError, Fault, InvalidInput

MAX_DEPTH = 64


class NotJson(CallerError):
    """The bytes are not JSON. The message says where."""


class _Refused(ValueError):
    pass


def loads(raw: bytes) -> Any:
    """The value. Raises `NotJson` or `InvalidInput`."""
    try:
        value = json_source.loads(raw)
    except ValueError as exc:
        raise NotJson(f"the body is not JSON: {exc}"[:300]) from exc
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH and is_deeper_than(value, MAX_DEPTH):
        raise InvalidInput([Fault("", f"must not have more than {MAX_DEPTH} levels of nesting")])
    try:
        json.loads(raw, object_pairs_hook=_reject_duplicates, parse_int=_accept_number, parse_float=_accept_number)
    except _Refused as exc:
        raise InvalidInput([Fault("", str(exc))]) from exc
    return value


def dumps(value: Any) -> bytes:
    """JSON without spaces. The order of names is kept."""
    return orjson.dumps(value)


def is_deeper_than(value: Any, depth: int) -> bool:
    """Whether a value has more than `depth` levels of containers."""
    level = [value]
    for _ in range(depth):
        level = [c for v in level if isinstance(v, dict | list) for c in (v.values() if isinstance(v, dict) else v)]
        if not level:
            return False
    return any(isinstance(v, dict | list) for v in level)


def _reject_duplicates(pairs: list[tuple[str, Any]]) -> None:
    if len(pairs) != len({name for name, _ in pairs}):
        names = [name for name, _ in pairs]
        twice = next(n for i, n in enumerate(names) if n in names[:i])
        raise _Refused(f"the name '{twice[:64]}' is used twice in one object")


def _accept_number(_digits: str) -> None:
    return None

"""Bytes to JSON values, strictly: JSON that other parsers would read differently is refused.

orjson refuses invalid JSON (bad UTF-8, lone surrogates, NaN). Duplicate names and deep nesting are valid JSON; here they
are faults. A number of any size is read, as the nearest double if it has more than 64 bits: a field with bounds refuses
it, and a job's body is sent as it was written (`json_source`).
"""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

from cluster.core.documents import json_source
from cluster.core.errors import CallerError, Fault, InvalidInput, InvariantBroken

MAX_DEPTH = 64
MAX_CONTAINERS = 50_000
"""The arrays and objects of one document. More of them keep the parser and the garbage collector busy for too long."""
_BRACKETS = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(sorted(set(range(256)) - set(b"[]{}")))
_TOKEN = re.compile(rb'([{}\[\]])|"([^"\\]*(?:\\.[^"\\]*)*)"[ \t\r\n]*(:?)')


class NotJson(CallerError):
    """The bytes are not JSON. The message says where."""


def loads(raw: bytes) -> Any:
    """The value, in time that grows with the length and not faster. Raises `NotJson` or `InvalidInput`."""
    structure = _without_strings(raw)
    containers = structure.count(b"[") + structure.count(b"{")
    if containers > MAX_CONTAINERS:
        if containers != structure.count(b"]") + structure.count(b"}"):
            raise NotJson("the body is not JSON: an array or object has no end")
        raise InvalidInput([Fault("", f"must not have more than {MAX_CONTAINERS} arrays and objects")])
    try:
        value = json_source.loads(raw)
    except ValueError as exc:
        raise NotJson(f"the body is not JSON: {exc}"[:300]) from exc
    if containers > MAX_DEPTH and _is_deep(structure):
        raise InvalidInput([Fault("", f"must not have more than {MAX_DEPTH} levels of nesting")])
    # A value has each name of an object once, so a duplicate name is missing from what is written of the value.
    if structure.count(b":") != _without_strings(_written(value)).count(b":"):
        raise InvalidInput([Fault("", f"the name '{_duplicate_name(raw)[:64]}' is used twice in one object")])
    return value


def dumps(value: Any) -> bytes:
    """JSON without spaces. The order of names is kept."""
    return orjson.dumps(value)


def _without_strings(raw: bytes) -> bytes:
    """The JSON without its strings: brackets, colons, commas, numbers, words and blanks.

    A run of backslashes begins with one that escapes, so that pairs can be removed first; then no escaped quote is left.
    """
    if b"\\" in raw:
        raw = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b"".join(raw.split(b'"')[::2])


def _is_deep(structure: bytes) -> bool:
    """Whether the JSON has more than `MAX_DEPTH` levels. Each turn removes the innermost level."""
    brackets = structure.translate(_BRACKETS, _NO_BRACKETS)
    for _ in range(MAX_DEPTH):
        brackets = brackets.replace(b"[]", b"")
        if not brackets:
            return False
    return True


def _written(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:  # a number that orjson cannot write
        return json.dumps(value).encode()


def _duplicate_name(raw: bytes) -> str:
    """The first name that its object has already. Read in small steps: a caller off the event loop leaves it its turns."""
    names: list[set[str]] = []
    for token in _TOKEN.finditer(raw):
        bracket, text, is_name = token.groups()
        if is_name:
            name = str(orjson.loads(b'"%b"' % text))
            if name in names[-1]:
                return name
            names[-1].add(name)
        elif bracket in (b"{", b"["):
            names.append(set())
        elif bracket is not None:
            names.pop()
    raise InvariantBroken("the names of a document were counted wrongly")

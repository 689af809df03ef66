"""The difference between two JSON documents: each field that differs, by JSON Pointer (RFC 6901), before and after.

Objects are compared member by member, everything else as a whole. A long value is shown by its size and its hash.
"""

from __future__ import annotations

import hashlib
from typing import Any

import orjson

from cluster.core.documents.json_source import JsonText, fragment

LONGEST_SHOWN = 1000
"""Longer values (bytes of JSON) are not shown: a body may have a megabyte."""
Difference = dict[str, Any]


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[Difference]:
    """`[{"path", "before", "after"}]` in the order of the fields; a field that is absent is null."""
    return _of_objects("", before, after)


def difference(path: str, before: Any, after: Any) -> Difference:
    """One of them."""
    return {"path": path, "before": _shown(before), "after": _shown(after)}


def pointer(*names: str) -> str:
    """A JSON Pointer."""
    return "".join("/" + name.replace("~", "~0").replace("/", "~1") for name in names)


def _of_objects(base: str, before: dict[str, Any], after: dict[str, Any]) -> list[Difference]:
    found: list[Difference] = []
    for name in dict.fromkeys([*before, *after]):
        old, new, path = before.get(name), after.get(name), base + pointer(name)
        if isinstance(old, dict) and isinstance(new, dict):
            found += _of_objects(path, old, new)
        elif _text(old) != _text(new):
            found.append(difference(path, old, new))
    return found


def _text(value: Any) -> bytes:
    return orjson.dumps(value, fragment)


def _shown(value: Any) -> Any:
    text = value.text if isinstance(value, JsonText) else _text(value)
    if len(text) > LONGEST_SHOWN:
        return {"bytes": len(text), "sha256": hashlib.sha256(text).hexdigest()}
    return value

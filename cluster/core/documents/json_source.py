"""The source text of JSON values: a job's body is sent with the bytes that its user wrote.

A parsed value has lost them: the digits of long numbers, the escapes, the blanks. So the body travels as `JsonText`, and
a merge patch of a body works on texts. All texts here are valid JSON: `strict_json.loads` has read them before.
Each byte is read once, nearly all of them by code in C.
"""

from __future__ import annotations

import json
import re
from typing import Any, Union

import orjson

MOST_FIELDS = 64
"""A document of a job with more fields is refused anyway, so its body is not searched for."""
_STRING = r'"[^"\\]*(?:\\.[^"\\]*)*"'
_BLANK = r"[ \t\n\r]*"
_MEMBER = re.compile(rf'({_BLANK})({_STRING})({_BLANK}:{_BLANK})({_STRING}|[^"\[{{][^,}}\] \t\n\r]*)?({_BLANK})')
_SPACE = re.compile(_BLANK)
_DECODER = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=str)
"""Finds where a value ends, and makes no number of any digits."""


class JsonText:
    """A JSON value as its source text, without blanks around it. Equal texts are equal."""

    __slots__ = ("text",)

    def __init__(self, text: bytes) -> None:
        self.text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, JsonText) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"JsonText({self.text[:80]!r})"


# A member of an object: its key, and its source: the blank before the name, the name, the colon with its blanks, the value,
# the blank after it. The value is a text, or the members of an object. Plain tuples: a body may have 100,000 members.
_Value = Union[str, "list[_Member]"]
_Member = tuple[str, str, str, str, _Value, str]


_Guide = dict[str, Any]
"""The names whose objects are read member by member, each with the guide of its value."""


def fragment(value: Any) -> orjson.Fragment:
    """The `default` of orjson that writes a `JsonText` as it is. Raises `TypeError` for other values."""
    if isinstance(value, JsonText):
        return orjson.Fragment(value.text)
    raise TypeError(f"{type(value).__name__} is not JSON")


class _Number:
    """A number as it is written."""

    __slots__ = ("digits",)

    def __init__(self, digits: str) -> None:
        self.digits = digits


def canonical(value: Any) -> bytes:
    """JSON that is the same for values that mean the same: without blanks, names in order, each character in one form.

    The numbers of a `JsonText` keep their digits: two that differ only behind the digits of a double mean two things.
    """
    return orjson.dumps(value, _canonical_part, orjson.OPT_SORT_KEYS)


def _canonical_part(value: Any) -> Any:
    if isinstance(value, _Number):
        return orjson.Fragment(value.digits)
    if isinstance(value, JsonText):
        return json.loads(value.text, parse_int=_Number, parse_float=_Number)
    raise TypeError(f"{type(value).__name__} is not JSON")


def keep_body(raw: bytes, value: dict[str, Any]) -> dict[str, Any]:
    """The object that was read from `raw`, with its `body` as `JsonText` unless that is a string or null."""
    body = value.get("body")
    if body is None or isinstance(body, str) or len(value) > MOST_FIELDS:
        return value
    return {**value, "body": JsonText(_value_of(raw.decode(), "body").encode())}


def member(raw: bytes, name: str) -> bytes:
    """The text of a member of the object in `raw`, which has one of this name."""
    return _value_of(raw.decode(), name).encode()


def keep_bodies(raw: bytes, page: dict[str, Any]) -> list[dict[str, Any]]:
    """The `items` of a page of jobs that was read from `raw`, each as `keep_body` returns it."""
    items = elements(_value_of(raw.decode(), "items").encode())
    return [keep_body(text, item) for text, item in zip(items, page["items"], strict=True)]


def elements(raw: bytes) -> list[bytes]:
    """The texts of the elements of an array."""
    text = raw.decode()
    at = _skip(text, _skip(text, 0) + 1)
    texts: list[bytes] = []
    while text[at] != "]":
        _, end = _DECODER.raw_decode(text, at)
        texts.append(text[at:end].encode())
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return texts


def loads(raw: bytes) -> Any:
    """The value of JSON with numbers of any size; one that is too large for a double reads as infinite.

    Raises `ValueError`.
    """
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as exc:
        if "infinity" not in str(exc):
            raise
    try:
        return json.loads(raw.decode(), parse_int=_integer, parse_constant=_refuse_constant)
    except RecursionError as exc:
        raise ValueError("nesting is too deep") from exc


def merge(target: str | None, patch: str) -> str:
    """The text of `target` after a JSON merge patch (RFC 7396). What the patch does not touch keeps its bytes.

    `target`: None if there is none.
    """
    if not patch.startswith("{"):
        return patch
    has_null = "null" in patch
    old = target if target is not None and target.startswith("{") else None
    if old is None and not has_null:
        return patch
    new_value = _DECODER.decode(patch)
    old_value = {} if old is None else _DECODER.decode(old)
    if old is not None and not has_null and old_value.keys().isdisjoint(new_value):
        return _joined(old, patch)
    common = _common(old_value, new_value)
    changes, _ = _scan(patch, 0, _nested(new_value) if has_null else common)
    if old is None:
        return _write(_without_nulls(changes))
    return _write(_merged(_scan(old, 0, common)[0], changes))


def _joined(old: str, new: str) -> str:
    """The members of two objects that share no name."""
    left, right = old[1:-1], new[1:-1]
    if not right.strip():
        return old
    return "{" + left + ("," if left.strip() else "") + right + "}"


def _value_of(text: str, key: str) -> str:
    """The text of one member of an object with few members."""
    at = _skip(text, 0) + 1
    while (match := _MEMBER.match(text, at)) is not None:
        start = match.end(3)
        end = match.end(4) if match[4] is not None else _end_of_container(text, start)
        if _key(match[2]) == key:
            return text[start:end]
        at = _skip(text, end) + 1
    raise KeyError(key)


def _end_of_container(text: str, start: int) -> int:
    """Where an array or object ends that is followed by more. orjson names the place, ten times as fast as json."""
    try:
        orjson.loads(text[start:])
    except orjson.JSONDecodeError as exc:
        if exc.msg.startswith("unexpected content after"):
            return start + len(text[start : start + exc.pos].rstrip(" \t\n\r"))
    return _DECODER.raw_decode(text, start)[1]  # with a number that is too large for orjson


def _key(name: str) -> str:
    """The name without quotes and escapes."""
    return str(json.loads(name)) if "\\" in name else name[1:-1]


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return at if match is None else match.end()


def _scan(text: str, at: int, guide: _Guide) -> tuple[list[_Member], int]:
    """The members of the object that begins at `at`, and where it ends."""
    at += 1
    members: list[_Member] = []
    if text[end := _skip(text, at)] == "}":
        return members, end + 1
    while (match := _MEMBER.match(text, at)) is not None:
        lead, name, colon, scalar, tail = match.groups()
        key = name[1:-1] if "\\" not in name else _key(name)
        end = match.end()
        if scalar is not None:
            members.append((key, lead, name, colon, scalar, tail))
        else:
            value: _Value
            if text[end] == "{" and (inner := guide.get(key)) is not None:
                value, after = _scan(text, end, inner)
            else:
                after = _DECODER.raw_decode(text, end)[1]
                value = text[end:after]
            end = _skip(text, after)
            members.append((key, lead, name, colon, value, text[after:end]))
        at = end + 1
        if text[end] == "}":
            break
    return members, at


def _common(old: dict[str, Any], new: dict[str, Any]) -> _Guide:
    """The names that are objects in both."""
    return {
        key: _common(old[key], value)
        for key, value in new.items()
        if isinstance(value, dict) and isinstance(old.get(key), dict)
    }


def _nested(value: dict[str, Any]) -> _Guide:
    """All names that are objects."""
    return {key: _nested(inner) for key, inner in value.items() if isinstance(inner, dict)}


def _merged(old: list[_Member], new: list[_Member]) -> list[_Member]:
    wanted = {m[0]: m for m in new}
    merged: list[_Member] = []
    for member in old:
        key, lead, name, colon, old_value, tail = member
        change = wanted.pop(key, None)
        if change is None:
            merged.append(member)
            continue
        value = change[4]
        if isinstance(value, list):
            value = _merged(old_value, value) if isinstance(old_value, list) else _without_nulls(value)
        if value != "null":
            merged.append((key, lead, name, colon, value, tail))
    for added in _without_nulls(list(wanted.values())):
        if not merged:
            merged.append(added)
            continue
        # The new member stands like the last one: the blank before the closing brace stays there.
        key, lead, name, colon, value, tail = merged[-1]
        merged[-1] = (key, lead, name, colon, value, "")
        merged.append((added[0], lead, added[2], colon, added[4], tail))
    return merged


def _without_nulls(members: list[_Member]) -> list[_Member]:
    return [
        (key, lead, name, colon, _without_nulls(value) if isinstance(value, list) else value, tail)
        for key, lead, name, colon, value, tail in members
        if value != "null"
    ]


def _write(members: list[_Member]) -> str:
    parts = [
        f"{lead}{name}{colon}{value if isinstance(value, str) else _write(value)}{tail}"
        for _, lead, name, colon, value, tail in members
    ]
    return "{" + ",".join(parts) + "}"


def _integer(digits: str) -> float | int:
    return int(digits) if len(digits) <= 20 else float(digits)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")

"""Numbers as they were written: a job's body that passes through YAML keeps its digits."""

from __future__ import annotations

import json
import re
from typing import Any, Self

import orjson

from cluster.core.documents.json_source import fragment

_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?\Z", re.ASCII)
_MOST_DIGITS = 18
"""A whole number with so many digits has 64 bits."""


class Digits(float):
    """A number with its text. Two of them are equal if they are written in the same way."""

    def __new__(cls, text: str) -> Self:
        """The number in a text. Raises `ValueError` for one that JSON has not."""
        if not _NUMBER.match(text):
            raise ValueError(f"{text[:40]} is no number that JSON has")
        return super().__new__(cls, text)

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def __getnewargs__(self) -> tuple[str]:  # type: ignore[override]
        """What a copy is made of."""
        return (self.text,)

    def __eq__(self, other: object) -> bool:
        return self.text == other.text if isinstance(other, Digits) else super().__eq__(other)

    def __hash__(self) -> int:
        return super().__hash__()


def whole(text: str) -> int | Digits:
    """A whole number; a long one, or a negative zero, with its text."""
    number = Digits(text)
    return int(text) if len(text) <= _MOST_DIGITS and text != "-0" else number


def with_digits(value: Any) -> Any:
    """A JSON value in which bodies may be texts, as plain objects, and its numbers as they were written."""
    return json.loads(orjson.dumps(value, _written), parse_float=Digits, parse_int=whole)


def json_of(value: Any) -> bytes:
    """JSON with numbers as they were written."""
    return orjson.dumps(value, _written)


def _written(value: Any) -> Any:
    return orjson.Fragment(value.text) if isinstance(value, Digits) else fragment(value)

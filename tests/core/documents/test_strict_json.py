"""JSON is read exactly or refused."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.core.documents import strict_json
from cluster.core.errors import InvalidInput

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_any_json_is_read_as_it_was_written(value: Any) -> None:
    """JSON from orjson and from Python's json reads as the same value."""
    assert strict_json.loads(orjson.dumps(value)) == value
    assert strict_json.loads(json.dumps(value).encode()) == value


@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    """No bytes raise any other error than the two for invalid input."""
    with contextlib.suppress(strict_json.NotJson, InvalidInput):
        strict_json.loads(raw)


def test_json_that_parsers_read_differently_is_refused() -> None:
    """Duplicate names, numbers of more than 64 bits and deep nesting are faults."""
    for raw in (b'{"a":1,"a":1}', b'[{"b":{"a":1,"a":2}}]', b"18446744073709551616", b"-9223372036854775809"):
        with pytest.raises(InvalidInput):
            strict_json.loads(raw)
    assert strict_json.loads(b"18446744073709551615") == 2**64 - 1
    assert strict_json.loads(b"[" * 64 + b"]" * 64) is not None
    with pytest.raises(InvalidInput):
        strict_json.loads(b"[" * 65 + b"]" * 65)

"""JSON is read exactly or refused."""

from __future__ import annotations

import contextlib
import json
import math
import time
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


class _Twice(Exception):
    pass


def _no_name_twice(pairs: list[tuple[str, Any]]) -> None:
    if len(dict(pairs)) != len(pairs):
        raise _Twice


FRAGMENTS = st.sampled_from(
    ["{", "}", "[", "]", ":", ",", '"a"', '"b"', '"\\""', '"\\\\"', '"{:["', '"\\u003a"', "1", "-0.5e-3", "true", " "]
)
OBJECTS = st.recursive(
    st.sampled_from(["1", '"x:1"', '"\\"{"', "[]", "null", '"\\\\"']),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda v: f"[{','.join(v)}]")
        | st.lists(
            st.tuples(st.sampled_from(['"a"', '"b"', '"\\u0061"', '"\\""', '"\\\\"', '"a:"']), inner), max_size=4
        ).map(lambda v: "{" + ", ".join(f"{n} : {x}" for n, x in v) + "}")
    ),
    max_leaves=10,
)


@given(OBJECTS | st.lists(FRAGMENTS, max_size=12).map("".join))
def test_a_name_is_refused_exactly_where_an_object_has_it_twice(text: str) -> None:
    """As a parser that keeps all pairs finds it, whatever strings contain and however names are escaped."""
    try:
        json.loads(text, object_pairs_hook=_no_name_twice)
        twice = False
    except _Twice:
        twice = True
    except ValueError:
        twice = False
        with pytest.raises(strict_json.NotJson):
            strict_json.loads(text.encode())
        return
    if twice:
        with pytest.raises(InvalidInput, match="is used twice"):
            strict_json.loads(text.encode())
    else:
        assert strict_json.loads(text.encode()) == json.loads(text)


def test_a_name_twice_among_many_is_found_in_one_pass() -> None:
    """One double at the end of 100,000 names, in seconds of a processor that the machine's other work does not count for."""
    raw = b"{" + b",".join(b'"%06d":1' % i for i in range(90_000)) + b',"000000":1}'
    began = time.process_time()
    with pytest.raises(InvalidInput, match="'000000' is used twice"):
        strict_json.loads(raw)
    assert time.process_time() - began < 2


def test_a_document_has_a_bounded_number_of_arrays_and_objects() -> None:
    """One more is refused; brackets in strings do not count."""
    most = strict_json.MAX_CONTAINERS
    assert strict_json.loads(b"[" + b",".join([b"[]"] * (most - 1)) + b"]")
    assert strict_json.loads(b'["' + b"[{" * most + b'"]')
    with pytest.raises(InvalidInput, match="arrays and objects"):
        strict_json.loads(b"[" + b",".join([b"[]"] * most) + b"]")


def test_json_that_parsers_read_differently_is_refused() -> None:
    """Duplicate names and deep nesting are faults."""
    for raw in (b'{"a":1,"a":1}', b'[{"b":{"a":1,"a":2}}]'):
        with pytest.raises(InvalidInput):
            strict_json.loads(raw)
    assert strict_json.loads(b"18446744073709551615") == 2**64 - 1
    assert strict_json.loads(b"[" * 64 + b"]" * 64) is not None
    with pytest.raises(InvalidInput):
        strict_json.loads(b"[" * 65 + b"]" * 65)


def test_numbers_of_any_size_are_read() -> None:
    """As the nearest double; one that is too large for a double is infinite, which no field with bounds accepts."""
    assert strict_json.loads(b"18446744073709551616") == 2.0**64
    assert strict_json.loads(b'{"a":[-9223372036854775809, 7]}') == {"a": [-(2.0**63), 7]}
    long = b'{"n":1e400,"m":[' + b"1" * 5000 + b'],"k":3}'
    assert strict_json.loads(long) == {"n": math.inf, "m": [math.inf], "k": 3}
    for wrong in (b"[1e400, NaN]", b"[1e400, -Infinity]", b"[1e400", b'[1e400,"\xff"]', b"[1e400," + b"[" * 40_000):
        with pytest.raises(strict_json.NotJson):
            strict_json.loads(wrong)

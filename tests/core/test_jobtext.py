"""Reading and writing jobs and JSON: nothing is lost, nothing is guessed."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.core import instants
from cluster.core.documents import strict_json
from cluster.core.documents.job import JobSpec
from cluster.core.documents.job_json import apply_patch, job_document, merge_patch, read_job
from cluster.core.errors import Fault, InvalidInput

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
    """What orjson or Python's json writes is read back as the same value."""
    assert strict_json.loads(orjson.dumps(value)) == value
    assert strict_json.loads(json.dumps(value).encode()) == value


ALERTS = st.none() | st.fixed_dictionaries(
    {"channels": st.just(["a", "b-2"]), "onDead": st.just(True)},
    optional={"afterFailures": st.integers(1, 100), "onMissed": st.booleans(), "remindAfterSeconds": st.none()},
)


@given(body=JSON, name=st.none() | TEXT, tags=st.lists(TEXT.filter(bool), max_size=4, unique=True), alerts=ALERTS)
def test_a_definition_reads_as_it_was_written(body: Any, name: str | None, tags: list[str], alerts: Any) -> None:
    """A document made of a definition defines the same job again."""
    value = {
        "schedule": "@daily",
        "api": "https://a.example/",
        "body": body,
        "name": name,
        "tags": tags,
        "alerts": alerts,
    }
    first = read_job(value, {}).resolve(None)
    assert apply_patch(first, {}, {}).resolve(first) == first
    assert job_document(first)["body"] == body


@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    """No bytes lead to another error than the two that say what is wrong."""
    with contextlib.suppress(strict_json.NotJson, InvalidInput):
        strict_json.loads(raw)


def test_what_would_lose_something_is_refused() -> None:
    """Names that come twice, numbers beyond 64 bits and deep nesting are faults."""
    for raw in (b'{"a":1,"a":1}', b'[{"b":{"a":1,"a":2}}]', b"18446744073709551616", b"-9223372036854775809"):
        with pytest.raises(InvalidInput):
            strict_json.loads(raw)
    assert strict_json.loads(b"18446744073709551615") == 2**64 - 1
    assert strict_json.loads(b"[" * 64 + b"]" * 64) is not None
    with pytest.raises(InvalidInput):
        strict_json.loads(b"[" * 65 + b"]" * 65)


def test_merge_patch_examples() -> None:
    """The examples of RFC 7396, appendix A."""
    for target, patch, result in (
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ):
        assert merge_patch(target, patch) == result


@given(st.integers(0, instants.LATEST_MS - 1))
def test_instants_read_as_they_were_written(ms: int) -> None:
    """Every ms survives being written and read, in UTC and in a zone."""
    assert instants.parse_instant(instants.format_instant(ms)) == ms


def test_times_need_their_offset() -> None:
    """A time without an offset, or no time at all, is refused; fractions are cut to ms."""
    for text in ("2026-12-01T10:00:00", "2026-12-01", "2026-13-01T10:00:00Z", "now", "1969-12-31T23:59:59Z", ""):
        with pytest.raises(ValueError, match=r"must|no time"):
            instants.parse_instant(text)
    assert instants.parse_instant("2026-12-01T11:00:00.1239+01:00") == instants.parse_instant(
        "2026-12-01T10:00:00.123Z"
    )


def test_numbers_and_text_are_never_taken_for_each_other() -> None:
    """A value of another type is a fault, for every field of the model."""
    odd: list[Any] = ["x", 1, 1.5, True, [], {}, None, [1], {"a": 1}]
    for name, field in JobSpec.model_fields.items():
        if field.annotation is Any:
            continue
        alias = field.alias or name
        refused = 0
        elsewhere: list[Fault] = []
        for value in odd:
            try:
                read_job({"schedule": "@daily", "api": "https://a.example/", alias: value}, {})
            except InvalidInput as exc:
                elsewhere += [f for f in exc.faults if not f.path.startswith(alias)]
                refused += 1
        assert refused >= 5, alias
        assert elsewhere == []

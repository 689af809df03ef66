"""Jobs to JSON and back, and merge patches."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from cluster.core.documents.job_json import apply_patch, job_document, merge_patch, read_job
from cluster.core.documents.json_source import fragment

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


ALERTS = st.none() | st.fixed_dictionaries(
    {"channels": st.just(["a", "b-2"]), "onDead": st.just(True)},
    optional={"afterFailures": st.integers(1, 100), "onMissed": st.booleans(), "remindAfterSeconds": st.none()},
)


@given(body=JSON, name=st.none() | TEXT, tags=st.lists(TEXT.filter(bool), max_size=4, unique=True), alerts=ALERTS)
def test_a_definition_reads_as_it_was_written(body: Any, name: str | None, tags: list[str], alerts: Any) -> None:
    """The document of a definition reads as the same definition."""
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
    assert orjson.loads(orjson.dumps(job_document(first)["body"], fragment)) == body


def test_merge_patches_follow_rfc_7396() -> None:
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

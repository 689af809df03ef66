"""Bodies keep the bytes that were given, also under a merge patch."""

from __future__ import annotations

import json
import time
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.core.documents import json_source, strict_json
from cluster.core.documents.job_json import merge_patch
from cluster.core.documents.json_source import JsonText, fragment, keep_bodies, keep_body, merge

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=10
)
STYLES = st.sampled_from([{}, {"indent": 2}, {"separators": (" ,\t", "\r\n: ")}, {"ensure_ascii": False}])


@given(JSON, STYLES, st.dictionaries(TEXT, JSON, max_size=2))
def test_the_text_of_a_body_is_found_in_its_document(body: Any, style: dict[str, Any], others: dict[str, Any]) -> None:
    """Wherever it stands, however it is written, and whatever its name is escaped to."""
    text = json.dumps(body, **style)
    before = "".join(f"{json.dumps(n, **style)} : {json.dumps(v, **style)}," for n, v in others.items() if n != "body")
    for name in ('"body"', '"b\\u006fdy"'):
        raw = f"\n{{ {before} {name}:\t{text} ,\n{json.dumps('last ' + name)}: {text} }} ".encode()
        kept = keep_body(raw, strict_json.loads(raw))["body"]
        assert kept == (body if body is None or isinstance(body, str) else JsonText(text.encode()))


@given(JSON, JSON, STYLES, STYLES)
def test_a_merged_text_means_what_the_merged_values_mean(
    target: Any, patch: Any, style: dict[str, Any], other: dict[str, Any]
) -> None:
    """RFC 7396 holds for texts as for values."""
    merged = merge(json.dumps(target, **style), json.dumps(patch, **other))
    assert json.loads(merged) == merge_patch(target, patch)
    assert json.loads(merge(None, json.dumps(patch, **other))) == merge_patch(None, patch)


@pytest.mark.parametrize(
    ("target", "patch", "merged"),
    [
        ('{ "a" : 1.10,\n  "b": 1E2 }', '{"c": 0.30}', '{ "a" : 1.10,\n  "b": 1E2 ,"c": 0.30}'),
        ('{ "a" : 1.10,\n  "b": 1E2 }', '{"b": 12345678901234567890.5}', '{ "a" : 1.10,\n  "b": 12345678901234567890.5 }'),
        ('{ "a" : 1.10, "b": {"x": -0, "y": "\\/" } }', '{"b":{"x":null}}', '{ "a" : 1.10, "b": { "y": "\\/" } }'),
        ('{"a":1.0}', "{ }", '{"a":1.0}'),
        ("[1.0, 2]", '{"a" : {"b" : 1.00}}', '{"a" : {"b" : 1.00}}'),
        ("[1.0, 2]", "[ 1e400 ]", "[ 1e400 ]"),
    ],
)  # fmt: skip
def test_what_a_patch_does_not_touch_keeps_its_bytes(target: str, patch: str, merged: str) -> None:
    """Digits, order, escapes and blanks, on both sides."""
    assert merge(target, patch) == merged


def test_pages_of_jobs_keep_their_bodies() -> None:
    """Each item of a page by itself."""
    raw = b'{"nextCursor": null, "items" : [{"jobId":"a","body": 1.0}, {"jobId":"b","body":null} , {"body":[ 1 ]}]}'
    bodies = [item["body"] for item in keep_bodies(raw, orjson.loads(raw))]
    assert bodies == [JsonText(b"1.0"), None, JsonText(b"[ 1 ]")]
    assert orjson.dumps(bodies, fragment) == b"[1.0,null,[ 1 ]]"
    assert json_source.elements(b" [ ] ") == []


def test_the_worst_megabyte_is_searched_in_less_than_a_tenth_of_a_second() -> None:
    """Numbers, escapes and nesting of 1 MiB cost what their bytes cost."""
    for body in (
        b"[" + b"1," * 520_000 + b"1]",
        b"[" + b'"\\u0041",' * 110_000 + b"1]",
        b"[" + b"{}," * 340_000 + b"1]",
    ):
        raw = b'{"x":' + body[:100_000].rpartition(b",")[0] + b'],"body":' + body + b"}"
        value = orjson.loads(raw)
        began = time.process_time()
        kept = keep_body(raw, value)["body"]
        assert time.process_time() - began < 0.1
        assert kept == JsonText(body)

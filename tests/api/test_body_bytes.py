"""The bytes of a body arrive as they were given, whichever way the job was made or changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import orjson
import pytest

from tests.support.api_client import TARGET
from tests.support.engine import worker
from tests.support.workers import run_dry

if TYPE_CHECKING:
    from tests.support.api_client import Api

BODIES = [
    b"12345678901234567.89",
    b"123456789012345678901234567890",
    b"-" + b"9" * 5000,
    b"1e400",
    b"-0",
    b'{ "b" : 1.10,\r\n\t"a":[1E+2, 0.0000001 ,100000000000000000000000.0 ]\n}',
    b'{"u":"\\u00e9\\/\\ud83d\\ude00\\u0000", "\\u0061":"\xc3\xa9"}',
    b'["{{nope", "}}", {"a":{"b":{"c":"{{x"}}}]',
    b'{"":{"":{"":"{{"}}}',
]
TYPES = {"PATCH": "application/merge-patch+json", "IMPORT": "application/x-ndjson"}


async def sent(api: Api, job_id: str) -> httpx.Request:
    """The request that the job makes when it is run by hand."""
    requests: list[httpx.Request] = []

    def target(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(200)

    assert (await api.call("POST", f"/jobs/{job_id}/trigger")).status_code == 202
    await run_dry(worker(api.db, target))
    (request,) = requests
    return request


async def write(api: Api, method: str, text: bytes, job_id: str = "j") -> None:
    """Make or change the job by one of the ways."""
    start = b'{"schedule":"@daily", "api":"' + TARGET.encode() + b'", "body" : '
    if method == "POST":
        answer = await api.call("POST", "/jobs", start + text + b', "jobId":"' + job_id.encode() + b'"}')
    elif method == "PUT":
        answer = await api.call("PUT", f"/jobs/{job_id}", start + text + b"}")
    elif method == "PATCH":
        await api.call("PUT", f"/jobs/{job_id}", {"schedule": "@daily", "api": TARGET, "body": "old"})
        answer = await api.call("PATCH", f"/jobs/{job_id}", b'{"body":' + text + b"}", Content_Type=TYPES[method])
    else:
        line = start + text + b', "jobId":"' + job_id.encode() + b'"}\n'
        answer = await api.call("POST", "/jobs/import", line, Content_Type=TYPES[method])
        assert answer.json["failed"] == 0, answer.json
    assert answer.status_code in (200, 201), answer.text


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "IMPORT"])
async def test_a_body_arrives_with_the_bytes_that_were_given(api: Api, method: str) -> None:
    """Numbers of any length, order, escapes, blanks; and GET shows the same bytes."""
    for number, text in enumerate(BODIES):
        one_line = method == "IMPORT" and b"\n" in text
        await write(
            api, method, orjson.dumps(text.decode()) + b',"bodyType":"json"' if one_line else text, f"j{number}"
        )
        request = await sent(api, f"j{number}")
        assert request.content == text
        assert request.headers["content-type"] == "application/json"
        shown = await api.call("GET", f"/jobs/j{number}")
        assert b'"body":' + text + b"," in shown.content
        listed = await api.call("GET", "/jobs?limit=1")
        assert text in listed.content


async def test_a_patch_of_another_field_leaves_the_body_alone(api: Api) -> None:
    """And a patch of one member of it leaves the others alone."""
    text = b'{ "n" : 1.10, "keep":12345678901234567.89 , "s":"\\/" }'
    await write(api, "POST", text)
    await api.call("PATCH", "/jobs/j", {"name": "x"}, Content_Type=TYPES["PATCH"])
    assert (await sent(api, "j")).content == text
    await api.call("PATCH", "/jobs/j", b'{"body":{"n": 2.50}}', Content_Type=TYPES["PATCH"])
    assert (await sent(api, "j")).content == text.replace(b"1.10", b"2.50")


async def test_an_equal_body_in_other_bytes_is_a_change_and_the_same_bytes_are_none(api: Api) -> None:
    """The revision says so."""
    revisions = []
    for text in (b'{"a":1}', b'{"a":1}', b'{"a": 1}', b'{"a":1.0}'):
        await write(api, "PUT", text)
        revisions.append((await api.call("GET", "/jobs/j")).json["revision"])
    assert revisions == [1, 1, 2, 3]


async def test_a_template_changes_its_own_bytes_only(api: Api) -> None:
    """Everything around a name stays as it was given; a name in four braces is sent in two."""
    await write(
        api, "POST", b'{"n": 1.10, "id":"{{ jobId }}", "lit":"${{{{ secrets.X }}}}{{{{jobId}}}}","e":"\\u007b{jobId}}"}'
    )
    want = b'{"n": 1.10, "id":"j", "lit":"${{ secrets.X }}{{jobId}}","e":"\\u007b{jobId}}"}'
    assert (await sent(api, "j")).content == want


@pytest.mark.parametrize(
    ("fields", "body", "header"),
    [
        ({"body": "{{{{name}}}} {{jobId}}", "headers": {"X-T": "{{{{a}}}}"}}, b"{{name}} j", "{{a}}"),
        ({"body": "{{name}} {{jobId}}", "headers": {"X-T": "{{a}}"}, "templates": False}, b"{{name}} {{jobId}}", "{{a}}"),
        ({"body": ["{{{{n}}}}"], "headers": {"X-T": "{{jobId}}"}, "templates": False}, b'["{{{{n}}}}"]', "{{jobId}}"),
        ({"body": {"a": {"b": "{{{jobId}}}"}}, "headers": {"X-T": "x"}}, b'{"a":{"b":"{j}"}}', "x"),
    ],
)  # fmt: skip
async def test_literal_braces_can_be_sent(api: Api, fields: dict[str, Any], body: bytes, header: str) -> None:
    """By four braces, or for the whole job by `templates`; the field is read back and can be patched."""
    await api.make(jobId="j", **fields)
    request = await sent(api, "j")
    assert (request.content, request.headers["x-t"]) == (body, header)
    shown = (await api.call("GET", "/jobs/j")).json
    assert (shown["body"], shown["templates"]) == (fields["body"], fields.get("templates", True))


async def test_an_unknown_name_is_refused_with_the_ways_out(api: Api) -> None:
    """The sentence names the escape and the field; so does a patch that turns the templates on."""
    for fields in ({"body": {"a": "{{name}}"}}, {"headers": {"X": "{{name}}"}}):
        refused = await api.call("POST", "/jobs", {"schedule": "@daily", "api": TARGET, **fields})
        assert refused.status_code == 422
        (error,) = refused.json["errors"]
        assert "{{{{name}}}}" in error["message"]
        assert "templates" in error["message"]
    await api.make(jobId="j", body="{{name}}", templates=False)
    refused = await api.call("PATCH", "/jobs/j", {"templates": True}, Content_Type=TYPES["PATCH"])
    assert [e["path"] for e in refused.json["errors"]] == ["body"]
    other = orjson.dumps({"body": "{{jobId}}", "templates": None})
    assert (await api.call("PATCH", "/jobs/j", other, Content_Type=TYPES["PATCH"])).status_code == 200


async def test_json_in_a_string_must_be_json(api: Api) -> None:
    """Refused with its field; without a bodyType the string is text."""
    for wrong in ("{", "", "[1,]", '{"a":1,"a":2}', "{{jobId}}"):
        refused = await api.call(
            "POST", "/jobs", {"schedule": "@daily", "api": TARGET, "body": wrong, "bodyType": "json"}
        )
        assert [e["path"] for e in refused.json["errors"]] == ["body"], wrong
    await api.make(jobId="j", body=' {"a":\n1.0} ', bodyType="json")
    assert (await sent(api, "j")).content == b'{"a":\n1.0}'
    await api.call("PATCH", "/jobs/j", b'{"body": {"b": 2.0}}', Content_Type=TYPES["PATCH"])
    assert (await sent(api, "j")).content == b'{"a":\n1.0,"b": 2.0}'

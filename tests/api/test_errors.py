"""Errors, keys, health, and what a browser must not be able to do."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import httpx
from pydantic import SecretStr

from api.http.context import ApiSettings
from cluster.core.documents.job import BODY_LIMIT
from cluster.store import jobs
from cluster.store.mongo.client import Database
from config.settings import ApiKey
from tests.support.api_client import RULES, job, serve

if TYPE_CHECKING:
    import pytest

    from tests.support.api_client import Api


async def test_every_error_is_a_problem(api: Api) -> None:
    """Not JSON, unknown address, wrong method, wrong type, too long: each has its status and the same shape."""
    for method, path, body, headers, status in (
        ("POST", "/jobs", b"{bad", {}, 400),
        ("POST", "/jobs", b"", {"Content-Type": "application/json"}, 400),
        ("POST", "/jobs", b"\xff", {}, 400),
        ("POST", "/jobs", b"[" * 2000, {}, 400),
        ("POST", "/jobs", b"NaN", {}, 400),
        ("POST", "/jobs", b"[]", {}, 422),
        (
            "POST",
            "/jobs",
            b'{"schedule":"@daily","api":"https://a.org","body":' + b"[" * 80 + b"]" * 80 + b"}",
            {},
            422,
        ),
        (
            "POST",
            "/jobs",
            b'{"schedule":"@daily","api":"https://a.org","timeoutSeconds":99999999999999999999}',
            {},
            422,
        ),
        ("POST", "/jobs", b"a=b", {"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ("POST", "/jobs", b'"' + b"x" * BODY_LIMIT + b'"', {}, 413),
        ("GET", "/nope", None, {}, 404),
        ("PUT", "/jobs", job(), {}, 405),
        ("PUT", "/jobs/import", job(), {}, 405),
    ):
        answer = await api.call(method, path, body, **headers)
        assert answer.status_code == status, (method, path, str(body)[:60])
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json["status"] == status
        assert answer.json["type"].startswith("urn:horae:problem:")
        assert answer.json["title"]


async def test_an_internal_error_reveals_no_internals(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected exception is 500 with an instance id and without its text."""

    async def broken(*_: object) -> None:
        raise RuntimeError("inside")

    monkeypatch.setattr(jobs, "get", broken)
    answer = await api.call("GET", "/jobs/a")
    assert answer.status_code == 500
    assert answer.json["instance"].startswith("urn:uuid:")
    assert "inside" not in answer.text


async def test_an_unavailable_database_is_503() -> None:
    """Within the deadline of the API, with Retry-After; an import reports what it has stored."""
    db = Database.open("mongodb://127.0.0.1:1/?replicaSet=x", "x", "x")
    keys = (ApiKey("x", SecretStr("x-key-0123456789"), "admin"),)
    async for found in serve(db, ready=False):
        assert (await found.call("GET", "/jobs/a")).status_code == 503
    async for api in serve(db, ApiSettings(keys, RULES), ready=False):
        api.headers["Authorization"] = "Bearer x-key-0123456789"
        started = time.monotonic()
        answers = await asyncio.gather(
            api.call("GET", "/jobs/a"),
            api.call("POST", "/jobs", job()),
            api.call("GET", "/cluster"),
            api.call("POST", "/jobs/a/trigger"),
            api.call("POST", "/jobs/import", job(), **{"Content-Type": "application/x-ndjson"}),
        )
        assert time.monotonic() - started < 6
        for answer in answers:
            assert answer.status_code == 503
            assert answer.headers["Retry-After"] == "2"
        assert answers[-1].json["imported"]["created"] == 0
        assert (await api.call("GET", "/healthz")).status_code == 200
        assert (await api.call("GET", "/readyz")).status_code == 503
    await db.close()


async def test_each_scope_allows_what_it_says(database: Database) -> None:
    """No key or a wrong one: 401; beyond the scope: 403; health needs no key."""
    keys = tuple(ApiKey(s, SecretStr(f"{s}-key-0123456789"), s) for s in ("read", "write", "admin"))
    async for api in serve(database, ApiSettings(keys, RULES)):

        async def status(method: str, path: str, body: object = None, key: str | None = None, *, api: Api = api) -> int:
            headers = {} if key is None else {"Authorization": f"Bearer {key}"}
            return (await api.call(method, path, body, **headers)).status_code

        for key in (None, "", "wrong", "read", "write-key-012345678", "\xe4"):
            assert await status("GET", "/jobs", key=key) == 401
        assert await status("GET", "/healthz") == 200
        assert await status("GET", "/readyz") == 200
        assert await status("GET", "/nope") == 401
        assert await status("GET", "/jobs", key="read-key-0123456789") == 200
        assert await status("POST", "/jobs", job(), "read-key-0123456789") == 403
        assert await status("POST", "/jobs", job(jobId="a"), "write-key-0123456789") == 201
        assert await status("DELETE", "/jobs/a", None, "read-key-0123456789") == 403
        assert await status("DELETE", "/jobs/a", None, "admin-key-0123456789") == 204
        preview = {"schedule": "@daily"}
        assert await status("POST", "/schedules/preview", preview, "read-key-0123456789") == 200


async def test_without_keys_foreign_web_pages_are_refused(api: Api) -> None:
    """A foreign Origin, or a Host that is not this machine (DNS rebinding)."""
    assert (await api.call("GET", "/jobs", Origin="https://evil.example")).status_code == 403
    assert (await api.call("POST", "/jobs/a/pause", Origin="null")).status_code == 403
    assert (await api.call("GET", "/jobs", Origin="http://localhost")).status_code == 200
    evil = await api._conductor.simulate_get("/jobs", host="evil.example")
    assert evil.status_code == 403


def test_head_is_get_without_a_body(node_url: str) -> None:
    """The headers of GET, for existing and unknown resources."""
    made = httpx.put(f"{node_url}/jobs/head", json=job())
    assert made.status_code in (200, 201)
    for path, status in (("/jobs/head", 200), ("/jobs/nope", 404), ("/healthz", 200)):
        answer = httpx.head(f"{node_url}{path}")
        assert (answer.status_code, answer.content) == (status, b"")
        assert int(answer.headers["Content-Length"]) > 0
    assert httpx.head(f"{node_url}/jobs/head").headers["ETag"] == made.headers["ETag"]

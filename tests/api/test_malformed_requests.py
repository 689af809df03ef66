"""Whatever a body looks like, the answer is a decision: never a 5xx, never a hang."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from api.app import build_app
from api.http import requests
from api.http.context import ApiSettings, Services
from api.openapi.job_operations import FULL_JOB
from cluster.clock import Clock
from cluster.core.errors import StoreError
from cluster.store import jobs
from config.settings import ApiKey
from tests.support.api_client import RULES

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster.store.mongo.client import Database
    from tests.support.api_client import Api

ODD: list[Any] = [
    None, True, False, 0, -1, 2**63, 2**64 - 1, -(2**63), 1e308, -0.0, 0.1, "", " ", "\0", "\u202e", "\ufeff", "\U0001f600",
    "$where", "a.b", "${jndi:x}", "x" * 5000, [], {}, [[]], [None], {"": ""}, {"$ne": None}, {"__proto__": {}},
    "9999-12-31T23:59:60Z", "0001-01-01T00:00:00Z", "2026-02-30T00:00:00Z", "NaN", "1e999", "@every 0s",
    "@every 999999999999999d", "@at 2026-13-01T00:00:00Z", "* * * * * * * *", "*/0 * * * * *", "99 99 99 99 99 99",
    "L L L L L L", "0 0 0 1-0 * *", "60-70/3 * * * * *", "http://", "http://[::1", "http://a:99999/", "//a", "http://a\nb/",
    "http://\u2603.example/", "file:///etc/passwd", "http://user:pw@a/", "Etc/GMT+99", "../../etc/localtime", "UTC\0",
]  # fmt: skip
RAW: list[bytes] = [
    b"", b" ", b"\0", b"\xff\xfe", b"\xef\xbb\xbf{}", b"{", b"[", b'{"a"', b'{"a":', b'{"a":1,}', b"nul", b"NaN", b"Infinity",
    b'"\xc3\x28"', b'"\\ud800"', b'{"schedule":"@daily","schedule":"@daily"}', b"[" * 100_000, b'{"a":' * 5000 + b"1" + b"}" * 5000,
    b"1" * 5000, b"-", b"1e400", b"0x10", b"'a'", b"/**/{}", b'{"body":' + b"9" * 400 + b"}", b'{"a":"' + b"\\u0000" * 1000 + b'"}',
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(p for key, v in inside for p in places(v, (*path, key)))]


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = put(value[path[0]], path[1:], new)
    return copy


def mutations(count: int) -> list[bytes]:
    luck = random.Random(20261123)
    made = list(RAW)
    base: dict[str, Any] = {
        **FULL_JOB,
        "alerts": {"channels": []},
        "startAt": "2027-01-01T00:00:00Z",
        "spreadSeconds": 3,
    }
    good = orjson.dumps(base)
    while len(made) < count:
        way = luck.randrange(6)
        if way == 0:  # cut off
            made.append(good[: luck.randrange(len(good))])
        elif way == 1:  # bytes changed
            raw = bytearray(good)
            for _ in range(luck.randrange(1, 4)):
                raw[luck.randrange(len(raw))] = luck.randrange(256)
            made.append(bytes(raw))
        elif way == 2:  # unknown names
            made.append(orjson.dumps({**base, luck.choice([o for o in ODD if isinstance(o, str)]): luck.choice(ODD)}))
        else:  # other values
            value: Any = base
            for _ in range(luck.randrange(1, 4)):
                value = put(
                    value,
                    luck.choice(places(value)[1:] if isinstance(value, dict) and value else [()]),
                    luck.choice(ODD),
                )
                if not isinstance(value, dict):
                    break
            made.append(orjson.dumps(value))
    return made


async def test_mutated_bodies_never_get_500(api: Api) -> None:
    """300 bodies, each to five paths; every refusal is a problem."""
    await api.make(jobId="a")
    seen: dict[int, int] = {}
    for raw in mutations(300):
        for method, path, kind in (
            ("POST", "/jobs", "application/json"),
            ("PUT", "/jobs/b", "application/json"),
            ("PATCH", "/jobs/a", "application/merge-patch+json"),
            ("POST", "/schedules/preview", "application/json"),
            ("POST", "/jobs/import", "application/x-ndjson"),
        ):
            answer = await api.call(method, path, raw, Content_Type=kind)
            assert answer.status_code < 500, (method, path, raw[:300], answer.text)
            if answer.status_code >= 400:
                assert answer.headers["Content-Type"] == "application/problem+json"
            seen[answer.status_code] = seen.get(answer.status_code, 0) + 1
    assert seen[400] > 50
    assert seen[422] > 50
    assert seen.get(201, 0) + seen[200] > 50
    assert (await api.call("GET", "/jobs?limit=500")).status_code == 200


async def test_unusual_paths_and_headers_get_problems(api: Api) -> None:
    """Unusual text in paths, queries and headers is refused or finds nothing."""
    await api.make(jobId="a")
    for odd in ("%00", "%ff", "%2e%2e", "a%2Fb", "$ne", "%F0%9F%98%80", "x" * 3000, "a:1", "[$gt]", "a%0d%0ab"):
        for path in ("/jobs/{}", "/executions/{}", "/jobs/{}/executions", "/jobs?q={}", "/jobs?tag={}", "/jobs?tag[$ne]={}",
                     "/jobs?cursor={}", "/executions?since={}", "/jobs/a/executions?before={}", "/{}"):  # fmt: skip
            answer = await api.call("GET", path.format(odd))
            assert answer.status_code < 500, (path, odd, answer.text)
    for name in ("If_Match", "If_None_Match", "Idempotency_Key", "Accept"):
        for value in ("", "*", "\xff", "x" * 4000, '"99999999999999999"', "text/plain", ";", "a/b;q=9"):
            answer = await api.call("PATCH", "/jobs/a", {"name": "x"}, **{name: value})
            assert answer.status_code < 500, (name, value, answer.text)


@pytest.mark.parametrize("with_keys", [False, True])
@pytest.mark.parametrize(
    ("name", "said", "status"),
    [
        *(("host", said, 400) for said in ("[::1]:x", "http://[", "localhost:", "a:b", "a: b", "[a]:")),
        *(("origin", said, 403) for said in ("http://[", "http://[::1", "://", "null", "", "x" * 5000)),
    ],
)
async def test_a_host_or_origin_that_is_none_is_refused(
    database: Database, name: str, said: str, status: int, *, with_keys: bool
) -> None:
    """A browser sends neither; each is a decision all the same, with keys and without."""
    keys = (ApiKey("k", SecretStr("k" * 40), "admin"),) if with_keys else ()
    app = build_app(Services(database, Clock(), ApiSettings(rules=RULES, keys=keys), lambda: True))
    headers = {"host": "localhost", name: said, "content-type": "application/json", "content-length": "2"}
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "query_string": b"",
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
        "headers": [(key.encode(), value.encode()) for key, value in headers.items()],
    }  # fmt: skip
    for method, path in (("GET", "/jobs"), ("POST", "/session")):
        sent: list[Any] = []

        async def send(message: Any, sent: list[Any] = sent) -> None:
            sent.append(message)

        async def receive() -> Any:
            return {"type": "http.request", "body": b"{}", "more_body": False}

        await app({**scope, "method": method, "path": path, "raw_path": path.encode()}, receive, send)
        wanted = {status} if name == "host" or (not with_keys and path == "/jobs") else {401, 403, 422}
        assert sent[0]["status"] in wanted, sent


async def test_every_status_has_the_same_form(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """404, 405, 406, 413, 415 and 500; an internal error has an instance that is in the log."""
    for method, path, status, headers in (
        ("GET", "/nope", 404, {}),
        ("GET", "/jobs/nope", 404, {}),
        ("DELETE", "/jobs", 405, {}),
        ("GET", "/jobs", 406, {"Accept": "image/png"}),
        ("POST", "/jobs", 413, {"Content-Type": "application/json"}),
        ("POST", "/jobs", 415, {"Content-Type": "text/plain"}),
    ):
        answer = await api.call(method, path, b" " * (2**20 + 1) if method == "POST" else None, **headers)
        assert answer.status_code == status
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert {"type", "title", "status", "detail"} <= set(answer.json), answer.text
    assert (await api.call("DELETE", "/jobs")).headers["Allow"].startswith("GET, POST")

    async def broken(*_: object) -> None:
        raise RuntimeError("the inside")

    async def store_fault(*_: object) -> None:
        raise StoreError("the inside")

    for fault in (broken, store_fault):
        monkeypatch.setattr(jobs, "get", fault)
        with capture_logs() as logs:
            answer = await api.call("GET", "/jobs/a")
        assert answer.status_code == 500
        assert "inside" not in answer.text
        assert [e["instance"] for e in logs if e["event"] == "request_crashed"] == [answer.json["instance"]]


async def test_a_slow_body_is_408(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in an import."""
    monkeypatch.setattr(requests, "BODY_SECONDS", 0.05)
    monkeypatch.setattr(requests, "CHUNK_SECONDS", 0.05)
    app: Callable[..., Any] = build_app(Services(api.db, api.clock, ApiSettings(rules=RULES), lambda: True))
    for path, kind in (("/jobs", b"application/json"), ("/jobs/import", b"application/x-ndjson")):
        pieces = iter([{"type": "http.request", "body": b'{"a"', "more_body": True}])
        sent: list[dict[str, Any]] = []

        async def receive(pieces: Any = pieces) -> dict[str, Any]:
            for piece in pieces:
                return piece  # type: ignore[no-any-return]
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: dict[str, Any], sent: list[dict[str, Any]] = sent) -> None:
            sent.append(message)

        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "path": path,
            "query_string": b"", "scheme": "http", "server": ("127.0.0.1", 5000), "client": ("127.0.0.1", 1),
            "headers": [(b"host", b"localhost"), (b"content-type", kind)],
        }  # fmt: skip
        await asyncio.wait_for(app(scope, receive, send), 5)
        assert sent[0]["status"] == 408

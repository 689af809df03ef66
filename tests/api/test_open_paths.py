"""What is open without a key is open under its exact path only; what every response carries; what browsers get."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

from api.app import build_app
from api.http import auth
from api.http.context import ApiSettings, Services
from config.settings import ApiKey
from tests.support.api_client import RULES, Shifted, serve

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database
    from tests.support.api_client import Api

KEYS = (ApiKey("boss", SecretStr("admin-key-0123456789"), "admin"),)
API_PORT, METRICS_PORT = 5000, 9464
CHROME = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


async def get(database: Database, settings: ApiSettings, raw_path: bytes, port: int = API_PORT) -> int:
    """The status of a GET of exactly these bytes, as gunicorn hands them on."""
    from urllib.parse import unquote_to_bytes

    app: Any = build_app(Services(database, Shifted(), settings, lambda: True))
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "raw_path": raw_path,
        "path": unquote_to_bytes(raw_path).decode("utf-8", "replace"), "query_string": b"", "scheme": "http",
        "server": ("127.0.0.1", port), "client": ("127.0.0.1", 1), "headers": [(b"host", b"localhost")],
    }  # fmt: skip
    await app(scope, receive, send)
    return int(sent[0]["status"])


@pytest.mark.parametrize("path", [b"/metrics", b"/healthz", b"/readyz", b"/docs", b"/openapi.json"])
async def test_an_open_path_is_open_in_one_spelling(database: Database, path: bytes) -> None:
    """A proxy may let other spellings pass that lead to the same resource."""
    settings = ApiSettings(KEYS, RULES, metrics_open=True)
    assert await get(database, settings, path) == 200
    for other in (
        path + b"/",
        path + b"%2f",
        path + b"%2F",
        b"/%6d" + path[2:],
        b"/" + path,
        path + b"//",
        path + b"%00",
    ):
        if other != path:
            assert await get(database, settings, other) in (401, 404), other


async def status_of(api: Api, path: str, peer: str = "192.0.2.1") -> int:
    answer = await api._conductor.simulate_get(path, host="localhost", remote_addr=peer)
    return int(answer.status_code)


@pytest.mark.parametrize("path", ["/openapi.json", "/docs", "/", "/assets/none.js"])
async def test_one_address_gets_large_pages_at_a_bounded_rate(
    database: Database, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """They are open without a key. Probes and other addresses get their answers all the same."""
    monkeypatch.setattr(auth, "OPEN_BURST", 5)
    monkeypatch.setattr(auth, "OPEN_PER_SECOND", 0.001)
    async for api in serve(database, ApiSettings(KEYS, RULES)):
        first, *others = [await status_of(api, path) for _ in range(20)]
        assert others == [first] * 4 + [429] * 15
        assert await status_of(api, "/openapi.json") == 429
        assert [await status_of(api, "/healthz") for _ in range(30)] == [200] * 30
        assert await status_of(api, "/docs", "192.0.2.2") == 200


async def test_metrics_need_a_key_behind_the_path_prefix(database: Database) -> None:
    """A proxy keeps `/metrics` from strangers, and does not know the path with its own prefix; Prometheus asks the node."""
    settings = ApiSettings(KEYS, RULES, metrics_open=True, path_prefix="/ops/horae")
    assert await get(database, settings, b"/metrics") == 200
    assert await get(database, settings, b"/ops/horae/healthz") == 200
    for path in (b"/ops/horae/metrics", b"/ops/horae/ops/horae/metrics", b"/ops/horae//metrics"):
        assert await get(database, settings, path) in (401, 404), path


async def test_the_port_of_the_metrics_has_metrics_only(database: Database) -> None:
    """Without a key, and in one spelling; on the port of the API they need one."""
    settings = ApiSettings(KEYS, RULES, metrics_port=METRICS_PORT)
    assert await get(database, settings, b"/metrics", METRICS_PORT) == 200
    assert await get(database, settings, b"/metrics") == 401
    for other in (b"/metrics/", b"/metrics%2f", b"/jobs", b"/healthz", b"/", b"/docs", b"/openapi.json"):
        assert await get(database, settings, other, METRICS_PORT) == 404, other


@pytest.mark.parametrize(
    ("accept", "status"),
    [("text/html", 200), (CHROME, 200), ("text/html;q=0.9, text/plain", 200), ("application/json", 200), ("*/*", 200),
     ("text/*", 200), ("image/png", 406), ("text/html;q=0", 406), ("TEXT/HTML", 200),
     ("Application/JSON", 200), ("TEXT/*;Q=0.5", 200), ("text/html;q=much", 406), ("html", 406)],
)  # fmt: skip
async def test_a_browser_gets_json(api: Api, accept: str, status: int) -> None:
    """Who opens an address in a browser sees JSON, errors included; only a caller that wants something else gets 406."""
    assert (await api.call("GET", "/jobs", Accept=accept)).status_code == status
    missing = await api.call("GET", "/jobs/nope", Accept=accept)
    assert missing.status_code == (404 if status == 200 else 406)
    assert missing.headers["Content-Type"] == "application/problem+json"


async def test_a_long_accept_header_costs_nothing(api: Api) -> None:
    """It is not weighed type by type: it comes before the key."""
    assert (await api.call("GET", "/jobs", Accept=",".join(["a/b;q=0.1"] * 50_000))).status_code == 406
    assert (await api.call("GET", "/jobs", Accept=",".join(["a/b;q=0.1"] * 50_000) + ",*/*")).status_code == 200


async def test_every_response_forbids_framing_guessing_and_caching(database: Database) -> None:
    """Resources, pages, errors and what needs no key."""
    async for api in serve(database, ApiSettings(KEYS, RULES)):
        key = f"Bearer {KEYS[0].key.get_secret_value()}"
        for method, path, headers in (
            ("GET", "/jobs", {"Authorization": key}),
            ("GET", "/jobs", {}),
            ("GET", "/nope", {"Authorization": key}),
            ("DELETE", "/jobs", {"Authorization": key}),
            ("GET", "/jobs", {"Accept": "image/png"}),
            ("HEAD", "/jobs", {"Authorization": key}),
            ("GET", "/healthz", {}),
            ("GET", "/docs", {}),
            ("GET", "/", {}),
            ("GET", "/openapi.json", {}),
            ("GET", "/metrics", {"Authorization": key}),
            ("POST", "/jobs", {"Authorization": key}),
        ):
            found = (await api.call(method, path, **headers)).headers
            assert found["X-Content-Type-Options"] == "nosniff", path
            assert found["Cache-Control"] == "no-store", path
            policy = found["Content-Security-Policy"]
            for rule in ("default-src 'none'", "frame-ancestors 'none'", "form-action 'none'", "base-uri 'none'"):
                assert rule in policy, (path, rule)

"""An API key becomes a cookie: as mighty as the key, as long as the key, and of no use to a foreign page."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from pydantic import SecretStr

from api.http.auth import READ_ONLY_POSTS, key_digest
from api.http.context import ApiSettings
from api.openapi.document import openapi_document
from cluster.store import api_keys
from config.settings import ApiKey
from tests.support.api_client import RULES, TARGET, Api, job, serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from cluster.store.mongo.client import Database

READ, WRITE, ADMIN = "reader-key-0123456789", "writer-key-0123456789", "admin-key-01234567890"
KEYS = (
    ApiKey("reader", SecretStr(READ), "read"),
    ApiKey("writer", SecretStr(WRITE), "write"),
    ApiKey("boss", SecretStr(ADMIN), "admin"),
)
SAME = {"Sec_Fetch_Site": "same-origin"}
HOURS = 3_600_000
UNSAFE = [
    (path, method)
    for path, operations in openapi_document()["paths"].items()
    for method in operations
    if method != "get" and path not in READ_ONLY_POSTS and path != "/session"
]


@pytest_asyncio.fixture
async def guarded(database: Database) -> AsyncIterator[Api]:
    async for found in serve(database, ApiSettings(KEYS, RULES)):
        yield found


async def sign_in(api: Api, key: str, **headers: str) -> str:
    """The cookie of a new session, as a browser sends it back."""
    answer = await api.call("POST", "/session", {"key": key}, **headers)
    assert answer.status_code == 204, answer.text
    return answer.headers["Set-Cookie"].partition(";")[0]


async def test_a_key_becomes_a_cookie_that_scripts_and_foreign_pages_cannot_have(guarded: Api) -> None:
    answer = await guarded.call("POST", "/session", {"key": WRITE}, Sec_Fetch_Site="same-origin", Host="localhost:5000")
    assert answer.status_code == 204
    cookie = answer.headers["Set-Cookie"]
    assert re.match(r"__Host-horae-5000=[\w-]{40,}; Max-Age=43(200|199); ", cookie)
    assert set(cookie.split("; ")[2:]) == {"Path=/", "Secure", "HttpOnly", "SameSite=Strict"}
    whoami = await guarded.call("GET", "/session", Cookie=cookie.partition(";")[0], Host="localhost:5000")
    assert whoami.json["keyName"] == "writer"
    assert (whoami.json["scope"], whoami.json["byCookie"]) == ("write", True)


async def test_an_unknown_key_begins_no_session(guarded: Api) -> None:
    """Whatever was sent along; ten wrong ones from an address are enough for a while."""
    for _ in range(10):
        assert (
            await guarded.call("POST", "/session", {"key": "guess"}, Authorization=f"Bearer {ADMIN}")
        ).status_code == 401
    assert (await guarded.call("POST", "/session", {"key": "guess"})).status_code == 429
    assert await sign_in(guarded, READ)
    for content in ({}, {"key": 1}, {"key": ""}, {"key": READ, "scope": "admin"}):
        assert (await guarded.call("POST", "/session", content)).status_code == 422


async def test_a_cookie_changes_things_only_for_the_page_itself(guarded: Api) -> None:
    cookie = await sign_in(guarded, WRITE)
    origin = {"Host": "localhost", "Origin": "http://localhost"}
    for headers, status in (
        ({}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "same-site"}, 403),
        ({"Sec_Fetch_Site": "none"}, 403),
        ({"Sec_Fetch_Site": "cross-site", **origin}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        (SAME, 201),
        (origin, 201),
    ):
        assert (await guarded.call("POST", "/jobs", job(), Cookie=cookie, **headers)).status_code == status, headers
    assert (await guarded.call("GET", "/jobs", Cookie=cookie)).status_code == 200
    assert (await guarded.call("POST", "/session", {"key": WRITE}, Sec_Fetch_Site="cross-site")).status_code == 403


async def test_a_header_key_needs_no_origin_and_goes_before_the_cookie(guarded: Api) -> None:
    cookie = await sign_in(guarded, WRITE)
    assert (await guarded.call("POST", "/jobs", job(), Authorization=f"Bearer {WRITE}")).status_code == 201
    refused = await guarded.call("POST", "/jobs", job(), Authorization=f"Bearer {READ}", Cookie=cookie, **SAME)
    assert refused.status_code == 403


@pytest.mark.parametrize(("path", "method"), UNSAFE, ids=[f"{m} {p}" for p, m in UNSAFE])
async def test_a_read_key_changes_nothing_by_any_route(guarded: Api, path: str, method: str) -> None:
    """Neither as a header nor as a cookie, whatever the page shows."""
    target = re.sub(r"\{\w+\}", "some", path)
    cookie = await sign_in(guarded, READ)
    for headers in ({"Authorization": f"Bearer {READ}"}, {"Cookie": cookie, **SAME}):
        assert (await guarded.call(method.upper(), target, {}, **headers)).status_code == 403


ROUTES = [
    (path, method)
    for path, operations in openapi_document()["paths"].items()
    for method in operations
    if path not in ("/session", "/events")
]
RANKS = {READ: 1, WRITE: 2, ADMIN: 3}


def needed(path: str, method: str) -> int:
    """The rank of the scope that a route needs, as api/README.md says."""
    if path.split("/")[1] in ("audit", "keys", "nodes", "verifications"):
        return RANKS[ADMIN]
    return RANKS[READ] if method == "get" or path in READ_ONLY_POSTS else RANKS[WRITE]


async def test_each_route_asks_for_its_scope_whatever_the_cookie(guarded: Api) -> None:
    """A cookie can do exactly what its key can: no route more, none less."""
    for key, rank in RANKS.items():
        cookie = await sign_in(guarded, key)
        for path, method in ROUTES:
            target = re.sub(r"\{\w+\}", "some", path)
            answer = await guarded.call(method.upper(), target, None if method == "get" else {}, Cookie=cookie, **SAME)
            assert (answer.status_code == 403) is (rank < needed(path, method)), (path, method, answer.text)
        ended = await guarded.call("DELETE", "/session", Cookie=cookie, **SAME)
        assert ended.status_code == 204


async def test_a_session_ends_on_every_node(database: Database, guarded: Api) -> None:
    cookie = await sign_in(guarded, READ)
    async for other in serve(database, ApiSettings(KEYS, RULES)):
        assert (await other.call("GET", "/jobs", Cookie=cookie)).status_code == 200
    assert (await guarded.call("DELETE", "/session", Cookie=cookie)).status_code == 403
    ended = await guarded.call("DELETE", "/session", Cookie=cookie, **SAME)
    assert ended.status_code == 204
    assert "Max-Age=0" in ended.headers["Set-Cookie"]
    assert (await guarded.call("GET", "/jobs", Cookie=cookie)).status_code == 401
    async for other in serve(database, ApiSettings(KEYS, RULES)):
        assert (await other.call("GET", "/jobs", Cookie=cookie)).status_code == 401


async def test_a_session_lasts_twelve_hours(guarded: Api) -> None:
    cookie = await sign_in(guarded, READ)
    guarded.clock.shift = 12 * HOURS - 10_000
    assert (await guarded.call("GET", "/jobs", Cookie=cookie)).status_code == 200
    guarded.clock.shift = 12 * HOURS + 1
    assert (await guarded.call("GET", "/jobs", Cookie=cookie)).status_code == 401


async def test_a_session_ends_with_its_key(database: Database) -> None:
    """At the key's expiry, and when it is revoked; a new key of the same name does not bring it back."""
    async for api in serve(database, ApiSettings(KEYS, RULES)):
        now = api.clock.now_ms()
        first = api_keys.StoredApiKey("ci", key_digest("first-key-0123456789"), "write", now, expires_ms=now + HOURS)
        assert await api_keys.create(database, first)
        cookie = await sign_in(api, "first-key-0123456789")
        api.clock.shift = HOURS + 1
        assert (await api.call("GET", "/jobs", Cookie=cookie)).status_code == 401
        api.clock.shift = 0
        assert (await api.call("GET", "/jobs", Cookie=cookie)).status_code == 200
        await api_keys.revoke(database, "ci", now)
        second = api_keys.StoredApiKey("ci", key_digest("second-key-0123456789"), "admin", now)
        assert await api_keys.create(database, second)
        async for other in serve(database, ApiSettings(KEYS, RULES)):
            assert (await other.call("GET", "/jobs", Cookie=cookie)).status_code == 401


async def test_the_database_knows_neither_the_cookie_nor_the_key(database: Database, guarded: Api) -> None:
    cookie = await sign_in(guarded, READ)
    documents = await database.api["sessions"].find().to_list()
    assert len(documents) == 1
    written = repr(documents).encode()
    for secret in (cookie.partition("=")[2].encode(), READ.encode(), key_digest(READ), key_digest(READ).hex().encode()):
        assert secret not in written
    assert all(key_digest(READ) != value for value in documents[0].values())


async def test_plain_http_beyond_loopback_gets_no_session(guarded: Api) -> None:
    """The answer says why; https at a proxy is enough."""
    refused = await guarded.call("POST", "/session", {"key": READ}, Host="horae.example.org")
    assert refused.status_code == 403
    assert "https" in refused.json["detail"]
    for headers in ({"X_Forwarded_Proto": "https"}, {"Origin": "https://horae.example.org"}):
        assert await sign_in(guarded, READ, Host="horae.example.org", **headers)


async def test_plain_http_at_a_proxy_that_names_itself_gets_no_session(guarded: Api) -> None:
    """Such a proxy makes every request look local; its own `X-Forwarded-For` tells that it is not."""
    far = {"Host": "127.0.0.1:5000", "X_Forwarded_For": "198.51.100.7"}
    assert (await guarded.call("POST", "/session", {"key": READ}, **far)).status_code == 403
    assert await sign_in(guarded, READ, **far, X_Forwarded_Proto="https")


async def test_a_node_without_keys_has_no_sessions_and_needs_none(api: Api) -> None:
    assert (await api.call("POST", "/session", {"key": READ})).status_code == 401
    whoami = (await api.call("GET", "/session")).json
    assert (whoami["keyName"], whoami["scope"], whoami["dashboard"]) == (None, "admin", "full")
    assert (await api.call("GET", "/jobs", Cookie="__Host-horae-80=stale")).status_code == 200


@pytest.mark.parametrize("keys", [(), KEYS], ids=["without keys", "with keys"])
async def test_a_page_that_reads_changes_nothing(database: Database, keys: tuple[ApiKey, ...]) -> None:
    """`HORAE_DASHBOARD=read`: the server refuses it, also where there are no keys. Programs go on."""
    settings = ApiSettings(keys, RULES, dashboard="read")
    program: dict[str, Any] = {"Authorization": f"Bearer {WRITE}"} if keys else {}
    async for api in serve(database, settings):
        assert (await api.call("POST", "/jobs", job(), **program, **SAME)).status_code == 403
        assert (await api.call("POST", "/jobs", job(), **program)).status_code == 201
        preview = {"schedule": "@hourly"}
        assert (await api.call("POST", "/schedules/preview", preview, **program, **SAME)).status_code == 200
        assert (await api.call("GET", "/session", **program)).json["dashboard"] == "read"
        assert (await api.call("GET", "/")).status_code == 200
        if keys:
            cookie = await sign_in(api, WRITE)
            assert (await api.call("POST", "/jobs", job(), Cookie=cookie, **SAME)).status_code == 403


async def test_the_page_can_be_switched_off(database: Database) -> None:
    async for api in serve(database, ApiSettings(rules=RULES, dashboard="off")):
        assert (await api.call("GET", "/")).status_code == 404
        assert (await api.call("POST", "/session", {"key": READ})).status_code == 404
        assert (await api.call("POST", "/jobs", {"schedule": "@hourly", "api": TARGET})).status_code == 201

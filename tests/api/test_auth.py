"""Keys made with `horae keys`, and the limits on keys and on guessing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import orjson
import pytest
import pytest_asyncio
from click.testing import CliRunner
from pydantic import SecretStr

from api.http import auth
from api.http.context import ApiSettings
from api.http.rate_limit import MAX_BUCKETS, TokenBuckets
from cluster.core.errors import ConfigurationError
from config.settings import ApiKey, load_settings
from ops.cli import cli
from ops.server.serve import check_api_keys
from tests.support.api_client import RULES, job, serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from click.testing import Result

    from cluster.store.mongo.client import Database
    from tests.support.api_client import Api

ADMIN = "admin-key-0123456789"
OWN = (ApiKey("boss", SecretStr(ADMIN), "admin"),)


@pytest.fixture
def horae(mongodb_uri: str, db_name: str) -> Callable[..., Result]:
    environment = {"MONGODB_URI": mongodb_uri, "DB_NAME": db_name}

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(cli, arguments, env=environment)

    return run


@pytest_asyncio.fixture
async def guarded(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Api]:
    monkeypatch.setattr(auth, "KEYS_CACHED_SECONDS", 0.0)
    async for found in serve(database, ApiSettings(OWN, RULES)):
        yield found


async def status(api: Api, key: str | None, method: str = "GET", body: object = None) -> int:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return (await api.call(method, "/jobs", body, **headers)).status_code


async def test_a_key_allows_its_scope_until_it_is_revoked(
    guarded: Api, horae: Callable[..., Result], database: Database
) -> None:
    """It is shown once and stored as a hash; its last use is listed."""
    made = await asyncio.to_thread(horae, "keys", "create", "--name", "ci", "--scope", "read", "--expires", "1h")
    assert made.exit_code == 0, made.output
    key = made.stdout.strip()
    assert await status(guarded, key) == 200
    assert await status(guarded, key, "POST", job()) == 403
    listed = orjson.loads((await asyncio.to_thread(horae, "keys", "list", "--json")).stdout)
    assert [(k["name"], k["scope"], k["state"]) for k in listed] == [("ci", "read", "live")]
    assert listed[0]["lastUsedAt"] is not None
    assert key not in str(listed)
    assert key.encode() not in orjson.dumps(await database.api["api_keys"].find().to_list(), default=str)
    assert (await asyncio.to_thread(horae, "keys", "create", "--name", "ci")).exit_code == 1
    assert (await asyncio.to_thread(horae, "keys", "revoke", "ci")).exit_code == 0
    assert await status(guarded, key) == 401
    assert (await asyncio.to_thread(horae, "keys", "revoke", "ci")).exit_code == 1
    again = (await asyncio.to_thread(horae, "keys", "create", "--name", "ci", "--json")).stdout
    assert await status(guarded, orjson.loads(again)["key"], "POST", job()) == 201


async def test_an_expired_key_is_refused(guarded: Api, horae: Callable[..., Result]) -> None:
    """401, by the clock of the cluster."""
    key = (await asyncio.to_thread(horae, "keys", "create", "--name", "x", "--expires", "1h")).stdout.strip()
    assert await status(guarded, key) == 200
    guarded.clock.shift = 3_601_000
    assert await status(guarded, key) == 401
    assert (await asyncio.to_thread(horae, "keys", "create", "--name", "y", "--expires", "soon")).exit_code == 2


async def test_the_first_stored_key_makes_keys_required(database: Database, horae: Callable[..., Result]) -> None:
    """On a node without keys in its settings."""
    made = await asyncio.to_thread(horae, "keys", "create", "--name", "first")
    async for api in serve(database):
        assert set(await asyncio.gather(*(status(api, None) for _ in range(8)))) == {401}
        assert await status(api, made.stdout.strip()) == 200


async def test_a_reachable_node_needs_a_key(
    database: Database, horae: Callable[..., Result], mongodb_uri: str, db_name: str
) -> None:
    """A node that other machines can reach does not start without a key, and says so; a key in the database is enough."""
    settings = load_settings(None, host="0.0.0.0", db_name=db_name, mongodb_uri=mongodb_uri)
    with pytest.raises(ConfigurationError, match="no API keys"):
        await asyncio.to_thread(check_api_keys, settings, mongodb_uri)
    await asyncio.to_thread(horae, "keys", "create", "--name", "x")
    await asyncio.to_thread(check_api_keys, settings, mongodb_uri)
    await asyncio.to_thread(horae, "keys", "revoke", "x")
    with pytest.raises(ConfigurationError):
        await asyncio.to_thread(check_api_keys, settings, mongodb_uri)
    async for api in serve(database):
        answer = await api._conductor.simulate_get("/jobs", host="localhost", remote_addr="192.0.2.1")
        assert answer.status_code == 403


async def test_wrong_keys_are_limited_per_address(guarded: Api) -> None:
    """After ten wrong keys an address gets 429 with Retry-After for each other wrong one, and 401 without a key."""
    for number in range(auth.FAILURE_BURST):
        assert await status(guarded, f"wrong-{number}") == 401
    refused = await guarded.call("GET", "/jobs", Authorization="Bearer wrong")
    assert refused.status_code == 429
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert int(refused.headers["Retry-After"]) >= 1
    assert await status(guarded, None) == 401
    assert (await guarded.call("GET", "/healthz")).status_code == 200


async def test_a_right_key_is_never_limited_by_wrong_ones(guarded: Api, horae: Callable[..., Result]) -> None:
    """Keys that this process has not seen before, configured and stored, while a stranger guesses from the same address."""
    made = await asyncio.to_thread(horae, "keys", "create", "--name", "late", "--scope", "read")
    for right in (ADMIN, made.stdout.strip(), ADMIN):
        for number in range(auth.FAILURE_BURST + 5):
            refused = await status(guarded, f"wrong-{number}")
        assert refused == 429
        assert await status(guarded, right) == 200


async def test_a_key_has_a_rate_limit(database: Database) -> None:
    """Beyond it 429 with Retry-After; other keys are not affected."""
    own = (*OWN, ApiKey("other", SecretStr("other-key-0123456789"), "read"))
    async for api in serve(database, ApiSettings(own, RULES, requests_per_second=0.001)):
        assert [await status(api, ADMIN) for _ in range(4)] == [200, 429, 429, 429]  # a new token takes 1,000 s
        refused = await api.call("GET", "/jobs", Authorization=f"Bearer {ADMIN}")
        assert refused.status_code == 429
        assert int(refused.headers["Retry-After"]) > 900
        assert await status(api, "other-key-0123456789") == 200


def test_token_buckets_refill_and_are_bounded() -> None:
    """A bucket refills with time, holds at most its burst, and the number of buckets is limited."""
    now = 0.0
    buckets = TokenBuckets(2.0, 4.0, lambda: now)
    assert [buckets.take("a") for _ in range(4)] == [0.0] * 4
    assert buckets.take("a") == pytest.approx(0.5)
    now = 0.5
    assert buckets.take("a") == 0.0
    now = 100.0
    assert [buckets.take("a") for _ in range(5)].count(0.0) == 4
    for i in range(MAX_BUCKETS + 5):
        buckets.take(str(i))
    assert len(buckets._buckets) == MAX_BUCKETS


@pytest.mark.parametrize(("is_open", "without_key"), [(False, 401), (True, 200)])
async def test_metrics_need_a_key_unless_they_are_open(database: Database, is_open: bool, without_key: int) -> None:
    """With scope read; with HORAE_METRICS_OPEN, no key."""
    async for api in serve(database, ApiSettings(OWN, RULES, metrics_open=is_open)):
        assert (await api.call("GET", "/metrics", Accept="text/plain")).status_code == without_key
        answer = await api.call("GET", "/metrics", Authorization=f"Bearer {ADMIN}")
        assert answer.status_code == 200
        assert "horae_database_up 1.0" in answer.text

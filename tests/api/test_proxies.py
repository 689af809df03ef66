"""Requests that come through proxies: whom limits count, and what a node without keys refuses."""

from __future__ import annotations

import ipaddress
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

from api.http import auth
from api.http.addresses import client_address, limit_name
from api.http.context import ApiSettings
from config.settings import ApiKey
from tests.support.api_client import RULES, serve

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database
    from tests.support.api_client import Api

KEYS = (ApiKey("boss", SecretStr("admin-key-0123456789"), "admin"),)
PROXIES = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8"), ipaddress.ip_network("127.0.0.1/32"))


def request(peer: str, forwarded_for: str | None) -> Any:
    return SimpleNamespace(remote_addr=peer, get_header=lambda _: forwarded_for)


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "client"),
    [
        ("192.0.2.1", None, "192.0.2.1"),
        ("192.0.2.1", "198.51.100.7", "192.0.2.1"),
        ("10.1.1.1", None, "10.1.1.1"),
        ("10.1.1.1", "198.51.100.7", "198.51.100.7"),
        ("10.1.1.1", "203.0.113.9, 198.51.100.7", "198.51.100.7"),
        ("10.1.1.1", "198.51.100.7, 10.2.2.2,10.3.3.3", "198.51.100.7"),
        ("10.1.1.1", "10.2.2.2", "10.2.2.2"),
        ("10.1.1.1", "198.51.100.7, unknown, 10.3.3.3", "10.3.3.3"),
        ("10.1.1.1", "198.51.100.7:4711", "198.51.100.7"),
        ("10.1.1.1", "[2001:db8::7]:4711", "2001:db8::7"),
        ("10.1.1.1", "2001:db8::7", "2001:db8::7"),
        ("::ffff:10.1.1.1", "198.51.100.7", "198.51.100.7"),
        ("fd00::1", "::ffff:198.51.100.7", "198.51.100.7"),
        ("10.1.1.1", "", "10.1.1.1"),
        ("10.1.1.1", "198.51.100.7" + ",10.2.2.2" * 100_000, "10.2.2.2"),
    ],
)
def test_the_client_is_the_nearest_address_that_is_no_trusted_proxy(
    peer: str, forwarded_for: str | None, client: str
) -> None:
    """What stands before it may be made up by the client, and a peer that is not trusted names nobody else."""
    assert client_address(request(peer, forwarded_for), PROXIES) == client


def test_limits_count_a_subscriber_of_ipv6_as_one() -> None:
    """A /64 of IPv6, a single address of IPv4, also when it is written as IPv6."""
    assert limit_name("2001:db8:0:1::5") == limit_name("2001:db8:0:1:ffff::") != limit_name("2001:db8:0:2::5")
    assert limit_name("192.0.2.1") == limit_name("::ffff:192.0.2.1") != limit_name("192.0.2.2")
    assert limit_name("fe80::1%eth0") == limit_name("fe80::2")
    assert limit_name("") == ""


async def wrong_key(api: Api, peer: str, forwarded_for: str | None = None) -> int:
    headers = {"Authorization": "Bearer wrong"} | ({} if forwarded_for is None else {"X-Forwarded-For": forwarded_for})
    answer = await api._conductor.simulate_get("/jobs", headers=headers, host="localhost", remote_addr=peer)
    return int(answer.status_code)


async def test_wrong_keys_are_counted_by_client(database: Database) -> None:
    """Behind a trusted proxy by the address that it names; a client cannot name itself anew, nor change its IPv6 address."""
    async for api in serve(database, ApiSettings(KEYS, RULES, trusted_proxies=PROXIES)):
        for peer, forwarded in (
            ("10.0.0.1", ["198.51.100.7"] * 20),
            ("10.0.0.1", [f"203.0.113.{i}, 198.51.100.8" for i in range(20)]),
            ("192.0.2.1", [f"203.0.113.{i}" for i in range(20)]),
            ("10.0.0.1", [f"2001:db8::{i:x}" for i in range(20)]),
        ):
            seen = [await wrong_key(api, peer, f) for f in forwarded]
            assert seen == [401] * auth.FAILURE_BURST + [429] * (20 - auth.FAILURE_BURST), peer
        assert await wrong_key(api, "10.0.0.1", "198.51.100.9") == 401
        assert await wrong_key(api, "10.0.0.1") == 401


async def local(api: Api, peer: str = "127.0.0.1", **headers: str) -> int:
    sent = {k.replace("_", "-"): v for k, v in headers.items()}
    answer = await api._conductor.simulate_get("/jobs", headers=sent, host="localhost", remote_addr=peer)
    return int(answer.status_code)


@pytest.mark.parametrize(
    "header",
    ["Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "x-forwarded-anything", "X-Real-IP",
     "CF-Connecting-IP", "X-Forwarded", "X-Original-Forwarded-For", "Client-IP", "Fly-Client-IP", "X-Azure-ClientIP", "CDN-Loop",
     "CF-Ray", "CF-IPCountry", "X-Amzn-Trace-Id", "X-Amz-Cf-Id", "X-ARR-SSL", "X-Envoy-Peer-Metadata", "X-NginX-Proxy",
     "X-Remote-IP", "X-Scheme", "Front-End-Https", "Tailscale-User-Login", "X-Cloud-Trace-Context", "X-Original-For",
     "DO-Connecting-IP", "Ali-CDN-Real-IP", "Z-Forwarded-For", "X-Forward-For", "X-Via", "X-Original-URL", "Surrogate-Capability",
     "CloudFront-Viewer-Address", "X-Goog-Iap-Jwt-Assertion", "Proxy-Connection", "X-Proxy-User-Ip", "CDN-Src-Ip", "X-HTTPS"],
)  # fmt: skip
async def test_a_node_without_keys_refuses_what_a_proxy_forwards(api: Api, header: str) -> None:
    """A proxy on the same machine makes a request from anywhere look local."""
    assert await local(api) == 200
    assert await local(api, **{header: "127.0.0.1"}) == 403
    assert await local(api, **{header: ""}) == 403
    assert (await api.call("GET", "/healthz", **{header: "x"})).status_code == 200


async def test_a_node_without_keys_believes_a_trusted_proxy_on_this_machine(database: Database) -> None:
    """If all that it forwarded for is on this machine too; as `make cluster` does it."""
    async for api in serve(database, ApiSettings(rules=RULES, trusted_proxies=PROXIES)):
        assert await local(api, X_Forwarded_For="127.0.0.1", X_Forwarded_Proto="http") == 200
        assert await local(api, X_Forwarded_For="::1") == 200
        for headers in (
            {"X_Forwarded_For": "198.51.100.7"},
            {"X_Forwarded_For": "198.51.100.7, 127.0.0.1"},
            {"X_Forwarded_For": "127.0.0.1, 10.0.0.9"},
            {"X_Forwarded_For": "localhost"},
            {"X_Forwarded_For": "127.0.0.1", "Via": "1.1 tunnel"},
            {"X_Forwarded_For": "127.0.0.1", "X_Forwarded_Host": "example.com"},
        ):
            assert await local(api, **headers) == 403, headers
        assert await local(api, "127.0.0.2", X_Forwarded_For="127.0.0.1") == 403


async def test_with_a_key_forwarded_requests_are_served(database: Database) -> None:
    """From any proxy: the key says who it is."""
    async for api in serve(database, ApiSettings(KEYS, RULES)):
        key = f"Bearer {KEYS[0].key.get_secret_value()}"
        assert await local(api, Authorization=key, Forwarded="for=198.51.100.7", Via="1.1 x") == 200

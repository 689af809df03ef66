"""The address guard on real sockets: denied addresses are never connected to, however they are spelled or resolved."""

from __future__ import annotations

import asyncio
import ipaddress
from typing import Any

import pytest

from cluster.outbound.address_guard import GuardedSockets
from cluster.outbound.errors import ConnectionDenied
from cluster.outbound.name_servers import SystemResolver
from tests.support.real_sender import LOOPBACK, Names, post, sending
from tests.support.wire import OK, listening, saying, then_closing

CLOSE = OK.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n")
ONE = (ipaddress.ip_network("127.0.0.1/32"),)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.1", "0x7f000001", "0177.0.0.1", "017700000001", "0",
        "127.0.0.1.", "localhost.", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]",
        "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "１２７.0.0.1", "127。0。0。1", "0.0.0.0",
    ],
)  # fmt: skip
async def test_no_spelling_of_a_local_address_is_connected_to(host: str) -> None:
    """Even a job whose URL was not checked when it was created reaches nothing on this machine."""
    async with listening(saying(OK)) as wire, sending(networks=()) as sender:
        reply = await post(sender, f"http://{host}:{wire.port}/")
        assert reply.status is None
        assert reply.error in ("denied", "dns"), reply
        assert wire.connections == 0


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "10.0.0.1", "169.254.169.254"]
)
async def test_a_denied_address_is_named_in_the_error(host: str) -> None:
    """The error kind is `denied`."""
    async with sending(networks=()) as sender:
        reply = await post(sender, f"http://{host}:9/")
        assert reply.error == "denied"
        assert "not a public address" in (reply.detail or "")


async def test_one_denied_address_denies_the_name() -> None:
    """At any position among allowed addresses; no connection is opened."""
    async with listening(saying(OK)) as wire:
        for found in (["127.0.0.1", "10.0.0.1"], ["10.0.0.1", "127.0.0.1"], ["127.0.0.1", "::1"]):
            async with sending(networks=ONE, resolver=lambda found=found: Names(mixed_test=found)) as sender:
                reply = await post(sender, f"http://mixed.test:{wire.port}/")
                assert reply.error == "denied"
                assert "mixed.test resolves to" in (reply.detail or "")
        assert wire.connections == 0


async def test_a_name_that_changes_to_a_denied_address_is_denied() -> None:
    """DNS rebinding: the second connection is denied."""
    resolver = Names(moving_test=["127.0.0.1"])
    async with listening(then_closing(CLOSE)) as wire, sending(networks=ONE, resolver=lambda: resolver) as sender:
        url = f"http://moving.test:{wire.port}/"
        assert (await post(sender, url)).status == 200
        resolver.names["moving.test"] = ["127.0.0.2"]
        # Checked addresses are cached for 10 s.
        sender._transport.names.forget()  # type: ignore[attr-defined]
        assert (await post(sender, url)).error == "denied"
        assert (wire.connections, resolver.asked) == (1, ["moving.test"] * 2)


async def test_the_checked_address_is_connected_to_without_a_second_look_up() -> None:
    """An answer that changes after the check has no effect."""
    async with listening(saying(OK)) as wire:

        class Changing(Names):
            async def resolve(self, *args: Any, **kwargs: Any) -> Any:
                found = await super().resolve(*args, **kwargs)
                self.names["flip.test"] = ["10.0.0.1"]
                return found

        resolver = Changing(flip_test=["127.0.0.1"])
        async with sending(resolver=lambda: resolver) as sender:
            replies = await asyncio.gather(*(post(sender, f"http://flip.test:{wire.port}/") for _ in range(5)))
            assert {r.status for r in replies} == {200}
            assert resolver.asked == ["flip.test"]


async def test_a_denied_address_past_the_resolver_is_denied_at_the_socket() -> None:
    """The second check."""
    sockets = GuardedSockets(ONE)
    sockets("127.0.0.1").close()
    for address in ("127.0.0.2", "10.0.0.1", "::1"):
        with pytest.raises(ConnectionDenied):
            sockets(address)


async def test_the_system_resolver_resolves_localhost_and_refuses_bad_names() -> None:
    """A text that is no host name raises an `OSError`."""
    resolver = SystemResolver()
    assert set(await resolver.resolve("localhost")) <= {"127.0.0.1", "::1"}
    with pytest.raises(OSError, match="host name"):
        await resolver.resolve("a" * 70 + ".test")
    await resolver.close()


async def test_an_allowed_network_is_reached_by_address_and_name() -> None:
    """Networks that the operator allows."""
    async with (
        listening(saying(OK)) as wire,
        sending(networks=LOOPBACK, resolver=lambda: Names(ok_test=["127.0.0.1"])) as sender,
    ):
        assert (await post(sender, wire.url)).status == 200
        assert (await post(sender, f"http://ok.test:{wire.port}/")).status == 200

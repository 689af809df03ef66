"""Names: what a name server that hangs, fails or changes its mind does to requests, by a name server on loopback."""

from __future__ import annotations

import asyncio
import ipaddress
import struct
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from cluster.outbound import names as rules
from cluster.outbound.errors import NameNotFound, NameServersFailed
from cluster.outbound.name_servers import SystemResolver
from cluster.outbound.names import Names
from cluster.outbound.pool import MAX_ADDRESSES, Pool
from tests.support.name_server import name_server
from tests.support.real_sender import LOOPBACK, post, sending
from tests.support.real_sender import Names as Stub
from tests.support.wire import OK, listening, saying

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.name_server import NameServer


def asking(server: NameServer) -> SystemResolver:
    return SystemResolver([f"127.0.0.1:{server.port}"])


def answer(number: bytes, flags: int, question: bytes, *records: bytes) -> list[bytes]:
    """One packet of a name server."""
    return [number + struct.pack(">HHHHH", flags, 1, len(records), 0, 0) + question + b"".join(records)]


A_RECORD = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + b"\x7f\0\0\1"
LOOP = b"\xc0\x0c" + struct.pack(">HHIH", 5, 1, 60, 2) + b"\xc0\x0c"
"""A name that is another name for itself."""
LONG_CHAIN = [
    (b"\xc0\x0c" if n == 0 else b"\x03%03d\0" % n) + struct.pack(">HHIH", 5, 1, 60, 5) + b"\x03%03d\0" % (n + 1)
    for n in range(30)
]
ODD: dict[str, Callable[[bytes, bytes], list[bytes]]] = {
    "servfail": lambda n, q: answer(n, 0x8182, q),
    "refused": lambda n, q: answer(n, 0x8185, q),
    "not implemented": lambda n, q: answer(n, 0x8184, q),
    "cut short, and no TCP": lambda n, q: answer(n, 0x8380, q),
    "a loop": lambda n, q: answer(n, 0x8180, q, LOOP),
    "a chain without an end": lambda n, q: answer(n, 0x8180, q, *LONG_CHAIN),
    "no answer in it": lambda n, q: answer(n, 0x8180, q),
    "of another request": lambda n, q: answer(bytes([n[0] ^ 1, n[1]]), 0x8180, q, A_RECORD),
    "of another name": lambda n, _: answer(n, 0x8180, b"\x05other\x04test\0\0\1\0\1", A_RECORD),
    "garbage": lambda n, _: [n + b"\xff" * 500],
    "half a packet": lambda n, q: [answer(n, 0x8180, q, A_RECORD)[0][:-3]],
    "a pointer to itself": lambda n, _: [n + b"\x81\x80\0\1\0\1\0\0\0\0\xc0\x0c\0\1\0\1"],
    "a record of no length": lambda n, q: answer(n, 0x8180, q, b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 0)),
    "a question": lambda n, q: answer(n, 0x0100, q),
}
"""What name servers answer that have no address for anybody."""


class Clock:
    """The monotonic clock of `names`, set by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("cluster.outbound.names.time", SimpleNamespace(monotonic=lambda: self.now))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


class Scripted(Stub):
    """Names whose look-ups fail or hang when the test says so."""

    def __init__(self, **names: list[str]) -> None:
        super().__init__(**names)
        self.failing: Exception | None = None
        self.hanging = False

    async def resolve(self, host: str) -> list[str]:
        found = await super().resolve(host)
        if self.hanging:
            await asyncio.Event().wait()
        if self.failing is not None:
            raise self.failing
        return found


async def test_names_without_an_answer_delay_no_other_name() -> None:
    """300 requests to as many names whose servers are silent, and one to a name that is answered."""
    async with (
        name_server(ok_test=["127.0.0.1"], **{f"hang{i}_test": None for i in range(300)}) as server,
        listening(saying(OK)) as wire,
        sending(resolver=lambda: asking(server)) as sender,
    ):
        stuck = [asyncio.create_task(post(sender, f"http://hang{i}.test:{wire.port}/", 2.5)) for i in range(300)]
        await asyncio.sleep(0)
        waits = []
        for _ in range(5):
            reply = await post(sender, f"http://ok.test:{wire.port}/")
            assert reply.status == 200
            waits.append(reply.duration_ms)
            sender._transport.names.forget()  # type: ignore[attr-defined]
        assert sorted(waits)[2] < 1500
        assert {(await each).error for each in stuck} == {"timeout"}


async def test_a_look_up_has_a_deadline_and_is_a_dns_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the cause, before the connection's own deadline passes."""
    monkeypatch.setattr(rules, "LOOKUP_SECONDS", 0.2)
    async with name_server(silent_test=None) as server, sending(resolver=lambda: asking(server)) as sender:
        began = time.monotonic()
        reply = await post(sender, "http://silent.test/", seconds=30)
        assert (reply.status, reply.error) == (None, "dns")
        assert "no answer of the name servers within 0.2 s" in (reply.detail or "")
        assert time.monotonic() - began < 2


@pytest.mark.takes(6)
async def test_no_answer_of_a_name_server_harms_anybody_else() -> None:
    """All at once: each is an error of its own name, and another name is found meanwhile."""
    async with name_server(good_test=["127.0.0.1"]) as server:
        names = Names(asking(server))
        hosts = {f"odd{number}.test": kind for number, kind in enumerate(ODD)}
        server.odd = {host: ODD[kind] for host, kind in hosts.items()}
        asked = {host: asyncio.create_task(names.addresses(host)) for host in hosts}
        async with asyncio.timeout(rules.LOOKUP_SECONDS):
            assert await names.addresses("good.test") == ["127.0.0.1"]
        await asyncio.wait(asked.values(), timeout=30)
        for host, kind in hosts.items():
            assert isinstance(asked[host].exception(), NameNotFound | NameServersFailed), kind
        await names.close()


async def test_requests_to_one_name_share_its_look_up() -> None:
    """However many wait for it."""
    async with (
        name_server(a_test=["127.0.0.1"]) as server,
        listening(saying(OK)) as wire,
        sending(resolver=lambda: asking(server)) as sender,
    ):
        replies = await asyncio.gather(*(post(sender, f"http://a.test:{wire.port}/") for _ in range(50)))
        assert {r.status for r in replies} == {200}
        assert server.asked == ["a.test"]


async def test_a_name_that_does_not_exist_is_remembered_shortly(clock: Clock) -> None:
    """Shorter than its zone says, because a name is often created just after it was missed."""
    async with name_server(new_test=[]) as server:
        resolver = asking(server)
        names = Names(resolver)
        for _ in range(3):
            with pytest.raises(NameNotFound):
                await names.addresses("new.test")
        assert server.asked == ["new.test"]
        server.names["new.test"] = ["127.0.0.1"]
        clock.now += rules.NEGATIVE_SECONDS + 0.1
        resolver._made_at -= 3600  # c-ares has kept the answer for the zone's time meanwhile
        assert await names.addresses("new.test") == ["127.0.0.1"]
        await names.close()


async def test_a_name_in_use_is_looked_up_ahead(clock: Clock) -> None:
    """Whoever uses an answer of some age gets it at once, and starts the next look-up."""
    resolver = Scripted(a_test=["127.0.0.1"])
    names = Names(resolver)
    assert await names.addresses("a.test") == ["127.0.0.1"]
    resolver.names["a.test"] = ["127.0.0.2"]
    clock.now += rules.REFRESH_SECONDS + 1
    assert await names.addresses("a.test") == ["127.0.0.1"]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert resolver.asked == ["a.test"] * 2
    assert await names.addresses("a.test") == ["127.0.0.2"]
    await names.close()


@pytest.mark.parametrize("way", ["fails", "hangs"])
async def test_the_last_good_answer_is_used_while_name_servers_fail(clock: Clock, way: str) -> None:
    """For an hour at most, and without a wait for each request."""
    resolver = Scripted(a_test=["127.0.0.1"])
    names = Names(resolver)
    await names.addresses("a.test")
    resolver.failing = NameServersFailed("timeout") if way == "fails" else None
    resolver.hanging = way == "hangs"
    for _ in range(3):
        clock.now += 60
        began = asyncio.get_running_loop().time()
        assert await names.addresses("a.test") == ["127.0.0.1"]
        assert await names.addresses("a.test") == ["127.0.0.1"]
        assert asyncio.get_running_loop().time() - began < 1.5
    if way == "fails":
        clock.now += rules.GOOD_SECONDS
        with pytest.raises(NameServersFailed):
            await names.addresses("a.test")
    await names.close()


async def test_a_name_that_is_gone_is_gone(clock: Clock) -> None:
    """A definite answer ends the last good one."""
    resolver = Scripted(a_test=["127.0.0.1"])
    names = Names(resolver)
    await names.addresses("a.test")
    resolver.failing = NameNotFound("gone")
    clock.now += rules.FRESH_SECONDS + 1
    with pytest.raises(NameNotFound):
        await names.addresses("a.test")
    await names.close()


async def test_an_old_answer_is_judged_by_the_guard_like_any_other(clock: Clock) -> None:
    """Whatever is remembered, each socket is judged for the address that it goes to."""
    resolver: Any = Scripted(a_test=["10.1.2.3"])
    async with sending(networks=LOOPBACK, resolver=lambda: resolver) as sender:
        assert (await post(sender, "http://a.test/")).error == "denied"
        resolver.failing = NameServersFailed("timeout")
        clock.now += rules.FRESH_SECONDS + 1
        assert (await post(sender, "http://a.test/")).error == "denied"


async def test_a_waiting_request_that_is_cancelled_leaves_the_look_up_to_others() -> None:
    """Its deadline is not theirs."""
    resolver = Scripted(a_test=["127.0.0.1"])
    resolver.hanging = True
    names = Names(resolver)
    first, second = (asyncio.create_task(names.addresses("a.test")) for _ in range(2))
    await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.sleep(0.01)
    assert not second.done()
    await names.close()
    with pytest.raises(NameServersFailed):
        await second


async def test_localhost_needs_no_name_server_and_the_hosts_file_is_read() -> None:
    """`localhost` is this machine by definition; other names of `/etc/hosts` are found without a name server."""
    async with (
        name_server() as server,
        listening(saying(OK)) as wire,
        sending(resolver=lambda: asking(server)) as sender,
    ):
        for host in ("localhost", "LOCALHOST.", "a.localhost"):
            assert (await post(sender, f"http://{host}:{wire.port}/")).status == 200
        resolver, known_names = asking(server), 0
        for line in Path("/etc/hosts").read_text(encoding="utf-8").splitlines():
            address, *known = line.partition("#")[0].split() or [""]
            for name in known:
                if (
                    "localhost" not in name
                    and not name.startswith("ip6-")
                    and ipaddress.ip_address(address).version == 4
                ):
                    assert address in await resolver.resolve(name)
                    known_names += 1
        assert server.asked == []
        await resolver.close()
    if not known_names:
        pytest.skip("/etc/hosts of this machine has no other name than localhost")


async def test_of_a_name_with_very_many_addresses_a_few_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of them answers: each would hold a socket until the connection has failed."""
    tried: list[str] = []

    async def refused(_pool: Pool, _loop: Any, _origin: Any, address: str) -> Any:
        tried.append(address)
        raise ConnectionRefusedError(111, "refused")

    monkeypatch.setattr(Pool, "_connect_to", refused)
    many = Stub(many_test=[f"127.0.{i // 250}.{i % 250 + 1}" for i in range(1000)])
    async with sending(resolver=lambda: many) as sender:
        assert (await post(sender, "http://many.test/")).error == "connect"
    assert len(tried) == len(set(tried)) == MAX_ADDRESSES


async def test_of_a_name_with_thousands_of_addresses_some_are_kept() -> None:
    """The guard judges each of them before every new connection: thousands would keep the event loop for a while each time."""
    names = Names(Stub(many_test=[f"127.{i // 65_536}.{i // 256 % 256}.{i % 256}" for i in range(1, 6001)]))
    assert len(await names.addresses("many.test")) == rules.MOST_ADDRESSES
    assert len(await names.addresses("many.test")) == rules.MOST_ADDRESSES
    await names.close()

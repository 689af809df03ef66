"""Targets that respond on a new connection without waiting for the request: every client that writes first takes that."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import psutil
import pytest
import uvloop

from cluster.core.execution.model import Target
from cluster.outbound import connection, pool
from tests.support.real_sender import Names, sending
from tests.support.slow_targets import read_head, slow_target
from tests.support.waiting import eventually
from tests.support.wire import OK, Wire, cut, listening

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cluster.outbound.sender import Reply, Sender

TLS = Path(__file__).parents[1] / "data" / "tls"
TARGET = "target.test"


@pytest.fixture(params=["uvloop", "asyncio"])
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    return uvloop.EventLoopPolicy() if request.param == "uvloop" else asyncio.DefaultEventLoopPolicy()


BODY = b"b" * 1000
LARGE = b"b" * 8_000_000


def server_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "server.pem")
    return context


def trusting() -> dict[str, Any]:
    """What a sender needs to reach `TARGET` over TLS."""
    context = ssl.create_default_context(cafile=TLS / "ca.pem")
    return {"resolver": lambda: Names(target_test=["127.0.0.1"]), "ssl_context": context}


class Early:
    """A target that says `first` as soon as it has a connection, ends its side there or not, or resets the connection, and
    says `rest` when the request was read.
    """

    def __init__(self, first: bytes, rest: bytes = b"", *, ends: bool = False, resets: bool = False) -> None:
        self.first, self.rest, self.ends, self.resets = first, rest, ends, resets
        self.said = asyncio.Event()

    async def __call__(self, wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self.first)
        await writer.drain()
        if self.ends and writer.can_write_eof():
            writer.write_eof()
        if self.resets:
            cut(writer)
        self.said.set()
        if self.resets or (self.ends and not writer.can_write_eof()):
            return  # the end of a TLS session is that of its connection
        await wire.request(reader)
        if self.rest:
            writer.write(self.rest)
        await reader.read()

    async def confirm(self) -> bool:
        """Called when the connection exists: wait until the node's side of it has been told."""
        await self.said.wait()
        self.said.clear()
        for _ in range(5):
            await asyncio.sleep(0)
        return True


async def post(sender: Sender, url: str, confirm: Callable[[], Awaitable[bool]], body: bytes = BODY) -> Reply:
    return await sender.send(sender.prepare(Target(url, timeout_seconds=5, body=body), []), confirm)


async def has_read(wire: Wire, *bodies: bytes) -> None:
    """Wait until the target has read requests with these bodies, whole."""

    async def read() -> bool:
        return [len(r.partition(b"\r\n\r\n")[2]) for r in wire.requests] == [len(b) for b in bodies]

    await eventually(read, what="the target has read the requests")


TAKEN = {
    "all of it": (OK, b"", False),
    "all of it, and its side is ended": (OK, b"", True),
    "its beginning": (OK[:20], OK[20:], False),
    "its head": (OK[:-2], OK[-2:], False),
    "an interim response": (b"HTTP/1.1 100 Continue\r\n\r\n", OK, False),
    "one that ends with its connection": (b"HTTP/1.1 200 OK\r\n\r\nok", b"", True),
    "lines that end in LF": (OK.replace(b"\r\n", b"\n"), b"", False),
}


@pytest.mark.parametrize(("first", "rest", "ends"), TAKEN.values(), ids=TAKEN)
async def test_a_response_before_the_request_is_its_response(first: bytes, rest: bytes, ends: bool) -> None:
    """Each request is written, and no connection is used again: whose response came next there could not be told."""
    target = Early(first, rest, ends=ends)
    async with listening(target) as wire, sending() as sender:
        for _ in range(2):
            reply = await post(sender, wire.url, target.confirm)
            assert (reply.status, reply.excerpt, reply.error) == (200, "ok", None), reply
        await has_read(wire, BODY, BODY)
        assert wire.connections == 2


async def test_a_large_request_is_written_although_its_response_is_there() -> None:
    """The connection is not closed under it."""
    target, body = Early(OK), b"b" * 8_000_000
    async with listening(target) as wire, sending() as sender:
        assert (await post(sender, wire.url, target.confirm, body)).status == 200
        await has_read(wire, body)


class Impatient:
    """A target that responds when it has read the head of a request, or before, and then reads up to `wants` bytes of it.

    `took` bytes of the request, its head included, had come when the connection ended. `responded`: whether all of its
    response but what fits into its write buffer had gone by then.
    """

    def __init__(self, response: bytes, *, early: bool, ends: bool = False, wants: int = len(LARGE)) -> None:
        self.response, self.early, self.ends, self.wants = response, early, ends, wants
        self.took = 0
        self.responded = False
        self.ended = asyncio.Event()

    async def __call__(self, _: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if not self.early:
                self.took += len(await reader.readuntil(b"\r\n\r\n"))
            writer.write(self.response)
            await writer.drain()
            self.responded = True
            if self.ends:
                writer.write_eof()
            while self.took <= self.wants and (data := await reader.read(1 << 16)):
                self.took += len(data)
        finally:
            self.ended.set()


async def confirmed() -> bool:
    return True


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("early", [False, True], ids=["after the head", "before the request"])
@pytest.mark.parametrize("size", [2, 3_000_000])
async def test_a_request_is_written_to_its_end_although_its_response_is_complete(
    tls: bool, early: bool, size: int
) -> None:
    """Also behind a response that is longer than what is read of it: closing would take back what was not read yet."""
    target = Impatient(_long(size), early=early)
    async with listening(target, server_tls() if tls else None) as wire, sending(**trusting()) as sender:
        url = f"https://{TARGET}:{wire.port}/" if tls else wire.url
        reply = await post(sender, url, confirmed, LARGE)
        assert (reply.status, reply.error) == (200, None), reply
        await asyncio.wait_for(target.ended.wait(), 20)
        assert target.took > len(LARGE)


async def test_a_request_is_written_to_its_end_although_the_target_has_ended_its_side() -> None:
    """Half a connection is enough for what is left of a request."""
    target = Impatient(_long(3_000_000), early=True, ends=True)
    async with listening(target) as wire, sending() as sender:
        reply = await post(sender, wire.url, confirmed, LARGE)
        assert (reply.status, reply.error) == (200, None), reply
        await asyncio.wait_for(target.ended.wait(), 20)
        assert target.took > len(LARGE)


def are_open_to(port: int, count: int) -> Callable[[], Awaitable[bool]]:
    """Whether so many connections of this process to a port are there."""

    async def counted() -> bool:
        found = [c for c in psutil.Process().net_connections() if c.status != psutil.CONN_LISTEN]
        return sum(bool(c.raddr) and c.raddr[1] == port for c in found) == count

    return counted


async def test_targets_that_read_slowly_hold_a_bounded_number_of_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest are closed; otherwise each would hold a descriptor and the rest of its request until the deadline."""
    monkeypatch.setattr(pool, "MAX_DISCARDED", 3)
    read_on = asyncio.Event()
    took: list[int] = []

    async def slow(_: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(took)
        took.append(len(await reader.readuntil(b"\r\n\r\n")))
        transport = cast("asyncio.ReadTransport", writer.transport)
        transport.pause_reading()
        writer.write(OK)
        await writer.drain()
        await read_on.wait()
        transport.resume_reading()
        while took[number] <= len(LARGE) and (data := await reader.read(1 << 16)):
            took[number] += len(data)

    async def are_whole() -> bool:
        return [size > len(LARGE) for size in took] == [False, False, True, True, True]

    async with listening(slow) as wire, sending() as sender:
        for _ in range(5):
            reply = await post(sender, wire.url, confirmed, LARGE)
            assert (reply.status, reply.error) == (200, None), reply
        await eventually(are_open_to(wire.port, 3), what="two connections of five are closed")
        read_on.set()
        await eventually(are_whole, what="the three latest requests are read to their end")


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("response", [OK, b"HTTP/1.1 200 OK\r\n\r\nok"], ids=["of a length", "until the end"])
async def test_a_target_that_ends_its_side_and_reads_no_more_holds_nothing(
    response: bytes, tls: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transport that closes waits for what is left to be taken, for as long as that takes; the connection does not."""
    monkeypatch.setattr(connection, "DISCARD_SECONDS", 0.3)
    stay = threading.Event()

    def ends(peer: socket.socket) -> None:
        read_head(peer)
        peer.sendall(response)
        time.sleep(0.05)  # what is looked for needs a response first, and the end of it in another turn of the loop
        peer.shutdown(socket.SHUT_WR)
        stay.wait(30)

    with slow_target(ends, server_tls() if tls else None) as port:
        async with sending(**trusting()) as sender:
            url = f"https://{TARGET}:{port}/" if tls else f"http://127.0.0.1:{port}/"
            reply = await post(sender, url, confirmed, LARGE)
            assert (reply.status, reply.error) == (200, None), reply
            await eventually(are_open_to(port, 0), what="the connection has ended")
        stay.set()


async def test_a_connection_that_was_discarded_is_not_used_again() -> None:
    """What was left of its request is written meanwhile, and then nothing else tells it from one that may be kept."""
    loop = asyncio.get_running_loop()
    heads: list[int] = []
    lefts: list[int] = []

    def answers(peer: socket.socket) -> None:
        mine = 0
        with contextlib.suppress(ConnectionResetError):
            while True:
                left = 150_000 - read_head(peer)
                mine += 1
                loop.call_soon_threadsafe(time.sleep, 0.3)  # a node that is busy: all of this comes to it in one read
                time.sleep(0.05)
                peer.sendall(OK)
                peer.sendall(b"x")
                while left > 0 and (data := peer.recv(1 << 16)):
                    left -= len(data)
                lefts.append(left)
        heads.append(mine)

    with slow_target(answers, server_tls()) as port:
        async with sending(**trusting()) as sender:
            for _ in range(3):
                reply = await post(sender, f"https://{TARGET}:{port}/", confirmed, b"b" * 150_000)
                assert (reply.status, reply.error) == (200, None), reply

            async def all_ended() -> bool:
                return len(heads) == 3

            await eventually(all_ended, what="the target has seen the end of each connection")
        assert heads == [1, 1, 1]
        assert len(lefts) == 3, "a connection was reset"
        assert max(lefts) <= 0, "a request was not written to its end"


async def test_a_request_in_the_queue_of_the_system_is_not_taken_back() -> None:
    """All of it has left the process, the target has read its head, and the response is longer than what is read of it."""
    took: list[int] = []
    replied = threading.Event()

    def answers(peer: socket.socket) -> None:
        got = read_head(peer)
        speaking = threading.Thread(target=peer.sendall, args=(_long(3_000_000),), daemon=True)
        speaking.start()
        replied.wait(20)  # the node has read what it reads of a response
        with contextlib.suppress(OSError):
            while got < 1_000_000 and (data := peer.recv(1 << 12)):
                got += len(data)
        took.append(got)
        speaking.join()

    with slow_target(answers, segment=None) as port:
        async with sending() as sender:
            reply = await post(sender, f"http://127.0.0.1:{port}/", confirmed, b"b" * 1_000_000)
            assert (reply.status, reply.error) == (200, None), reply
            replied.set()

            async def taken() -> bool:
                return bool(took)

            await eventually(taken, what="the target has read the request, or its connection has ended")
        assert took[0] >= 1_000_000


@pytest.mark.parametrize("ends", [False, True], ids=["stays", "ends its side"])
async def test_a_slow_target_has_its_request_as_long_as_it_goes_on_reading(
    ends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many looks for progress find some, and none of them ends the connection."""
    monkeypatch.setattr(connection, "DISCARD_SECONDS", 0.2)
    body = LARGE[:2_000_000]
    took: list[int] = []

    def answers(peer: socket.socket) -> None:
        got = read_head(peer)
        peer.sendall(b"HTTP/1.1 200 OK\r\n\r\nok" if ends else OK)
        if ends:
            peer.shutdown(socket.SHUT_WR)
        while got < len(body) and (data := peer.recv(1 << 17)):
            got += len(data)
            time.sleep(0.01)
        took.append(got)

    with slow_target(answers, segment=None) as port:
        async with sending() as sender:
            reply = await post(sender, f"http://127.0.0.1:{port}/", confirmed, body)
            assert (reply.status, reply.error) == (200, None), reply
            assert not took, "the target had all of it before the response was there"

            async def taken() -> bool:
                return bool(took)

            await eventually(taken, 30, "the target has read the request, or its connection has ended")
        assert took[0] >= len(body)


async def test_a_target_that_reads_for_ever_has_the_time_of_its_job() -> None:
    """It makes progress all the time, and has taken little of its request at the deadline."""

    def answers(peer: socket.socket) -> None:
        read_head(peer)
        peer.sendall(OK)
        with contextlib.suppress(OSError):
            while peer.recv(100):
                time.sleep(0.02)

    with slow_target(answers) as port:
        async with sending() as sender:
            began = time.monotonic()
            prepared = sender.prepare(Target(f"http://127.0.0.1:{port}/", timeout_seconds=1, body=LARGE), [])
            assert (await sender.send(prepared, confirmed)).status == 200
            await eventually(are_open_to(port, 0), what="the connection has ended")
            assert time.monotonic() - began < 3, "no look after the deadline"


@pytest.mark.parametrize("size", [2, 30_000_000], ids=["silent", "that says more than is dropped"])
async def test_a_connection_ends_soon_although_its_target_keeps_it_open(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that has responded early and reads for ever holds no descriptor of the node for longer than a moment."""
    monkeypatch.setattr(connection, "DISCARD_SECONDS", 0.3)
    target = Impatient(_long(size), early=True, wants=1 << 60)
    async with listening(target) as wire, sending() as sender:
        reply = await post(sender, wire.url, confirmed)
        assert (reply.status, reply.error) == (200, None), reply
        await asyncio.wait_for(target.ended.wait(), 20)
        assert target.responded is (size == 2), "what is dropped is bounded"


async def test_a_request_that_could_not_be_written_has_no_response() -> None:
    """A target that responds and resets the connection has acted on nothing."""
    target = Early(OK, resets=True)
    async with listening(target) as wire, sending() as sender:
        reply = await post(sender, wire.url, target.confirm)
        assert (reply.status, reply.error) == (None, "reset"), reply


def _long(size: int) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size


@pytest.mark.parametrize(
    ("first", "rest", "ends"),
    [
        (OK, b"", False),
        (OK[:20], OK[20:], False),
        (_long(60_000), b"", False),
        (_long(60_000), b"", True),
        (_long(300_000), b"", False),
    ],
    ids=[
        "all of it",
        "its beginning",
        "a long one",
        "a long one, and the session is ended",
        "one that is not read whole",
    ],
)
async def test_a_response_before_the_request_over_tls(first: bytes, rest: bytes, ends: bool) -> None:
    """It may come in one piece with the end of the handshake, and in more than is decrypted at once."""
    target = Early(first, rest, ends=ends)
    async with listening(target, server_tls()) as wire, sending(**trusting()) as sender:
        for _ in range(2):
            reply = await post(sender, f"https://{TARGET}:{wire.port}/", target.confirm)
            assert (reply.status, reply.error) == (200, None), reply
        assert wire.connections == 2


@pytest.mark.parametrize(
    ("first", "error", "status"),
    [
        (b"", "reset", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab", "reset", 200),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "protocol", None),
        (b"x" * 1_000_000, "too_large", None),
    ],
    ids=["its side is ended", "a response that breaks off", "another protocol", "a megabyte of something else"],
)
async def test_other_bytes_before_the_request_are_what_it_fails_with(
    first: bytes, error: str, status: int | None
) -> None:
    """As if they had come after it."""
    target = Early(first, ends=True)
    target.said.set()
    async with listening(target) as wire, sending() as sender:
        reply = await post(sender, wire.url, target.confirm)
        assert (reply.error, reply.status) == (error, status), reply

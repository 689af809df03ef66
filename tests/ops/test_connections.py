"""Connections of a node without a proxy: bounded, in turns, and no reader holds one without reading."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import sys
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import uvloop
from gunicorn.config import Config
from gunicorn.glogging import Logger
from structlog.testing import capture_logs

from ops.server import guarded_protocol
from ops.server.connection_limits import ConnectionLimits
from ops.server.guarded_protocol import GuardedProtocol
from tests.support.worst_bodies import Standstill

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

BIG = b"x" * (8 * 2**20)


@pytest.fixture(params=["uvloop", "asyncio"])
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    return uvloop.EventLoopPolicy() if request.param == "uvloop" else asyncio.DefaultEventLoopPolicy()


class App:
    """Answers with the size of the body, or with much."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            self.chunks.append(message["body"])
            size += len(message["body"])
            if not message["more_body"]:
                break
        body = BIG if scope["path"] == "/big" else b"%d" % size
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def serving(
    limits: ConnectionLimits, app: Callable[..., Any] | None = None, hosts: tuple[str, ...] = ("127.0.0.1",)
) -> AsyncIterator[Any]:
    """A worker as far as the protocol needs it, and its port."""
    cfg = Config()
    loop = asyncio.get_running_loop()
    worker = SimpleNamespace(
        cfg=cfg, log=Logger(cfg), asgi=app or App(), loop=loop, nr_conns=0, nr=0, max_requests=sys.maxsize, alive=True
    )
    protocol = type("Protocol", (GuardedProtocol,), {"limits": limits})
    server = await loop.create_server(lambda: protocol(worker), list(hosts), 0)
    worker.port = server.sockets[0].getsockname()[1]
    try:
        yield worker
    finally:
        server.close()


def connect(port: int, source: str = "127.0.0.1") -> socket.socket:
    made = socket.create_connection(("127.0.0.1", port), source_address=(source, 0))
    made.setblocking(False)
    return made


async def settle(condition: Callable[[], bool], what: str) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)
    assert condition(), what


async def answer_on(opened: socket.socket, request: bytes = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n") -> bytes:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(opened, request)
    async with asyncio.timeout(10):
        return await loop.sock_recv(opened, 65536)


async def is_closed(opened: socket.socket) -> bool:
    """Whether the node closed it, read to the end."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(0.5):
            while await loop.sock_recv(opened, 2**20):
                pass
    except TimeoutError:
        return False
    except ConnectionError:
        pass
    return True


async def test_one_address_gets_a_bounded_number() -> None:
    """More are refused with 503 and closed; other addresses are served; a place is free again when one closes."""
    with capture_logs() as logs:
        async with serving(ConnectionLimits(20, 5)) as worker:
            held = [connect(worker.port) for _ in range(5)]
            await settle(lambda: worker.nr_conns == 5, "five are open")
            more = [connect(worker.port) for _ in range(30)]
            refused = [await asyncio.get_running_loop().sock_recv(s, 1000) for s in more]
            assert all(r.startswith(b"HTTP/1.1 503 ") for r in refused)
            assert all([await is_closed(s) for s in more])
            assert worker.nr_conns == 5
            assert b" 200 " in await answer_on(connect(worker.port, "127.0.0.2"))
            assert b" 200 " in await answer_on(held[0])
            held[0].close()
            await settle(lambda: worker.nr_conns == 5, "one has left")
            assert b" 200 " in await answer_on(connect(worker.port))
    assert [e["address"] for e in logs if e["event"] == "connections_refused"] == ["127.0.0.1"]


async def test_who_fills_all_places_loses_idle_ones_first() -> None:
    """A new address gets in although all places are taken: the oldest idle connection of the fullest address is closed."""
    async with serving(ConnectionLimits(12, 10)) as worker:
        innocent = [connect(worker.port, "127.0.0.9") for _ in range(2)]
        await settle(lambda: worker.nr_conns == 2, "two are open")
        crowd = [connect(worker.port, "127.0.0.2") for _ in range(10)]
        await settle(lambda: worker.nr_conns == 12, "all places are taken")
        newcomer = connect(worker.port, "127.0.0.3")
        assert b" 200 " in await answer_on(newcomer)
        assert await is_closed(crowd[0])
        assert b" 200 " in await answer_on(innocent[0])
        assert worker.nr_conns == 12


async def test_busy_connections_are_not_closed_for_new_ones() -> None:
    """When nobody is idle, the new one is refused."""
    release = asyncio.Event()

    async def waiting(_scope: Any, _receive: Any, send: Any) -> None:
        await release.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    async with serving(ConnectionLimits(4, 2), waiting) as worker:
        busy = [connect(worker.port, f"127.0.0.{n}") for n in (2, 2, 3, 3)]
        loop = asyncio.get_running_loop()
        for opened in busy:
            await loop.sock_sendall(opened, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await settle(lambda: worker.nr_conns == 4, "four are open")
        await asyncio.sleep(0)
        assert b" 503 " in await loop.sock_recv(connect(worker.port, "127.0.0.4"), 1000)
        release.set()
        for opened in busy:
            assert b" 200 " in await loop.sock_recv(opened, 1000)


async def test_requests_whose_bodies_never_come_keep_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take all places from several addresses. One that sends on is busy, however slowly, and keeps its place."""
    monkeypatch.setattr(guarded_protocol, "STALLED_SECONDS", 0.2)
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n"
    async with serving(ConnectionLimits(6, 5)) as worker:
        silent = [connect(worker.port, f"127.0.0.{2 + i % 2}") for i in range(5)]
        sending = connect(worker.port, "127.0.0.2")
        for opened in (*silent, sending):
            opened.setblocking(True)
            opened.sendall(head)
            opened.setblocking(False)
        for _ in range(4):
            await asyncio.sleep(0.1)
            sending.send(b"x")
        for _ in range(3):
            with connect(worker.port, "127.0.0.9") as innocent:
                assert b" 200 " in await answer_on(innocent)
        await asyncio.get_running_loop().sock_sendall(sending, b"x" * 5)
        async with asyncio.timeout(10):
            assert b" 200 " in await asyncio.get_running_loop().sock_recv(sending, 1000)
        for opened in (*silent, sending):
            opened.close()


async def test_a_trusted_proxy_has_no_bound_of_its_own_and_is_not_closed() -> None:
    """It carries many clients; its idle connections are those that it keeps for the next request."""
    trusted = (ipaddress.ip_network("127.0.0.2/32"),)
    async with serving(ConnectionLimits(8, 2, trusted)) as worker:
        proxy = [connect(worker.port, "127.0.0.2") for _ in range(7)]
        await settle(lambda: worker.nr_conns == 7, "seven are open")
        stranger = connect(worker.port, "127.0.0.3")
        assert b" 200 " in await answer_on(stranger)
        assert b" 200 " in await answer_on(connect(worker.port, "127.0.0.4"))
        assert await is_closed(stranger)
        assert b" 200 " in await answer_on(proxy[0])


def test_places_of_listeners_are_counted_apart() -> None:
    """Whoever fills the port of the API does not keep Prometheus from the port of the metrics; IPv6 counts by /64."""
    limits = ConnectionLimits(3, 2)
    made = [SimpleNamespace(is_idle=False, close_idle=lambda: None) for _ in range(9)]
    made = [type("Connection", (), dict(vars(m)))() for m in made]
    assert [limits.admit(m, f"2001:db8::{n:x}", 5000) for n, m in enumerate(made[:3])] == [True, True, False]
    assert limits.admit(made[3], "192.0.2.1", 5000)
    assert not limits.admit(made[4], "192.0.2.2", 5000)
    assert limits.admit(made[5], "192.0.2.1", 9464)
    for _ in range(2):
        limits.leave(made[0])
    assert limits.admit(made[6], "192.0.2.2", 5000)


async def test_a_reader_that_never_reads_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """While an answer waits, and when the connection is being closed behind it; a slow reader has time for all of it."""
    monkeypatch.setattr(guarded_protocol, "DRAIN_SECONDS", 0.3)
    monkeypatch.setattr(guarded_protocol, "BYTES_PER_SECOND", 2**30)
    async with serving(ConnectionLimits(20, 20)) as worker:
        loop = asyncio.get_running_loop()
        stuck = [connect(worker.port) for _ in range(4)]
        for opened, request in zip(
            stuck,
            (
                b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n",
                b"GET /big HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
                b"GET /big HTTP/1.0\r\n\r\n",
                b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n" * 20,
            ),
            strict=True,
        ):
            await loop.sock_sendall(opened, request)
        await settle(lambda: worker.nr_conns == 4, "four are open")
        await settle(lambda: worker.nr_conns == 0, "all are cut off")


async def test_a_slow_reader_has_time_for_a_large_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadline grows with the size."""
    monkeypatch.setattr(guarded_protocol, "DRAIN_SECONDS", 0.1)
    monkeypatch.setattr(guarded_protocol, "BYTES_PER_SECOND", 2**20)
    async with serving(ConnectionLimits(20, 20)) as worker:
        loop = asyncio.get_running_loop()
        opened = connect(worker.port)
        await loop.sock_sendall(opened, b"GET /big HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        read = 0
        while data := await loop.sock_recv(opened, 2**20):
            read += len(data)
            await asyncio.sleep(0.02)
        assert read > len(BIG)


async def test_chunks_of_one_byte_are_parsed_in_turns_and_arrive_as_few() -> None:
    """Whatever the pace: the loop runs other tasks in between, and the application gets all bytes in order."""
    app = App()
    text = bytes(i % 251 for i in range(100_000))
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in text) + b"0\r\n\r\n"
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    longest = []
    async with serving(ConnectionLimits(20, 20), app) as worker:
        for _ in range(3):
            app.chunks.clear()
            async with Standstill() as measured:
                answer = await answer_on(connect(worker.port), head + chunks)
            assert answer.endswith(b"\r\n\r\n100000")
            assert b"".join(app.chunks) == text
            assert len(app.chunks) < 5_000
            longest.append(measured.longest)
        assert min(longest) < 60


async def test_pipelined_requests_keep_their_order() -> None:
    """Also when they come in one large piece with bodies of many chunks."""
    app = App()
    body = b"".join(b"1\r\na\r\n" for _ in range(3_000)) + b"0\r\n\r\n"
    requests = b"".join(
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        + body
        + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
        for _ in range(5)
    )
    async with serving(ConnectionLimits(20, 20), app) as worker:
        loop = asyncio.get_running_loop()
        opened = connect(worker.port)
        await loop.sock_sendall(opened, requests)
        seen = b""
        async with asyncio.timeout(20):
            while seen.count(b"HTTP/1.1 200") < 10 or not seen.endswith(b"\r\n0"):
                seen += await loop.sock_recv(opened, 65536)
        assert [part.rpartition(b"\r\n\r\n")[2] for part in seen.split(b"HTTP/1.1 200")[1:]] == [b"3000", b"0"] * 5

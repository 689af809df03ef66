"""Targets for tests on real sockets: raw servers that say exactly what a test wants said."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable

    Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Wire:
    """What a raw server saw: how many connections, how many of them are open, and every request as it came."""

    port: int = 0
    connections: int = 0
    open: int = 0
    requests: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    async def request(self, reader: asyncio.StreamReader) -> bytes:
        """Read one whole request."""
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            (int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        whole = head + (await reader.readexactly(length) if length else b"")
        self.requests.append(whole)
        return whole


@contextlib.asynccontextmanager
async def listening(
    answer: Callable[[Wire, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Wire]:
    """A server on a free port of loopback; `answer` has the connection until it returns."""
    wire = Wire()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire.connections += 1
        wire.open += 1
        try:
            await answer(wire, reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        except asyncio.CancelledError:
            pass  # the test is over; asyncio 3.11 would log an error for each connection whose handler ends as cancelled
        finally:
            wire.open -= 1
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls, limit=1 << 23)
    wire.port = server.sockets[0].getsockname()[1]
    try:
        yield wire
    finally:
        server.close()


def saying(*answers: bytes) -> Callable[[Wire, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """Answers each request of a connection with the next of `answers` (the last again and again)."""

    async def answer(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = list(answers)
        while True:
            await wire.request(reader)
            writer.write(left.pop(0) if len(left) > 1 else left[0])
            await writer.drain()

    return answer


def then_closing(said: bytes) -> Callable[[Wire, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """Reads a request, says this and closes."""

    async def answer(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await wire.request(reader)
        writer.write(said)
        await writer.drain()

    return answer


async def hanging(wire: Wire, reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """Reads a request and never answers; ends when the other side closes."""
    await wire.request(reader)
    await reader.read()


def cut(writer: asyncio.StreamWriter) -> None:
    """Close with a TCP reset."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

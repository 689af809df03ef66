"""A name server on loopback that answers as a test wants, or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

A = 1
SOA = 6


class NameServer(asyncio.DatagramProtocol):
    """`names`: the IPv4 addresses of a name; [] for a name that does not exist; None for no answer."""

    def __init__(self) -> None:
        self.names: dict[str, list[str] | None] = {}
        self.asked: list[str] = []
        self.odd: dict[str, Callable[[bytes, bytes], list[bytes]]] = {}
        """The packets that answer a name, by the id of the request and its question."""
        self.port = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        at, labels = 12, []
        while data[at]:
            labels.append(data[at + 1 : at + 1 + data[at]].decode())
            at += 1 + data[at]
        (kind,) = struct.unpack(">H", data[at + 1 : at + 3])
        name, question = ".".join(labels), data[12 : at + 5]
        if kind == A:
            self.asked.append(name)
        if (say := self.odd.get(name)) is not None:
            for packet in say(data[:2], question):
                self._transport.sendto(packet, addr)  # type: ignore[attr-defined]
            return
        found = self.names.get(name, [])
        if found is None:
            return
        records = b"".join(
            b"\xc0\x0c" + struct.pack(">HHIH", A, 1, 0, 4) + bytes(map(int, address.split(".")))
            for address in (found if kind == A else [])
        )
        soa = (
            b"\xc0\x0c" + struct.pack(">HHIH", SOA, 1, 300, 22) + b"\0\0" + struct.pack(">IIIII", 1, 300, 300, 300, 300)
        )
        flags = b"\x81\x80" if found else b"\x81\x83"
        count = struct.pack(">HHHH", 1, len(found) if kind == A else 0, 0 if found else 1, 0)
        said = data[:2] + flags + count + question + (records if found else soa)
        self._transport.sendto(said, addr)  # type: ignore[attr-defined]


@contextlib.asynccontextmanager
async def name_server(**names: list[str] | None) -> AsyncIterator[NameServer]:
    """A name server that knows these names (`_` for a dot)."""
    transport, server = await asyncio.get_running_loop().create_datagram_endpoint(
        NameServer, local_addr=("127.0.0.1", 0)
    )
    server.names = {name.replace("_", "."): found for name, found in names.items()}
    try:
        yield server
    finally:
        transport.close()

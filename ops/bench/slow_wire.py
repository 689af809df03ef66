"""A wire to MongoDB that takes its time: `python -m ops.bench.slow_wire PORT DELAY_MS SOCKET_OR_PORT`, for `--case network`.

Each way every piece of bytes arrives `DELAY_MS` later than it was sent. Order is kept, and nothing is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

CHUNK = 256 * 1024


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
    """Carry bytes one way. The reader goes on reading while pieces wait for their instant."""
    loop = asyncio.get_running_loop()
    waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def deliver() -> None:
        while True:
            at, piece = await waiting.get()
            if at > loop.time():
                await asyncio.sleep(at - loop.time())
            if not piece:
                return
            writer.write(piece)
            await writer.drain()

    delivering = loop.create_task(deliver())
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(CHUNK):
            waiting.put_nowait((loop.time() + delay, piece))
    waiting.put_nowait((loop.time() + delay, b""))
    with contextlib.suppress(ConnectionError):
        await delivering
    writer.close()


async def serve(port: int, delay: float, target: str) -> None:
    """Accept connections for ever."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if target.isdigit():
            there = await asyncio.open_connection("127.0.0.1", int(target))
        else:
            there = await asyncio.open_unix_connection(target)
        await asyncio.gather(_carry(reader, there[1], delay), _carry(there[0], writer, delay))

    server = await asyncio.start_server(accept, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2]) / 1000, sys.argv[3]))

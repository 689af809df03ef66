"""The network as a process: it stands before each MongoDB member (and the receiver), and can be made to fail.

A client is known by the process that holds the other end of the socket, so one node of several can be cut off.
`Wire` starts it and sets its rules; the process itself is `python -m tests.chaos.wire`: lines of JSON on standard
input are the rules from then on, each is answered by a line. Linux only (/proc).

The rule `hold` keeps bytes, and passes them on when the rule ends, as TCP does after a partition: bytes that a peer sent
before it gave up arrive late, and its connection is found closed only then. If a reset replaces the rule, the kept bytes
are lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import uvloop

from ops.support.embedded_mongodb import free_port

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CHUNK = 1 << 16
SLICE_SECONDS = 0.1
NO_LINGER = struct.pack("ii", 1, 0)
Way = Literal["to", "from", "both"]


@dataclass(frozen=True)
class Rule:
    """A fault of some of the traffic.

    `hold` keeps it, `delay` passes it on `amount` ms later, `drip` passes on `amount` bytes a second, `reset` ends
    connections that exist and new ones. `ports`: the real ports of the members concerned; `pids`: the processes at the
    other end; empty means all. `way`: `to` the member, `from` it, or both.
    """

    what: Literal["hold", "delay", "drip", "reset"]
    ports: tuple[int, ...] = ()
    pids: tuple[int, ...] = ()
    way: Way = "both"
    amount: float = 0


class Wire:
    """The process, from the outside."""

    def __init__(self, ports: Iterable[int]) -> None:
        self.front = {port: free_port() for port in ports}
        """The port to connect to, by the real one."""
        links = [f"{front}:{port}" for port, front in self.front.items()]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.wire", *links],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.rule()

    def rule(self, *rules: Rule) -> None:
        """These rules and no others from now on; returns when they hold."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([asdict(r) for r in rules]) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer == "done\n", f"the wire answered {answer!r}"

    def close(self) -> None:
        """End it, and every connection with it."""
        self._process.kill()
        self._process.wait()


class _Rules:
    """The rules of now, whom they concern, and a way to wait for others."""

    def __init__(self) -> None:
        self.now: tuple[Rule, ...] = ()
        self.changed = asyncio.Event()
        self._peers: dict[int, frozenset[int]] = {}
        self._looking = asyncio.Lock()
        self._next: asyncio.Future[None] | None = None

    async def set(self, rules: tuple[Rule, ...]) -> None:
        self.now = rules
        await self.look()
        self.changed.set()
        self.changed = asyncio.Event()

    async def look(self) -> None:
        """Learn which ports the processes have that a rule names; again with each connection that one may concern.

        With thousands of closed connections around, looking takes a tenth of a second: those that come meanwhile share
        the next look.
        """
        if self._next is None:
            self._next = asyncio.ensure_future(self._look())
        await asyncio.shield(self._next)

    async def _look(self) -> None:
        async with self._looking:  # or an older look, which ends later, hides what a newer one has found
            self._next = None
            pids = {pid for r in self.now for pid in r.pids}
            self._peers = await asyncio.to_thread(local_ports, pids) if pids else {}

    def of(self, port: int, peer: int, way: str) -> Iterator[Rule]:
        """The rules for what passes between a member and the process that has this port."""
        for r in self.now:
            mine = not r.pids or any(peer in self._peers.get(pid, ()) for pid in r.pids)
            if mine and (not r.ports or port in r.ports) and r.way in (way, "both"):
                yield r


class _Connection:
    """One connection and the one behind it."""

    def __init__(self, rules: _Rules, port: int, peer: int) -> None:
        self._rules, self._port, self._peer = rules, port, peer
        self._writers: list[asyncio.StreamWriter] = []

    async def run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        try:
            if self._any("reset", "both"):
                return
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
            self._writers.append(far_writer)
            halves = [
                asyncio.ensure_future(self._half(reader, far_writer, "to")),
                asyncio.ensure_future(self._half(far_reader, writer, "from")),
                asyncio.ensure_future(self._resets()),
            ]
            try:
                # Either side's end is the end of both: these protocols do not use half-closed connections.
                await asyncio.wait(halves, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for h in halves:
                    h.cancel()
                await asyncio.gather(*halves, return_exceptions=True)
        except OSError:
            pass  # the member is down
        finally:
            for w in self._writers:
                connected = w.get_extra_info("socket")  # None: the transport has ended by itself
                if connected is not None and self._any(
                    "reset", "both"
                ):  # a lingering of no seconds is what sends a RST
                    connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
                w.transport.abort()

    def _any(self, what: str, way: str) -> Rule | None:
        return next((r for r in self._rules.of(self._port, self._peer, way) if r.what == what), None)

    async def _resets(self) -> None:
        while not self._any("reset", "both"):
            await self._rules.changed.wait()

    async def _half(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str) -> None:
        """Pass on what comes, in order, when the rules let it."""
        loop = asyncio.get_running_loop()
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(64)

        async def read() -> None:
            data = b"?"
            while data:
                try:
                    data = await reader.read(CHUNK)
                except OSError:
                    data = b""
                slow = self._any("delay", way)
                await waiting.put((loop.time() + (slow.amount / 1000 if slow else 0), data))

        reading = asyncio.ensure_future(read())
        try:
            while True:
                at, data = await waiting.get()
                if at > loop.time():
                    await asyncio.sleep(at - loop.time())
                await self._let(way)
                if self._any("reset", "both"):
                    return  # bytes held when the connection broke are lost
                if not data:
                    writer.close()
                    await writer.wait_closed()
                    return
                await self._write(writer, data, way)
        except OSError:
            return
        finally:
            reading.cancel()

    async def _let(self, way: str) -> None:
        while self._any("hold", way):
            await self._rules.changed.wait()

    async def _write(self, writer: asyncio.StreamWriter, data: bytes, way: str) -> None:
        at = 0
        while at < len(data):
            slow = self._any("drip", way)
            size = max(1, int(slow.amount * SLICE_SECONDS)) if slow else len(data)
            writer.write(data[at : at + size])
            await writer.drain()
            at += size
            if slow:
                await asyncio.sleep(SLICE_SECONDS)
                await self._let(way)


def local_ports(pids: Iterable[int]) -> dict[int, frozenset[int]]:
    """The local ports of processes' connected loopback sockets."""
    ports = {}
    with Path("/proc/net/tcp").open() as table:
        for line in table:
            fields = line.split(maxsplit=10)
            if fields[3] == "01" and fields[1].startswith("0100007F:"):
                ports[fields[9]] = int(fields[1][9:], 16)
    return {pid: frozenset(ports[inode] for inode in _sockets(pid) if inode in ports) for pid in pids}


def _sockets(pid: int) -> frozenset[str]:
    """The inodes of a process's sockets."""
    found = set()
    with contextlib.suppress(OSError):  # it is gone
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.add(str(fd.readlink()).removeprefix("socket:[").removesuffix("]"))
    return frozenset(found)


async def _main(links: list[tuple[int, int]]) -> None:
    rules = _Rules()
    tasks: set[asyncio.Task[None]] = set()

    async def accept(port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if any(r.pids and (not r.ports or port in r.ports) for r in rules.now):
            await rules.look()
        await _Connection(rules, port, writer.get_extra_info("peername")[1]).run(reader, writer)

    for front, port in links:

        def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int = port) -> None:
            task = asyncio.ensure_future(accept(port, reader, writer))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        await asyncio.start_server(begin, "127.0.0.1", front, limit=CHUNK, backlog=512)
    while line := await asyncio.to_thread(sys.stdin.readline):
        await rules.set(
            tuple(Rule(**{**r, "ports": tuple(r["ports"]), "pids": tuple(r["pids"])}) for r in json.loads(line))
        )
        sys.stdout.write("done\n")
        sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(_main([(int(a), int(b)) for a, b in (text.split(":") for text in sys.argv[1:])]))

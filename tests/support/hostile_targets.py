"""Targets that send without end, in a process of their own, so that what they cost an event loop is its own CPU time.

    python -m tests.support.hostile_targets

prints the port of plain HTTP and the port of TLS. The path of a request is the number of a shape.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

CERTIFICATE = Path(__file__).parents[1] / "data" / "tls" / "server.pem"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"
LONG = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n"
SLOW = 0.0005
SHAPES: dict[str, tuple[bytes, bytes, float]] = {
    "interim answers": (b"", INTERIM * 1000, 0),
    "interim answers one by one": (b"", INTERIM, SLOW),
    "interim answers with headers": (b"", b"HTTP/1.1 103 Early Hints\r\n" + b"Link: </a>\r\n" * 2000 + b"\r\n", 0),
    "a status line": (b"", b"HTTP/1.1 200 " + b"O" * 60_000, 0),
    "blank lines": (b"", b"\r\n" * 30_000, 0),
    "header fields": (b"HTTP/1.1 200 OK\r\n", b"a:b\r\n" * 10_000, 0),
    "header fields byte by byte": (b"HTTP/1.1 200 OK\r\n", b"a", 0),
    "a header value": (b"HTTP/1.1 200 OK\r\nX-A: ", b"a" * 60_000, 0),
    "a folded header": (b"HTTP/1.1 200 OK\r\nX-A: b", b"\r\n b" * 20_000, 0),
    "a body": (LONG, b"x" * 60_000, 0),
    "a body byte by byte": (LONG, b"x", 0),
    "a body byte by byte, slowly": (LONG, b"x", SLOW),
    "chunks of one byte": (CHUNKED, b"1\r\nx\r\n" * 10_000, 0),
    "chunks of one byte, one by one": (CHUNKED, b"1\r\nx\r\n", 0),
    "an extension of a chunk": (CHUNKED + b"1;", b"a=b;" * 10_000, 0),
    "the size of a chunk": (CHUNKED, b"0" * 30_000, 0),
    "trailers": (CHUNKED + b"0\r\n", b"a:b\r\n" * 10_000, 0),
    "bytes that are no answer": (b"", b"\xff" * 60_000, 0),
    "odd header fields in pieces": (b"HTTP/1.1 200 OK\nA : b\n", b"X:a\n" * 280, SLOW),
    "odd folded fields in pieces": (b"HTTP/1.1 200 OK\nA : b\nX: y", b"\r\n " * 380, SLOW),
    "odd interim answers": (b"", b"HTTP/1.0 103 Early Hints\n" + b"Link : </a>\n" * 2000 + b"\n", 0),
    "odd chunks of one byte": (CHUNKED, b"1 ;\xff\r\nx\r\n" * 5000, 0),
    "odd chunks without end": (CHUNKED + b"1 ;\xff\r\nx\r\n", b"0" * 1100, SLOW),
    "a body without length": (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 60_000, 0),
}
"""What comes first, what comes for ever, and the seconds between two of those."""


def _talk(raw: socket.socket, tls: ssl.SSLContext | None) -> None:
    with contextlib.suppress(OSError, ValueError, IndexError), raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        raw.settimeout(10)
        connection = raw if tls is None else tls.wrap_socket(raw, server_side=True)
        path = connection.recv(65536).split(b" ", 2)[1]
        begin, piece, pause = list(SHAPES.values())[int(path.strip(b"/"))]
        connection.sendall(begin)
        while True:
            connection.sendall(piece)
            if pause:
                time.sleep(pause)


def _accept(server: socket.socket, tls: ssl.SSLContext | None) -> None:
    while True:
        connection, _ = server.accept()
        threading.Thread(target=_talk, args=(connection, tls), daemon=True).start()


@contextlib.contextmanager
def hostile_targets() -> Iterator[tuple[int, int]]:
    """The targets as a process; yields both ports."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.hostile_targets"],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        plain, tls = map(int, process.stdout.readline().split())
        yield plain, tls
    finally:
        process.kill()
        process.wait()


def main() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    servers = [socket.create_server(("127.0.0.1", 0), backlog=512) for _ in range(2)]
    for server, tls in zip(servers, (None, context), strict=True):
        threading.Thread(target=_accept, args=(server, tls), daemon=True).start()
    print(*(server.getsockname()[1] for server in servers), flush=True)
    sys.stdin.read()  # until the process that started this is gone


if __name__ == "__main__":
    main()

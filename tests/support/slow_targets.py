"""Targets that take little of a request at a time, as those behind a slow network do: with blocking calls, in threads."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

HEAD_PIECE = 300
"""So many bytes are read at a time while the head of a request is looked for."""


@contextlib.contextmanager
def slow_target(
    handle: Callable[[socket.socket], None], tls: ssl.SSLContext | None = None, *, segment: int | None = 1400
) -> Iterator[int]:
    """The port of a target with small buffers; `handle` has each connection until it returns, in a thread of its own."""
    listener = socket.socket()
    if segment is not None:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, segment)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    listener.bind(("127.0.0.1", 0))
    listener.listen(16)

    def talk(raw: socket.socket) -> None:
        with (
            contextlib.suppress(OSError),
            raw,
            raw if tls is None else tls.wrap_socket(raw, server_side=True) as connection,
        ):
            handle(connection)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=talk, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def read_head(connection: socket.socket) -> int:
    """Read until the head of a request has come. Returns how many bytes that were, with some of the body."""
    read = b""
    while b"\r\n\r\n" not in read:
        piece = connection.recv(HEAD_PIECE)
        if not piece:
            raise ConnectionResetError("no further request")
        read += piece
    return len(read)

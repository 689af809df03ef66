"""One connection with TLS, decrypted here and not by the event loop.

So every byte is counted, also those that never become bytes of a response (tickets, changes of keys, empty records), and
closing waits for nothing that the target would have to send.
"""

from __future__ import annotations

import contextlib
import ssl
from typing import TYPE_CHECKING

from cluster.outbound.connection import Connection
from cluster.outbound.errors import NotHttp, TlsFailed, connect_error, system_text

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from cluster.outbound.response_reader import ResponseReader

TLS_SLICE = 16 * 1024
"""So many encrypted bytes are decrypted in one turn of the event loop."""
RAW_LIMIT = 1024 * 1024
"""So many encrypted bytes are read for one response: many more than the response may have, in records of any size."""
CLOSE_SECONDS = 1.0
"""So long a target has to take the last bytes of a session."""
IDLE_LIMIT = 64 * 1024
"""So many encrypted bytes may come while no response is awaited: TLS sends its session tickets when it likes."""


class TlsConnection(Connection):
    """A connection with TLS, decrypted here and not by the event loop.

    So every byte is counted, also those that never become bytes of a response (tickets, changes of keys, empty records),
    and closing waits for nothing that the target would have to send.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, context: ssl.SSLContext, host: str) -> None:
        super().__init__(loop)
        self._host = host
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._ready: asyncio.Future[None] | None = loop.create_future()
        self._raw_bytes = 0
        self._unread: list[memoryview] = []

    async def handshake(self) -> None:
        """Wait until the session exists. Raises `TlsFailed`."""
        try:
            if self._ready is not None:
                await self._ready
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        """As `Connection.abort`."""
        if self._ready is not None and not self._ready.done():
            self._ready.cancel()  # nobody waits for it any more
        super().abort()

    def begin(self, wire: bytes, deadline: float, seconds: float) -> asyncio.Future[ResponseReader]:
        """As `Connection.begin`."""
        self._raw_bytes = 0
        return super().begin(wire, deadline, seconds)

    def end(self) -> None:
        """As `Connection.end`."""
        self._raw_bytes = 0
        super().end()

    def close(self) -> None:
        """As `Connection.close`; tells the target that the session ends, but does not wait for it to read that."""
        transport = self._transport
        if transport is None or transport.is_closing() or transport.get_write_buffer_size():
            self.abort()
            return
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()
        self._flush()
        transport.close()
        self._loop.call_later(CLOSE_SECONDS, transport.abort)

    def discard(self) -> bool:
        """As `Connection.discard`. What was not decrypted never is."""
        self._unread.clear()
        return super().discard()

    def _write(self, transport: asyncio.Transport, wire: bytes) -> None:
        self._tls.write(wire)
        transport.write(self._outgoing.read())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection exists: begin the handshake."""
        super().connection_made(transport)
        self._shake_hands()

    def _take(self, data: bytes) -> None:
        """Encrypted bytes, as many as one turn may decrypt; the rest of them in the next turns."""
        self._raw_bytes += len(data)
        if self._raw_bytes > (IDLE_LIMIT if self._waiter is None and not self._holding else RAW_LIMIT):
            self._fail(NotHttp("the response is not HTTP: endless encrypted bytes", status=self._reader.status))
        elif self._unread or len(data) > TLS_SLICE:
            view = memoryview(data)
            self._unread += [view[i : i + TLS_SLICE] for i in range(0, len(data), TLS_SLICE)]
            if self._resuming is None:
                self._next_slice()
        else:
            self._decrypt(data)

    def _resume(self) -> None:
        self._resuming = None
        if self._unread:
            self._next_slice()
        else:
            super()._resume()

    def _next_slice(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()
            self._resuming = self._loop.call_soon(self._resume)
            self._decrypt(self._unread.pop(0))

    def _decrypt(self, data: bytes | memoryview) -> None:
        self._incoming.write(data)
        if self._ready is not None and not self._shake_hands():
            return
        try:
            # Also behind a complete response: what is left there must not be read as the next one.
            while plain := self._tls.read(TLS_SLICE):
                super()._take(plain)
                if not self.is_open():
                    return
            self._ended()
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLZeroReturnError:
            self._ended()
        except ssl.SSLError as exc:
            self._flush()
            self._fail(self._reader.cut_off(f"failed ({system_text(exc)})"))

    def _ended(self) -> None:
        """The target closed the session. It may leave the connection open, so this is the end of both."""
        if self._holding:
            self._target_ended = True
        else:
            self._end_of_response()

    def eof_received(self) -> bool:
        """As `Connection.eof_received`; within the handshake it is an error of TLS."""
        return self._ready is None and super().eof_received()

    def _flush(self) -> None:
        if self._outgoing.pending and self._transport is not None and not self._transport.is_closing():
            self._transport.write(self._outgoing.read())

    def _shake_hands(self) -> bool:
        """Go on with the handshake. True: the session exists."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return False
        except OSError as exc:
            self._flush()  # the alert that says why
            self._not_ready(connect_error(exc, self._host))
            return False
        self._flush()
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(None)
        self._ready = None
        return True

    def _not_ready(self, exc: Exception) -> None:
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(exc)
        self.abort()

    def _fail(self, exc: Exception) -> None:
        if self._ready is not None:
            self._not_ready(TlsFailed(f"no TLS session with {self._host}: too many bytes"))
        super()._fail(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        """As `Connection.connection_lost`; within the handshake it is an error of TLS."""
        if self._ready is not None:
            self._not_ready(TlsFailed(f"{self._host} closed the connection during the TLS handshake"))
        super().connection_lost(exc)


def connection_maker(
    loop: asyncio.AbstractEventLoop, context: ssl.SSLContext | None, host: str
) -> Callable[[], Connection]:
    """What makes the protocol of a new connection; `context` for TLS."""
    if context is None:
        return lambda: Connection(loop)
    return lambda: TlsConnection(loop, context, host)

"""One connection to a target: it carries one request at a time and reads its response.

A request is written once and never again: whoever gets an error of a request cannot know whether the target acted on it.

A target decides how many bytes arrive and in how many pieces. The reader bounds the bytes; here small reads are counted.
The first ones of a response are free; after them the connection stops reading for a while between two reads, so that what
was sent in many small pieces is read in few large ones. So a target costs a bounded number of turns of the event loop each
second, whatever it sends.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import TYPE_CHECKING, cast

from cluster.outbound.errors import ConnectionCut, NotHttp, TlsFailed, connect_error, system_text
from cluster.outbound.response_reader import ResponseReader

if TYPE_CHECKING:
    from collections.abc import Callable

SMALL_READ = 1024
"""A read of fewer bytes is small: smaller than a packet of the internet."""
FREE_READS = 64
"""So many small reads of one response come without a pause."""
PAUSE_STEP_SECONDS = 0.002
MAX_PAUSE_SECONDS = 0.1
"""Each further small read is followed by a pause, which grows by the step up to this."""
TLS_SLICE = 16 * 1024
"""So many encrypted bytes are decrypted in one turn of the event loop."""
RAW_LIMIT = 1024 * 1024
"""So many encrypted bytes are read for one response: many more than the response may have, in records of any size."""
CLOSE_SECONDS = 1.0
"""So long a target has to take the last bytes of a session."""
IDLE_LIMIT = 64 * 1024
"""So many encrypted bytes may come while no response is awaited: TLS sends its session tickets when it likes."""


class Connection(asyncio.Protocol):
    """A connection without TLS. Made by the event loop's `create_connection`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._reader = ResponseReader()
        self._waiter: asyncio.Future[ResponseReader] | None = None
        self._reads = 0
        self._resuming: asyncio.TimerHandle | asyncio.Handle | None = None
        self._seconds = 0.0
        self.deadline = 0.0
        """When the response must be complete, in monotonic seconds."""

    def begin(self, wire: bytes, deadline: float, seconds: float) -> asyncio.Future[ResponseReader]:
        """Write a request. Its response is read until `deadline` (monotonic; `seconds` after the request began).

        Whoever begins awaits the future, calls `abort` if that raises, and `end` in any case. The reader is valid until the
        next request. Raises errors of httpx, as the future does. (It is no coroutine because that would cost a tenth of it.)
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            raise ConnectionCut("the connection was closed before a response")
        self.deadline = deadline
        self._seconds = seconds
        self._reads = 0
        self._reader.begin()
        waiter = self._waiter = self._loop.create_future()
        self._write(transport, wire)
        return waiter

    def end(self) -> None:
        """Nothing more is awaited: what comes from now on is no part of a response."""
        self._waiter = None

    def _write(self, transport: asyncio.Transport, wire: bytes) -> None:
        transport.write(wire)

    def expire(self) -> None:
        """The deadline has passed."""
        self._fail(self._reader.late(self._seconds))

    def reusable(self) -> bool:
        """Whether the connection can carry another request: both sides have read the last one to its end."""
        transport = self._transport
        return (
            self._reader.reusable
            and transport is not None
            and not transport.is_closing()
            and self._resuming is None
            and transport.get_write_buffer_size() == 0
        )

    def is_open(self) -> bool:
        """Whether neither side has closed the connection."""
        return self._transport is not None and not self._transport.is_closing()

    def abort(self) -> None:
        """Close at once. Nothing that the target still sends is read, and nothing waits for it."""
        if self._resuming is not None:
            self._resuming.cancel()
            self._resuming = None
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Close a connection that carries no request."""
        self.abort()

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection exists."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Bytes from the target."""
        if len(data) < SMALL_READ:
            self._reads += 1
            if self._reads > FREE_READS:
                self._pause()
        self._take(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Neither side can send any more."""
        self._transport = None
        if self._resuming is not None:
            self._resuming.cancel()
        if self._waiter is None or self._waiter.done():
            return
        if exc is None and self._reader.at_end():
            self._waiter.set_result(self._reader)
        else:
            self._waiter.set_exception(
                self._reader.cut_off("was closed" if exc is None else f"failed ({system_text(exc)})")
            )

    # Reading

    def _take(self, data: bytes) -> None:
        """Bytes of a response, decrypted. Nothing may come while none is awaited: it would be read as the next one."""
        waiter = self._waiter
        if waiter is None or waiter.done():
            self.abort()
            return
        try:
            if self._reader.feed(data):
                waiter.set_result(self._reader)
        except Exception as exc:  # the reader's errors are what the request fails with
            self._fail(exc)

    def _fail(self, exc: Exception) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(exc)
        self.abort()

    def _pause(self) -> None:
        """Read again only after a while."""
        if self._resuming is None and self._transport is not None:
            seconds = min(MAX_PAUSE_SECONDS, (self._reads - FREE_READS) * PAUSE_STEP_SECONDS)
            self._transport.pause_reading()
            self._resuming = self._loop.call_later(seconds, self._resume)

    def _resume(self) -> None:
        self._resuming = None
        if self.is_open():
            cast("asyncio.Transport", self._transport).resume_reading()


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
        if self._raw_bytes > (IDLE_LIMIT if self._waiter is None and self._ready is None else RAW_LIMIT):
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
        if self._waiter is not None and not self._waiter.done() and self._reader.at_end():
            self._waiter.set_result(self._reader)
        self._fail(self._reader.cut_off("was closed"))

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

"""gunicorn's protocol with what it leaves to a proxy: bounded connections, bounded turns, and readers that must read.

A node may stand on the network without a proxy, and then each of these keeps a stranger from stopping it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from cluster.clock import Clock
from ops.server.header_timeout import HeaderTimeoutProtocol

if TYPE_CHECKING:
    import asyncio

    from ops.server.connection_limits import ConnectionLimits

DRAIN_SECONDS = 30.0
BYTES_PER_SECOND = 64 * 1024
"""A reader has `DRAIN_SECONDS` for what waits to be sent, and this much longer for each byte of it. Then it is cut off."""
STALLED_SECONDS = 3.0
"""A request whose body has not come on for so long may lose its place to another connection."""
PIECE_BYTES = 4096
TURN_SECONDS = 0.005
"""The parser takes some us for each chunk of a body, even of a single byte. After this time other tasks run."""
REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\nContent-Type: text/plain\r\n"
    b"Content-Length: 21\r\n\r\ntoo many connections\n"
)
REFUSAL_SECONDS = 1.0


class GuardedProtocol(HeaderTimeoutProtocol):
    """One connection."""

    limits: ClassVar[ConnectionLimits]

    @classmethod
    def limit(cls, limits: ConnectionLimits) -> None:
        """Connections of this process take their places here."""
        cls.limits = limits

    def __init__(self, worker: Any) -> None:
        super().__init__(worker)
        self._refused = False
        self._came_at = 0.0
        """When the last bytes came, in monotonic seconds."""
        self._unfed = bytearray()
        self._feeding = False
        self._pieces: list[bytes] = []
        self._drain_deadline: asyncio.TimerHandle | None = None
        self._close_deadline: asyncio.TimerHandle | None = None

    # Places

    @property
    def is_idle(self) -> bool:
        """Whether it waits for a request, for the rest of a header, or for a body of which nothing comes."""
        if self._awaiting_request:
            return not self._finishing_calls
        receiver = self._body_receiver
        # Its fields are gunicorn's, as those of this class are: no other says whether the application waits for the body.
        waits = receiver is not None and receiver._waiter is not None and not receiver._complete  # noqa: SLF001 - see above
        return waits and Clock.monotonic() - self._came_at > STALLED_SECONDS

    def close_idle(self) -> None:
        """Close it: another connection needs its place."""
        self._close_transport()

    def connection_made(self, transport: Any) -> None:
        """Take a place, or refuse the connection."""
        peer, own = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        if self.limits.admit(self, str(peer[0]) if peer else "", int(own[1]) if own else 0):
            super().connection_made(transport)
            return
        self._refused = True
        transport.write(REFUSAL)
        transport.close()
        self._close_deadline = self.worker.loop.call_later(REFUSAL_SECONDS, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave the place."""
        for deadline in (self._drain_deadline, self._close_deadline):
            if deadline is not None:
                deadline.cancel()
        if not self._refused:
            self.limits.leave(self)
            super().connection_lost(exc)

    # Readers that do not read

    def pause_writing(self) -> None:
        """Much waits to be sent: the reader has a deadline."""
        super().pause_writing()
        if self._drain_deadline is None:
            self._drain_deadline = self._abort_later()

    def resume_writing(self) -> None:
        """The reader has read."""
        super().resume_writing()
        if self._drain_deadline is not None:
            self._drain_deadline.cancel()
            self._drain_deadline = None

    def _close_transport(self) -> None:
        """Close after what waits to be sent; a reader that does not take it would keep the connection for ever."""
        super()._close_transport()
        if self.transport is not None and self._close_deadline is None and not self._conn_lost_handled:
            self._close_deadline = self._abort_later()

    def _abort_later(self) -> asyncio.TimerHandle:
        seconds = DRAIN_SECONDS + self.transport.get_write_buffer_size() / BYTES_PER_SECOND
        handle: asyncio.TimerHandle = self.worker.loop.call_later(seconds, self.transport.abort)
        return handle

    # Writers that send many small chunks

    def data_received(self, data: bytes) -> None:
        """Parse what came, in turns."""
        self._came_at = Clock.monotonic()
        if self._refused:
            return
        if self._unfed:  # the rest of what came before has to be parsed first
            self._unfed += data
        elif len(data) <= PIECE_BYTES:
            self._feed(data)
        else:
            self._unfed += data
            self._feed_unfed()

    def _feed_unfed(self) -> None:
        until = Clock.monotonic() + TURN_SECONDS
        while self._unfed and not self._closed:
            piece = bytes(self._unfed[:PIECE_BYTES])
            del self._unfed[:PIECE_BYTES]
            self._feed(piece)
            if Clock.monotonic() >= until:
                break
        if self._closed or self.transport.is_closing():
            self._unfed.clear()
        elif self._unfed:
            self.transport.pause_reading()
            self.worker.loop.call_soon(self._feed_unfed)
        elif not self._reading_paused:
            self.transport.resume_reading()

    def _feed(self, data: bytes) -> None:
        """Parse a piece. The chunks of a body in it become one, because each costs the application as much again."""
        self._feeding = True
        try:
            super().data_received(data)
        finally:
            self._feeding = False
            self._hand_over()

    def _on_body(self, chunk: bytes) -> None:
        if self._feeding:
            self._pieces.append(chunk)
        else:
            super()._on_body(chunk)

    def _on_message_complete(self) -> None:
        self._hand_over()
        super()._on_message_complete()

    def _hand_over(self) -> None:
        if self._pieces:
            body = b"".join(self._pieces)
            self._pieces.clear()
            super()._on_body(body)


def install(limits: ConnectionLimits) -> None:
    """Make the worker of this process use the protocol. Call it before the worker listens."""
    from gunicorn.workers import gasgi

    GuardedProtocol.limit(limits)
    gasgi.ASGIProtocol = GuardedProtocol

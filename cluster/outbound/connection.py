"""One connection to a target: it carries one request at a time and reads its response.

A request is written once and never again: whoever gets an error of a request cannot know whether the target acted on it.

A target decides how many bytes arrive and in how many pieces. The reader bounds the bytes; here small reads are counted.
The first ones of a response are free; after them the connection stops reading for a while between two reads, so that what
was sent in many small pieces is read in few large ones. So a target costs a bounded number of turns of the event loop each
second, whatever it sends.

A target may respond on a new connection without waiting for the request. What it sends is kept until the request is written
(or the target has not taken all of it for a while), and is then the response, as for every client that writes first and reads
afterwards. The connection is not used again. If it fails before the request is written, so does the request.

A response may also be complete while the target still reads the request. Its status is the verdict, and the target has a
while to read the rest: a connection that is closed with unread bytes takes back what the other side has not read.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import struct
import termios
from typing import cast

from cluster.outbound.errors import ConnectionCut, system_text
from cluster.outbound.response_reader import ResponseReader

SMALL_READ = 1024
"""A read of fewer bytes is small: smaller than a packet of the internet."""
FREE_READS = 64
"""So many small reads of one response come without a pause."""
PAUSE_STEP_SECONDS = 0.002
MAX_PAUSE_SECONDS = 0.1
"""Each further small read is followed by a pause, which grows by the step up to this."""
UNSENT_SECONDS = 1.0
"""So long a target that responded before the request has for taking it. Then its response counts, as one does that comes
while a request is being sent."""
UNSENT_STEP_SECONDS = 0.005
DISCARD_SECONDS = 3.0
"""So long a target that has responded may neither read of its request nor send, until the deadline of the response. Longer
than the first retransmission takes (RFC 6298: 1 s)."""
SMALL_DISCARDED_READ = 32 * 1024
"""Meanwhile a read of fewer bytes counts as small."""
DISCARD_LIMIT = 4 * 1024 * 1024
"""So many bytes of what it sends meanwhile are read, and dropped."""


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
        self._holding = True
        """No request was written yet: what is received is kept."""
        self._early: list[bytes] = []
        """What was received until then."""
        self._target_ended = False
        """The target has ended its side."""
        self._responded_early = False
        """The response began before the request was written."""
        self._discarding: asyncio.TimerHandle | None = None
        """Looks for progress after `discard`; None before."""
        self._to_discard = DISCARD_LIMIT
        """How many more bytes are read and dropped then."""
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
        if self._holding:
            if self._early or self._target_ended or self._resuming is not None:
                self._take_early(self._loop.time() + UNSENT_SECONDS)
            else:
                self._holding = False
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
            and not self._responded_early
            and self._discarding is None
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

    def lost(self) -> bool:
        """Whether nothing is left of the connection: neither a descriptor nor bytes to send."""
        return self._transport is None

    def discard(self) -> bool:
        """Close a connection whose response is complete, and which carries no other request.

        At once, unless the target may still be reading the request: then when it has ended its side, or makes no progress.
        Returns whether it is still there.
        """
        transport = self._transport
        if transport is None:
            return False
        if self._discarding is not None:
            return True
        if transport.is_closing() or not (self._responded_early or _unsent(transport)):
            self.abort()
            return False
        self._look_for_progress(transport)
        if self._target_ended:
            transport.close()  # when what is left is written; nothing more comes that would tell
        elif self._resuming is None:
            transport.resume_reading()
        return True

    def _look_for_progress(self, transport: asyncio.Transport) -> None:
        seconds = min(DISCARD_SECONDS, max(0.0, self.deadline - self._loop.time()))
        self._discarding = self._loop.call_later(seconds, self._abort_without_progress, self._progress(transport))

    def _abort_without_progress(self, before: tuple[int, int]) -> None:
        """Also where the transport is closing: it waits for a target to take what is left, however long that takes."""
        if self._transport is None:
            return
        if self._progress(self._transport) == before or self._loop.time() >= self.deadline:
            self.abort()
        else:
            self._look_for_progress(self._transport)

    def _progress(self, transport: asyncio.Transport) -> tuple[int, int]:
        """How much is left to send and to discard. Neither grows, so that this ends also without the deadline."""
        return _unsent(transport), self._to_discard

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection exists."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Bytes from the target."""
        if len(data) < (SMALL_READ if self._discarding is None else SMALL_DISCARDED_READ):
            self._reads += 1
            if self._reads > FREE_READS:
                self._pause()
        if self._discarding is None:
            self._take(data)
            return
        self._to_discard -= len(data)
        if self._to_discard < 0:
            cast("asyncio.Transport", self._transport).pause_reading()

    def eof_received(self) -> bool:
        """The target ends its side. True: the connection stays open for the first request, whose response may be here.

        Otherwise the transport closes when what is left of a request is written. `discard` bounds how long that takes.
        """
        self._target_ended = True
        waiter, transport = self._waiter, self._transport
        waits = not self._holding and waiter is not None and not waiter.done()
        if waits and transport is not None and transport.get_write_buffer_size() and self._reader.at_end():
            self._end_of_response()
        return self._holding

    def connection_lost(self, exc: Exception | None) -> None:
        """Neither side can send any more."""
        self._transport = None
        for timer in (self._resuming, self._discarding):
            if timer is not None:
                timer.cancel()
        if self._waiter is None or self._waiter.done():
            return
        if exc is None and self._reader.at_end():
            self._waiter.set_result(self._reader)
        else:
            self._waiter.set_exception(
                self._reader.cut_off("was closed" if exc is None else f"failed ({system_text(exc)})")
            )

    # Reading

    def _take_early(self, until: float) -> None:
        """Once the first request is written: what was received before that is the beginning of its response, or all of it."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return  # it failed, which `connection_lost` tells
        unsent, undecrypted = transport.get_write_buffer_size() > 0, self._resuming is not None
        if (unsent or undecrypted) and self._loop.time() < until:
            self._loop.call_later(UNSENT_STEP_SECONDS, self._take_early, until)
            return
        self._holding = False
        self._responded_early = bool(self._early)
        early = b"".join(self._early)
        self._early.clear()
        Connection._take(self, early)
        if self._target_ended:
            self._end_of_response()
        elif self._resuming is None and self.is_open():
            transport.resume_reading()

    def _end_of_response(self) -> None:
        """The target sends nothing more: the response is complete, or it broke off."""
        waiter = self._waiter
        if waiter is None:
            self.abort()
            return
        if not waiter.done():
            if not self._reader.at_end():
                self._fail(self._reader.cut_off("was closed"))
                return
            waiter.set_result(self._reader)
        self.discard()

    def _take(self, data: bytes) -> None:
        """Bytes of a response, decrypted. None may come between two requests: they would be read as the next response."""
        if self._holding:
            self._early.append(data)
            cast("asyncio.Transport", self._transport).pause_reading()  # one read is enough, and bounds what is kept
            return
        waiter = self._waiter
        if waiter is None:
            self.abort()
            return
        if waiter.done():
            self.discard()
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
        if self.is_open() and not (self._holding and self._early) and self._to_discard >= 0:
            cast("asyncio.Transport", self._transport).resume_reading()


def _unsent(transport: asyncio.Transport) -> int:
    """How many bytes the target's system has not acknowledged: those in this process, and those in this system's queue."""
    queued = 0
    with contextlib.suppress(OSError, ValueError):  # not every system can say it
        descriptor = transport.get_extra_info("socket").fileno()
        (queued,) = struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)))
    return int(queued) + transport.get_write_buffer_size()

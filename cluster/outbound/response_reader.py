"""Reading responses, with limits on everything that a target decides: heads, interim responses, pieces, bytes.

The parser is llhttp by `httptools`. What it refuses in a head although every client takes it (lines that end in LF, the
same length twice) is read once more by `tolerant_head`. The status of a complete head is the verdict; bytes behind the end of
a response, or beyond what is read of it, only cost the connection.
"""

from __future__ import annotations

import httptools

from cluster.outbound.errors import ConnectionCut, NotHttp, ResponseTimeout, ResponseTooLarge
from cluster.outbound.tolerant_head import FINAL, SWITCHING, NotAHead, read_heads, status_begun

RESPONSE_LIMIT = 64 * 1024
"""So many bytes of a response body are read; after a longer body the connection is closed."""
HEAD_LIMIT = 300 * 1024
"""So many bytes of heads, interim ones included, are read for one request: as many as curl reads."""
MAX_FIELDS = 5000
"""So many header fields are read: as many as curl reads. Trailers count too."""
MAX_INTERIM = 8
"""So many interim responses (1xx) are read before the response."""
MAX_PIECES = 4096
"""A body in more pieces than this is cut off as one that is too long: each piece costs a turn of the parser."""
FRAMING_LIMIT = 2 * RESPONSE_LIMIT
"""So many bytes are read after the head, chunk sizes, extensions and trailers included."""


class _Stop(Exception):
    """Raised inside a callback, so that the parser reads no further."""


class ResponseReader:
    """Reads the responses of one connection, one at a time."""

    def __init__(self) -> None:
        self._parser = self._new_parser()
        self.begin()

    def begin(self) -> None:
        """A request goes out: the next bytes are its response."""
        self.status: int | None = None
        """The status of the response whose head is complete."""
        self.headers: list[tuple[bytes, bytes]] = []
        self.reusable = False
        """Once it is complete: whether the connection may carry another request."""
        self._complete = False
        self._body: list[bytes] = []
        self._body_size = 0
        self._head: list[bytes] = []
        self._head_size = 0
        self._framing_size = 0
        self._interim = 0
        self._tolerant = False
        self._chunk_begun = False
        """The size of a chunk was read, and nothing of its content."""
        self._tail = b""
        self._error: Exception | None = None

    def _new_parser(self) -> httptools.HttpResponseParser:
        parser = httptools.HttpResponseParser(self)
        parser.set_dangerous_leniencies(
            lenient_data_after_close=True,
            lenient_optional_lf_after_cr=True,
            lenient_optional_cr_before_lf=True,
            lenient_spaces_after_chunk_size=True,
        )
        return parser

    @property
    def content(self) -> bytes:
        """What was read of the body, at most `RESPONSE_LIMIT` bytes."""
        body = self._body
        return body[0] if len(body) == 1 else b"".join(body)

    def feed(self, data: bytes) -> bool:
        """Take what was received. True: the response is complete, or enough of it was read. Raises errors of httpx."""
        if self.status is not None:
            self._framing_size += len(data)
        elif self._tolerant:
            return self._feed_tolerant(data)
        else:
            self._head.append(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            return self._stopped(exc)
        if self.status is None:
            self._count_head(data)
        elif self._framing_size > FRAMING_LIMIT:
            self._complete = True
            self.reusable = False
        elif not self._complete:
            self._end_in_lf(data)
        return self._complete

    def _end_in_lf(self, data: bytes) -> None:
        """The parser wants CR LF behind the last chunk (`0`); curl takes LF. No other chunk begins with an empty line."""
        self._tail = (self._tail + data)[-2:]
        if self._chunk_begun and self._tail == b"\n\n":
            self._parser.feed_data(b"\n")
            self.reusable = False

    def at_end(self) -> bool:
        """The target closed the connection. Whether that completes the response; else it broke off."""
        if self.status is None or self._complete:
            return self._complete
        names = {name.lower(): value.lower() for name, value in self.headers}
        self._complete = b"content-length" not in names and b"chunked" not in names.get(b"transfer-encoding", b"")
        return self._complete

    def cut_off(self, why: str) -> ConnectionCut:
        """The error of a response that did not reach its end."""
        status = self.status or self._status_seen()
        where = "before a response" if status is None else "in the middle of the response"
        return ConnectionCut(f"the connection {why} {where}", status=status)

    def late(self, seconds: float) -> ResponseTimeout:
        """The error of a response that was not complete in time."""
        return ResponseTimeout(f"no complete response within {seconds:g} s", status=self.status or self._status_seen())

    def _stopped(self, exc: Exception) -> bool:
        """The parser read no further: the response is complete, in error, or one that is read once more."""
        if self._error is not None:
            raise self._error
        if self._complete:
            self.reusable = False
            return True
        if self.status is None and not self._tolerant:
            self._tolerant = True
            rest = b"".join(self._head)
            self._head.clear()
            self._interim = 0
            return self._feed_tolerant(rest)
        # Without the parser's message: it quotes bytes, which may contain a secret that the target repeated.
        raise NotHttp(f"the response is not HTTP: {_fault(exc)}", status=self.status)

    def _feed_tolerant(self, data: bytes) -> bool:
        self._head.append(data)
        received = b"".join(self._head)
        try:
            heads = read_heads(received, MAX_INTERIM, MAX_FIELDS)
        except NotAHead as exc:
            raise NotHttp(f"the response is not HTTP: {exc}", status=exc.status) from None
        if heads is None:
            self._head = [received]
            self._count_head(data)
            return False
        # The parser gets the head in the form that it knows, and nothing of it can be misread by a later request: the
        # connection is not used again.
        self._parser = self._new_parser()
        normal, end = heads
        if end > HEAD_LIMIT:
            raise ResponseTooLarge("the response headers are too large", status=self._status_seen())
        self._feed_normal(normal)
        self.reusable = False
        return self._complete or (end < len(received) and self.feed(received[end:]))

    def _feed_normal(self, head: bytes) -> None:
        self.headers = []
        try:
            self._parser.feed_data(head)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            if not self._complete:
                raise self._error or NotHttp(f"the response is not HTTP: {_fault(exc)}", status=self.status) from None

    def _count_head(self, data: bytes) -> None:
        self._head_size += len(data)
        if self._head_size > HEAD_LIMIT:
            raise ResponseTooLarge("the response headers are too large", status=self._status_seen())

    def _status_seen(self) -> int | None:
        """The status of a head that is not complete; None if its status line is not, or if it is an interim one."""
        return status_begun(b"".join(self._head))

    def _stop(self, error: Exception | None = None) -> None:
        self._error = error
        raise _Stop

    # What the parser calls

    def on_message_begin(self) -> None:
        """A response begins; bytes behind the one that is complete must not be read as the next one."""
        if self._complete:
            self.reusable = False
            self._stop()

    def on_header(self, name: bytes, value: bytes) -> None:
        """One field of the head, or a trailer."""
        headers = self.headers
        headers.append((name, value))
        if len(headers) > MAX_FIELDS:
            self._stop(ResponseTooLarge("the response has too many headers", status=self.status or self._status_seen()))

    def on_headers_complete(self) -> None:
        """The head is complete."""
        status = int(self._parser.get_status_code())
        if status >= FINAL:
            if len(self._head) > 1 and sum(len(n) + len(v) for n, v in self.headers) > HEAD_LIMIT:
                self._stop(ResponseTooLarge("the response headers are too large", status=status))
            self.status = status
            return
        if status == SWITCHING:
            self._stop(NotHttp("101: the target switched to a protocol that was not asked for"))
        self._interim += 1
        if self._interim > MAX_INTERIM:
            self._stop(NotHttp(f"more than {MAX_INTERIM} interim responses ({status})"))

    def on_chunk_header(self) -> None:
        """The size of a chunk."""
        self._chunk_begun = True

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._chunk_begun = False
        pieces = self._body
        pieces.append(body)
        self._body_size += len(body)
        if self._body_size > RESPONSE_LIMIT:
            pieces[:] = [b"".join(pieces)[:RESPONSE_LIMIT]]
            self._complete = True
            self._stop()
        if len(pieces) > MAX_PIECES:
            self._complete = True
            self._stop()

    def on_message_complete(self) -> None:
        """The end of a response, or of an interim one."""
        if self.status is None:
            self.headers = []
        else:
            self._complete = True
            self.reusable = self._parser.should_keep_alive() and not self._tolerant


def _fault(exc: Exception) -> str:
    """What kind of bytes the parser refused."""
    return {
        "HttpParserInvalidStatusError": "invalid status line",
        "HttpParserUpgrade": "a change of protocol",
    }.get(type(exc).__name__, "invalid bytes")

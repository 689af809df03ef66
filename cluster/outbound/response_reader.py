"""Reading responses, with limits on everything that a target decides: heads, interim responses, pieces, bytes.

The parser is llhttp by `httptools`. What it refuses in a head although every client takes it (lines that end in LF, the
same length twice) is read once more by `tolerant_head`, and so are chunks by `tolerant_chunks`. The status of a complete head is the verdict; bytes behind the end of
a response, or beyond what is read of it, only cost the connection.
"""

from __future__ import annotations

import httptools

from cluster.outbound.errors import ConnectionCut, NotHttp, ResponseTimeout, ResponseTooLarge
from cluster.outbound.tolerant_chunks import NotChunks, TolerantChunks
from cluster.outbound.tolerant_head import FINAL, SWITCHING, NotAHead, TolerantHeads, status_begun

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
_CODING = b"transfer-encoding"


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
        self._tolerant: TolerantHeads | None = None
        self._chunks: TolerantChunks | None = None
        self._codings: list[bytes] = []
        self._tabs = False
        """There is a tab among its codings."""
        self._chunked = False
        """Chunks are among its codings."""
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
            if self._chunks is not None:
                return self._feed_chunks(self._chunks, data)
        elif self._tolerant is not None:
            return self._feed_tolerant(self._tolerant, data)
        if self.status is None or self._chunked:  # it may have to be read once more
            self._head.append(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            return self._stopped(exc)
        if self.status is None:
            self._count_head(len(data))
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
        self._complete = not self._chunked and not any(
            name.lower() == b"content-length" and not _is_beyond(value) for name, value in self.headers
        )
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
        # Nothing that is read once more can be misread by a later request: the connection is not used again.
        if self.status is None and self._tolerant is None:
            return self._feed_tolerant(self._begin_tolerant(), b"".join(self._head))
        if self.status is not None and self._chunked and self._tolerant is None:
            return self._feed_chunks(self._begin_chunks(), self._behind_head())
        # Without the parser's message: it quotes bytes, which may contain a secret that the target repeated.
        raise NotHttp(f"the response is not HTTP: {_fault(exc)}", status=self.status)

    def _begin_tolerant(self) -> TolerantHeads:
        self._tolerant = TolerantHeads(MAX_INTERIM, MAX_FIELDS)
        self._interim = self._head_size = 0
        self.headers, self._codings, self._tabs = [], [], False
        return self._tolerant

    def _feed_tolerant(self, tolerant: TolerantHeads, data: bytes) -> bool:
        try:
            heads = tolerant.feed(data)
        except NotAHead as exc:
            raise NotHttp(f"the response is not HTTP: {exc}", status=exc.status) from None
        normal, rest = heads or (b"", b"")
        self._count_head(len(data) - len(rest))
        if heads is None:
            return False
        self._parser = self._new_parser()
        self._feed_normal(normal)
        self.reusable = False
        if self._chunked and not self._complete:
            self._begin_chunks()
        return self._complete or (bool(rest) and self.feed(rest))

    def _behind_head(self) -> bytes:
        """What was received behind the head that the parser has read."""
        try:
            heads = TolerantHeads(MAX_INTERIM, MAX_FIELDS).feed(b"".join(self._head))
        except NotAHead:
            heads = None
        if heads is None:
            raise NotHttp("the response is not HTTP: invalid bytes", status=self.status)
        return heads[1]

    def _begin_chunks(self) -> TolerantChunks:
        self._chunks = TolerantChunks(RESPONSE_LIMIT, MAX_PIECES)
        self._body = self._chunks.pieces
        return self._chunks

    def _feed_chunks(self, chunks: TolerantChunks, data: bytes) -> bool:
        try:
            complete = chunks.feed(data)
        except NotChunks as exc:
            raise NotHttp(f"the response is not HTTP: {exc}", status=self.status) from None
        if complete or self._framing_size > FRAMING_LIMIT:
            self._body = [b"".join(chunks.pieces)[:RESPONSE_LIMIT]]
            self._complete = True
            self.reusable = False
        return self._complete

    def _feed_normal(self, head: bytes) -> None:
        self.headers = []
        try:
            self._parser.feed_data(head)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            if not self._complete:
                raise self._error or NotHttp(f"the response is not HTTP: {_fault(exc)}", status=self.status) from None

    def _count_head(self, size: int) -> None:
        self._head_size += size
        if self._head_size > HEAD_LIMIT:
            raise ResponseTooLarge("the response headers are too large", status=self._status_seen())

    def _status_seen(self) -> int | None:
        """The status of a head that is not complete; None if its status line is not, or if it is an interim one."""
        return status_begun(b"".join(self._head)) if self._tolerant is None else self._tolerant.status()

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
        if len(name) == len(_CODING) and name.lower() == _CODING:
            self._codings += [coding.strip() for coding in value.lower().split(b",")]
            self._tabs = self._tabs or b"\t" in value
        if len(headers) > MAX_FIELDS:
            self._stop(ResponseTooLarge("the response has too many headers", status=self.status or self._status_seen()))

    def on_headers_complete(self) -> None:
        """The head is complete."""
        status = int(self._parser.get_status_code())
        self._chunked = b"chunked" in self._codings
        if self._tolerant is None and self._misread(status):
            self._stop()
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

    def _misread(self, status: int) -> bool:
        """Whether the parser would miss what is behind the head: it looks at the last coding only, knows none with a tab
        behind it, and reads nothing behind an interim response that ends its connection.
        """
        if self._chunked:
            return self._codings[-1] != b"chunked" or self._tabs
        return status < FINAL and status != SWITCHING and not self._parser.should_keep_alive()

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
            self.headers, self._codings, self._tabs = [], [], False
        else:
            self._complete = True
            self.reusable = self._parser.should_keep_alive() and self._tolerant is None


def _is_beyond(length: bytes) -> bool:
    """Whether a `Content-Length` is longer than any file: it says nothing, and the response ends with its connection."""
    digits = length.strip()[:40]
    return digits.isdigit() and int(digits) >= 1 << 63


def _fault(exc: Exception) -> str:
    """What kind of bytes the parser refused."""
    return {
        "HttpParserInvalidStatusError": "invalid status line",
        "HttpParserUpgrade": "a change of protocol",
    }.get(type(exc).__name__, "invalid bytes")

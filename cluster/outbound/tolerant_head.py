"""Heads that the strict parser refuses, read as curl reads them, and written again in the form that the parser knows.

Taken: lines that end in LF, folded lines, blanks before the colon, names of odd characters (left out, nothing asks for
them), the same length more than once or with more behind it, a length beside chunks, a version in small letters or of
HTTP/2, a reason without a blank before it, interim responses that end their connection, chunks among other codings.
Refused as curl refuses them: NUL bytes, lines without a colon, lengths that differ or are no number.
"""

from __future__ import annotations

import re

FINAL = 200
SWITCHING = 101
_FOLD = re.compile(rb"\r?\n[ \t]+")
_END = re.compile(rb"\n\r?\n")
_STATUS_LINE = re.compile(rb"HTTP/(?:1\.[0-9]|2(?:\.0)?)[ \t]+([0-9]{3})(?![0-9])", re.IGNORECASE)
_LENGTH = re.compile(rb"\+?([0-9]+)")
"""curl reads a number up to the first sign that is no digit."""
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_UNPRINTABLE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_MAX_LENGTH_DIGITS = 18


class NotAHead(Exception):
    """The bytes cannot be read as heads. `status`: of the head that is wrong, if its status line could be read."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class TolerantHeads:
    """The heads of one answer, as they come in. Each byte is looked at once, however many pieces there are."""

    def __init__(self, max_interim: int, max_fields: int) -> None:
        self._max_interim = max_interim
        self._max_fields = max_fields
        self._received = bytearray()
        self._start = 0
        """Where the head begins that is being read."""
        self._searched = 0
        """Nothing that is looked for begins before this."""
        self._status: int | None = None
        self._interim = 0

    def feed(self, data: bytes) -> tuple[bytes, bytes] | None:
        """The head of the response behind its interim ones, in the form that the parser knows, and what is behind it; None
        while it is not complete. Raises `NotAHead`.
        """
        received = self._received
        received += data
        while True:
            if self._status is None:
                line_end = received.find(b"\n", self._searched)
                if line_end < 0:
                    self._searched = len(received)
                    return None
                self._status = _status(bytes(received[self._start : line_end]))
                if self._status is None:
                    raise NotAHead("invalid status line")
                self._searched = line_end
            end = _END.search(received, self._searched)
            if end is None:
                line_end = received.rfind(b"\n", self._searched)
                self._searched = len(received) if line_end < 0 else max(line_end, len(received) - 2)
                return None
            if self._status >= FINAL or self._status == SWITCHING:
                head = bytes(received[self._start : end.start()])
                return _normal(head, self._status, self._max_fields), bytes(received[end.end() :])
            self._interim += 1
            if self._interim > self._max_interim:
                raise NotAHead(f"more than {self._max_interim} interim responses")
            self._start = self._searched = end.end()
            self._status = None

    def status(self) -> int | None:
        """The status of the head that is being read; None if it is not known, or an interim one."""
        return self._status if self._status is not None and self._status >= FINAL else None


def status_begun(received: bytes) -> int | None:
    """The status of the response that these bytes begin, whose head is not complete; None if it cannot be told."""
    start = 0
    while (line_end := received.find(b"\n", start)) >= 0:
        status = _status(received[start:line_end])
        if status is None or status >= FINAL:
            return status
        end = _END.search(received, line_end)
        if end is None:
            return None
        start = end.end()
    return None


def _status(line: bytes) -> int | None:
    found = _STATUS_LINE.match(line.rstrip(b"\r"))
    return None if found is None else int(found[1])


def _normal(head: bytes, status: int, max_fields: int) -> bytes:
    """The head in the form that the parser knows."""
    if b"\0" in head:
        raise NotAHead("a NUL byte in the head", status)
    fields: list[tuple[bytes, bytes]] = []
    for line in _FOLD.sub(b" ", head).split(b"\n")[1:]:
        name, colon, value = line.partition(b":")
        if not colon:
            raise NotAHead("a line without a colon in the head", status)
        fields.append((name.strip(), value.strip()))
        if len(fields) > max_fields:
            raise NotAHead("too many headers", status)
    lines = [b"HTTP/1.1 %d" % status]
    if head[:8].upper() == b"HTTP/1.0":
        lines[0] = b"HTTP/1.0 %d" % status
    lines += [
        b"%b: %b" % (name, _UNPRINTABLE.sub(b"?", value))
        for name, value in _framed(fields, status)
        if _TOKEN.match(name)
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def _framed(fields: list[tuple[bytes, bytes]], status: int) -> list[tuple[bytes, bytes]]:
    """The fields with at most one that says where the body ends."""
    codings = b",".join(value for name, value in fields if name.lower() == b"transfer-encoding").lower()
    lengths = [_LENGTH.match(value) for name, value in fields if name.lower() == b"content-length"]
    others = [f for f in fields if f[0].lower() not in (b"transfer-encoding", b"content-length")]
    if b"chunked" in (coding.strip() for coding in codings.split(b",")):
        return [*others, (b"Transfer-Encoding", b"chunked")]
    if not lengths:
        return others
    numbers = {None if length is None else length[1].lstrip(b"0") or b"0" for length in lengths}
    length = numbers.pop()
    if numbers or length is None:
        raise NotAHead("Content-Length is not one number", status)
    if len(length) > _MAX_LENGTH_DIGITS:
        return others  # longer than anything that is read
    return [*others, (b"Content-Length", length)]

"""Heads that the strict parser refuses, read as curl reads them, and written again in the form that the parser knows.

Taken: lines that end in LF, folded lines, blanks before the colon, names of odd characters (left out, nothing asks for
them), the same length more than once or with more behind it, a length beside chunks, a version in small letters or of
HTTP/2. Refused as curl refuses them: NUL bytes, lines without a colon, lengths that differ or are no number.
"""

from __future__ import annotations

import re

FINAL = 200
SWITCHING = 101
_FOLD = re.compile(rb"\r?\n[ \t]+")
_END = re.compile(rb"\n\r?\n")
_STATUS_LINE = re.compile(rb"HTTP/(?:1\.[0-9]|2(?:\.0)?)[ \t]+([0-9]{3})(?=[ \t]|\Z)", re.IGNORECASE)
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


def read_heads(received: bytes, max_interim: int, max_fields: int) -> tuple[bytes, int] | None:
    """The head of the response behind its interim responses, and where it ends; None while it is not complete.

    Raises `NotAHead`.
    """
    start = 0
    for _ in range(max_interim + 1):
        line_end = received.find(b"\n", start)
        if line_end < 0:
            return None
        status = _status(received[start:line_end])
        if status is None:
            raise NotAHead("invalid status line")
        end = _END.search(received, line_end)
        if end is None:
            return None
        if status >= FINAL or status == SWITCHING:
            return _normal(received[start : end.start()], status, max_fields), end.end()
        start = end.end()
    raise NotAHead(f"more than {max_interim} interim responses")


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
    lengths = {
        part.strip() for name, value in fields if name.lower() == b"content-length" for part in value.split(b",")
    }
    others = [f for f in fields if f[0].lower() not in (b"transfer-encoding", b"content-length")]
    if b"chunked" in codings:
        return [*others, (b"Transfer-Encoding", b"chunked")]
    if not lengths:
        return others
    number = _LENGTH.match(lengths.pop())
    if lengths or number is None:
        raise NotAHead("Content-Length is not one number", status)
    length = number[1]
    if len(length) > _MAX_LENGTH_DIGITS:
        return others  # longer than anything that is read
    return [*others, (b"Content-Length", length)]

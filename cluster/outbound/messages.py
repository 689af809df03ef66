"""Requests and responses of httpx that are made of what is at hand.

The constructors of httpx copy and index headers that nobody looks at on the way. `PreparedRequest` is the bytes that will be
written; `ReadResponse` is what was read. Both are messages of httpx for whoever asks them, such as a mock transport.
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import httpx

from cluster.outbound.pool import Origin

if TYPE_CHECKING:
    from collections.abc import Sequence

CONFIRM = "confirm"
"""The extension of a request that is asked whether it may be written."""
_PORTS = {"http": 80, "https": 443}


@lru_cache(maxsize=16_384)
def parsed_url(text: str) -> tuple[httpx.URL, Origin, str]:
    """The URL, where it leads, and the head of its POST up to the length of the body. Raises `httpx.InvalidURL`."""
    url = httpx.URL(text)
    path, host = url.raw_path.decode("ascii"), url.netloc.decode("ascii")
    return url, origin_of(url), f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: "


def origin_of(url: httpx.URL) -> Origin:
    """Where a URL leads."""
    return Origin(url.scheme == "https", url.raw_host.decode("ascii"), url.port or _PORTS.get(url.scheme, 80))


def wire_head(request: httpx.Request) -> bytes:
    """The request line and headers of any request as they go over the wire. Raises `httpx.LocalProtocolError`."""
    headers = request.headers.raw
    lines = [b"%b %b HTTP/1.1" % (request.method.encode("ascii"), request.url.raw_path)]
    lines += [b"%b: %b" % header for header in headers]
    head = b"\r\n".join(lines)
    # A line break inside a value would inject a header or a second request.
    if head.count(b"\n") != len(headers) or head.count(b"\r") != len(headers) or b"\0" in head:
        raise httpx.LocalProtocolError("a header contains a line break or a NUL character", request=request)
    return head + b"\r\n\r\n"


class PreparedRequest(httpx.Request):
    """A POST whose bytes are ready. `wire` is None if a header contains a line break: it must not be sent."""

    def __init__(self, url: str, headers: Sequence[tuple[str, str]], body: bytes, extensions: dict[str, Any]) -> None:
        # The constructor of httpx is not called: it would build what the properties below build when they are asked for.
        self.method = "POST"
        self.url, self.origin, start = parsed_url(url)
        self.extensions = extensions
        self._given = headers
        self._body = body
        lines = [f"{start}{len(body)}", *[f"{name}: {value}" for name, value in headers], "\r\n"]
        head = "\r\n".join(lines)
        breaks = len(headers) + 4
        # A line break inside a value would inject a header or a second request.
        sound = head.count("\n") == breaks and head.count("\r") == breaks and "\0" not in head
        self.wire = head.encode("latin-1", "replace") + body if sound else None

    @property
    def headers(self) -> httpx.Headers:  # type: ignore[override]  # a field of httpx, made when it is asked for
        """The headers that the bytes contain."""
        own = [(b"Host", self.url.netloc), (b"Content-Length", b"%d" % len(self._body))]
        own += [(name.encode("latin-1", "replace"), value.encode("latin-1", "replace")) for name, value in self._given]
        return httpx.Headers(own)

    @property
    def stream(self) -> httpx.ByteStream:  # type: ignore[override]  # the same
        """The body."""
        return httpx.ByteStream(self._body)


class ReadResponse(httpx.Response):
    """A response that was read to its end."""

    def __init__(self, status: int, fields: list[tuple[bytes, bytes]], content: bytes, request: httpx.Request) -> None:
        # The constructor of httpx is not called: see `PreparedRequest`.
        self.status_code = status
        self.fields = fields
        """The headers as they were received."""
        self.received = content
        """The body as it was received, encoded or not."""
        self.extensions = {}
        self.history = []
        self._request = request

    # What is the same for all of them is a field of the class.
    next_request = None
    default_encoding = "utf-8"
    is_closed = is_stream_consumed = False
    _num_bytes_downloaded = 0

    @cached_property
    def stream(self) -> httpx.ByteStream:  # type: ignore[override]  # a field of httpx, made when it is asked for
        """The body. A client of httpx replaces it by its own."""
        return httpx.ByteStream(self.received)

    @property
    def headers(self) -> httpx.Headers:  # type: ignore[override]  # a field of httpx, made when it is asked for
        """The headers."""
        return httpx.Headers(self.fields)

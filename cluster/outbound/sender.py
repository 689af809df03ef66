"""The sender: every request and mail of the engine goes out here. Whatever happens, the result is a value.

A request is prepared before its send time and sent at it, so that little is left to do at the send time.
"""

from __future__ import annotations

import asyncio
import codecs
import re
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import httpx

from cluster.core.execution.model import Answer
from cluster.core.value import value
from cluster.outbound.errors import NotSent, error_kind, error_status, error_text
from cluster.outbound.mail import alert_message, submit
from cluster.outbound.messages import CONFIRM, PreparedRequest, ReadResponse
from cluster.outbound.redaction import redact
from cluster.outbound.response_reader import RESPONSE_LIMIT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from cluster.core.execution.model import Target
    from cluster.outbound.mail import MailServer

EXCERPT_BYTES = 2048
"""So many bytes of a response are kept."""
ANSWER_BYTES = 16 * 1024
"""So many bytes of a response are told by a callback."""
ANSWER_HEADERS_BYTES = 8 * 1024
CONNECT_SECONDS = 10.0
STALL_SECONDS = 1.0
"""A time-out noticed so much too late was caused by this node, which did not run meanwhile."""
UNSENDABLE = "horae.unsendable"
"""The extension of a request that must not be sent; its value is the reason."""
SECRETS = "horae.secrets"
"""The extension with the secrets that must be redacted from the response."""
KEEP_ANSWER = "horae.keep_answer"
"""The extension of a request whose answer a callback tells."""
MAIL = "horae.mail"
"""The extension of a request that is a mail; its value is the `MailMessage`."""
ON_LOOP_BYTES = 2048
"""An answer with so many bytes is redacted on the event loop, within a ms or two; a larger one takes up to some 30 ms."""
FIELD_BYTES = 64
"""A header takes as long as so many bytes more."""
_REDACTING = ThreadPoolExecutor(1, thread_name_prefix="redaction")
"""One for all answers of this process, so that the event loop always gets half of the time."""
_CHARSETS = frozenset({"iso-8859-1", "latin-1", "iso-8859-15", "windows-1252", "cp1252", "us-ascii"})
# Parsed here, because the parser of the standard library, which httpx uses, fails on some parameters
# (`charset*0=a; charset*=b`).
_CHARSET = re.compile(r"""[^;"]*;\s*charset="?([a-z0-9_-]{1,40})"?\s*(?:;|\Z)""", re.ASCII)
_CODINGS = frozenset({"gzip", "x-gzip", "deflate", "compress", "x-compress", "br", "zstd", "aws-chunked"})
_REPLACEMENTS = {n: 0xFFFD for n in (*range(0x20), *range(0x7F, 0xA0)) if n not in (0x09, 0x0A, 0x0D)}


@value(frozen=True, slots=True)
class Reply:
    """The result of one request: a status, or an error kind (one of `errors.ERROR_KINDS`) with a sentence in `detail`.

    An error beside a status: the response broke off after its status line, so that its status is no verdict.

    `excerpt`: the beginning of the response. `retry_after_s`: the `Retry-After` of a failure, from now on.
    """

    status: int | None
    error: str | None
    detail: str | None
    excerpt: str | None
    retry_after_s: float | None
    duration_ms: float
    answer: Answer | None = None
    """What the target said, if its request asks for it to be kept."""


class Sender:
    """Sends over any httpx transport. `connect_seconds` limits how long opening a connection may take."""

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport,
        connect_seconds: float = CONNECT_SECONDS,
        mail: MailServer | None = None,
    ) -> None:
        self._transport = transport
        self._mail = mail
        self._connect_seconds = connect_seconds

    def prepare(self, target: Target, headers: Sequence[tuple[str, str]]) -> httpx.Request:
        """The request for a target, ready to be sent.

        Raises nothing: for a URL that should not have been accepted, `send` returns `denied` later.
        """
        if target.url.startswith("mailto:"):
            execution = next((value for name, value in headers if name == "Horae-Execution-Id"), "")
            return httpx.Request(
                "POST",
                "http://mail/",
                extensions={
                    MAIL: alert_message(target.url, target.body, execution),
                    "timeout": {"total": target.timeout_seconds},
                },
            )
        total = target.timeout_seconds
        timeout = {"connect": min(self._connect_seconds, total), "total": total}
        try:
            extensions: dict[str, Any] = {"timeout": timeout, SECRETS: target.secrets}
            if target.keeps_answer:
                extensions[KEEP_ANSWER] = True
            return PreparedRequest(target.url, headers, target.body, extensions)
        except httpx.InvalidURL as exc:
            return httpx.Request(
                "POST", "http://invalid/", extensions={UNSENDABLE: f"this URL cannot be sent to: {exc}"}
            )

    async def send(self, request: httpx.Request, confirm: Callable[[], Awaitable[bool]] | None = None) -> Reply:
        """Send a prepared request. Raises nothing but `CancelledError`, and `NotSent` if `confirm`, which is asked when a
        new connection is there, says no.
        """
        if confirm is not None:
            request.extensions[CONFIRM] = confirm
        if UNSENDABLE in request.extensions:
            return _failed("denied", request.extensions[UNSENDABLE], 0.0)
        if MAIL in request.extensions:
            return await self._send_mail(request)
        started = time.monotonic()
        try:
            response = await self._transport.handle_async_request(request)
            content = await _raw(response)
        except NotSent:
            raise
        except Exception as exc:
            seconds = time.monotonic() - started
            kind, why = _failure(exc, request, seconds)
            # The error may quote the response, and the response may repeat secrets of the request.
            detail = redact(why.encode(), request.extensions.get(SECRETS, ())).decode("utf-8", "replace")
            return _failed(kind, detail, seconds, error_status(exc))
        duration_ms = (time.monotonic() - started) * 1000
        status = response.status_code
        secrets, answer = request.extensions.get(SECRETS, ()), None
        if KEEP_ANSWER in request.extensions:
            excerpt, answer = await _said(response, content, secrets)
        else:
            excerpt = excerpt_of(response, content, secrets) if content else None
        retry_after = _header(response, b"retry-after") if status >= 300 else None
        return Reply(
            status=status,
            error=None,
            detail=None,
            excerpt=excerpt,
            retry_after_s=_seconds(retry_after),
            duration_ms=duration_ms,
            answer=answer,
        )

    async def _send_mail(self, request: httpx.Request) -> Reply:
        if self._mail is None:
            return _failed("denied", "this node has no mail server: set HORAE_SMTP_HOST", 0.0)
        started = time.monotonic()
        try:
            status, error, detail = await submit(
                self._mail, request.extensions[MAIL], request.extensions["timeout"]["total"]
            )
        except Exception as exc:  # an error that `submit` does not expect is a result as well
            status, error, detail = None, error_kind(exc), error_text(exc)
        return Reply(
            status=status,
            error=error,
            detail=detail,
            excerpt=None,
            retry_after_s=None,
            duration_ms=(time.monotonic() - started) * 1000,
        )

    async def aclose(self) -> None:
        """Close every connection."""
        await self._transport.aclose()


def _failed(kind: str, detail: str, seconds: float, status: int | None = None) -> Reply:
    return Reply(status=status, error=kind, detail=detail, excerpt=None, retry_after_s=None, duration_ms=seconds * 1000)


def _failure(exc: Exception, request: httpx.Request, seconds: float) -> tuple[str, str]:
    """The kind of an error that was raised after so many seconds, and a sentence."""
    kind, why = error_kind(exc), error_text(exc)
    if kind == "timeout":
        limits = request.extensions["timeout"]
        late = seconds - limits["connect" if isinstance(exc, httpx.ConnectTimeout) else "total"]
        if late >= STALL_SECONDS:
            # The response may have arrived in time: a late event loop handles time-outs before it reads from sockets.
            return "stalled", f"this node stalled for {late:.1f} s: {why}"
    return kind, why


async def _raw(response: httpx.Response) -> bytes:
    """The body as it was received. Not `aread()`, which decompresses the body, decompression bombs included."""
    if isinstance(response, ReadResponse):
        return response.received
    stream = response.stream
    if isinstance(stream, httpx.ByteStream):
        return b"".join(stream)
    pieces: list[bytes] = []
    size = 0
    if isinstance(stream, httpx.AsyncByteStream):
        async for piece in stream:
            pieces.append(piece)
            size += len(piece)
            if size >= RESPONSE_LIMIT:
                break
        await response.aclose()
    return b"".join(pieces)[:RESPONSE_LIMIT]


async def _said(response: httpx.Response, content: bytes, secrets: Sequence[str]) -> tuple[str | None, Answer]:
    """The excerpt of the response, and what a callback tells of it."""

    def both() -> tuple[str | None, Answer]:
        return excerpt_of(response, content, secrets) if content else None, answer_of(response, content, secrets)

    if not secrets or _size(response, content) <= ON_LOOP_BYTES:
        return both()
    return await asyncio.get_running_loop().run_in_executor(_REDACTING, both)


def _size(response: httpx.Response, content: bytes) -> int:
    return len(content) + sum(len(name) + len(raw) + FIELD_BYTES for name, raw in _fields(response))


def excerpt_of(response: httpx.Response, content: bytes, secrets: Sequence[str] = ()) -> str:
    """The beginning of a response as text that is safe to show: no secrets, broken characters or control characters."""
    encoding = _header(response, b"content-encoding")
    if encoding not in (None, "", "identity"):
        # Of what else stands there nothing is shown: it may be a secret that the target repeats.
        named = ", ".join(word for word in map(str.strip, str(encoding).split(",")[:4]) if word in _CODINGS)
        return f"({len(content)} bytes, {named or 'another encoding'})"
    if secrets:
        content = redact(content, secrets, EXCERPT_BYTES)
    if content.isascii():
        return _printable(content[:EXCERPT_BYTES].decode("ascii"))
    charset = _CHARSET.match(_header(response, b"content-type") or "")
    if charset is not None and charset[1] in _CHARSETS:
        return _printable(content[:EXCERPT_BYTES].decode(charset[1], "replace"))
    # Not final if the content is cut: then a character that the cut splits is left out instead of shown as broken.
    return _printable(codecs.utf_8_decode(content[:EXCERPT_BYTES], "replace", len(content) <= EXCERPT_BYTES)[0])


def answer_of(response: httpx.Response, content: bytes, secrets: Sequence[str]) -> Answer:
    """What a callback tells of a response: headers and the beginning of the body, both without the secrets of the request.

    Of names that come several times the values are joined, as RFC 9110 says. Cookies are the target's own affair.
    """
    headers: dict[str, str] = {}
    size = 0
    for raw_name, raw in _fields(response):
        name = (redact(raw_name, secrets) if secrets else raw_name).decode("latin-1").lower()
        value = redact(raw, secrets).decode("latin-1") if secrets else raw.decode("latin-1")
        size += len(name) + len(value)
        if size > ANSWER_HEADERS_BYTES:
            break
        if name != "set-cookie":
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
    body = redact(content, secrets, ANSWER_BYTES) if secrets else content[:ANSWER_BYTES]
    body = body[:ANSWER_BYTES]
    return Answer(tuple(headers.items()), body, len(content) if len(content) > ANSWER_BYTES else len(body))


def _fields(response: httpx.Response) -> Sequence[tuple[bytes, bytes]]:
    return response.fields if isinstance(response, ReadResponse) else response.headers.raw


def _header(response: httpx.Response, name: bytes) -> str | None:
    """A header of the response, trimmed and in lower case. The look-up of httpx would decode all headers each time."""
    for key, raw in _fields(response):
        if len(key) == len(name) and key.lower() == name:
            return raw.decode("latin-1").strip().lower()
    return None


def _printable(text: str) -> str:
    return text if text.isprintable() else text.translate(_REPLACEMENTS)


def _seconds(retry_after: str | None) -> float | None:
    """`Retry-After` as seconds from now, whether it is a number of seconds or a date; None if it is neither."""
    if retry_after is None:
        return None
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after.lstrip("0")[:9] or 0)
    try:
        at = parsedate_to_datetime(retry_after)
    except (ValueError, TypeError, OverflowError):
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    # An HTTP date is of the target's wall clock, which can be compared with the wall clock of this node only.
    return max(0.0, (at - datetime.now(UTC)).total_seconds())

"""The one door through which the engine sends. Making a request ready and sending it are two steps: the first happens
before the send time, the second at it. Whatever happens, the result is a value.
"""

from __future__ import annotations

import codecs
import json
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import TYPE_CHECKING

import httpx

from cluster.outbound.errors import error_kind, error_text
from cluster.outbound.mail import alert_message, submit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.core.execution.model import Target
    from cluster.outbound.mail import MailServer

EXCERPT_CHARS = 2048
ANSWER_LIMIT = 64 * 1024
CONNECT_SECONDS = 10.0
STALL_SECONDS = 1.0
"""A time-out that is noticed so much too late was missed by a node that did nothing at all meanwhile."""
UNSENDABLE = "horae.unfit"
"""The extension of a request that must not be sent; its value says why."""
SECRETS = "horae.secrets"
"""The extension that names what must not be kept of an answer."""
MAIL = "horae.mail"
"""The extension of a request that is a mail; its value is the letter."""
MIN_SECRET_CHARS = 4
_CHARSETS = frozenset({"iso-8859-1", "latin-1", "iso-8859-15", "windows-1252", "cp1252", "us-ascii"})
# Our own reading: that of the standard library, which httpx uses, fails on some parameters (`charset*0=a; charset*=b`).
_CHARSET = re.compile(r"""[^;"]*;\s*charset="?([a-z0-9_-]{1,40})"?\s*(?:;|\Z)""", re.ASCII)
_PICTURES = {n: 0xFFFD for n in (*range(0x20), *range(0x7F, 0xA0)) if n not in (0x09, 0x0A, 0x0D)}


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of one request: a status, or an error kind
    (`dns connect tls timeout stalled reset denied too_large protocol other`) with a sentence.
    """

    status: int | None
    error: str | None
    detail: str | None
    excerpt: str | None
    retry_after_s: float | None
    duration_ms: float


@lru_cache(maxsize=8192)
def _url(text: str) -> tuple[httpx.URL, bytes]:
    url = httpx.URL(text)
    return url, url.netloc


class Sender:
    """Sends over any httpx transport; `connect_seconds` bounds the making of a connection."""

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

        Raises nothing: a URL that no release should have accepted makes a request that `send` answers with `denied`.
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
        try:
            url, host = _url(target.url)
        except httpx.InvalidURL as exc:
            return httpx.Request(
                "POST", "http://invalid/", extensions={UNSENDABLE: f"the URL cannot be sent to: {exc}"}
            )
        total = target.timeout_seconds
        raw = [(b"Host", host), (b"Content-Length", b"%d" % len(target.body))]
        raw += [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers]
        return httpx.Request(
            "POST",
            url,
            headers=raw,
            # A stream, not content: then httpx takes the headers as they are, which costs half as much.
            stream=httpx.ByteStream(target.body),
            extensions={
                "timeout": {"connect": min(self._connect_seconds, total), "total": total},
                SECRETS: target.secrets,
            },
        )

    async def send(self, request: httpx.Request) -> Reply:
        """Send it. Raises nothing but `CancelledError`."""
        if UNSENDABLE in request.extensions:
            return Reply(None, "denied", request.extensions[UNSENDABLE], None, None, 0.0)
        started = time.monotonic()
        if MAIL in request.extensions:
            if self._mail is None:
                return Reply(None, "denied", "this node has no mail server: set HORAE_SMTP_HOST", None, None, 0.0)
            seconds = request.extensions["timeout"]["total"]
            try:
                status, error, detail = await submit(self._mail, request.extensions[MAIL], seconds)
            except Exception as exc:  # what no part of it foresaw
                status, error, detail = None, error_kind(exc), error_text(exc)
            return Reply(status, error, detail, None, None, (time.monotonic() - started) * 1000)
        try:
            response = await self._transport.handle_async_request(request)
            content = await _raw(response)
        except Exception as exc:
            waited = time.monotonic() - started
            kind, why = _failure(exc, request, waited)
            # What it complains of may be what the target said, and that what the target was told.
            said = redact(why.encode(), request.extensions.get(SECRETS, ())).decode("utf-8", "replace")
            return Reply(None, kind, said, None, None, waited * 1000)
        duration = (time.monotonic() - started) * 1000
        if content and (secrets := request.extensions.get(SECRETS)):
            content = redact(content, secrets)
        status = response.status_code
        asked = _header(response, b"retry-after") if status >= 300 else None
        return Reply(status, None, None, excerpt_of(response, content) if content else None, _seconds(asked), duration)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._transport.aclose()


def _failure(exc: Exception, request: httpx.Request, waited: float) -> tuple[str, str]:
    """The kind of an exception after so many seconds, and a sentence."""
    kind, why = error_kind(exc), error_text(exc)
    if kind == "timeout":
        limits = request.extensions["timeout"]
        late = waited - limits["connect" if isinstance(exc, httpx.ConnectTimeout) else "total"]
        if late >= STALL_SECONDS:
            # Time-outs are noticed before what came meanwhile is read, so this says nothing about the target.
            return "stalled", f"this node stood still for {late:.1f} s: {why}"
    return kind, why


async def _raw(response: httpx.Response) -> bytes:
    """The body as it came. Never `aread()`, which unpacks what claims to be packed, bombs included."""
    stream = response.stream
    if isinstance(stream, httpx.ByteStream):
        return b"".join(stream)
    pieces: list[bytes] = []
    size = 0
    if isinstance(stream, httpx.AsyncByteStream):
        async for piece in stream:
            pieces.append(piece)
            size += len(piece)
            if size >= ANSWER_LIMIT:
                break
        await response.aclose()
    return b"".join(pieces)[:ANSWER_LIMIT]


def redact(content: bytes, secrets: Sequence[str]) -> bytes:
    """What a target that repeats its request says, without the secrets; those under 4 characters hide nothing."""
    for secret in sorted((s for s in secrets if len(s) >= MIN_SECRET_CHARS), key=len, reverse=True):
        # Header values go out as Latin-1, and come back as that or as what the target makes of them.
        for form in {secret.encode(), secret.encode("latin-1", "replace"), json.dumps(secret)[1:-1].encode()}:
            content = content.replace(form, b"(secret)")
    return content


def excerpt_of(response: httpx.Response, content: bytes) -> str:
    """The beginning of an answer as text that is safe to show: no broken characters, no control characters."""
    packed = _header(response, b"content-encoding")
    if packed not in (None, "", "identity"):
        return f"({len(content)} bytes, {_shown(str(packed)[:40])})"
    if content.isascii():
        return _shown(content[:EXCERPT_CHARS].decode("ascii"))
    named = _CHARSET.match(_header(response, b"content-type") or "")
    if named is not None and named[1] in _CHARSETS:
        return _shown(content[:EXCERPT_CHARS].decode(named[1], "replace"))
    # Not final: a character that the cut splits is left out instead of shown as broken.
    return _shown(codecs.utf_8_decode(content[:EXCERPT_CHARS], "replace", len(content) <= EXCERPT_CHARS)[0])


def _header(response: httpx.Response, name: bytes) -> str | None:
    """A header of the answer, trimmed and lower case; httpx's own look-up decodes all of them each time."""
    found = next((value for key, value in response.headers.raw if key.lower() == name), None)
    return None if found is None else found.decode("latin-1").strip().lower()


def _shown(text: str) -> str:
    return text if text.isprintable() else text.translate(_PICTURES)


def _seconds(retry_after: str | None) -> float | None:
    """`Retry-After` as seconds from now, whether it was seconds or a date; None if it is neither."""
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
    # An HTTP date is the target's wall clock; ours is the only thing there is to compare it with.
    return max(0.0, (at - datetime.now(UTC)).total_seconds())

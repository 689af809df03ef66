"""The one door through which the engine sends. Making a request ready and sending it are two steps: the first happens
before the send time, the second at it. Whatever happens, the result is a value."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import TYPE_CHECKING

import httpx

from cluster.outbound.transport import AddressDenied, AnswerTooLarge, DnsFailed, TlsFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.core.model import Target

EXCERPT = 2048
CONNECT_SECONDS = 10.0
_KINDS: tuple[tuple[type[Exception], str], ...] = (
    (AddressDenied, "denied"),
    (DnsFailed, "dns"),
    (TlsFailed, "tls"),
    (AnswerTooLarge, "too_large"),
    (httpx.TimeoutException, "timeout"),
    (httpx.ConnectError, "connect"),
    (httpx.NetworkError, "reset"),
    (httpx.ProtocolError, "protocol"),
)


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of one request: a status, or an error kind
    (`dns connect tls timeout reset denied too_large protocol other`) with a sentence."""

    status: int | None
    error: str | None
    detail: str | None
    excerpt: str | None
    retry_after_s: float | None
    duration_ms: float


@lru_cache(maxsize=8192)
def _url(text: str) -> httpx.URL:
    return httpx.URL(text)


class Sender:
    """Sends over any httpx transport; `connect_seconds` bounds the making of a connection."""

    def __init__(self, transport: httpx.AsyncBaseTransport, connect_seconds: float = CONNECT_SECONDS) -> None:
        self._transport = transport
        self._connect_seconds = connect_seconds

    def prepare(self, target: Target, headers: Sequence[tuple[str, str]]) -> httpx.Request:
        """The request for a target, ready to be sent."""
        total = target.timeout_seconds
        return httpx.Request(
            "POST",
            _url(target.url),
            headers=[(name.encode("ascii"), value.encode("latin-1", "replace")) for name, value in headers],
            content=target.body,
            extensions={"timeout": {"connect": min(self._connect_seconds, total), "total": total}},
        )

    async def send(self, request: httpx.Request) -> Reply:
        """Send it. Raises nothing but `CancelledError`."""
        started = time.monotonic()
        try:
            response = await self._transport.handle_async_request(request)
            content = await response.aread()
        except httpx.HTTPError as exc:
            kind = next((kind for cls, kind in _KINDS if isinstance(exc, cls)), "other")
            return Reply(None, kind, str(exc)[:300], None, None, (time.monotonic() - started) * 1000)
        except Exception as exc:  # noqa: BLE001 - an unknown failure of one request must not stop the node
            return Reply(
                None, "other", f"{type(exc).__name__}: {exc}"[:300], None, None, (time.monotonic() - started) * 1000
            )
        duration = (time.monotonic() - started) * 1000
        excerpt = content[:EXCERPT].decode("utf-8", "replace") if content else None
        asked = response.headers.get("retry-after") if response.status_code >= 300 else None
        return Reply(response.status_code, None, None, excerpt, _seconds(asked), duration)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._transport.aclose()


def _seconds(retry_after: str | None) -> float | None:
    """`Retry-After` as seconds from now, whether it was seconds or a date; None if it is neither."""
    if retry_after is None:
        return None
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    # An HTTP date is the target's wall clock; ours is the only thing there is to compare it with.
    return max(0.0, (at - datetime.now(UTC)).total_seconds())

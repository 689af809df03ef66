"""Connections that never say what they want are closed.

gunicorn's ASGI worker bounds the wait for a body and for the next request of a connection, but not for the first one: who
connects and sends half a line would keep a connection, and its file, for ever.
"""

from __future__ import annotations

from typing import Any

from gunicorn.asgi.protocol import ASGIProtocol

HEADER_SECONDS = 10.0


class HeaderTimeoutProtocol(ASGIProtocol):  # type: ignore[misc] # gunicorn is not typed
    """gunicorn's protocol; the head of the first request must have come within `HEAD_SECONDS`."""

    def connection_made(self, transport: Any) -> None:
        """Begin to count."""
        super().connection_made(transport)
        self._too_slow = self.worker.loop.call_later(HEADER_SECONDS, self._look, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """There is nothing to close any more."""
        self._too_slow.cancel()
        super().connection_lost(exc)

    def _look(self, transport: Any) -> None:
        if self.req_count <= 1 and self._awaiting_request:
            transport.close()


def install() -> None:
    """Let workers of this process use it; call before they listen."""
    from gunicorn.workers import gasgi

    gasgi.ASGIProtocol = HeaderTimeoutProtocol

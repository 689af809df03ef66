"""Closes connections that do not send a complete request header in time.

gunicorn's ASGI worker limits the wait for a body and for the next request of a connection, but not for the first request.
A client that connects and sends half a line would keep the connection and its file descriptor for ever.
"""

from __future__ import annotations

from typing import Any

from gunicorn.asgi.protocol import ASGIProtocol

HEADER_SECONDS = 10.0


class HeaderTimeoutProtocol(ASGIProtocol):  # type: ignore[misc] # gunicorn is not typed
    """gunicorn's protocol; the header of the first request must arrive within `HEADER_SECONDS`."""

    def connection_made(self, transport: Any) -> None:
        """Start the timer."""
        super().connection_made(transport)
        self._timer = self.worker.loop.call_later(HEADER_SECONDS, self._close_if_no_request, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the timer: the connection is closed."""
        self._timer.cancel()
        super().connection_lost(exc)

    def _close_if_no_request(self, transport: Any) -> None:
        if self.req_count <= 1 and self._awaiting_request:
            transport.close()

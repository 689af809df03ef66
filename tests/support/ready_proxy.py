"""A proxy as one stands before nodes: each request goes to the first node that is ready; without one it answers 502 itself."""

from __future__ import annotations

import http.client
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PIECE = 65_536
LENGTH = "Content-Length"
NO_NODE = b"<html><body><h1>502 Bad Gateway</h1></body></html>"


def _is_ready(node: str) -> bool:
    try:
        return httpx.get(f"{node}/readyz", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


class _Handler(BaseHTTPRequestHandler):
    nodes: Sequence[str] = ()

    def _forward(self) -> None:
        body = self.rfile.read(int(self.headers.get(LENGTH) or 0))
        node = next((n for n in self.nodes if _is_ready(n)), None)
        try:
            if node is None:
                raise ConnectionError
            connection = http.client.HTTPConnection(urlsplit(node).netloc)
            headers = {**self.headers, "Connection": "close"}
            connection.request(self.command, self.path, body or None, headers)
            answer = connection.getresponse()
        except (OSError, http.client.HTTPException):
            self._answer(502, [("Content-Type", "text/html"), (LENGTH, str(len(NO_NODE)))])
            self.wfile.write(NO_NODE)
            return
        self._answer(answer.status, [h for h in answer.getheaders() if h[0].lower() != "transfer-encoding"])
        try:
            while piece := answer.read1(PIECE):  # a stream of events goes on as it comes
                self.wfile.write(piece)
        except (OSError, http.client.HTTPException):
            self.close_connection = True  # the node or the browser is gone

    def _answer(self, status: int, headers: list[tuple[str, str]]) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _forward  # noqa: N815 - as http.server calls them

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def proxy(*nodes: str) -> Iterator[str]:
    """The address of a proxy before these nodes."""
    handler = type("Handler", (_Handler,), {"nodes": nodes})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()

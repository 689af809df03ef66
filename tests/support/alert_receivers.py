"""Receivers of alerts: an HTTP server that keeps its requests and answers a given status, and a real SMTP server."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

from aiosmtpd.controller import Controller

from ops.support.embedded_mongodb import free_port

if TYPE_CHECKING:
    from email.message import EmailMessage


@dataclass
class ReceivedRequest:
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes


class HttpServer:
    """An HTTP server with a thread for each request, from `with` to its end."""

    url: str = ""

    def handle(self, request: BaseHTTPRequestHandler, body: bytes, /) -> None:
        """Answer a POST, or leave it without an answer."""
        raise NotImplementedError

    @staticmethod
    def answer(request: BaseHTTPRequestHandler, status: int = 200) -> None:
        """Answer with a status and nothing else."""
        request.send_response(status)
        request.send_header("Content-Length", "0")
        request.end_headers()

    def __enter__(self) -> Self:
        server_of = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                server_of.handle(self, self.rfile.read(int(self.headers["Content-Length"] or 0)))

            def log_message(self, *_: Any) -> None: ...

        class Server(ThreadingHTTPServer):
            request_queue_size = 128
            daemon_threads = True

            def handle_error(self, *_: Any) -> None: ...  # the client was killed

        self._server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@dataclass
class WebhookReceiver(HttpServer):
    """Keeps its requests. `status`: the answer by the first part of the path, 200 if there is none."""

    status: dict[str, int] = field(default_factory=dict)
    requests: list[ReceivedRequest] = field(default_factory=list)

    def handle(self, request: BaseHTTPRequestHandler, body: bytes, /) -> None:
        self.requests.append(ReceivedRequest(request.path, {k.lower(): v for k, v in request.headers.items()}, body))
        self.answer(request, self.status.get(request.path.split("/")[1], 200))

    def at(self, path: str) -> list[ReceivedRequest]:
        return [c for c in self.requests if c.path == path]


class SmtpServer:
    """An SMTP server. `answer`: its reply to each message; `refuse`: its reply to these recipients."""

    def __init__(self) -> None:
        self.messages: list[EmailMessage] = []
        self.answer = "250 OK"
        self.refuse: dict[str, str] = {}
        self.port = free_port()
        self._controller = Controller(self, hostname="127.0.0.1", port=self.port)

    async def handle_RCPT(self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any) -> str:  # noqa: N802
        if address in self.refuse:
            return self.refuse[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802
        if self.answer.startswith("250"):
            message = message_from_bytes(envelope.content, policy=policy.default)
            self.messages.append(message)
        return self.answer

    def __enter__(self) -> Self:
        self._controller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._controller.stop()

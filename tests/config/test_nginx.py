"""The shipped nginx configuration, in front of nodes that count what reaches them."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from ops.local.local_cluster import Ports, nginx_conf
from ops.support.embedded_mongodb import free_port
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
SLOW = threading.Event()


class Node(BaseHTTPRequestHandler):
    """Remembers paths and forwarded addresses; `/slow` waits until the test lets it go."""

    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        self.seen.append((self.path, self.headers["X-Forwarded-For"]))
        if self.path == "/slow":
            SLOW.wait(10)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def front(tmp_path: Path) -> Iterator[tuple[int, list[tuple[str, str | None]]]]:
    """The port of nginx, and what reached the nodes."""
    seen: list[tuple[str, str | None]] = []
    handler = type("Counting", (Node,), {"seen": seen})
    SLOW.clear()
    server = type("Server", (ThreadingHTTPServer,), {"request_queue_size": 128, "daemon_threads": True})
    node = server(("127.0.0.1", 0), handler)
    threading.Thread(target=node.serve_forever, daemon=True).start()

    class OneNode(Ports):
        @property
        def serves(self) -> list[int]:
            return [node.server_port]

    port = free_port()
    tmp_path.chmod(0o755)
    configuration = tmp_path / "nginx.conf"
    configuration.write_text(nginx_conf(tmp_path, OneNode(port, 1, 2)))
    command = [str(NGINX), "-p", str(tmp_path), "-e", "stderr", "-c", str(configuration)]
    started = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    def listens() -> bool:
        assert started.poll() is None, started.stderr and started.stderr.read()
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", port)) == 0

    wait_until(listens, 10, "nginx listens")
    try:
        yield port, seen
    finally:
        SLOW.set()
        started.terminate()
        started.wait(10)
        node.shutdown()
        node.server_close()


def ask(port: int, target: str, *headers: str) -> socket.socket:
    """A request with exactly this target, on a connection of its own."""
    opened = socket.create_connection(("127.0.0.1", port), timeout=10)
    lines = [f"GET {target} HTTP/1.1", "Host: localhost", "Connection: close", *headers, "", ""]
    opened.sendall("\r\n".join(lines).encode())
    return opened


def status(opened: socket.socket) -> int:
    with opened:
        return int(opened.recv(1000).split(b" ")[1])


def test_no_spelling_of_the_metrics_reaches_a_node(front: tuple[int, list[tuple[str, str | None]]]) -> None:
    """Neither decoded nor with slashes; other paths do."""
    port, seen = front
    for target in ("/metrics", "/metrics/", "/metrics%2f", "/metrics%2F", "/%6detrics", "//metrics", "/metrics//", "/./metrics",
                   "/jobs/../metrics", "/metrics?x=1", "/metrics/?x", "/metrics;x", "/%2fmetrics", "/metrics%00"):  # fmt: skip
        assert status(ask(port, target)) in (400, 404), target
    assert seen == []
    assert status(ask(port, "/jobs?limit=1")) == 200
    assert [path for path, _ in seen] == ["/jobs?limit=1"]


def test_a_client_cannot_name_its_own_address(front: tuple[int, list[tuple[str, str | None]]]) -> None:
    """The node sees the address that nginx was called from."""
    port, seen = front
    assert status(ask(port, "/jobs", "X-Forwarded-For: 203.0.113.7")) == 200
    assert seen == [("/jobs", "127.0.0.1")]


def test_one_client_has_a_bounded_number_of_requests_at_once(front: tuple[int, list[tuple[str, str | None]]]) -> None:
    """More get 429 and do not reach a node."""
    port, seen = front
    held = [ask(port, "/slow") for _ in range(64)]
    wait_until(lambda: len(seen) == 64, 10, "64 requests wait")
    assert {status(ask(port, "/jobs")) for _ in range(5)} == {429}
    SLOW.set()
    assert {status(opened) for opened in held} == {200}
    assert len(seen) == 64
    assert status(ask(port, "/jobs")) == 200

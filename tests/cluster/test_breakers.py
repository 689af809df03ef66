"""A circuit breaker shared by three real nodes, and the node that probes is killed."""

from __future__ import annotations

import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

import pytest

from tests.cluster.test_cluster import settle
from tests.cluster.test_limits import put
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.processes import Nodes

pytestmark = pytest.mark.timeout(150)
JOBS = 30


@dataclass
class Moody:
    """A target that is `down` (closes what connects), `hangs`, or is `up`; it counts what came in each mood."""

    mood: str = "down"
    came: dict[str, list[str]] = field(default_factory=lambda: {"down": [], "hangs": [], "up": []})
    released: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def __enter__(self) -> Self:
        moody = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"] or 0))
                mood = moody.mood
                moody.came[mood].append(self.headers["Idempotency-Key"])
                if mood == "hangs":
                    moody.released.wait(60)
                if mood != "up":
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        class Server(ThreadingHTTPServer):
            request_queue_size = 128
            daemon_threads = True

            def handle_error(self, *_: Any) -> None: ...  # who asked was killed

        self._server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()


def breaker(nodes: Nodes, **query: Any) -> dict[str, Any] | None:
    found: dict[str, Any] | None = nodes.db["breakers"].find_one(query)
    return found


def now(nodes: Nodes) -> Any:
    return nodes.client.admin.command("hello")["localTime"]


def test_one_probe_in_the_cluster_and_its_node_is_killed(cluster: Callable[..., Nodes]) -> None:
    """Three nodes, a target that breaks: one request finds out whether it is back, whoever else has work for it. Its
    node is killed while it waits; another node probes, and all that was held back is delivered, late and not lost."""
    with Moody() as target:
        nodes = cluster(3)
        retry = {"maxAttempts": 50, "initialDelaySeconds": 1, "multiplier": 1, "maxDelaySeconds": 2}
        job = {"schedule": "* * * * * *", "api": target.url, "timeoutSeconds": 5, "retry": retry}
        for i in range(JOBS):
            put(nodes, f"/jobs/b{i}", job)
        settle(nodes)
        opened = wait_until(lambda: breaker(nodes, half_open=False), 40, "the breaker to open")
        target.mood = "hangs"
        probing = wait_until(lambda: breaker(nodes, half_open=True), 40, "a probe")
        owed = nodes.db["executions"].count_documents({})
        wait_until(lambda: nodes.db["executions"].count_documents({}) > owed + JOBS, 20, "more to become owed")
        assert breaker(nodes, half_open=True, rev=probing["rev"]), "it must still be half-open"
        # What had left before the others knew of the breaker may still have come; the probe alone came since.
        assert len(target.came["hangs"]) == 1, opened
        nodes.kill(probing["node"])
        target.mood = "up"
        wait_until(lambda: not breaker(nodes), 40, "another node to probe, and the breaker to close")
        held_back = {"due_at": {"$lt": now(nodes)}}
        wait_until(lambda: nodes.db["executions"].count_documents(held_back) == 0, 60, "what was owed to be sent")
        assert nodes.db["history"].count_documents({**held_back, "state": {"$ne": "succeeded"}}) == 0
        assert target.came["hangs"][0] in target.came["up"], "the probe was an execution, and is sent again"

"""A circuit breaker shared by three real nodes, and the node that probes is killed."""

from __future__ import annotations

import socket
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.alert_receivers import HttpServer
from tests.support.cluster_progress import next_second, settle, wait_past
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from http.server import BaseHTTPRequestHandler

    from tests.support.processes import Nodes

pytestmark = pytest.mark.timeout(150)
JOBS = 30
KNOWN_MS = 2500
"""By then every node has read of a breaker that one of them opened, and what it had sent before has come."""


@dataclass
class Moody(HttpServer):
    """A target that is `down` (closes what connects), `hangs`, or is `up`; it counts what came in each mood."""

    mood: str = "down"
    came: dict[str, list[str]] = field(default_factory=lambda: {"down": [], "hangs": [], "up": []})
    released: threading.Event = field(default_factory=threading.Event)

    def handle(self, request: BaseHTTPRequestHandler, _: bytes, /) -> None:
        mood = self.mood
        self.came[mood].append(request.headers["Idempotency-Key"])
        if mood == "hangs":
            self.released.wait(60)
        if mood == "up":
            self.answer(request)
        else:
            request.close_connection = True
            request.connection.shutdown(socket.SHUT_RDWR)

    def __exit__(self, *error: object) -> None:
        self.released.set()
        super().__exit__(*error)


def breaker(nodes: Nodes, **query: Any) -> dict[str, Any] | None:
    found: dict[str, Any] | None = nodes.db["breakers"].find_one(query)
    return found


def now(nodes: Nodes) -> Any:
    return nodes.client.admin.command("hello")["localTime"]


@pytest.mark.long
@pytest.mark.takes(25)
def test_one_request_in_the_cluster_probes_a_broken_host_also_when_its_node_is_killed(
    cluster: Callable[..., Nodes],
) -> None:
    """Three nodes, a target that breaks: one request finds out whether it is back, whoever else has work for it. Its
    node is killed while it waits; another node probes, and all that was held back is delivered, late and not lost."""
    with Moody() as target:
        nodes = cluster(3)
        retry = {"maxAttempts": 50, "initialDelaySeconds": 1, "multiplier": 1, "maxDelaySeconds": 2}
        job = {"schedule": "* * * * * *", "api": target.url, "timeoutSeconds": 5, "retry": retry}
        for i in range(JOBS):
            nodes.put(f"/jobs/b{i}", job)
        settle(nodes)
        opened = wait_until(lambda: breaker(nodes, half_open=False), 40, "the breaker to open")
        wait_past(nodes, int(opened["opened_at"].timestamp() * 1000) + KNOWN_MS)
        target.mood = "hangs"
        probing = wait_until(lambda: breaker(nodes, half_open=True), 40, "a probe")
        # By then every job has owed two more.
        wait_past(nodes, next_second(nodes) + 1500)
        assert breaker(nodes, half_open=True, rev=probing["rev"]), "it must still be half-open"
        assert nodes.db["executions"].count_documents({"due_at": {"$lt": now(nodes)}}) > JOBS, "much must be held back"
        assert len(target.came["hangs"]) == 1, opened
        nodes.kill(probing["node"])
        target.mood = "up"
        wait_until(lambda: not breaker(nodes), 40, "another node to probe, and the breaker to close")
        held_back = {"due_at": {"$lt": now(nodes)}}
        wait_until(lambda: nodes.db["executions"].count_documents(held_back) == 0, 60, "what was owed to be sent")
        assert nodes.db["history"].count_documents({**held_back, "state": {"$ne": "succeeded"}}) == 0
        assert target.came["hangs"][0] in target.came["up"], "the probe was an execution, and is sent again"

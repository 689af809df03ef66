"""Listeners of a node: connections without a request, more of them than allowed, and the port of the metrics."""

from __future__ import annotations

import socket

import httpx
import pytest

from ops.server.header_timeout import HEADER_SECONDS
from ops.support.embedded_mongodb import free_port
from tests.support import live


@pytest.mark.long
@pytest.mark.takes(14)
def test_a_connection_without_a_request_is_closed(mongodb_uri: str, db_name: str) -> None:
    """After half a request line, or none at all, within seconds; a used connection stays open. Metrics have a listener and
    places of their own, which nothing else is served on, and which those who fill all others do not take."""
    metrics_port = free_port()
    environment = {"HORAE_METRICS_PORT": str(metrics_port), "HORAE_MAX_CONNECTIONS_PER_ADDRESS": "6"}
    with live.node(mongodb_uri, db_name, **environment) as url, httpx.Client() as client:
        port = int(url.rpartition(":")[2])
        metrics = f"http://127.0.0.1:{metrics_port}"
        assert client.get(f"{url}/healthz").status_code == 200
        half, nothing = (socket.create_connection(("127.0.0.1", port)) for _ in range(2))
        half.sendall(b"GET /jobs HT")
        many = [socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(20)]
        refused = [s for s in many[3:] if s.recv(1000).startswith(b"HTTP/1.1 503 ")]
        assert len(refused) == 17
        assert "horae_database_up 1.0" in httpx.get(f"{metrics}/metrics").text
        assert [httpx.get(metrics + path).status_code for path in ("/jobs", "/metrics/", "/healthz")] == [404] * 3
        for opened in many:
            opened.close()
        for waiting in (half, nothing):
            waiting.settimeout(HEADER_SECONDS + 10)
            assert waiting.recv(100) == b""
            waiting.close()
        before = client.get(f"{url}/healthz").extensions["network_stream"].get_extra_info("client_addr")
        again = client.get(f"{url}/healthz").extensions["network_stream"].get_extra_info("client_addr")
        assert before == again

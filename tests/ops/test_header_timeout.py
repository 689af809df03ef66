"""Connections without a complete request header are closed."""

from __future__ import annotations

import socket

import httpx
import pytest

from ops.server.header_timeout import HEADER_SECONDS
from tests.support import live


@pytest.mark.takes(14)
def test_a_connection_without_a_request_is_closed(mongodb_uri: str, db_name: str) -> None:
    """After half a request line, or none at all, within seconds; a used connection stays open."""
    with live.node(mongodb_uri, db_name) as url, httpx.Client() as client:
        port = int(url.rpartition(":")[2])
        assert client.get(f"{url}/healthz").status_code == 200
        half, nothing = (socket.create_connection(("127.0.0.1", port)) for _ in range(2))
        half.sendall(b"GET /jobs HT")
        for waiting in (half, nothing):
            waiting.settimeout(HEADER_SECONDS + 10)
            assert waiting.recv(100) == b""
            waiting.close()
        before = client.get(f"{url}/healthz").extensions["network_stream"].get_extra_info("client_addr")
        again = client.get(f"{url}/healthz").extensions["network_stream"].get_extra_info("client_addr")
        assert before == again

"""`horae receiver` as its users meet it: a process, a port, paths that misbehave as asked."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.support.waiting import wait_until
from tests.support.wire import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def started(*args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", "from ops.cli import main; main()", "receiver", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "arrivals.ndjson"


@pytest.fixture
def client(log: Path) -> Iterator[httpx.Client]:
    port = free_port()
    process = started("--port", str(port), "--log", str(log))
    assert process.stdout is not None
    assert process.stdout.readline() == f"receiver listens on http://127.0.0.1:{port}\n"
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=10) as client:
        yield client
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (0, "")


def post(client: httpx.Client, path: str, execution: str = "j:1795651200000", attempt: str = "1") -> httpx.Response:
    headers = {
        "Horae-Execution-Id": execution,
        "Idempotency-Key": execution,
        "Horae-Attempt": attempt,
        "Horae-Fencing-Token": "7",
        "Horae-Scheduled-At": "2026-11-26T00:00:00.000Z",
    }
    return client.post(path, headers=headers, content=b"{}")


def test_the_path_decides_the_response(client: httpx.Client) -> None:
    """Any other path gets 200."""
    for path, attempt, status in (
        ("/ok/a", "1", 200),
        ("/anything", "1", 200),
        ("/fail/2/a", "1", 503),
        ("/fail/2/a", "2", 503),
        ("/fail/2/a", "3", 200),
        ("/fail/x/a", "1", 200),
        ("/fail/2/a", "odd", 503),
        ("/status/410/a", "1", 410),
        ("/status/204", "1", 204),
        ("/status/9999/a", "1", 200),
        ("/status", "1", 200),
        ("/slow/100/a", "1", 200),
    ):
        response = post(client, path, attempt=attempt)
        assert response.status_code == status, path
        assert path != "/slow/100/a" or response.elapsed.total_seconds() >= 0.1
    with pytest.raises(httpx.RemoteProtocolError):
        post(client, "/reset/a")
    with pytest.raises(httpx.ReadTimeout):
        client.post("/hang/a", timeout=0.2)
    with pytest.raises(httpx.RemoteProtocolError):
        post(client, "/cut/a")
    with pytest.raises(httpx.RemoteProtocolError):
        post(client, "/cut/1/a")
    for path in ("/cut/1/a", "/reset/1/a", "/hang/1/a"):
        assert post(client, path, attempt="2").status_code == 200
    assert client.post("/ok/big", content=b"x" * 5_000_000).status_code == 200


def test_statistics_count_paths_responses_and_duplicates(client: httpx.Client) -> None:
    """A repeated delivery is a duplicate, another attempt is not."""
    for execution, attempt in (("j:1", "1"), ("j:1", "2"), ("j:1", "1"), ("j:2", "1")):
        post(client, "/ok/a", execution, attempt)
    client.post("/status/500/<b>", headers={"Horae-Scheduled-At": "never"})
    figures: dict[str, Any] = client.get("/stats").json()
    assert (figures["total"], figures["duplicates"]) == (5, 1)
    assert figures["byStatus"] == {"200": 4, "500": 1}
    assert figures["byPath"] == {"/ok/a": 4, "/status/500/%3Cb%3E": 1}
    assert set(figures["driftMs"]) == {"p50", "p95", "p99"}
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "5 requests" in page.text
    assert "<b>" not in page.text
    assert "://" not in page.text  # it loads nothing from anywhere


def test_there_is_a_page_before_the_first_request(client: httpx.Client) -> None:
    """And statistics, too."""
    assert "No requests yet" in client.get("/").text
    assert client.get("/stats").json()["total"] == 0


def test_every_request_is_logged_at_once(client: httpx.Client, log: Path) -> None:
    """One line each, on disk within a moment and not only at the end."""
    post(client, "/fail/1/a", "j:1", "1")
    post(client, "/fail/1/a", "j:1", "2")
    lines = wait_until(lambda: [json.loads(x) for x in log.read_text().splitlines()][1:] and log.read_text(), 5)
    first, second = (json.loads(line) for line in str(lines).splitlines())
    arrived = first.pop("arrived")
    assert second["arrived"] >= arrived > 1_700_000_000_000
    assert first == {"execution": "j:1", "attempt": 1, "token": "7", "path": "/fail/1/a", "answer": "503"}
    assert (second["attempt"], second["answer"]) == (2, "200")


def test_hanging_requests_end_with_their_senders(client: httpx.Client) -> None:
    """After the senders have given up, the receiver ends at once."""
    for _ in range(5):
        with pytest.raises(httpx.ReadTimeout):
            client.post("/hang/a", timeout=0.05)
    assert client.get("/stats").json()["byStatus"] == {"hang": 5}


def test_a_taken_port_of_the_receiver_is_a_sentence() -> None:
    """With exit status 2."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = started("--port", str(taken.getsockname()[1]))
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 2
    assert "cannot listen on 127.0.0.1" in errors
    assert "choose another --port" in errors
    assert "Traceback" not in errors

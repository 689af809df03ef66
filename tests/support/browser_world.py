"""A node with jobs that do well, badly and maliciously, for the tests of the page."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import httpx

from tests.support import live
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
FINAL = ("succeeded", "failed", "dead")


class _Target(BaseHTTPRequestHandler):
    """`/ok`: 200; `/bad`: 500; `/hostile`: 400 with markup."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        kind = self.path.split("/")[1]
        content = HOSTILE.encode() if kind == "hostile" else b"as the path says"
        self.send_response({"bad": 500, "hostile": 400}.get(kind, 200))
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@dataclass(frozen=True)
class World:
    """Where the node and the target are."""

    url: str
    target: str

    def put(self, job_id: str, **fields: Any) -> None:
        """Create or replace a job."""
        once = {"maxAttempts": 1}
        content = {"schedule": "0 0 3 1 1 *", "api": f"{self.target}/ok/{job_id}", "retry": once, **fields}
        httpx.put(f"{self.url}/jobs/{job_id}", json=content).raise_for_status()

    def run(self, job_id: str) -> str:
        """Trigger a job; its execution, when it has ended."""
        made = httpx.post(f"{self.url}/jobs/{job_id}/trigger").raise_for_status().json()
        execution = str(made["executionId"])
        wait_until(lambda: self.state(execution) in FINAL, 20, f"{execution} to end")
        return execution

    def state(self, execution: str) -> str | None:
        """The state of an execution."""
        answer = httpx.get(f"{self.url}/executions/{execution}")
        return str(answer.json()["state"]) if answer.status_code == 200 else None

    def job(self, job_id: str) -> dict[str, Any]:
        """A job as the API shows it."""
        found: dict[str, Any] = httpx.get(f"{self.url}/jobs/{job_id}").json()
        return found


@contextmanager
def target() -> Iterator[str]:
    """The address of a target in this process."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Target)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def world(mongodb_uri: str, db_name: str, **environment: str) -> Iterator[World]:
    """A node and a target."""
    with target() as address, live.node(mongodb_uri, db_name, HORAE_NODES="1", **environment) as url:
        yield World(url, address)

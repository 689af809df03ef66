"""Real nodes and a real receiver as processes, to be killed, frozen and restarted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import psutil
from pymongo import MongoClient

from ops.support.embedded_mongodb import free_port
from tests.support import plain_http, warm
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path


def _start(arguments: list[str], log: Path, **environment: str) -> subprocess.Popen[bytes] | warm.Warm:
    """A new interpreter where the environment has something for it: the faults' hook, another clock."""
    if not environment.keys() & {"PYTHONPATH", "LD_PRELOAD"}:
        return warm.start(arguments, log, {**os.environ, **environment})
    with log.open("ab") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "ops", *arguments],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def end(process: subprocess.Popen[bytes] | warm.Warm, seconds: float = 16) -> int:
    """SIGTERM and wait; the test fails if it does not end in time."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(5)
        raise AssertionError(f"it did not end within {seconds} s of SIGTERM") from None


@dataclass(frozen=True)
class Arrival:
    """One POST as the receiver logged it."""

    at_ms: int
    execution: str
    attempt: int
    token: int
    path: str
    answer: str = "200"


class Receiver:
    """`horae receiver` with its log. `front`: the port at which others find it, if something stands before it."""

    def __init__(self, directory: Path, port: int | None = None, front: int | None = None) -> None:
        self.port = port or free_port()
        self._front = front or self.port
        self._directory = directory
        self._log = directory / "arrivals.ndjson"
        self.start()

    def start(self) -> None:
        """Start it, or start it again with the same log."""
        self.process = _start(
            ["receiver", "--port", str(self.port), "--log", str(self._log)], self._directory / "receiver.log"
        )
        wait_until(self._up, 15, "the receiver")

    def _up(self) -> bool:
        try:
            return plain_http.get(f"http://127.0.0.1:{self.port}/stats").status_code == 200
        except httpx.HTTPError:
            return False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._front}"

    def logged(self) -> int:
        """How long the log is now, in bytes, up to the last whole line."""
        return self._log.read_bytes().rfind(b"\n") + 1

    def arrivals(self, since: int = 0) -> list[Arrival]:
        """Everything that has come so far; `since`: after the log was so long."""
        found = []
        with self._log.open("rb") as log:
            log.seek(since)
            lines = log.read().splitlines()
        for line in lines:
            try:
                d = json.loads(line)
            except ValueError:
                continue  # being written
            token = int(d["token"] or 0)
            found.append(Arrival(d["arrived"], d["execution"], d["attempt"], token, d["path"], d["answer"]))
        return found

    def by_execution(self) -> dict[str, list[Arrival]]:
        found: defaultdict[str, list[Arrival]] = defaultdict(list)
        for a in self.arrivals():
            found[a.execution].append(a)
        return found


class Nodes:
    """One `horae serve` with several nodes on a database of its own."""

    def __init__(self, directory: Path, uri: str, db_name: str, nodes: int, **environment: str) -> None:
        self._directory = directory
        self._uri = uri
        self._nodes = nodes
        self._environment = {
            "MONGODB_URI": uri,
            "DB_NAME": db_name,
            "HORAE_ALLOWED_NETWORKS": "127.0.0.0/8",
            "HORAE_DATA_DIR": str(directory / "data"),
            **environment,
        }
        self.port = free_port()
        self.client: MongoClient[dict[str, Any]] = MongoClient(uri, tz_aware=True)
        self.db = self.client[db_name]
        self.start()

    def start(self) -> None:
        self.process = _start(
            ["serve", "--port", str(self.port), "--nodes", str(self._nodes)],
            self._directory / "serve.log",
            **self._environment,
        )
        wait_until(lambda: self.ready() and len(self.alive()) == self._nodes and self.leader(), 40, "the nodes")

    def log(self) -> str:
        return (self._directory / "serve.log").read_text()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ready(self) -> bool:
        try:
            return plain_http.get(f"{self.url}/readyz").status_code == 200
        except httpx.HTTPError:
            return False

    def alive(self) -> dict[str, int]:
        """Node ids with their pids, of those whose process exists and is a child of this serve."""
        try:
            children = {p.pid for p in psutil.Process(self.process.pid).children()}
        except psutil.NoSuchProcess:
            return {}
        return {d["_id"]: d["pid"] for d in self.db["nodes"].find() if d["pid"] in children}

    def leader(self) -> str | None:
        lease = self.db["leases"].find_one({"_id": "leader"})
        return lease["holder"] if lease else None

    def kill(self, node: str, number: int = signal.SIGKILL) -> None:
        os.kill(self.alive()[node], number)

    def post(self, path: str, body: Any = None) -> httpx.Response:
        return plain_http.post(f"{self.url}{path}", json=body, timeout=30)

    def put(self, path: str, body: Any) -> None:
        assert plain_http.put(f"{self.url}{path}", json=body, timeout=10).status_code in (200, 201)

    def load(self, jobs: list[dict[str, Any]]) -> None:
        body = "\n".join(json.dumps(j) for j in jobs)
        answer = plain_http.post(
            f"{self.url}/jobs/import", content=body, headers={"Content-Type": "application/x-ndjson"}, timeout=60
        )
        assert answer.status_code == 200, answer.text
        assert answer.json()["failed"] == 0, answer.text

    def now_ms(self) -> int:
        return int(self.client.admin.command("hello")["localTime"].timestamp() * 1000)

    def stop(self) -> int:
        return end(self.process)

    def close(self) -> None:
        try:
            if self.process.poll() is None:
                self.stop()
        finally:
            self.client.close()

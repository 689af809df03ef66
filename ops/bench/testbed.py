"""What benches stand on: one MongoDB, one target, nodes on a database of their own, and a look at what came of it.

The target is nginx where there is one, else our receiver. Lateness is what the nodes recorded (when the request left,
after its send time); nginx's own count of requests is compared with what was recorded.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import orjson
import psutil
from pymongo import MongoClient

from ops.support.client import Client, Refused, Unreachable
from ops.support.embedded_mongodb import EmbeddedMongod, free_port

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

NGINX = """
worker_processes 1; daemon off; pid {dir}/nginx.pid; error_log {dir}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 100000000; client_body_temp_path {dir}/body;
  server {{ listen 127.0.0.1:{port}; location = /status {{ stub_status; }} location / {{ return 200 "ok"; }} }}
}}
"""


@dataclass(slots=True)
class Row:
    """One line of the table. CPU is in microseconds per execution, memory in MB, lateness in ms."""

    case: str
    rate: float = 0.0
    executions: int = 0
    missing: int = 0
    twice: int = 0
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    longest: float | None = None
    earliest: float | None = None
    cpu_node: float | None = None
    cpu_mongod: float | None = None
    cpu_target: float | None = None
    node_mb: float | None = None
    note: str = ""
    extra: dict[str, float] = field(default_factory=dict)


class Target:
    """What the jobs call: nginx, or the receiver."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
        self.kind = "nginx" if nginx else "horae receiver"
        if nginx:
            config = directory / "nginx.conf"
            config.write_text(NGINX.format(dir=directory, port=self.port))
            command = [nginx, "-c", str(config), "-p", str(directory)]
        else:
            command = [sys.executable, "-m", "ops", "receiver", "--port", str(self.port)]
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )

    def requests(self) -> int | None:
        """How many POSTs nginx has answered (the look itself not counted)."""
        if self.kind != "nginx":
            return None
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/status", timeout=5) as answer:
            return int(answer.read().split()[9])

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(5)


class Cluster:
    """Nodes on a fresh database."""

    def __init__(self, uri: str, mongod: int, target: Target, nodes: int, **settings: str) -> None:
        self.target = target
        self.port = free_port()
        self.db_name = f"bench_{os.getpid()}_{self.port}"
        environment = {
            **os.environ,
            "MONGODB_URI": uri,
            "DB_NAME": self.db_name,
            "HORAE_ALLOWED_NETWORKS": "127.0.0.0/8",
            **settings,
        }
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ops", "serve", "--port", str(self.port), "--nodes", str(nodes)],
            env=environment,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.api = Client(f"http://127.0.0.1:{self.port}")
        self._mongod = psutil.Process(mongod)
        self.client: MongoClient[dict[str, Any]] = MongoClient(uri, tz_aware=True)
        self.db = self.client[self.db_name]
        wait_for(self._ready, 60, "the nodes did not come up")

    def _ready(self) -> bool:
        try:
            self.api.call("GET", "/readyz")
        except (Refused, Unreachable):
            return False
        return len(self.nodes()) > 0

    def nodes(self) -> list[psutil.Process]:
        """The node processes."""
        return psutil.Process(self.process.pid).children()

    def load(self, jobs: Iterable[dict[str, Any]]) -> float:
        """Import jobs; returns how many seconds it took."""
        with tempfile.TemporaryFile() as file:
            for job in jobs:
                file.write(orjson.dumps(job) + b"\n")
            file.seek(0)
            started = time.monotonic()
            done = self.api.upload("/jobs/import", file, "application/x-ndjson")
            if done["failed"]:
                raise click.ClickException(f"the jobs were refused: {done['errors'][:1]}")
            return time.monotonic() - started

    def job(self, number: int, schedule: str) -> dict[str, Any]:
        """A job that calls the target."""
        return {
            "jobId": f"j{number}",
            "schedule": schedule,
            "api": f"http://127.0.0.1:{self.target.port}/j{number}",
            "type": "ATLEAST_ONCE",
            "body": {"n": number},
        }

    def cpu(self) -> tuple[float, float, float]:
        """CPU seconds so far of nodes, mongod and target."""
        target = [psutil.Process(self.target.process.pid)]
        target += target[0].children()
        return (
            sum(sum(p.cpu_times()[:2]) for p in self.nodes()),
            sum(self._mongod.cpu_times()[:2]),
            sum(sum(p.cpu_times()[:2]) for p in target),
        )

    def memory(self) -> float:
        """The largest node, in MB."""
        found = [0]
        for process in self.nodes():
            with suppress(psutil.NoSuchProcess):  # one that was told to end
                found.append(process.memory_info().rss)
        return max(found) / 2**20

    def settled(self) -> bool:
        """Whether the leader has seen every job."""
        return self.db["jobs"].count_documents({"unsettled": {"$exists": True}}, limit=1) == 0

    def stop(self) -> None:
        """Drain the nodes and drop the database."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.client.drop_database(self.db_name)
        self.client.close()
        self._log.close()


def wait_for(condition: Any, seconds: float, what: str) -> None:
    """Until the condition holds; after so many seconds the bench ends with this sentence."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise click.ClickException(what)
        time.sleep(0.1)


def database_now(cluster: Cluster) -> datetime:
    """The database's clock."""
    at: datetime = cluster.client.admin.command("hello")["localTime"]
    return at.replace(tzinfo=UTC)


def measure(
    cluster: Cluster, name: str, expected_per_second: int, seconds: int, which: dict[str, Any] | None = None
) -> Row:
    """Let every-second jobs run for so many whole seconds and look at what came of each (`which`: of these alone)."""
    start = database_now(cluster).replace(microsecond=0) + timedelta(seconds=1)
    end = start + timedelta(seconds=seconds)
    wait_for(lambda: database_now(cluster) >= start, 5, "time stands still")
    cpu, before = cluster.cpu(), cluster.db["history"].estimated_document_count()
    memory = 0.0
    while database_now(cluster) < end:
        memory = max(memory, cluster.memory())
        time.sleep(0.5)
    after = cluster.db["history"].estimated_document_count()
    spent = [b - a for a, b in zip(cpu, cluster.cpu(), strict=True)]
    window = {"due_at": {"$gte": start, "$lt": end}, **(which or {})}
    wait_for(
        lambda: cluster.db["executions"].count_documents(window, limit=1) == 0,
        60,
        "executions are still owed a minute after they were due",
    )
    row = Row(name, node_mb=memory)
    done = max(1, after - before)
    row.rate = (after - before) / seconds
    row.cpu_node, row.cpu_mongod, row.cpu_target = (s / done * 1e6 for s in spent)
    add_lateness(cluster, row, window)
    row.missing = expected_per_second * seconds - row.executions
    return row


def add_lateness(cluster: Cluster, row: Row, window: dict[str, Any]) -> None:
    """Fill in how late what succeeded was, and how much needed more than one attempt."""
    drifts: list[int] = []
    for h in cluster.db["history"].find({**window, "state": "succeeded"}, {"drift_ms": 1, "attempts.n": 1}):
        drifts.append(h["drift_ms"])
        row.twice += len(h["attempts"]) > 1
    drifts.sort()
    row.executions = len(drifts)
    if drifts:
        row.p50, row.p95, row.p99 = (float(drifts[int(len(drifts) * q)]) for q in (0.5, 0.95, 0.99))
        row.longest, row.earliest = float(drifts[-1]), float(drifts[0])


@contextmanager
def open_testbed() -> Iterator[tuple[str, int, Target]]:
    """An embedded MongoDB and a target for all cases."""
    directory = Path(tempfile.mkdtemp(prefix="horae-bench-"))
    directory.chmod(0o755)
    embedded = EmbeddedMongod(directory)
    target = Target(directory)
    try:
        state = embedded.acquire()
        yield state.uri, state.pid, target
    finally:
        target.stop()
        embedded.release()
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def running_cluster(the_bed: tuple[str, int, Target], nodes: int = 2, **settings: str) -> Iterator[Cluster]:
    """Nodes for one case, with these settings."""
    uri, mongod, target = the_bed
    cluster = Cluster(uri, mongod, target, nodes, **settings)
    try:
        yield cluster
    finally:
        cluster.stop()


def caught_up(cluster: Cluster) -> bool:
    """Whether the rush after an import is over: at no look within four seconds was anything owed for 0.9 s."""
    for _ in range(5):
        time.sleep(0.83)  # not a second, so that the looks fall at different times of it
        late = {"due_at": {"$lt": database_now(cluster) - timedelta(seconds=0.9)}}
        if cluster.db["executions"].count_documents(late, limit=1):
            return False
    return True


def machine_facts(target: Target) -> dict[str, Any]:
    """What the figures were taken on."""
    from importlib.metadata import version

    model = "unknown"
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return {
        "cpu": model,
        "cores": psutil.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "python": platform.python_version(),
        "horae": version("horae"),
        "pymongo": version("pymongo"),
        "target": target.kind,
        "write_concern": "majority, journaled, replica set of one member on the same machine",
    }

"""The environment of benchmarks: one MongoDB, one target, nodes on a fresh database, and the measurements.

The target is nginx if it is installed, else `horae receiver`. Lateness is what the nodes record: the time from the planned
send time to the request. The number of requests that nginx counts is compared with the number of recorded executions.
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
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
import orjson
import psutil
from pymongo import MongoClient

from ops.bench.results import Row, cpu_per_execution
from ops.support.client import Client, Refused, Unreachable
from ops.support.embedded_mongodb import EmbeddedMongod, free_port
from ops.support.parent_watch import terminate_with_parent, with_parent

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


class Target:
    """The target of the jobs: nginx, or the receiver."""

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
            command,
            env=with_parent(dict(os.environ)),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=terminate_with_parent if nginx else None,  # noqa: PLW1509 - no other threads
        )

    def requests(self) -> int | None:
        """How many POSTs nginx has answered; None without nginx."""
        if self.kind != "nginx":
            return None
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/status", timeout=5) as answer:
            return int(answer.read().split()[9])

    def stop(self) -> None:
        """Stop the target."""
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
            env=with_parent(environment),
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.api = Client(f"http://127.0.0.1:{self.port}")
        self._mongod = psutil.Process(mongod)
        self.client: MongoClient[dict[str, Any]] = MongoClient(uri, tz_aware=True)
        self.db = self.client[self.db_name]
        wait_for(self._ready, 60, "the nodes did not become ready")

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
        """Import jobs and return the duration in seconds."""
        with tempfile.TemporaryFile() as file:
            for job in jobs:
                file.write(orjson.dumps(job) + b"\n")
            file.seek(0)
            started = time.monotonic()
            result = self.api.upload("/jobs/import", file, "application/x-ndjson")
            if result["failed"]:
                raise click.ClickException(f"the import of the jobs failed: {result['errors'][:1]}")
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
        """CPU seconds used so far by nodes, mongod and target."""
        target = [psutil.Process(self.target.process.pid)]
        target += target[0].children()
        return (
            sum(sum(p.cpu_times()[:2]) for p in self.nodes()),
            sum(self._mongod.cpu_times()[:2]),
            sum(sum(p.cpu_times()[:2]) for p in target),
        )

    def memory(self) -> float:
        """The memory of the largest node, in MB."""
        resident = [0]
        for process in self.nodes():
            with suppress(psutil.NoSuchProcess):  # a node that is being stopped
                resident.append(process.memory_info().rss)
        return max(resident) / 2**20

    def settled(self) -> bool:
        """Whether the leader has settled all jobs."""
        return self.db["jobs"].count_documents({"unsettled": {"$exists": True}}, limit=1) == 0

    def stop_nodes(self) -> None:
        """Stop the nodes, if they run."""
        if self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)

    def stop(self) -> None:
        """Stop the nodes and drop the database."""
        self.stop_nodes()
        self.client.drop_database(self.db_name)
        self.client.close()
        self._log.close()


def cpu_of(process: psutil.Process) -> float:
    """CPU seconds that a process has used so far."""
    return float(sum(process.cpu_times()[:2]))


def wait_for(condition: Any, seconds: float, what: str) -> None:
    """Wait until the condition holds. After `seconds` the benchmark fails with the message `what`."""
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
    cluster: Cluster,
    name: str,
    expected_per_second: int,
    seconds: int,
    which: dict[str, Any] | None = None,
    *,
    patience: float = 60,
) -> Row:
    """Measure jobs that are due every second, for `seconds` whole seconds (`which`: only these executions).

    `patience`: so many seconds later all of them have to be recorded.
    """
    start = database_now(cluster).replace(microsecond=0) + timedelta(seconds=1)
    end = start + timedelta(seconds=seconds)
    wait_for(lambda: database_now(cluster) >= start, 5, "the clock of the database does not advance")
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
        patience,
        f"executions are not finished {patience:.0f} s after they were due",
    )
    done = max(1, after - before)
    row = Row(
        name,
        rate=(after - before) / seconds,
        node_mb=memory,
        **cpu_per_execution(spent, done),
        **lateness(cluster, window),
    )
    return replace(row, missing=expected_per_second * seconds - row.executions)


def lateness(cluster: Cluster, window: dict[str, Any]) -> dict[str, Any]:
    """The fields of a row for succeeded executions: their number, their lateness, and how many had several attempts."""
    drifts: list[int] = []
    twice = 0
    for h in cluster.db["history"].find({**window, "state": "succeeded"}, {"drift_ms": 1, "attempts.n": 1}):
        drifts.append(h["drift_ms"])
        twice += len(h["attempts"]) > 1
    fields: dict[str, Any] = {"executions": len(drifts), "twice": twice}
    if drifts:
        drifts.sort()
        fields |= {f"p{round(q * 100)}": float(drifts[int(len(drifts) * q)]) for q in (0.5, 0.95, 0.99)}
        fields |= {"longest": float(drifts[-1]), "earliest": float(drifts[0])}
    return fields


@dataclass(frozen=True, slots=True)
class Testbed:
    """What all cases share: the URI and process id of MongoDB, and the target."""

    uri: str
    mongod: int
    target: Target


def _exit(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)


@contextmanager
def open_testbed() -> Iterator[Testbed]:
    """An embedded MongoDB and a target for all cases. SIGTERM and SIGHUP end the process only after stopping both."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _exit)
    directory = Path(tempfile.mkdtemp(prefix="horae-bench-"))
    directory.chmod(0o755)
    embedded = EmbeddedMongod(directory)
    target = Target(directory)
    try:
        state = embedded.acquire()
        yield Testbed(state.uri, state.pid, target)
    finally:
        target.stop()
        embedded.release()
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def running_cluster(testbed: Testbed, nodes: int = 2, **settings: str) -> Iterator[Cluster]:
    """Nodes for one case, with these settings."""
    cluster = Cluster(testbed.uri, testbed.mongod, testbed.target, nodes, **settings)
    try:
        yield cluster
    finally:
        cluster.stop()


def caught_up(cluster: Cluster) -> bool:
    """Whether the load after an import has ended: for four seconds, no execution has been due for more than 0.9 s."""
    for _ in range(5):
        time.sleep(0.83)  # less than a second, so that the checks fall into different parts of it
        late = {"due_at": {"$lt": database_now(cluster) - timedelta(seconds=0.9)}}
        if cluster.db["executions"].count_documents(late, limit=1):
            return False
    return True


def machine_facts(target: Target) -> dict[str, Any]:
    """Facts of the machine that was measured."""
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

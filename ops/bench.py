"""`horae bench`: the figures of the README, on this machine: real nodes, real MongoDB, real sockets, w=majority.

Each case starts its own nodes on a fresh database of one embedded MongoDB. The target is nginx where there is one, else
our receiver. Lateness is what the nodes recorded (when the request left, after its send time); nginx's own count of
requests is compared with what was recorded.
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
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import orjson
import psutil
from pymongo import MongoClient

from ops import bench_api
from ops.client import Client, Refused, Unreachable
from ops.embedded import Embedded, free_port
from ops.tables import as_json, table

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
        _wait(self._ready, 60, "the nodes did not come up")

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
        return max(p.memory_info().rss for p in self.nodes()) / 2**20

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


def _wait(condition: Any, seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise click.ClickException(what)
        time.sleep(0.1)


def _now(cluster: Cluster) -> datetime:
    now: datetime = cluster.client.admin.command("hello")["localTime"]
    return now.replace(tzinfo=UTC)


def measure(
    cluster: Cluster, name: str, expected_per_second: int, seconds: int, which: dict[str, Any] | None = None
) -> Row:
    """Let every-second jobs run for so many whole seconds and look at what came of each (`which`: of these alone)."""
    start = _now(cluster).replace(microsecond=0) + timedelta(seconds=1)
    end = start + timedelta(seconds=seconds)
    _wait(lambda: _now(cluster) >= start, 5, "time stands still")
    cpu, before = cluster.cpu(), cluster.db["history"].estimated_document_count()
    memory = 0.0
    while _now(cluster) < end:
        memory = max(memory, cluster.memory())
        time.sleep(0.5)
    after = cluster.db["history"].estimated_document_count()
    spent = [b - a for a, b in zip(cpu, cluster.cpu(), strict=True)]
    window = {"due_at": {"$gte": start, "$lt": end}, **(which or {})}
    _wait(
        lambda: cluster.db["executions"].count_documents(window, limit=1) == 0,
        60,
        "executions are still owed a minute after they were due",
    )
    row = Row(name, node_mb=memory)
    done = max(1, after - before)
    row.rate = (after - before) / seconds
    row.cpu_node, row.cpu_mongod, row.cpu_target = (s / done * 1e6 for s in spent)
    _lateness(cluster, row, window)
    row.missing = expected_per_second * seconds - row.executions
    return row


def _lateness(cluster: Cluster, row: Row, window: dict[str, Any]) -> None:
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
def bed() -> Iterator[tuple[str, int, Target]]:
    """An embedded MongoDB and a target for all cases."""
    directory = Path(tempfile.mkdtemp(prefix="horae-bench-"))
    directory.chmod(0o755)
    embedded = Embedded(directory)
    target = Target(directory)
    try:
        state = embedded.acquire()
        yield state.uri, state.pid, target
    finally:
        target.stop()
        embedded.release()
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def running(the_bed: tuple[str, int, Target], nodes: int = 2, **settings: str) -> Iterator[Cluster]:
    """Nodes for one case, with these settings."""
    uri, mongod, target = the_bed
    cluster = Cluster(uri, mongod, target, nodes, **settings)
    try:
        yield cluster
    finally:
        cluster.stop()


def steady(the_bed: tuple[str, int, Target], rate: int, seconds: int, name: str = "") -> Row:
    """`rate` jobs due every second."""
    with running(the_bed) as cluster:
        cluster.load(cluster.job(n, "* * * * * *") for n in range(rate))
        _wait(cluster.settled, 60, "the leader did not see the jobs")
        # Importing and settling are behind us when the look-ahead is full again.
        _wait(lambda: _caught_up(cluster), 60, "the nodes never caught up with the rate")
        sent = cluster.target.requests()
        recorded = cluster.db["history"].estimated_document_count()
        row = measure(cluster, name or f"{rate}/s, all due on the same instant of each second", rate, seconds)
        if sent is not None:
            row.extra["target_requests"] = (cluster.target.requests() or 0) - sent
            row.extra["recorded"] = cluster.db["history"].estimated_document_count() - recorded
        return row


def isolation(the_bed: tuple[str, int, Target], healthy: int, hanging: int, seconds: int) -> Row:
    """What answers is on time although others hang for half a minute, from the first second they do."""
    from ops.bench_isolation import HEALTHY, Hanging, unaccounted

    other = Hanging()
    try:
        with running(the_bed) as cluster:
            cluster.load(cluster.job(n, "* * * * * *") for n in range(healthy))
            _wait(cluster.settled, 60, "the leader did not see the jobs")
            _wait(lambda: _caught_up(cluster), 60, "the nodes never caught up with the rate")
            cluster.load(other.jobs(hanging))
            _wait(cluster.settled, 60, "the leader did not see the jobs")
            start = _now(cluster).replace(microsecond=0) + timedelta(seconds=1)
            name = f"{healthy}/s to one target while {hanging}/s go to one that hangs for 30 s: the former"
            row = measure(cluster, name, healthy, seconds, HEALTHY)
            row.rate = row.executions / seconds
            window = {"due_at": {"$gte": start, "$lt": start + timedelta(seconds=seconds)}}
            lost = unaccounted(cluster.db, window, hanging * seconds)
            open_ = cluster.db["breakers"].count_documents({})
            row.missing += lost
            row.extra |= {"hanging_lost": lost, "breakers_open": open_}
            row.note = f"of those that hang {lost} were lost; breakers open at the end: {open_}"
            return row
    finally:
        other.stop()


def _caught_up(cluster: Cluster) -> bool:
    """Whether the rush after an import is over: at no look within four seconds was anything owed for 0.9 s."""
    for _ in range(5):
        time.sleep(0.83)  # not a second, so that the looks fall at different times of it
        late = {"due_at": {"$lt": _now(cluster) - timedelta(seconds=0.9)}}
        if cluster.db["executions"].count_documents(late, limit=1):
            return False
    return True


def herd(the_bed: tuple[str, int, Target], size: int) -> Row:
    """`size` jobs due at one instant."""
    with running(the_bed) as cluster:
        at = (_now(cluster) + timedelta(seconds=25)).replace(microsecond=0)
        schedule = f"@at {at.isoformat().replace('+00:00', 'Z')}"
        cluster.load(cluster.job(n, schedule) for n in range(size))
        _wait(lambda: _now(cluster) >= at, 60, "time stands still")
        cpu = cluster.cpu()
        _wait(
            lambda: cluster.db["history"].estimated_document_count() >= size, 120, "the herd was not delivered in 120 s"
        )
        spent = [b - a for a, b in zip(cpu, cluster.cpu(), strict=True)]
        row = Row(f"{size:,} due at one instant", node_mb=cluster.memory())
        _lateness(cluster, row, {})
        row.missing = size - row.executions
        row.cpu_node, row.cpu_mongod, row.cpu_target = (s / size * 1e6 for s in spent)
        if row.longest:
            row.rate = size / (row.longest / 1000)
            row.note = f"the last one left after {row.longest / 1000:.1f} s"
        return row


def definitions(the_bed: tuple[str, int, Target], size: int, distinct: int) -> Row:
    """`size` jobs on `distinct` schedules, none due: what does merely having them cost?"""
    with running(the_bed) as cluster:
        month = (_now(cluster).month + 5) % 12 + 1
        took = cluster.load(
            cluster.job(n, f"{n % distinct % 60} {n % distinct // 60} 3 1 {month} *") for n in range(size)
        )
        row = Row(f"{size:,} jobs on {distinct:,} schedules, none due")
        started = time.monotonic()
        _wait(cluster.settled, 300, "the jobs were not settled")
        row.extra |= {"import_seconds": round(took, 1), "settle_seconds": round(time.monotonic() - started, 1)}
        time.sleep(3)
        cpu, began = cluster.cpu(), time.monotonic()
        time.sleep(15)
        per_node = (cluster.cpu()[0] - cpu[0]) / (time.monotonic() - began) / len(cluster.nodes()) * 100
        row.node_mb = cluster.memory()
        row.extra["node_cpu_percent"] = round(per_node, 2)
        row.note = f"imported in {took:.1f} s; an idle node uses {per_node:.1f} % of a core"
        return row


def reads(the_bed: tuple[str, int, Target]) -> list[Row]:
    """How long reads of the API take with much stored: on an idle node, and while it sends 1,000 requests a second."""
    with running(the_bed, nodes=1) as cluster:
        bench_api.fill(cluster.db)
        idle = bench_api.rows(cluster.api.url)
        cluster.load(cluster.job(n, "* * * * * *") for n in range(1000))
        _wait(cluster.settled, 60, "the leader did not see the jobs")
        _wait(lambda: _caught_up(cluster), 60, "the node never caught up with the rate")
        busy = bench_api.rows(cluster.api.url)
    found = []
    for when, timings in (("idle node", idle), ("the node sends 1,000/s", busy)):
        for t in timings:
            row = Row(f"{t['read']}, {when}", executions=t["requests"], note="how long the answer took, in ms")
            row.p50, row.p95, row.p99, row.longest = t["p50Ms"], t["p95Ms"], t["p99Ms"], t["longestMs"]
            found.append(row)
    return found


def highest(the_bed: tuple[str, int, Target], start: int, seconds: int, step: int) -> Row:
    """The highest rate that holds: nothing missing and p99 under a second."""
    best = Row("highest rate that holds", note=f"not even {start}/s")
    rate = start
    while True:
        try:
            row = steady(the_bed, rate, seconds)
        except click.ClickException:
            return best
        if row.missing or row.p99 is None or row.p99 >= 1000:
            return best
        best = row
        best.case = f"highest rate that holds (steps of {step}): {rate}/s"
        rate += step


def retention(the_bed: tuple[str, int, Target], rate: int) -> list[Row]:
    """Three runs at one rate: nothing expires; as much as is recorded expires, and TTL sees to it once a minute; the
    same, pruned bit by bit by the leader.
    """
    return [
        _expiring(the_bed, rate, "nothing expires", paced="true", filled=False),
        _expiring(the_bed, rate, "as much expires, by TTL alone", paced="false", filled=True),
        _expiring(the_bed, rate, "as much expires, pruned bit by bit", paced="true", filled=True),
    ]


def _expiring(the_bed: tuple[str, int, Target], rate: int, name: str, *, paced: str, filled: bool) -> Row:
    from ops import bench_retention as old

    with running(the_bed, HORAE_PACED_RETENTION=paced) as cluster:
        cluster.load(cluster.job(n, "* * * * * *") for n in range(rate))
        _wait(cluster.settled, 60, "the leader did not see the jobs")
        _wait(lambda: _caught_up(cluster), 60, "the nodes never caught up with the rate")
        if filled:
            old.fill(cluster.db, _now(cluster), rate, old.SECONDS)
            _wait(lambda: _caught_up(cluster), 60, "the nodes never caught up with the rate")
        left, ttl = old.old_left(cluster.db), old.by_ttl(cluster.db)
        row = measure(cluster, f"{rate}/s, {name}", rate, old.SECONDS)
        # What leaves must not be taken for what was not done.
        factor = max(1.0, row.rate * old.SECONDS) / max(1, row.executions)
        row.rate = row.executions / old.SECONDS
        row.cpu_node, row.cpu_mongod, row.cpu_target = (
            None if c is None else c * factor for c in (row.cpu_node, row.cpu_mongod, row.cpu_target)
        )
        gone, by_ttl = left - old.old_left(cluster.db), old.by_ttl(cluster.db) - ttl
        late = old.overdue(cluster.db, _now(cluster))
        row.extra |= {"gone": gone, "gone_by_ttl": by_ttl, "overdue": late}
        row.note = f"{gone:,} left, {by_ttl:,} of them by TTL; expired and still there: {late:,}"
        return row


def machine(target: Target) -> dict[str, Any]:
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


CASES = ("drift", "throughput", "isolation", "highest", "herd", "definitions", "reads", "retention")


def _print(facts: dict[str, Any], rows: list[Row]) -> None:
    print(", ".join(f"{k} {v}" for k, v in facts.items()))
    table(
        "Horae",
        [
            "case",
            "rate/s",
            "executions",
            "missing",
            "twice",
            "p50",
            "p95",
            "p99",
            "max",
            "min",
            "CPU node",
            "mongod",
            "target",
            "node MB",
            "note",
        ],
        [
            (
                r.case,
                round(r.rate),
                r.executions,
                r.missing,
                r.twice,
                *(None if v is None else round(v) for v in (r.p50, r.p95, r.p99, r.longest, r.earliest)),
                *(None if v is None else round(v) for v in (r.cpu_node, r.cpu_mongod, r.cpu_target, r.node_mb)),
                r.note,
            )
            for r in rows
        ],
    )
    print(
        "Lateness in ms after the send time, CPU in us per execution (all nodes together), memory of the largest node."
    )


@click.command("bench")
@click.option("--case", "cases", multiple=True, type=click.Choice(CASES), help="Only these cases (default: all).")
@click.option("--rate", default=3000, show_default=True, help="Jobs due every second in the throughput case.")
@click.option("--seconds", default=20, show_default=True, help="How long a steady case is measured.")
@click.option("--step", default=500, show_default=True, help="Steps of the search for the highest rate.")
@click.option("--json", "form", is_flag=True, help="Print JSON.")
def bench_command(cases: tuple[str, ...], rate: int, seconds: int, step: int, form: bool) -> None:  # noqa: FBT001
    """Measure throughput, lateness, CPU and memory on this machine. Takes about ten minutes."""
    wanted = cases or CASES
    rows: list[Row] = []
    with bed() as the_bed:
        facts = machine(the_bed[2])
        for case in wanted:
            if not form:
                print(f"... {case}", file=sys.stderr, flush=True)
            if case == "drift":
                rows.append(steady(the_bed, 100, seconds))
            elif case == "throughput":
                rows.append(steady(the_bed, rate, seconds))
            elif case == "isolation":
                rows.append(isolation(the_bed, 1000, 500, max(seconds, 45)))
            elif case == "highest":
                rows.append(highest(the_bed, rate + step, seconds, step))
            elif case == "herd":
                rows.append(herd(the_bed, 20_000))
            elif case == "definitions":
                rows.append(definitions(the_bed, 100_000, 1000))
            elif case == "reads":
                rows += reads(the_bed)
            else:
                rows += retention(the_bed, rate)
    if form:
        as_json({"machine": facts, "rows": [asdict(r) for r in rows]})
    else:
        _print(facts, rows)
    raise SystemExit(1 if any(r.missing for r in rows) else 0)

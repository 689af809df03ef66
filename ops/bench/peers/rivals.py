"""How each peer is run and what is measured of it."""

from __future__ import annotations

import json
import select
import subprocess
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from pymongo import MongoClient

from ops.bench.peers import install
from ops.bench.search import MOST_RUNS, highest_rate
from ops.bench.testbed import wait_for
from ops.support.embedded_mongodb import free_port
from ops.support.parent_watch import terminate_with_parent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ops.bench.testbed import Testbed

WORKERS = 2
"""Processes, as many as nodes of Horae are measured."""
CONCURRENCY = 64
SMALL = 2000
SMALLEST = 500
"""Jobs for the peers that keep them in MongoDB: Agenda and APScheduler."""
FINISH_SECONDS = 60
"""A peer that has not made its requests by then has a row that says so."""
BACKLOG = 40_000
HELD_P99_MS = 1000


@dataclass(frozen=True, slots=True)
class Result:
    """One row. `rate`: POSTs a second; `p99_ms`: lateness, where each job had a time of its own."""

    name: str
    rate: float | None
    note: str
    p99_ms: float | None = None


class _Posts:
    """How many POSTs nginx has answered since this was made; its answers to these questions do not count."""

    def __init__(self, testbed: Testbed) -> None:
        self._target = testbed.target
        self._before = self._target.requests() or 0

    def __call__(self) -> int:
        self._before += 1
        return (self._target.requests() or 0) - self._before


def _popen(command: list[str], folder: Path, errors: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        start_new_session=True,
        preexec_fn=terminate_with_parent,  # noqa: PLW1509 - no other threads
    )


def _line(process: subprocess.Popen[str], errors: Any, seconds: float | None = None) -> str:
    """The next line of its output. Raises `PeerMissing` when it has ended instead, or says nothing for so long."""
    assert process.stdout is not None
    if not select.select([process.stdout], [], [], seconds)[0]:
        raise install.PeerMissing(f"it did not finish within {seconds:g} s")
    line = process.stdout.readline()
    if not line:
        errors.seek(0)
        last = errors.read().strip().splitlines()[-3:]
        raise install.PeerMissing(f"it ended: {' '.join(last)[:300]}")
    return line.strip()


@contextmanager
def _ending(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    try:
        yield process
    finally:
        for child in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else ():
            child.kill()
        process.kill()
        process.wait(10)


@contextmanager
def redis(*, append_only: bool) -> Iterator[int]:
    """A Redis on a free port of loopback, in memory alone or with its append-only file (fsync each second)."""
    program, port = install.redis_server(), free_port()
    with tempfile.TemporaryDirectory(prefix="horae-bench-redis-") as folder:
        kept = ["--appendonly", "yes", "--appendfsync", "everysec"] if append_only else ["--appendonly", "no"]
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder, *kept]
        process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=terminate_with_parent,  # noqa: PLW1509 - no other threads
        )
        try:
            ping = [program.replace("redis-server", "redis-cli"), "-p", str(port), "ping"]
            wait_for(
                lambda: b"PONG" in subprocess.run(ping, capture_output=True, check=False).stdout,
                10,
                "Redis did not start",
            )
            yield port
        finally:
            process.terminate()
            process.wait(10)


@contextmanager
def _bullmq_workers(testbed: Testbed, port: int) -> Iterator[list[subprocess.Popen[str]]]:
    folder, url = install.npm_packages(), f"http://127.0.0.1:{testbed.target.port}/bullmq"
    with ExitStack() as stack, tempfile.TemporaryFile("w+") as errors:
        workers = []
        for _ in range(WORKERS):
            command = [*install.node(), "bullmq.mjs", "worker", str(port), url, str(CONCURRENCY)]
            workers.append(stack.enter_context(_ending(_popen(command, folder, errors))))
        for worker in workers:
            assert _line(worker, errors) == "ready"
        yield workers


def bullmq_backlog(testbed: Testbed, *, append_only: bool) -> Result:
    """Jobs due at once, added in bulk while two workers POST them: how many a second, from the first to the last."""
    name = "BullMQ, Redis with its append-only file" if append_only else "BullMQ, Redis in memory"
    with redis(append_only=append_only) as port, _bullmq_workers(testbed, port):
        posts, began = _Posts(testbed), time.perf_counter()
        command = [*install.node(), "bullmq.mjs", "fill", str(port), str(BACKLOG)]
        subprocess.run(command, cwd=install.npm_packages(), check=True)
        wait_for(lambda: posts() >= BACKLOG, 120, "BullMQ did not finish")
        rate = BACKLOG / (time.perf_counter() - began)
    return Result(name, rate, f"{BACKLOG:,} jobs due at once, added in bulk; {WORKERS} workers of {CONCURRENCY}")


def bullmq_delayed(testbed: Testbed, rate: int, seconds: int) -> Result:
    """`rate` jobs due on the same instant of each second, added 5 s ahead with `delay`: what the lateness is."""
    with redis(append_only=False) as port, _bullmq_workers(testbed, port) as workers:
        posts = _Posts(testbed)
        start_ms = (int(time.time()) + 7) * 1000
        command = [*install.node(), "bullmq.mjs", "tick", str(port), str(rate), str(seconds), str(start_ms)]
        subprocess.run(command, cwd=install.npm_packages(), check=True)
        expected = rate * seconds
        deadline = start_ms / 1000 + seconds + 30
        while posts() < expected and time.time() < deadline:
            time.sleep(0.1)
        lateness: list[int] = []
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.close()
            assert worker.stdout is not None
            lateness += json.loads(worker.stdout.readline())["lateness"]
    lateness.sort()
    missing = expected - len(lateness)
    p99 = float(lateness[int(len(lateness) * 0.99)]) if lateness else None
    return Result("BullMQ with `delay`", float(rate), f"missing {missing} of {expected:,}", p99)


def bullmq_delayed_highest(testbed: Testbed, start: int, seconds: int, step: int) -> Result:
    """The highest rate at which nothing is missing and p99 is below a second, as it is measured of Horae."""

    def run(rate: int) -> Result | None:
        found = bullmq_delayed(testbed, rate, seconds)
        if not found.note.startswith("missing 0 ") or found.p99_ms is None or found.p99_ms >= HELD_P99_MS:
            return None
        return found

    best = highest_rate(run, start, step)
    if best is None:
        return Result("BullMQ with `delay`", None, f"none of {MOST_RUNS} rates held")
    note = f"jobs due on the same instant of each second, {seconds} s, steps of {step}"
    return Result(best.name, best.rate, note, best.p99_ms)


def _worked_off(command: list[str], folder: Path) -> float:
    """Seconds from the word to begin until the peer has made its last request."""
    with tempfile.TemporaryFile("w+") as errors, _ending(_popen(command, folder, errors)) as process:
        assert _line(process, errors, FINISH_SECONDS) == "ready"
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
        return float(json.loads(_line(process, errors, FINISH_SECONDS))["seconds"])


def _dropped(testbed: Testbed, database: str) -> None:
    with MongoClient[dict[str, Any]](testbed.uri) as client:
        client.drop_database(database)


def agenda(testbed: Testbed) -> Result:
    """One-off jobs that are all due, worked off by one process."""
    folder, database = install.npm_packages(), f"bench_agenda_{time.time_ns()}"
    uri = testbed.uri.replace("/?", f"/{database}?", 1)
    url = f"http://127.0.0.1:{testbed.target.port}/agenda"
    try:
        seconds = _worked_off([*install.node(), "agenda.mjs", uri, url, str(SMALL), str(CONCURRENCY)], folder)
    finally:
        _dropped(testbed, database)
    return Result("Agenda, MongoDB", SMALL / seconds, f"{SMALL:,} jobs stored before; the time to add them is left out")


def apscheduler(testbed: Testbed) -> Result:
    """One-off jobs that are all due, worked off by one process."""
    program, database = install.python_environment(), f"bench_apscheduler_{time.time_ns()}"
    url = f"http://127.0.0.1:{testbed.target.port}/apscheduler"
    script = str(Path(__file__).with_name("apscheduler_peer.py"))
    try:
        seconds = _worked_off([str(program), script, testbed.uri, database, url, str(SMALLEST)], Path.cwd())
    finally:
        _dropped(testbed, database)
    return Result(
        "APScheduler, MongoDB", SMALLEST / seconds, f"{SMALLEST:,} jobs stored before; the time to add them is left out"
    )

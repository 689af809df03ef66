"""Cases about what surrounds a node: how many nodes there are, the network to MongoDB, targets, long runs, a sudden end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import click

from ops.bench.results import Row
from ops.bench.targets import running_targets
from ops.bench.testbed import Testbed, caught_up, measure, running_cluster, wait_for
from ops.support.embedded_mongodb import free_port
from ops.support.parent_watch import terminate_with_parent, with_parent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ops.bench.testbed import Cluster

FEW_NODES, MANY_NODES = (2, 8), (32,)
IDLE_SECONDS = 20
PATIENCE_SECONDS = 30
"""So long the nodes may take to settle jobs, to reach a rate, and to be done at the end."""
DELAYS_MS = (0, 1, 5)
TARGET_RATE = 500
HOSTS, HOST_SECONDS = 10_000, 10
"""Each is called once in so many seconds, at the whole rate."""
SLOWER = (1, 2, 3)
"""What does not hold at the whole rate is measured at half of it, then at a third. (Every 10, 20 and 30 s is even in a minute.)"""
KILL_RATE = 300
COMMANDS = ("find", "getMore", "aggregate", "count", "distinct", "insert", "update", "delete", "findAndModify")
SAMPLE_SECONDS = 30


def nodes(testbed: Testbed, rate: int, seconds: int, counts: tuple[int, ...]) -> list[Row]:
    """The same rate on few and on many nodes, and what each of them costs while nothing is due."""
    rows = []
    for count in counts:
        with running_cluster(testbed, nodes=count) as cluster:
            _wait_for_nodes(cluster, count)
            time.sleep(5)
            rows.append(_idle(cluster, count))
            rows.append(_bounded(f"{rate}/s on {count} nodes", partial(_loaded, cluster, count, rate, seconds)))
    return rows


def _loaded(cluster: Cluster, count: int, rate: int, seconds: int) -> Row:
    _load(cluster, rate, None)
    return measure(cluster, f"{rate}/s on {count} nodes", rate, seconds, patience=PATIENCE_SECONDS)


def _wait_for_nodes(cluster: Cluster, count: int) -> None:
    wait_for(lambda: len(cluster.nodes()) == count, 120, "the nodes did not start")


def _idle(cluster: Cluster, count: int) -> Row:
    cpu, asked, began = cluster.cpu(), commands(cluster), time.monotonic()
    time.sleep(IDLE_SECONDS)
    took = time.monotonic() - began
    node, mongod, _ = ((b - a) / took * 100 for a, b in zip(cpu, cluster.cpu(), strict=True))
    each = (commands(cluster) - asked) / took / count
    return Row(
        f"{count} idle nodes",
        node_mb=cluster.memory(),
        note=f"{node / count:.2f} % of a core and {each:.1f} commands a second each; of MongoDB {mongod:.2f} % in all",
        extra={
            "node_percent": round(node / count, 3),
            "mongod_percent": round(mongod, 3),
            "commands_a_second": round(each, 2),
        },
    )


def commands(cluster: Cluster) -> int:
    """Commands that MongoDB has carried out for nodes. The driver's own questions whether a member is there do not count."""
    counts = cluster.client.admin.command("serverStatus")["metrics"]["commands"]
    return sum(counts[name]["total"] for name in COMMANDS)


def _load(cluster: Cluster, rate: int, url: Callable[[int], str] | None) -> None:
    jobs = (cluster.job(n, "* * * * * *") for n in range(rate))
    _load_jobs(cluster, jobs if url is None else ({**j, "api": url(n)} for n, j in enumerate(jobs)))


def _load_jobs(cluster: Cluster, jobs: Iterable[dict[str, Any]]) -> None:
    cluster.load(jobs)
    wait_for(cluster.settled, PATIENCE_SECONDS, "the jobs were not settled")
    wait_for(lambda: caught_up(cluster), PATIENCE_SECONDS, "the nodes did not reach the rate")


def _bounded(case: str, measured: Callable[[], Row]) -> Row:
    """A row that says why, if the machine is too slow or too busy for this one: the others are measured all the same."""
    try:
        return measured()
    except click.ClickException as exc:
        return Row(case, note=f"not measured: {exc.message}")


def network(testbed: Testbed, rate: int, seconds: int) -> list[Row]:
    """MongoDB behind a wire that delays each way."""
    rows = []
    for delay_ms in DELAYS_MS:
        case = f"{rate}/s, {delay_ms} ms to MongoDB each way"
        rows.append(_bounded(case, partial(_delayed, testbed, delay_ms, case, rate, seconds)))
    return rows


def _delayed(testbed: Testbed, delay_ms: int, case: str, rate: int, seconds: int) -> Row:
    with _slow_wire(testbed, delay_ms) as wired, running_cluster(wired) as cluster:
        _load(cluster, rate, None)
        return measure(cluster, case, rate, seconds, patience=PATIENCE_SECONDS)


@contextmanager
def _slow_wire(testbed: Testbed, delay_ms: int) -> Iterator[Testbed]:
    """The testbed with its MongoDB behind a wire. Nodes connect directly: the replica set would name the way around it."""
    address = urlsplit(testbed.uri)
    login, _, place = address.netloc.rpartition("@")
    target = unquote(place) if "%2F" in place else place.rpartition(":")[2]
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "ops.bench.slow_wire", str(port), str(delay_ms), target],
        env=with_parent(dict(os.environ)),
        start_new_session=True,
        preexec_fn=terminate_with_parent,  # noqa: PLW1509 - no other threads
    )
    user = f"{login}@" if login else ""
    try:
        time.sleep(1)
        yield replace(testbed, uri=f"mongodb://{user}127.0.0.1:{port}/?directConnection=true&authSource=admin")
    finally:
        process.terminate()
        process.wait(10)


def targets(testbed: Testbed, seconds: int) -> list[Row]:
    """Many hosts, TLS and slow answers, each for itself."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="horae-bench-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        try:
            with running_targets(directory) as running:
                for case, url in running.urls().items():
                    measured = partial(_target, testbed, case, url, running.certificate, seconds)
                    rows.append(_at_the_rate_that_holds(case, measured))
        except FileNotFoundError as exc:
            raise click.ClickException("--case targets needs nginx") from exc
    return rows


def _at_the_rate_that_holds(case: str, measured: Callable[[int], Row]) -> Row:
    """The row of the first rate of which nothing is missing: without figures it would say nothing about a slower machine."""
    refused: list[str] = []
    for slower in SLOWER:
        row = _bounded(case, partial(measured, slower))
        if row.executions and not row.missing:
            break
        refused.append(
            f"{_target_rate(case) // slower}/s: {row.note if not row.executions else f'{row.missing} missing'}"
        )
    return replace(row, note="; ".join([row.note, *refused])) if row.executions else Row(case, note="; ".join(refused))


def _target_rate(case: str) -> int:
    return HOSTS // HOST_SECONDS if "many hosts" in case else TARGET_RATE


def _target(testbed: Testbed, case: str, url: Callable[[int], str], certificate: str, seconds: int, slower: int) -> Row:
    """`slower`: the whole rate is divided by it."""
    rate = _target_rate(case) // slower
    with running_cluster(testbed, SSL_CERT_FILE=certificate) as cluster:
        if "many hosts" not in case:
            _load(cluster, rate, url)
        else:
            every = HOST_SECONDS * slower
            # As many hosts as make a whole number a second.
            jobs = (cluster.job(n, f"{n % every}/{every} * * * * *") for n in range(rate * every))
            _load_jobs(cluster, ({**j, "api": url(n)} for n, j in enumerate(jobs)))
        row = measure(cluster, f"{rate}/s, {case}", rate, seconds, patience=PATIENCE_SECONDS)
        files = max(_descriptors(cluster))
        return replace(
            row, extra=row.extra | {"descriptors": files}, note=f"{files} descriptors of one node at the end"
        )


def _descriptors(cluster: Cluster) -> list[int]:
    return [p.num_fds() for p in cluster.nodes()] or [0]


def kill(testbed: Testbed, seconds: int) -> Row:
    """One of three nodes is killed; its parent lives and says so."""
    with running_cluster(testbed, nodes=3) as cluster:
        _wait_for_nodes(cluster, 3)
        _load(cluster, KILL_RATE, None)
        victim = cluster.nodes()[0]
        timer = threading.Timer(seconds / 2, lambda: victim.send_signal(signal.SIGKILL))
        timer.start()
        try:
            row = measure(cluster, f"{KILL_RATE}/s while one of three nodes is killed", KILL_RATE, seconds)
        finally:
            timer.cancel()
        return replace(row, rate=row.executions / seconds, cpu_node=None)


def soak(testbed: Testbed, rate: int, minutes: float) -> Row:
    """Memory and file descriptors of the nodes over a long run: at the end, and after the first sixth of it."""
    samples: list[tuple[float, float, int]] = []
    stop = threading.Event()
    with running_cluster(testbed) as cluster:
        _load(cluster, rate, None)
        began = time.monotonic()

        def sample() -> None:
            while not stop.wait(min(SAMPLE_SECONDS, minutes)):
                with_files = (time.monotonic() - began, cluster.memory(), max(_descriptors(cluster)))
                samples.append(with_files)

        thread = threading.Thread(target=sample, daemon=True)
        thread.start()
        try:
            row = measure(cluster, f"{rate}/s for {minutes:g} minutes", rate, max(10, round(minutes * 60)))
        finally:
            stop.set()
            thread.join(60)
    return _slope(row, samples, minutes)


def _slope(row: Row, samples: list[tuple[float, float, int]], minutes: float) -> Row:
    settled = [s for s in samples if s[0] >= min(300.0, minutes * 10)]
    if len(settled) < 2:
        return replace(row, note="too short for a slope")
    first, last = settled[0], settled[-1]
    hours = (last[0] - first[0]) / 3600
    extra: dict[str, Any] = {
        "mb_per_hour": round((last[1] - first[1]) / hours, 2),
        "memory_percent": round((last[1] / first[1] - 1) * 100, 2),
        "descriptors_percent": round((last[2] / max(1, first[2]) - 1) * 100, 2),
    }
    note = (
        f"memory {first[1]:.0f} to {last[1]:.0f} MB ({extra['memory_percent']:+.1f} %, {extra['mb_per_hour']:+.1f} MB an "
        f"hour), descriptors {first[2]} to {last[2]}"
    )
    return replace(row, extra=row.extra | extra, note=note)

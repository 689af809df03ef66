"""Processes whose parent is killed end by themselves, cleanly; and a second SIGTERM does not spoil the first."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest

from ops.support.embedded_mongodb import EmbeddedMongod, free_port
from tests.support import plain_http
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.processes import Nodes, Receiver

pytestmark = pytest.mark.timeout(120)


def _gone(processes: list[psutil.Process]) -> bool:
    return not [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.takes(10)
def test_nodes_shut_down_when_their_arbiter_is_killed(cluster: Callable[..., Nodes], receiver: Receiver) -> None:
    """An idle connection does not delay them; their batches are released, and so is the leader's lease."""
    nodes = cluster(2)
    nodes.load(
        [
            {"jobId": f"j{i}", "schedule": "* * * * * *", "api": f"{receiver.url}/ok/{i}", "type": "ATLEAST_ONCE"}
            for i in range(20)
        ]
    )
    wait_until(lambda: len(receiver.arrivals()) >= 40, 20, "the first runs")
    workers = [psutil.Process(pid) for pid in nodes.alive().values()]
    with httpx.Client() as idle:
        assert idle.get(f"{nodes.url}/healthz").status_code == 200
        began = time.monotonic()
        nodes.process.kill()
        nodes.process.wait(5)
        wait_until(lambda: _gone(workers), 12, "the workers' end")
        assert time.monotonic() - began < 12
    assert nodes.db["batches"].count_documents({"owner": {"$ne": None}}) == 0
    assert nodes.leader() is None
    assert nodes.db["nodes"].count_documents({}) == 0


@pytest.mark.takes(12)
def test_after_a_second_sigterm_the_request_in_flight_is_still_finished(
    cluster: Callable[..., Nodes], receiver: Receiver
) -> None:
    """An impatient supervisor sends it to every process."""
    nodes = cluster(1)
    nodes.load(
        [{"jobId": "slow", "schedule": "* * * * * *", "api": f"{receiver.url}/slow/2000", "type": "ATLEAST_ONCE"}]
    )
    wait_until(lambda: len(receiver.arrivals()) >= 1, 20, "a request in flight")
    pids = [*nodes.alive().values(), nodes.process.pid]
    for _ in range(2):
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
        wait_until(lambda: "node_stopping" in nodes.log(), 5, "the drain")
    assert nodes.process.wait(14) == 0
    sent = {a.execution for a in receiver.arrivals()}
    final = {h["_id"] for h in nodes.db["history"].find({"state": "succeeded"})}
    assert sent == final, "a request was cut off, or its result was not recorded"
    assert nodes.db["batches"].count_documents({"owner": {"$ne": None}}) == 0
    assert nodes.leader() is None


@pytest.mark.takes(15)
@pytest.mark.long
def test_everything_that_a_killed_demo_started_ends(tmp_path: Path) -> None:
    """Nodes, receiver and the embedded MongoDB notice that it has ended, and shut down."""
    ports = [free_port(), free_port()]
    with (tmp_path / "demo.log").open("wb") as log:
        demo = subprocess.Popen(
            [sys.executable, "-m", "ops", "demo", "--port", str(ports[0]), "--receiver-port", str(ports[1])],
            env={**os.environ, "HORAE_DATA_DIR": str(tmp_path), "PYTHONUNBUFFERED": "1"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    family: list[psutil.Process] = []
    try:
        wait_until(lambda: _answers(ports[0]), 60, "the nodes to answer")
        family = psutil.Process(demo.pid).children(recursive=True)
        family += [psutil.Process(state.pid)] if (state := EmbeddedMongod(tmp_path).running_server()) else []
        assert len(family) >= 5
        demo.kill()
        demo.wait(5)
        wait_until(lambda: _gone(family), 25, "the end of everything it started")
    finally:
        for process in family:
            if process.is_running():
                process.kill()


def _answers(port: int) -> bool:
    try:
        return plain_http.get(f"http://127.0.0.1:{port}/jobs").status_code == 200
    except httpx.HTTPError:
        return False

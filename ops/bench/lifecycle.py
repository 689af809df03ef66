"""For `horae bench`: how long a node takes to become ready, and a shutdown of nodes under load."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Self

import psutil

from ops.support.client import Client, Refused, Unreachable
from ops.support.embedded_mongodb import free_port
from ops.support.parent_watch import with_parent

if TYPE_CHECKING:
    from collections.abc import Callable

START_SECONDS = 60.0


def start_seconds(uri: str, db_name: str) -> float:
    """Seconds from the start of the command until /readyz answers 200; one node, with a running database."""
    port = free_port()
    environment = {**os.environ, "MONGODB_URI": uri, "DB_NAME": db_name}
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "ops", "serve", "--port", str(port), "--nodes", "1"],
        env=with_parent(environment),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    api = Client(f"http://127.0.0.1:{port}")
    try:
        while time.monotonic() - began < START_SECONDS:
            with suppress(Refused, Unreachable):
                api.call("GET", "/readyz")
                return time.monotonic() - began
            time.sleep(0.02)
        raise TimeoutError(f"the node was not ready within {START_SECONDS:.0f} s")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def start_times(uri: str, db_name: str, runs: int = 5) -> tuple[float, float, float]:
    """Start times in seconds: (on an empty database, median, longest)."""
    first = start_seconds(uri, db_name)
    others = [start_seconds(uri, db_name) for _ in range(runs)]
    return first, statistics.median(others), max(first, *others)


class Terminating:
    """Sends SIGTERM to one node after another in a thread, while a case measures. gunicorn replaces each node."""

    def __init__(self, nodes: Callable[[], list[psutil.Process]], apart_seconds: float) -> None:
        self._nodes = nodes
        self._apart = apart_seconds
        self.took: list[float] = []
        """How long each node took to end, in seconds."""
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(120)

    def _work(self) -> None:
        for node in self._nodes():
            time.sleep(self._apart)
            began = time.monotonic()
            node.send_signal(signal.SIGTERM)
            with suppress(psutil.TimeoutExpired):
                node.wait(60)
            self.took.append(time.monotonic() - began)

"""Starting and stopping, for `horae bench`: how long a node takes to be ready, and what a drain under load costs."""

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

if TYPE_CHECKING:
    from collections.abc import Callable

START_SECONDS = 60.0


def start_seconds(uri: str, db_name: str) -> float:
    """Seconds from starting the command to /readyz saying yes, one node, with a running database."""
    port = free_port()
    environment = {**os.environ, "MONGODB_URI": uri, "DB_NAME": db_name}
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "ops", "serve", "--port", str(port), "--nodes", "1"],
        env=environment,
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
    """(on an empty database, median, longest) of starts one after another, in seconds."""
    first = start_seconds(uri, db_name)
    others = [start_seconds(uri, db_name) for _ in range(runs)]
    return first, statistics.median(others), max(first, *others)


class Terminating:
    """SIGTERM to one node after another while others measure; each is followed by its successor."""

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

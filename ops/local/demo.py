"""`make run`: MongoDB, nodes, a receiver and the sample jobs in one command, with a live line of what is delivered.

Every process is a child in a session of its own, so that Ctrl-C reaches this one alone, which ends the others in order:
the nodes drain, the receiver answers until they have, the embedded MongoDB goes last. If this one is killed, they see
it and end by themselves.
"""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

import config
from ops.support.client import Client, Refused, Unreachable
from ops.support.parent_watch import with_parent

if TYPE_CHECKING:
    from config.settings import Settings

SAMPLES = Path(config.__file__).parent / "samples" / "jobs.ndjson"
READY_SECONDS = 60
STOP_SECONDS = 13
"""Longer than a drain may take; Ctrl-C to an empty process table within 15 s."""

console = Console(highlight=False)


class Demo:
    """The processes of one `make run`."""

    def __init__(self, settings: Settings, receiver_port: int) -> None:
        self._settings = settings
        self._receiver_port = receiver_port
        self._processes: list[tuple[str, subprocess.Popen[bytes]]] = []
        self._logs = Path(settings.data_dir) / "logs"
        self.stopping = threading.Event()
        self.api = Client(f"http://127.0.0.1:{settings.port}")

    def start(self) -> None:
        """Start receiver and nodes."""
        self._logs.mkdir(parents=True, exist_ok=True)
        self._run("receiver", "receiver", "--port", str(self._receiver_port))
        self._run("serve", "serve", "--port", str(self._settings.port), "--nodes", str(self._settings.nodes))

    def _run(self, name: str, *arguments: str) -> None:
        environment = with_parent({"HORAE_ALLOWED_NETWORKS": "127.0.0.0/8", **os.environ})
        with (self._logs / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "ops", *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes.append((name, process))

    def ended_process(self) -> str | None:
        """The name of a process that has ended by itself."""
        return next((name for name, process in self._processes if process.poll() is not None), None)

    def last_log_lines(self, name: str) -> str:
        """The last lines of a process's log."""
        return "\n".join((self._logs / f"{name}.log").read_text(errors="replace").splitlines()[-5:])

    def wait_ready(self) -> bool:
        """Until the nodes can serve; False if they ended or took too long."""
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline and not self.stopping.is_set():
            if self.ended_process():
                return False
            if self._is_ready():
                return True
            self.stopping.wait(0.2)
        return False

    def _is_ready(self) -> bool:
        try:
            self.api.call("GET", "/readyz")
        except (Refused, Unreachable):
            return False
        return True

    def stop(self) -> None:
        """End the nodes, then the receiver; SIGKILL for what does not end in time."""
        deadline = time.monotonic() + STOP_SECONDS
        for _, process in reversed(self._processes):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(5)


def status_line(cluster: dict[str, Any]) -> str:
    """The live line for one reading of `GET /cluster`."""
    rates, backlog = cluster["rates"], cluster["backlog"]
    leader = cluster["leader"]["nodeId"] or "none"
    failed = rates["failedPerSecond"] + rates["deadPerSecond"]
    return (
        f"delivered {rates['succeededPerSecond']:7.1f}/s   failed {failed:5.1f}/s   "
        f"retried {rates['retriedPerSecond']:5.1f}/s   late p50 {_ms(rates['driftMsP50'])} "
        f"p99 {_ms(rates['driftMsP99'])}   leader {leader} (term {cluster['leader']['term']})   "
        f"backlog {backlog['ready']} ready, {backlog['leased']} leased"
    )


def _ms(value: float | None) -> str:
    return "    -" if value is None else f"{value:3.0f}ms"


def load_samples(api: Client, receiver_port: int) -> dict[str, Any]:
    """Import the sample dataset, aimed at our receiver; importing it again changes nothing."""
    lines = SAMPLES.read_bytes().replace(b"http://127.0.0.1:5001/", f"http://127.0.0.1:{receiver_port}/".encode())
    counts: dict[str, Any] = api.upload("/jobs/import", io.BytesIO(lines), "application/x-ndjson")
    return counts


def _explain(settings: Settings, receiver_port: int, imported: dict[str, Any]) -> None:
    base = f"http://127.0.0.1:{settings.port}"
    counts = ", ".join(f"{imported[what]} {what}" for what in ("created", "updated", "unchanged") if imported[what])
    console.print(f"\n  Horae runs: {settings.nodes} nodes at {base}, sample jobs: {counts}\n")
    for what, how in (
        ("what is being delivered", f"http://127.0.0.1:{receiver_port}/"),
        ("a job and its next runs", f"curl {base}/jobs/invoice-shop-01"),
        ("its latest executions", f"curl {base}/jobs/heartbeat-01/executions"),
        ("the cluster", f"curl {base}/cluster"),
        ("who holds what", f"HORAE_DATA_DIR={settings.data_dir} .venv/bin/horae leases"),
        ("logs", f"{settings.data_dir}/logs/"),
    ):
        console.print(f"  {what:<26}{how}", soft_wrap=True)
    console.print("\n  Kill any process you like; Ctrl-C ends all of it, the data stays.\n")


def run(settings: Settings, receiver_port: int) -> int:
    """Run until Ctrl-C. Returns the exit status."""
    demo = Demo(settings, receiver_port)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: demo.stopping.set())
    try:
        demo.start()
        if not demo.wait_ready():
            if demo.stopping.is_set():
                return 0
            name = demo.ended_process() or "serve"
            console.print(f"horae: {name} did not come up:\n{demo.last_log_lines(name)}", style="red")
            return 1
        _explain(settings, receiver_port, load_samples(demo.api, receiver_port))
        _watch(demo)
        return 0
    finally:
        console.print("\nstopping: requests in flight are finished, the rest is kept for the next start")
        demo.stop()


def _watch(demo: Demo) -> None:
    live = console.is_terminal
    shown = 0.0
    while not demo.stopping.wait(1.0):
        try:
            cluster = demo.api.call("GET", "/cluster")
        except (Refused, Unreachable) as exc:
            console.print(f"the API did not answer: {exc}", style="yellow")
            continue
        if live:
            console.print(status_line(cluster), end="\r", soft_wrap=True)
        elif time.monotonic() - shown > 5:
            shown = time.monotonic()
            console.print(status_line(cluster), soft_wrap=True)
        name = demo.ended_process()
        if name is not None:
            console.print(f"\n{name} ended; starting it again is up to you\n{demo.last_log_lines(name)}", style="red")
            return

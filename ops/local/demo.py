"""`make run`: MongoDB, nodes, a receiver and the sample jobs in one command, with a live status line.

Every process is a child in a session of its own, so Ctrl-C reaches only this process, which ends the others in order: the
nodes shut down while the receiver still answers; the embedded MongoDB ends last. If this process is killed, its children
notice and end by themselves.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from cluster.core.errors import ConfigurationError
from ops.local.only_run import only_run
from ops.local.samples import load_samples, load_with_a_missed_range
from ops.support.client import Client, Refused, Unreachable
from ops.support.embedded_mongodb import is_free
from ops.support.parent_watch import with_parent

if TYPE_CHECKING:
    from config.settings import Settings

READY_SECONDS = 60
RESTART_SECONDS = 10.0
"""A receiver that ends again so soon after it was started again stays ended."""
LOG_LINES = 5
MINUTE_MS = 60_000
"""From here on the buckets of a histogram are minutes wide, and a quantile is the upper bound of its bucket."""
STOP_SECONDS = 13
"""More than the shutdown of a node takes; all processes end within 15 s after Ctrl-C."""

LOOPBACK = "127.0.0.0/8,::1/128"
"""Where sample jobs may go although it is not public: `localhost` may be either."""

TROUBLE = (
    ("hosts that fail", "#/failed"),
    ("an open circuit breaker", "#/cluster"),
    ("many jobs on one second", "#/time?by=tag&span=600&tag=herd"),
    ("what was missed", "#/executions?state=missed"),
)
"""What goes wrong in the samples on purpose, and the screen that shows it."""

console = Console(highlight=False)


def show(text: str, *, end: str = "\n", style: str | None = None) -> None:
    """Print a line. If the terminal is closed, the processes must be stopped all the same."""
    with suppress(OSError, SystemExit):  # rich raises SystemExit for a broken pipe
        console.print(text, end=end, style=style, soft_wrap=True)


class Demo:
    """The processes of one `make run`."""

    def __init__(self, settings: Settings, receiver_port: int) -> None:
        self._settings = settings
        self.receiver_port = receiver_port
        self._processes: list[tuple[str, subprocess.Popen[bytes]]] = []
        self._logs = Path(settings.data_dir) / "logs"
        self._log_starts: dict[str, int] = {}
        """The sizes of the logs before this run: what stands there is of runs before."""
        self._restarted_at = -RESTART_SECONDS
        self.stopping = threading.Event()
        self.api = Client(f"http://127.0.0.1:{settings.port}")

    def start(self) -> None:
        """Start receiver and nodes."""
        self._logs.mkdir(mode=0o700, exist_ok=True)
        self._run_receiver()
        self.run("serve", "serve", "--port", str(self._settings.port), "--nodes", str(self._settings.nodes))

    def _run_receiver(self) -> None:
        self.run("receiver", "receiver", "--port", str(self.receiver_port))

    def run(self, name: str, *arguments: str) -> None:
        """Start a process that runs this command."""
        environment = with_parent({"HORAE_ALLOWED_NETWORKS": LOOPBACK, **os.environ})
        with (self._logs / f"{name}.log").open("ab") as log:
            self._log_starts[name] = log.tell()
            process = subprocess.Popen(
                [sys.executable, "-m", "ops", *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes.append((name, process))

    def ended_process(self) -> tuple[str, str] | None:
        """The name of a process that has ended unexpectedly, and how, as a sentence."""
        for name, process in self._processes:
            status = process.poll()
            if status is not None:
                how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
                return name, f"{name} {how}"
        return None

    def restart(self, name: str) -> bool:
        """Start a process again that was killed, to show what its death does. False: it is not one that can be, now.

        Nodes are started again by `serve`, their parent; without that one nothing is left to show.
        """
        if name != "receiver" or time.monotonic() - self._restarted_at < RESTART_SECONDS:
            return False
        self._restarted_at = time.monotonic()
        self._processes = [(other, process) for other, process in self._processes if other != name]
        self._run_receiver()
        self._processes.insert(0, self._processes.pop())  # it is ended last
        return True

    def last_log_lines(self, name: str) -> str:
        """The last lines that a process has written to its log in this run."""
        written = (self._logs / f"{name}.log").read_bytes()[self._log_starts.get(name, 0) :]
        return "\n".join(written.decode(errors="replace").splitlines()[-LOG_LINES:])

    def wait_ready(self) -> bool:
        """Wait until the nodes are ready; False if they ended or took too long."""
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline and not self.stopping.is_set():
            if self.ended_process() is not None:
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
        """End the nodes, then the receiver. A process that does not end in time gets SIGKILL."""
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
    """The status line for a response of `GET /cluster`."""
    rates, backlog = cluster["rates"], cluster["backlog"]
    leader = cluster["leader"]["nodeId"] or "none"
    failed = rates["failedPerSecond"] + rates["deadPerSecond"]
    held_back = f" ({backlog['heldBack']} held back by their host or a limit)" if backlog["heldBack"] else ""
    open_breakers = f"   open breakers {cluster['breakersInAll']}" if cluster["breakersInAll"] else ""
    return (
        f"delivered {rates['succeededPerSecond']:7.1f}/s   failed {failed:5.1f}/s   "
        f"retried {rates['retriedPerSecond']:5.1f}/s   lateness p50 {_ms(rates['driftMsP50'])} "
        f"p99 {_ms(rates['driftMsP99'])}   leader {leader} (term {cluster['leader']['term']})   "
        f"backlog {backlog['ready']} due{held_back}, {backlog['leased']} with nodes{open_breakers}"
    )


def _ms(value: float | None) -> str:
    if value is None:
        return "    -"
    return f"<{value / MINUTE_MS:.0f}min" if value >= MINUTE_MS else f"{value:3.0f}ms"


def print_overview(settings: Settings, receiver_port: int, imported: dict[str, Any]) -> None:
    """Print where to look, and what goes wrong on purpose."""
    base = f"http://127.0.0.1:{settings.port}"
    counts = ", ".join(f"{imported[what]} {what}" for what in ("created", "updated", "unchanged") if imported[what])
    show(
        f"  {settings.nodes} nodes, sample jobs: {counts}. Some are in trouble on purpose, to be looked at:\n",
    )
    for what, where in TROUBLE:
        show(f"  {what:<26}{base}/{where}")
    show("\n  And besides:\n")
    for what, how in (
        ("delivered requests", f"http://127.0.0.1:{receiver_port}/"),
        ("a job and its next runs", f"curl {base}/jobs/invoice-shop-01"),
        ("its latest executions", f"curl {base}/jobs/heartbeat-01/executions"),
        ("the cluster", f"curl {base}/cluster"),
        ("leader and leases", f"{_data_dir(settings)}.venv/bin/horae leases"),
        ("was anything lost?", f"{_data_dir(settings)}.venv/bin/horae verify --since 10m"),
        ("", "(it names the jobs outage-1 to outage-4 as late: their host is down on purpose)"),
        ("logs", f"{settings.data_dir}/logs/"),
    ):
        show(f"  {what:<26}{how}")
    if settings.port != type(settings).model_fields["port"].default:
        show(f"\n  Commands that use the API need its address: [bold]export HORAE_URL={base}[/bold]")
    ending = (
        "Kill any of the processes to see what happens. Ctrl-C ends all of them; the data is kept. Start again after"
    )
    show(
        f"\n  {ending}\n  half a minute, and the heartbeats, which are not caught up, have a missed range more.\n",
    )


def _data_dir(settings: Settings) -> str:
    """What a command needs in front to find the embedded database, if it is not where it is looked for anyway."""
    default = type(settings).model_fields["data_dir"].default
    return "" if str(settings.data_dir) == str(default) else f"HORAE_DATA_DIR={settings.data_dir} "


def run(settings: Settings, receiver_port: int) -> int:
    """Run until Ctrl-C. Returns the exit status. Raises `ConfigurationError`: another run is here, or a port is taken."""
    with only_run(Path(settings.data_dir), f"http://127.0.0.1:{settings.port}/"):
        check_ports(settings.port, receiver_port)
        return _run(settings, receiver_port)


def _run(settings: Settings, receiver_port: int) -> int:
    demo = Demo(settings, receiver_port)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: demo.stopping.set())
    try:
        demo.start()
        if not demo.wait_ready():
            if demo.stopping.is_set():
                return 0
            name, _ = demo.ended_process() or ("serve", "")
            show(f"horae: {name} did not start. Its log ends with:\n{demo.last_log_lines(name)}", style="red")
            return 1
        show(f"\n  Horae is running, its page is [bold]{demo.api.url}/[/bold]")
        if settings.mongodb_uri is None:
            imported = load_with_a_missed_range(demo.api, receiver_port, demo.stopping, lambda text: show(f"  {text}"))
        else:  # the cluster of that database may have other nodes, with work of their own
            imported = load_samples(demo.api, receiver_port)
        if demo.stopping.is_set():  # its terminal may be closed
            return 0
        print_overview(settings, receiver_port, imported)
        return _watch(demo)
    finally:
        announce_stop()
        demo.stop()


def check_ports(port: int, receiver_port: int) -> None:
    """Raises `ConfigurationError` that names a port which is taken, and a command with one that is free."""
    if port == receiver_port:
        raise ConfigurationError(
            [f"the page and the receiver cannot both have port {port}: choose another --receiver-port"]
        )
    for taken, command in ((port, "PORT={} make run"), (receiver_port, "make run DEMO='--receiver-port {}'")):
        if is_free(taken):
            continue
        other = next((p for p in range(taken + 100, 65_536, 100) if p not in (port, receiver_port) and is_free(p)), 0)
        which = "the page" if taken == port else "the receiver"
        problem = f"another process listens on port {taken}, which {which} needs"
        raise ConfigurationError([f"{problem}: stop it, or choose another one: {command.format(other)}"])


def announce_stop() -> None:
    """Print that the processes are being stopped."""
    show("\nStopping: requests in flight are finished; unsent work is kept for the next start.")


def _watch(demo: Demo) -> int:
    live = console.is_terminal
    printed_at = 0.0
    while not demo.stopping.wait(1.0):
        try:
            text = status_line(demo.api.call("GET", "/cluster"))
        except (Refused, Unreachable) as exc:
            show(f"the API does not answer: {exc}", style="yellow")
        else:
            if live:
                show(text, end="\r")
            elif time.monotonic() - printed_at > 5:
                printed_at = time.monotonic()
                show(text)
        if (ended := demo.ended_process()) is None:
            continue
        name, how = ended
        if not demo.restart(name):
            show(f"\n{how}, so the demo ends too. Its log ends with:\n{demo.last_log_lines(name)}", style="red")
            return 1
        show(f"\n{how}; it is started again", style="yellow")
    return 0

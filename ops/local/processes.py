"""The processes of a local cluster: started in order, restarted when they die, ended in the reverse order.

Each is a child in a session of its own, so Ctrl-C reaches only the parent, which ends the others in order. If the parent
is killed, nodes and receiver notice and shut down; Linux ends the other programs. `processes.json` lists the process ids,
for experiments with kill.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ops.support.parent_watch import terminate_with_parent, with_parent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

LOG_LINES = 5
RESTART_SECONDS = 5.0
"""How long a dead process stays dead, so that the effect of its death can be seen."""


@dataclass(slots=True)
class Child:
    """One process. Those of a later `stage` are ended earlier; those of the same stage at the same time."""

    name: str
    command: Sequence[str]
    port: int
    stage: int
    environment: Mapping[str, str] = field(default_factory=dict)
    follows_parent: bool = False
    """Whether the process notices the end of its parent by itself (`ops.support.parent_watch`)."""
    process: subprocess.Popen[bytes] | None = None
    ended_at: float | None = None
    """When the end of the process was noticed, in monotonic seconds."""

    @property
    def alive(self) -> bool:
        """Whether the process runs now."""
        return self.process is not None and self.process.poll() is None

    def start(self, log: Path) -> None:
        """Start the process, or start it again. Its output is appended to `log`."""
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                env=with_parent({**os.environ, **self.environment}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=None if self.follows_parent else terminate_with_parent,  # noqa: PLW1509 - no other threads
            )
        self.ended_at = None

    def note_end(self) -> None:
        """Remember when the process was found dead."""
        self.ended_at = time.monotonic()


class Children:
    """All processes of one local cluster. Their output goes to `logs/NAME.log` in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._logs = directory / "logs"
        self._logs.mkdir(parents=True, exist_ok=True)
        self.all: list[Child] = []
        self._log_starts: dict[str, int] = {}
        """The sizes of the logs before the latest starts: what stands there is of runs before."""

    def start(self, child: Child) -> None:
        """Start a process and remember it."""
        self.all.append(child)
        self._spawn(child)

    def _spawn(self, child: Child) -> None:
        log = self.log_path(child.name)
        self._log_starts[child.name] = log.stat().st_size if log.exists() else 0
        child.start(log)
        listing = {c.name: {"pid": c.process.pid, "port": c.port} for c in self.all if c.process is not None}
        new = self._directory / "processes.new"
        new.write_text(json.dumps(listing, indent=2))
        new.replace(self._directory / "processes.json")

    def log_path(self, name: str) -> Path:
        """The file with the output of a process."""
        return self._logs / f"{name}.log"

    def ended_child(self) -> Child | None:
        """A process that has ended unexpectedly."""
        return next((c for c in self.all if not c.alive), None)

    def last_log_lines(self, name: str) -> str:
        """The last lines that a process has written to its log since its latest start."""
        written = self.log_path(name).read_bytes()[self._log_starts.get(name, 0) :]
        return "\n".join(written.decode(errors="replace").splitlines()[-LOG_LINES:])

    def restart_dead(self, report: Callable[[str], None]) -> None:
        """Restart processes that have been dead for `RESTART_SECONDS`. `report` gets a sentence on each death and start."""
        for child in self.all:
            if child.alive:
                continue
            if child.ended_at is None:
                child.note_end()
                report(f"{child.name} ended; restarting it in {RESTART_SECONDS:.0f} s")
            elif time.monotonic() - child.ended_at >= RESTART_SECONDS:
                self._spawn(child)
                report(f"{child.name} is running again")

    def stop(self, seconds: float) -> None:
        """End all processes, the latest stage first, each stage within `seconds`; then SIGKILL."""
        for stage in sorted({c.stage for c in self.all}, reverse=True):
            running = [c.process for c in self.all if c.stage == stage and c.process is not None and c.alive]
            for process in running:
                process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + seconds
            for process in running:
                try:
                    process.wait(max(0.1, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait(5)
        (self._directory / "processes.json").unlink(missing_ok=True)

"""The processes of a local cluster: started in order, started again when they die, ended in the reverse order.

Each is a child in a session of its own, so that Ctrl-C reaches the parent alone, which ends the others in their order.
If the parent is killed, ours see it and drain; the others are ended by Linux.
Which process has which id stands in `processes.json`, for whoever wants to kill one.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ops.support.parent_watch import with_parent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

RESTART_SECONDS = 5.0
"""How long a dead process stays dead, so that one can watch what its death does."""


@dataclass(slots=True)
class Child:
    """One process. Those of a later `stage` are ended earlier; those of one stage together."""

    name: str
    command: Sequence[str]
    port: int
    stage: int
    environment: Mapping[str, str] = field(default_factory=dict)
    follows_parent: bool = False
    """Whether it looks after its parent by itself (`ops.support.parent_watch`)."""
    process: subprocess.Popen[bytes] | None = None
    ended_at: float | None = None

    @property
    def alive(self) -> bool:
        """Whether it runs now."""
        return self.process is not None and self.process.poll() is None


def _end_with_parent() -> None:
    """Runs in the child before its program: SIGTERM when the parent is gone. Nothing where there is no Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


class Children:
    """All processes of one local cluster; their output goes to `logs/NAME.log` under `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._logs = directory / "logs"
        self._logs.mkdir(parents=True, exist_ok=True)
        self.all: list[Child] = []

    def start(self, child: Child) -> None:
        """Start one and remember it."""
        self.all.append(child)
        self._spawn(child)

    def _spawn(self, child: Child) -> None:
        with self.log_path(child.name).open("ab") as log:
            child.process = subprocess.Popen(
                child.command,
                env=with_parent({**os.environ, **child.environment}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=None if child.follows_parent else _end_with_parent,  # noqa: PLW1509 - one call, and no threads here
            )
        child.ended_at = None
        listing = {c.name: {"pid": c.process.pid, "port": c.port} for c in self.all if c.process is not None}
        new = self._directory / "processes.new"
        new.write_text(json.dumps(listing, indent=2))
        new.replace(self._directory / "processes.json")

    def log_path(self, name: str) -> Path:
        """Where its output goes."""
        return self._logs / f"{name}.log"

    def ended_child(self) -> Child | None:
        """One that has ended by itself."""
        return next((c for c in self.all if not c.alive), None)

    def last_log_lines(self, name: str) -> str:
        """The last lines of its log."""
        return "\n".join(self.log_path(name).read_text(errors="replace").splitlines()[-5:])

    def restart_dead(self, report: Callable[[str], None]) -> None:
        """Start again what has been dead for `RESTART_SECONDS`; `say` is told of each death and each new start."""
        for child in self.all:
            if child.alive:
                continue
            if child.ended_at is None:
                child.ended_at = time.monotonic()
                report(f"{child.name} ended; it is started again in {RESTART_SECONDS:.0f} s")
            elif time.monotonic() - child.ended_at >= RESTART_SECONDS:
                self._spawn(child)
                report(f"{child.name} runs again")

    def stop(self, seconds: float) -> None:
        """End all, the latest stage first, each stage within `seconds`; SIGKILL for what takes longer."""
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

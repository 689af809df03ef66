"""Processes of `horae`, forked from one that has imported its modules already.

A new interpreter spends a second of CPU on its imports, and the tests start some hundred nodes. What a fork server of
the standard library starts is a process all the same: it has a session of its own, can be killed and frozen, and leaves
an exit status. What must be seen from a new interpreter (`make run`, the wheel, the runbook) does not use this.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from multiprocessing.context import ForkServerContext, ForkServerProcess


def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.support.warm", "tests.support.warm_modules"])
    return context


_CONTEXT = _context()


def start(
    arguments: Sequence[str],
    out: Path,
    environment: Mapping[str, str],
    *,
    errors: Path | None = None,
    cwd: Path | None = None,
) -> Warm:
    """Start `horae` in a session of its own. Its output is appended to `out`, that for errors to `errors` if it is given."""
    files = (str(out), str(errors or out))
    wanted = (list(arguments), files, dict(environment), str(cwd or Path.cwd()))
    process = _CONTEXT.Process(target=_run, args=wanted, daemon=True)
    process.start()
    return Warm(process)


class Warm:
    """What tests use of `subprocess.Popen`."""

    def __init__(self, process: ForkServerProcess) -> None:
        assert process.pid is not None
        self._process = process
        self.pid = process.pid

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self._process.exitcode

    @property
    def returncode(self) -> int | None:
        """The same."""
        return self.poll()

    def wait(self, timeout: float | None = None) -> int:
        """The exit status. Raises `subprocess.TimeoutExpired`."""
        self._process.join(timeout)
        if (status := self.poll()) is None:
            raise subprocess.TimeoutExpired("horae", timeout or 0)
        return status

    def send_signal(self, number: int) -> None:
        """Nothing happens once its end was seen, as with `subprocess`."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


def _run(arguments: list[str], files: tuple[str, str], environment: dict[str, str], cwd: str) -> None:
    """Runs in the new process."""
    os.setsid()
    for stream, file in zip((1, 2), files, strict=True):
        opened = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.dup2(opened, stream)
        os.close(opened)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.argv = ["horae", *arguments]
    from ops.cli import main

    main()

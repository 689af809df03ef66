"""Ends every process that a test run has started when the run itself has ended: by itself, by Ctrl-C, SIGTERM or a crash.

Fixtures cannot do this. SIGTERM ends pytest without running them, and pytest-xdist ends its workers with `os._exit`. Nor
does a signal to the process group reach the servers: tests start them in sessions of their own.

`start` marks the environment of the run, which every process of the run inherits, and starts this module as a process in
a session of its own. When its parent has ended, it ends all processes with the mark and removes the run's databases.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import suppress
from pathlib import Path

import psutil

MARK = "_HORAE_TEST_RUN"
"""The environment variable with the ids of the runs that a process belongs to, outermost first, separated by slashes."""
CHECK_SECONDS = 0.2
GRACE_SECONDS = 3.0
QUIET_SCANS = 3
"""The guard ends after this many scans without a process: one may be between fork and exec during a scan."""


def start() -> None:
    """Guard everything that this process starts from now on. Call it once per run."""
    run = uuid.uuid4().hex[:12]
    outer = os.environ.get(MARK)
    unmarked = {name: value for name, value in os.environ.items() if name != MARK}  # or a guard would end a guard
    os.environ[MARK] = f"{outer}/{run}" if outer else run
    subprocess.Popen(
        [sys.executable, __file__, run, str(os.getpid())],
        env=unmarked,
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def database_directory() -> Path:
    """A new directory for a database of this run. The guard removes it if the run does not."""
    run = os.environ.get(MARK, "").rpartition("/")[2]
    return Path(tempfile.mkdtemp(prefix=f"horae-test-{run}-"))


def processes_of(run: str) -> set[psutil.Process]:
    """All live processes with the mark of this run, and their descendants: nginx overwrites its environment."""
    marked = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if run in process.environ().get(MARK, "").split("/") and process.status() != psutil.STATUS_ZOMBIE:
                marked |= {process, *process.children(recursive=True)}
    return marked


def end_all(run: str) -> None:
    """Send SIGTERM, and SIGKILL to processes that still run after `GRACE_SECONDS`, until none is left."""
    began = time.monotonic()
    asked: set[psutil.Process] = set()
    quiet = 0
    while quiet < QUIET_SCANS:
        left = processes_of(run)
        quiet = 0 if left else quiet + 1
        for process in left:
            with suppress(psutil.Error):
                if time.monotonic() - began > GRACE_SECONDS:
                    process.kill()
                elif process not in asked:
                    asked.add(process)
                    process.terminate()
        time.sleep(CHECK_SECONDS)


def main(run: str, parent: int) -> None:
    """Wait for the end of the parent, then clean up after it."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    while os.getppid() == parent:
        time.sleep(CHECK_SECONDS)
    end_all(run)
    for directory in Path(tempfile.gettempdir()).glob(f"horae-test-{run}-*"):
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

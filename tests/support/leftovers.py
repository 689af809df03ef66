"""A run of the tests leaves no process and no database behind, however it ends.

Every process that a test starts inherits `TEST_RUN`, in a session of its own too, and so do its children. A guard in a
process of its own, `python leftovers.py RUN`, waits until its input ends, which it does when pytest has ended: by
itself, by Ctrl-C, by SIGTERM to `make`, or by SIGKILL. Then the guard ends all that carry the name of the run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

RUN = "TEST_RUN"
IN_MEMORY = Path("/dev/shm")
ROOM = 4 << 30


def begin() -> subprocess.Popen[bytes]:
    """Name this run and start its guard."""
    run = os.environ[RUN] = f"{os.getpid()}-{time.time_ns()}"
    return subprocess.Popen(
        [sys.executable, __file__, run],
        env={k: v for k, v in os.environ.items() if k != RUN},
        stdin=subprocess.PIPE,
        start_new_session=True,
    )


def directory() -> Path:
    """A new directory of this run, in memory if there is room: a test database needs no disk."""
    roomy = IN_MEMORY.is_dir() and os.access(IN_MEMORY, os.W_OK) and shutil.disk_usage(IN_MEMORY).free > ROOM
    return Path(tempfile.mkdtemp(prefix=f"horae-test-{os.environ[RUN]}-", dir=IN_MEMORY if roomy else None))


def shared_directory() -> Path:
    """The one directory that all workers of this run share; whoever comes first makes it."""
    usable = IN_MEMORY.is_dir() and os.access(IN_MEMORY, os.W_OK)
    shared = (IN_MEMORY if usable else Path(tempfile.gettempdir())) / f"horae-test-{os.environ[RUN]}-shared"
    shared.mkdir(mode=0o700, exist_ok=True)
    return shared


def _ends_with_us(child: psutil.Process) -> bool:
    try:
        return "from multiprocessing." in " ".join(child.cmdline())
    except psutil.Error:  # it has ended
        return True


def processes(run: str) -> list[psutil.Process]:
    """The processes of a run that live, but for this one, those that it descends from, and those that end with it: the
    fork server of `warm` and what the standard library has beside it.
    """
    me = psutil.Process()
    not_ours = {me, *me.parents(), *(child for child in me.children() if _ends_with_us(child))}
    found = []
    for process in psutil.process_iter():
        try:
            named = process not in not_ours and process.environ().get(RUN) == run
            if named and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:  # it has ended, or is another user's
            continue
    return found


def left(run: str, seconds: float = 10.0) -> list[str]:
    """The command lines of what is still there after so long."""
    deadline = time.monotonic() + seconds
    while (there := processes(run)) and time.monotonic() < deadline:
        time.sleep(0.1)
    lines = []
    for process in there:
        try:
            lines.append(f"{process.pid} {' '.join(process.cmdline())[:200]}")
        except psutil.Error:
            continue
    return lines


def directories(run: str) -> list[Path]:
    return [p for parent in {IN_MEMORY, Path(tempfile.gettempdir())} for p in parent.glob(f"horae-test-{run}-*")]


def clean(run: str) -> None:
    """Kill what is there, and what that has started meanwhile; delete the run's directories."""
    while there := processes(run):
        for process in there:
            try:
                process.kill()
            except psutil.Error:
                continue
        psutil.wait_procs(there, 1.0)
    for path in directories(run):
        shutil.rmtree(path, ignore_errors=True)


if __name__ == "__main__":
    sys.stdin.buffer.read()
    clean(sys.argv[1])

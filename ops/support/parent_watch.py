"""Ending with the parent process, which may be killed without a chance to stop its children.

A process of Horae checks the id of its parent twice a second, which works on every Unix. For other programs, Linux sends
them a signal.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

PARENT_VARIABLE = "_HORAE_PARENT"
"""Set by a parent for its child: the id of the process with which the child ends."""
CHECK_SECONDS = 0.5
_PR_SET_PDEATHSIG = 1


def with_parent(environment: dict[str, str]) -> dict[str, str]:
    """The environment for a child that must end when this process ends."""
    return {**environment, PARENT_VARIABLE: str(os.getpid())}


def end_with_parent() -> None:
    """If the parent asked for it, send SIGTERM to this process, for a clean end, when the parent is gone."""
    parent = os.environ.pop(PARENT_VARIABLE, None)  # it concerns this process, not its children
    if parent is not None and parent.isdigit():
        threading.Thread(target=_watch, args=(int(parent),), name="parent-watch", daemon=True).start()


def terminate_with_parent() -> None:
    """For `preexec_fn`, in a child that runs another program: SIGTERM when the parent is gone. Linux only.

    The signal is sent when the thread that started the child ends, so start such children from the main thread.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(CHECK_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)

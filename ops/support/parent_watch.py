"""Ending with one's parent: whoever started us may be killed with no chance to stop us.

A look at the parent's id twice a second, because that works on every Unix; there is no signal for it that does.
"""

from __future__ import annotations

import os
import signal
import threading
import time

PARENT_VARIABLE = "_HORAE_PARENT"
"""Set by a parent for its child: the id of the process whose end is the child's."""
CHECK_SECONDS = 0.5


def with_parent(environment: dict[str, str]) -> dict[str, str]:
    """The environment of a child that is to end when this process does."""
    return {**environment, PARENT_VARIABLE: str(os.getpid())}


def end_with_parent() -> None:
    """Ask this process to end cleanly (SIGTERM) when its parent is gone, if the parent wished so."""
    parent = os.environ.pop(PARENT_VARIABLE, None)  # it is about this process, not about its children
    if parent is not None and parent.isdigit():
        threading.Thread(target=_watch, args=(int(parent),), name="parent-watch", daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(CHECK_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)

"""The outside of `hook/sitecustomize.py`: which build the nodes are, and at which function they are stopped."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.support.mongo import ReplicaSet

HOOK = Path(__file__).parent / "hook"
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
"""Debian: apt-get install faketime."""


def hooked(points: Path, build: str = "") -> dict[str, str]:
    """The environment of nodes that can be stopped at points, and are of a broken build if one is named."""
    return {"PYTHONPATH": str(HOOK), "HORAE_POINTS": str(points), "HORAE_BREAK": build}


def clocked(clocks: Path) -> dict[str, str]:
    """The environment of nodes whose wall clock can be set: a file named by the pid, such as `+60s`, read each second."""
    return {
        "LD_PRELOAD": str(FAKETIME),
        "HORAE_CLOCKS": str(clocks),
        "FAKETIME_TIMESTAMP_FILE": str(clocks / "none"),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def at_point(points: Path, point: str, what: str, seconds: float = 0) -> None:
    """`kill` or `block` the next process that comes to a function; returns when that is over."""
    file = points / point
    staged = points / "staged"
    staged.write_text(f"{what} {seconds}")
    staged.rename(file)
    wait_until(lambda: not file.exists() or None, 60, f"a process at {point}")
    time.sleep(seconds)


def cut_off(mongo: ReplicaSet, primary: int, seconds: float) -> None:
    """The primary loses both secondaries, takes writes without them for so long, and dies; the two others go on.

    They are killed, not frozen: a frozen member would read later what the primary has streamed into its socket.
    """
    others = [p for p in mongo.ports if p != primary]
    for port in others:
        mongo.processes[port].kill()
        mongo.processes[port].wait()
    time.sleep(seconds)
    mongo.processes[primary].kill()
    mongo.processes[primary].wait()
    for port in others:
        mongo.start(port)
    wait_until(mongo.primary, 60, "a new primary")
    mongo.start(primary)

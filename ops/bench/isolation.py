"""For `horae bench --case isolation`: a target that answers every request after 30 s only."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from ops.support.client import Client, Refused, Unreachable
from ops.support.embedded_mongodb import free_port
from ops.support.parent_watch import with_parent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pymongo.database import Database

HANG_MS = 30_000
HEALTHY = {"job_id": {"$regex": "^j"}}
HANGING = {"job_id": {"$regex": "^h"}}


class HangingTarget:
    """A `horae receiver` on its own port, where `/slow/30000` answers after 30 s."""

    def __init__(self) -> None:
        self.port = free_port()
        command = [sys.executable, "-m", "ops", "receiver", "--port", str(self.port)]
        self.process = subprocess.Popen(
            command,
            env=with_parent(dict(os.environ)),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 20
        while not self._answers() and time.monotonic() < deadline:
            time.sleep(0.1)

    def _answers(self) -> bool:
        try:
            Client(f"http://127.0.0.1:{self.port}").call("GET", "/stats")
        except (Refused, Unreachable):
            return False
        return True

    def jobs(self, count: int) -> Iterator[dict[str, Any]]:
        """Jobs that are due every second and call this target."""
        for n in range(count):
            url = f"http://127.0.0.1:{self.port}/slow/{HANG_MS}/{n}"
            yield {"jobId": f"h{n}", "schedule": "* * * * * *", "api": url, "type": "ATLEAST_ONCE"}

    def stop(self) -> None:
        """Stop the target."""
        self.process.terminate()
        self.process.wait(5)


def lost_executions(database: Database[dict[str, Any]], window: dict[str, Any], expected: int) -> int:
    """How many occurrences in a window are neither owed nor final. (They become final before they stop being owed.)"""
    owed = {d["_id"] for d in database["executions"].find({**window, **HANGING}, {"_id": 1})}
    final = {d["_id"] for d in database["history"].find({**window, **HANGING}, {"_id": 1})}
    return expected - len(owed | final)

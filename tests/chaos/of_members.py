"""Faults of the database's members."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from tests.chaos.hand import Hand
from tests.chaos.hooks import cut_off
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.mongo import ReplicaSet

SMALL_DISK_MB = 1600
"""The size of the small disk: the member's oplog, its journal, and some room to be filled up."""


class OfMembers(Hand):
    """Members die, freeze, step down, lose each other or run out of disk."""

    def kill_primary(self) -> None:
        port = wait_until(self._mongo.primary, 60, "a primary")
        self._mongo.processes[port].kill()
        self._mongo.processes[port].wait()
        wait_until(self._mongo.primary, 60, "a new primary")
        self._mongo.start(port)

    def freeze_primary(self) -> None:
        port = wait_until(self._mongo.primary, 60, "a primary")
        process = self._mongo.processes[port]
        process.send_signal(signal.SIGSTOP)
        time.sleep(self._dice.uniform(2, 22))  # from 10 s on the others elect another
        process.send_signal(signal.SIGCONT)
        wait_until(self._mongo.primary, 60, "a primary")

    def step_down(self) -> None:
        port = wait_until(self._mongo.primary, 60, "a primary")

        def stepped_down() -> bool:
            with MongoClient[dict[str, Any]]("127.0.0.1", port, directConnection=True) as client:
                with contextlib.suppress(PyMongoError):  # refused while no other member has caught up
                    client.admin.command("replSetStepDown", 10, secondaryCatchUpPeriodSecs=5)
                return not client.admin.command("hello")["isWritablePrimary"]

        wait_until(stepped_down, 60, "a primary that steps down")
        wait_until(self._mongo.primary, 60, "a new primary")

    def lose_secondary(self) -> None:
        self._lose(1)

    def lose_majority(self) -> None:
        self._lose(2)

    def _lose(self, count: int) -> None:
        port = wait_until(self._mongo.primary, 60, "a primary")
        lost = self._dice.sample([p for p in self._mongo.ports if p != port], count)
        for p in lost:
            self._mongo.processes[p].kill()
            self._mongo.processes[p].wait()
        time.sleep(self._dice.uniform(2, 18))  # without a majority for 10 s the primary steps down
        for p in lost:
            self._mongo.start(p)
        wait_until(self._mongo.primary, 60, "a primary")

    def lonely_primary(self) -> None:
        """The primary loses both secondaries, takes writes without them for a while, and dies; the two others go on."""
        port = wait_until(self._mongo.primary, 60, "a primary")
        cut_off(self._mongo, port, self._dice.uniform(2, 7))

    def full_disk(self) -> None:
        """One member has no room left on its disk, and dies; it is started again when there is room."""
        port = self.cluster.small
        assert port is not None
        process = self._mongo.processes[port]
        filler = self._mongo.data(port) / "filler"
        with filler.open("wb") as file:
            try:
                while True:
                    file.write(bytes(1 << 20))
                    file.flush()
            except OSError:
                pass
        deadline = time.monotonic() + self._dice.uniform(10, 30)
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)
        died = process.poll() is not None
        filler.unlink()
        print("  the member with the full disk", "died" if died else "lived", flush=True)
        if died:
            self._mongo.start(port)
        wait_until(self._mongo.primary, 60, "a primary")


def led_by(mongo: ReplicaSet, port: int) -> None:
    """Make one member the primary, by its priority."""

    def reconfigured() -> bool:
        now = wait_until(mongo.primary, 60, "a primary")
        with MongoClient[dict[str, Any]]("127.0.0.1", now, directConnection=True) as client:
            try:
                config = client.admin.command("replSetGetConfig")["config"]
                for member in config["members"]:
                    member["priority"] = 10 if member["host"] == mongo.host(port) else 1
                config["version"] += 1
                client.admin.command("replSetReconfig", config)
            except PyMongoError:
                return False
        return True

    wait_until(reconfigured, 60, "another configuration")
    wait_until(lambda: mongo.primary() == port, 60, "the member as primary")


def small_disk(folder: Path) -> bool:
    """Mount a small disk on a folder, if allowed (Linux, root); `no_disk` unmounts it."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_MB}m", "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def no_disk(folder: Path) -> None:
    """Undo `small_disk`."""
    subprocess.run(["umount", "--lazy", str(folder)], capture_output=True, check=False)

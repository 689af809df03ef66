"""Mixed faults at random while jobs run: `make chaos`, with `SEED=`, `MINUTES=` and `RATE=` from the environment.

A three-member MongoDB, three nodes, a receiver that logs. Nodes are killed, frozen for longer than their lease and
stopped; the primary is killed, frozen and told to step down. Afterwards every occurrence has arrived and is recorded,
and a second arrival of an attempt always carries another token.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from tests.cluster.test_cluster import audit, every_second, next_second, settle, wait_past
from tests.support.mongo import ReplicaSet
from tests.support.processes import Nodes, Receiver, end
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(7200)]

SEED = int(os.environ.get("SEED") or time.time())
MINUTES = float(os.environ.get("MINUTES") or 5)
RATE = int(os.environ.get("RATE") or 100)


class Faults:
    """What can be done to a cluster; each fault heals itself."""

    def __init__(self, nodes: Nodes, mongo: ReplicaSet, dice: random.Random) -> None:
        self._nodes, self._mongo, self._dice = nodes, mongo, dice

    def kinds(self) -> list[Callable[[], None]]:
        return [
            self.kill_leader,
            self.kill_node,
            self.freeze_node,
            self.stop_node,
            self.kill_primary,
            self.freeze_primary,
            self.step_down,
        ]

    def _node(self, *, leading: bool | None = None) -> int | None:
        alive, leader = self._nodes.alive(), self._nodes.leader()
        names = [n for n in alive if leading is None or (n == leader) is leading]
        return alive[self._dice.choice(sorted(names))] if names else None

    def _signal(self, pid: int | None, number: int) -> None:
        if pid is not None:
            os.kill(pid, number)

    def kill_leader(self) -> None:
        self._signal(self._node(leading=True), signal.SIGKILL)

    def kill_node(self) -> None:
        self._signal(self._node(leading=False), signal.SIGKILL)

    def stop_node(self) -> None:
        self._signal(self._node(), signal.SIGTERM)

    def freeze_node(self) -> None:
        pid = self._node()
        if pid is None:
            return
        os.kill(pid, signal.SIGSTOP)
        time.sleep(self._dice.uniform(3, 18))
        os.kill(pid, signal.SIGCONT)

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
        time.sleep(self._dice.uniform(2, 15))
        process.send_signal(signal.SIGCONT)

    def step_down(self) -> None:
        port = wait_until(self._mongo.primary, 60, "a primary")
        with MongoClient[dict[str, Any]]("127.0.0.1", port, directConnection=True) as client:
            try:
                client.admin.command("replSetStepDown", 10)
            except PyMongoError:
                return


def test_mixed_faults(tmp_path: Path) -> None:
    """Nothing is lost, nothing is doubled without a reclaim, and everything is on time again after the last fault."""
    print(f"\nSEED={SEED} MINUTES={MINUTES} RATE={RATE}")
    dice = random.Random(SEED)
    mongo = ReplicaSet(tmp_path)
    receiver = Receiver(tmp_path)
    nodes = Nodes(tmp_path, mongo.uri, "chaos", 3)
    done: list[tuple[float, str]] = []
    try:
        nodes.load(every_second(receiver, RATE))
        settle(nodes)
        start = next_second(nodes) + 2000
        wait_past(nodes, start + 3000)
        began = time.monotonic()
        faults = Faults(nodes, mongo, dice)
        while time.monotonic() - began < MINUTES * 60:
            fault = dice.choice(faults.kinds())
            done.append((round(time.monotonic() - began, 1), fault.__name__))
            print(*done[-1], flush=True)
            fault()
            time.sleep(dice.uniform(2, 15))
        healed = time.monotonic()
        wait_until(mongo.primary, 60, "a primary")
        wait_until(lambda: len(nodes.alive()) == 3, 60, "three nodes")
        finish = wait_until(lambda: next_second(nodes), 60, "time")
        wait_past(nodes, finish)
        late, twice = audit(nodes, receiver, RATE, start, finish)
        seconds = (finish - start) // 1000
        for arrivals in receiver.by_execution().values():
            seen = [(a.attempt, a.token) for a in arrivals]
            assert len(seen) == len(set(seen)), f"sent twice under one token: {arrivals}"
        calm = next_second(nodes) + 20_000
        wait_past(nodes, calm + 5000)
        quiet, again = audit(nodes, receiver, RATE, calm, calm + 4000)
        assert quiet < 2000
        assert again == 0
        report = {
            "seed": SEED,
            "faults": len(done),
            "seconds": seconds,
            "executions": RATE * seconds,
            "missing": 0,
            "delivered more than once, each after a reclaim": twice,
            "longest lateness ms": late,
            "recovery s": round(time.monotonic() - healed, 1),
        }
        print(json.dumps(report, indent=2))
    finally:
        print((tmp_path / "serve.log").read_text()[-3000:] if not done else "")
        nodes.close()
        end(receiver.process)
        mongo.stop()

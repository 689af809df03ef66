"""What can be done to a cluster of processes: to its nodes, its database, its network, its clocks and its target."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from tests.chaos.checker import Fault
from tests.chaos.hooks import FAKETIME, at_point, cut_off
from tests.chaos.wire import Rule, Way
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from pathlib import Path

    from tests.chaos.wire import Wire
    from tests.support.mongo import ReplicaSet
    from tests.support.processes import Nodes, Receiver

SMALL_DISK_MB = 900
"""What a member with a disk of its own is given: its oplog, its journal, and some room to be filled up."""

OF_THE_TARGET = frozenset({"freeze_receiver", "stop_receiver", "slow_receiver", "reset_receiver", "lose_answers"})
BREAKER_MS = 60_000
"""The circuit breaker of a target that failed again and again waits up to a minute before it tries it once more."""


@dataclass(frozen=True)
class Cluster:
    """All that can be hurt. `small`: the member that has a small disk of its own, if one could be mounted."""

    nodes: Nodes
    mongo: ReplicaSet
    receiver: Receiver
    wire: Wire
    points: Path
    clocks: Path
    dice: random.Random
    small: int | None = None


class Faults:
    """The faults by name; each returns when it is over and undone."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._nodes, self._mongo, self._receiver = cluster.nodes, cluster.mongo, cluster.receiver
        self._wire, self._points, self._dice = cluster.wire, cluster.points, cluster.dice

    def kinds(self, chosen: frozenset[str] = frozenset()) -> list[Callable[[], None]]:
        """Those that can be done here, or the chosen ones of them."""
        every = [
            self.kill_leader,
            self.kill_node,
            self.kill_all,
            self.freeze_node,
            self.freeze_all,
            self.stop_node,
            self.rolling_restart,
            self.freeze_receiver,
            self.kill_primary,
            self.freeze_primary,
            self.step_down,
            self.lose_secondary,
            self.lose_majority,
            self.lonely_primary,
            self.block_leader,
            self.block_node,
            self.cut_primary,
            self.isolate_leader,
            self.one_way,
            self.delay_node,
            self.drip_node,
            self.part_primary,
            self.stop_receiver,
            self.slow_receiver,
            self.reset_receiver,
            self.lose_answers,
            *([self.wrong_clock] if FAKETIME.exists() else []),
            *([self.full_disk] if self.cluster.small is not None else []),
        ]
        found = [f for f in every if not chosen or f.__name__ in chosen]
        assert len(found) == len(chosen or every), f"there are {', '.join(f.__name__ for f in every)}"
        return found

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

    def kill_all(self) -> None:
        """Every node at once. The arbiter starts new ones; nobody resigned, so the leader's lease has to end first."""
        for pid in self._nodes.alive().values():
            self._signal(pid, signal.SIGKILL)

    def freeze_all(self) -> None:
        pids = list(self._nodes.alive().values())
        for pid in pids:
            self._signal(pid, signal.SIGSTOP)
        time.sleep(self._dice.uniform(3, 18))
        for pid in pids:
            self._signal(pid, signal.SIGCONT)

    def rolling_restart(self) -> None:
        for name, pid in sorted(self._nodes.alive().items()):
            count = len(self._nodes.alive())
            self._signal(pid, signal.SIGTERM)
            wait_until(functools.partial(self._replaced, name, count), 60, name)

    def _replaced(self, name: str, count: int) -> bool:
        alive = self._nodes.alive()
        return name not in alive and len(alive) >= count

    def freeze_receiver(self) -> None:
        """The target hangs, and goes on with everything it was sent."""
        self._receiver.process.send_signal(signal.SIGSTOP)
        time.sleep(self._dice.uniform(2, 15))
        self._receiver.process.send_signal(signal.SIGCONT)

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
        time.sleep(self._dice.uniform(2, 12))
        for p in lost:
            self._mongo.start(p)
        wait_until(self._mongo.primary, 60, "a primary")

    def lonely_primary(self) -> None:
        """The primary sees nobody for a while, takes what it takes, and dies; the two others go on without it."""
        port = wait_until(self._mongo.primary, 60, "a primary")
        cut_off(self._mongo, port, self._dice.uniform(2, 7))

    def block_leader(self) -> None:
        """The leader's event loop stands still between two writes, for longer than its lease or not."""
        at_point(self._points, "cluster.store.schedules.advance", "block", self._dice.uniform(3, 15))

    def block_node(self) -> None:
        """The event loop of any node stands still when it is about to renew its leases, for longer than them or not."""
        at_point(self._points, "cluster.store.batches.renew", "block", self._dice.uniform(3, 35))

    def _rule(self, low: float, high: float, *rules: Rule) -> None:
        self._wire.rule(*rules)
        try:
            time.sleep(self._dice.uniform(low, high))
        finally:
            self._wire.rule()

    def cut_primary(self) -> None:
        """One node does not reach the primary; the others do."""
        port, pid = wait_until(self._mongo.primary, 60, "a primary"), self._node()
        if pid is not None:
            self._rule(3, 18, Rule("hold", (port,), (pid,)))

    def isolate_leader(self) -> None:
        """The leader reaches no member at all; its requests go out as before."""
        pid = self._node(leading=True)
        if pid is not None:
            self._rule(3, 18, Rule("hold", tuple(self._mongo.ports), (pid,)))

    def one_way(self) -> None:
        """What one node asks is done, but no answer comes; or its questions get lost, and answers would not."""
        ways: tuple[Way, ...] = ("to", "from")
        pid, way = self._node(), self._dice.choice(ways)
        if pid is not None:
            self._rule(3, 18, Rule("hold", tuple(self._mongo.ports), (pid,), way))

    def delay_node(self) -> None:
        """Everything between one node and the database takes longer, by up to half a second each way."""
        pid = self._node()
        if pid is not None:
            amount = self._dice.uniform(50, 500)
            self._rule(5, 15, Rule("delay", tuple(self._mongo.ports), (pid,), amount=amount))

    def drip_node(self) -> None:
        """One node gets from the database, and brings there, a few thousand bytes a second."""
        pid = self._node()
        if pid is not None:
            amount = self._dice.uniform(2000, 20_000)
            self._rule(5, 15, Rule("drip", tuple(self._mongo.ports), (pid,), amount=amount))

    def part_primary(self) -> None:
        """The primary and the two others do not see each other; nodes see all three."""
        port = wait_until(self._mongo.primary, 60, "a primary")
        others = [p for p in self._mongo.ports if p != port]
        pids = {p: self._mongo.processes[p].pid for p in self._mongo.ports}
        away = Rule("hold", (port,), tuple(pids[p] for p in others))
        back = Rule("hold", tuple(others), (pids[port],))
        self._rule(5, 20, away, back)

    def stop_receiver(self) -> None:
        """The target is stopped: connections are refused."""
        self._receiver.process.send_signal(signal.SIGTERM)
        self._receiver.process.wait(10)
        time.sleep(self._dice.uniform(2, 15))
        self._receiver.start()

    def slow_receiver(self) -> None:
        """Each way to the target takes longer, by up to two seconds."""
        self._rule(3, 15, Rule("delay", (self._receiver.port,), amount=self._dice.uniform(200, 2000)))

    def reset_receiver(self) -> None:
        """Connections to the target break, and new ones do too."""
        self._rule(1, 8, Rule("reset", (self._receiver.port,)))

    def lose_answers(self) -> None:
        """The target takes requests and answers them; the answers are lost, and then the connections break."""
        self._rule(2, 8, Rule("hold", (self._receiver.port,), way="from"))
        self._rule(0.1, 0.3, Rule("reset", (self._receiver.port,)))

    def wrong_clock(self) -> None:
        """One node's wall clock goes off by a minute, either way, and comes back."""
        pid = self._node()
        if pid is None:
            return
        file = self.cluster.clocks / str(pid)
        file.write_text(self._dice.choice(("+60s", "-60s")))
        time.sleep(self._dice.uniform(5, 20))
        file.write_text("+0s")

    def full_disk(self) -> None:
        """One member has no room left on its disk, and dies of it; it is started again when there is room."""
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


def done(kind: Callable[[], None]) -> Fault:
    """Do it, and say what was done and when."""
    start = int(time.time() * 1000)
    kind()
    name = kind.__name__
    return Fault(name, start, int(time.time() * 1000), BREAKER_MS if name in OF_THE_TARGET else 0)


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
    """Give a folder a small disk of its own, if we may (Linux, root); `no_disk` takes it away."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_MB}m", "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def no_disk(folder: Path) -> None:
    """Undo `small_disk`."""
    subprocess.run(["umount", "--lazy", str(folder)], capture_output=True, check=False)

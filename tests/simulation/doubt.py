"""A primary whose clock is changed, and nodes of some hosts that hold their cluster time against it, or not.

The real `Clock`, `ClockWatch` and votes, on machines whose clocks are set; the votes travel by heartbeats of one second,
read every other second, late and now and then not at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from cluster.clock import Clock
from cluster.clock_watch import HOLD_SECONDS, VOTE_SECONDS, ClockWatch
from cluster.core.clock_vote import ClockVote
from tests.simulation.world import START_MS, Broken

if TYPE_CHECKING:
    from collections.abc import Callable

TICK = 0.25
JUMP_AT = 20.0
CLOSE_MS = 1500
"""Nodes read the clock once a second, and a reading may be slow."""


@dataclass
class Machine:
    """A host with a clock of its own. `off_ms`: how wrong it is; `follows`: it is set with the primary's.

    `asleep`: how long it stood still without noticing (s), with all its clocks.
    """

    name: str
    off_ms: int = 0
    follows: bool = False
    asleep: float = 0.0


class NodeClock(Clock):
    """A node's clock in virtual time."""

    def __init__(self, run: Doubt, machine: Machine) -> None:
        self._run, self._machine = run, machine
        self._base = run.random.random() * 1000
        super().__init__()

    def monotonic(self) -> float:  # type: ignore[override]
        return self._run.now + self._base - self._machine.asleep

    def wall_ms(self) -> int:  # type: ignore[override]
        skew_ms = self._run.skew_ms if self._machine.follows else 0
        return self._run.true_ms + self._machine.off_ms + skew_ms - int(self._machine.asleep * 1000)


class Doubt:
    """One run: three hosts with one to four nodes each; the primary jumps once, for a while or for good.

    In most runs most hosts are right. `trail` tells runs apart.
    """

    watch: Callable[[Clock, str, float], ClockWatch] = ClockWatch

    def __init__(self, seed: int) -> None:
        self.random = r = Random(seed)
        self.now, self.skew_ms = 0.0, 0
        self.by_ms = r.choice([-1, 1]) * r.choice([3000, 120_000, 300_000])
        self.lasts = r.choice([8.0, 15.0, 50.0, 400.0])
        wrong = r.choice([None, None, "off", "follows"])
        self.wrong = wrong
        self.followed_by_most = r.random() < 0.25
        self.machines = [Machine(f"h{n}", r.randrange(-300, 300), self.followed_by_most) for n in range(3)]
        if wrong is not None:
            self.machines[0] = Machine("h0", 90_000 if wrong == "off" else 0, wrong == "follows")
            if self.followed_by_most:
                self.machines[0] = Machine("h0")
        self.trail = hash((self.by_ms, self.lasts, wrong, self.followed_by_most, seed))
        self.nodes = [
            (m, clock, type(self).watch(clock, m.name, 12.0))
            for m in self.machines
            for clock in [NodeClock(self, m) for _ in range(r.choice([1, 2, 4]) if m is not self.machines[0] else 4)]
        ]
        self._votes: dict[int, ClockVote] = {}

    @property
    def true_ms(self) -> int:
        return START_MS + int(self.now * 1000)

    def run(self) -> Doubt:
        while self.now < JUMP_AT + 120:
            self.now += TICK
            in_jump = JUMP_AT <= self.now < JUMP_AT + self.lasts
            self.skew_ms = self.by_ms if in_jump else 0
            for n, (machine, clock, watch) in enumerate(self.nodes):
                if int(self.now / TICK) % 4 == n % 4:
                    self._beat(n, machine, clock, watch)
            self._check()
        return self

    def _beat(self, n: int, machine: Machine, clock: NodeClock, watch: ClockWatch) -> None:
        if self.random.random() < 0.02:  # the database did not answer
            return
        took = self.random.random() * 0.2
        jumped = clock.observe(clock.monotonic() - took, clock.monotonic(), self.true_ms + self.skew_ms)
        if jumped:
            watch.jumped(jumped)
        self._votes[n] = ClockVote(machine.name, watch.vote)
        if clock.held_ms or int(self.now) % 2:
            watch.count([v for other, v in self._votes.items() if other != n])

    def _check(self) -> None:
        since = self.now - JUMP_AT
        for machine, clock, _ in self.nodes:
            off_ms = clock.now_ms() - self.true_ms
            if since < 0:
                continue
            if not self.followed_by_most and since < min(self.lasts, HOLD_SECONDS - 1):
                if abs(off_ms) > CLOSE_MS:
                    raise Broken(f"a node of {machine.name} follows a clock that most hosts contradict")
            elif since > HOLD_SECONDS + 4 and abs(off_ms - self.skew_ms) > CLOSE_MS and self._steady:
                raise Broken(f"a node of {machine.name} holds against the primary for longer than a minute")
            elif (
                self.followed_by_most
                and VOTE_SECONDS + 4 < since < self.lasts
                and abs(off_ms - self.skew_ms) > CLOSE_MS
            ):
                raise Broken(f"a node of {machine.name} does not believe a clock that most hosts confirm")

    @property
    def _steady(self) -> bool:
        """Whether the primary's clock was last set long ago: its way back is a jump too."""
        return not 0 <= self.now - JUMP_AT - self.lasts < VOTE_SECONDS + 4


class Asleep(Doubt):
    """The primary's clock is right all the time; one machine stands still for a minute, and its own clocks do not tell."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.by_ms = 0
        for m in self.machines:
            m.off_ms, m.follows = 0, False

    def _check(self) -> None:
        if self.now >= JUMP_AT:
            self.machines[0].asleep = 60.0
        if self.now < JUMP_AT + VOTE_SECONDS + 4:
            return
        for machine, clock, _ in self.nodes:
            if abs(clock.now_ms() - self.true_ms) > CLOSE_MS:
                raise Broken(f"a node of {machine.name} goes by a machine that stood still")

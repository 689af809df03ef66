"""Virtual time, a seeded scheduler, and actors that freeze and die between any two steps of a store call.

One run is one interleaving: the seed decides which actor goes next, how long answers take, what the store answers and who is
frozen or killed. After each step the scenario's invariants are checked.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

from cluster.core.errors import HoraeError
from tests.simulation.model import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

START_MS = 1_800_000_000_000
FAULTS = ("lost", "applied", "later", "half")
TICK = 1e-6
"""Seconds. A sum of floats may end so little before a millisecond that adding the rest to it changes nothing."""


class Broken(AssertionError):
    """An invariant does not hold."""


class NodeClock:
    """A node's monotonic clock: all go at one speed, none agree. Cluster time is the database's."""

    in_doubt = False
    held_ms = 0

    def __init__(self, world: World, base: float) -> None:
        self._world = world
        self._base = base

    def monotonic(self) -> float:
        return self._world.now + self._base

    def now_ms(self) -> int:
        return START_MS + int(self._world.now * 1000)

    def seconds_until(self, instant_ms: float) -> float:
        """Seconds until a cluster instant: never so few that no time would pass, while it is not reached."""
        rest = (instant_ms - START_MS) / 1000 - self._world.now
        return rest if rest >= TICK or self.now_ms() >= instant_ms else TICK


class World:
    """Actors and the time they share. `trouble` in 0..1 is how often anything goes wrong."""

    def __init__(self, seed: int, trouble: float = 0.06) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.now = 0.0
        self.skew_ms = 0
        self.trouble = trouble
        self.steps = 0
        self.trail = 0
        """The order of actors, answers of the store and deaths, without times. Equal trails are one interleaving."""
        self.acting = ""
        """Who made the last step; empty if a write that was postponed took effect."""
        self.store = Store(self.db_ms, self._fault)
        self._actors: list[tuple[str, Coroutine[Any, Any, Any], float]] = []

    def db_ms(self) -> int:
        """The database's clock; it jumps when another member becomes primary."""
        return START_MS + int(self.now * 1000) + self.skew_ms

    def clock(self) -> NodeClock:
        return NodeClock(self, self.random.random() * 1000)

    def _fault(self) -> str | None:
        fault = self.random.choice(FAULTS) if self.random.random() < self.trouble else None
        if fault is not None:
            self.note(fault)
        return fault

    def note(self, what: str) -> None:
        self.trail = hash((self.trail, what))

    def spawn(self, name: str, actor: Coroutine[Any, Any, Any]) -> None:
        self._actors.append((name, actor, self.now))

    def run(
        self,
        until: float,
        check: Callable[[], None],
        died: Callable[[str], None] = lambda _: None,
        done: Callable[[], bool] = lambda: False,
    ) -> None:
        """Let the actors run until that time, or until all have ended, or all is done and no sweep is under way."""
        random = self.random.random
        try:
            while self._actors and self.now < until:
                self._step(random, died)
                check()
                if done() and all(name != "sweep" for name, _, _ in self._actors):
                    break
        finally:
            for _, actor, _ in self._actors:
                actor.close()
            self._actors.clear()

    def _step(self, random: Callable[[], float], died: Callable[[str], None]) -> None:
        actors, now = self._actors, self.now
        ready = [i for i, a in enumerate(actors) if a[2] <= now]
        if not ready:
            self.now = min([a[2] for a in actors])
            return
        if self.store.postponed and random() < 0.1:
            self.acting = ""
            self.note("applied now")
            self.store.postponed.pop(int(random() * len(self.store.postponed)))()
            self.store.writes += 1
            return
        i = ready[int(random() * len(ready))]
        name, actor, _ = self._actors[i]
        self.steps += 1
        self.acting = name
        self.note(name)
        if random() < self.trouble / 12:
            self.note("died")
            del self._actors[i]
            actor.close()
            died(name)
            return
        try:
            pause = actor.send(None) or 0.0  # None: others get their turn
        except StopIteration:
            del self._actors[i]
            return
        except HoraeError:  # a node's loop ends a step that met an error, and starts it again
            del self._actors[i]
            died(name)
            return
        if random() < self.trouble:
            pause += random() * 16  # frozen, or the answer is slow
        self._actors[i] = (name, actor, self.now + pause)

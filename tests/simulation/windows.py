"""Maintenance windows that come, change and go while whole workers send: see `nodes.py`.

An operator makes a window that holds, one that skips and one that mutes, once or recurring, puts them again with other
times, and deletes them, before and in the time that they are about. What they were is noted here as it takes effect in the
database, and the rules are asked of that: nothing of the code that reads and judges windows is used for it.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from cluster.core.errors import StoreUnavailable
from cluster.core.execution.model import RetryPolicy
from cluster.core.job.definition import Definition
from cluster.core.lifecycle import SENT_FINAL, State
from cluster.core.windows import Window
from tests.simulation.away import PREFETCH_MS, UNCLAIMED_MS, WINDOW_SECONDS, Away
from tests.simulation.model import turn
from tests.simulation.model_jobs import put_window
from tests.simulation.nodes import Machines
from tests.simulation.world import START_MS, Broken, World

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cluster.core.windows import WindowMode
    from cluster.outbound.sender import Reply

IN_FORCE_MS = 2000
"""So long after it is in the database a window is in force on every node."""
Span = tuple[int, int]
LAST_END_MS = START_MS + 30_000
CHANGES = 3
RETRY = RetryPolicy(3, 1.0, 2.0, 300.0, 0.2)
MODES: dict[str, WindowMode] = {"hold": "hold", "skip": "skip", "free": "mute"}
"""What the window does that concerns the job of this name."""
MUTED_MS = 3000
"""So late may be, without trouble, what no window holds."""


class Times(NamedTuple):
    """When a window is in force: once, or every so often since ever (`every_ms`)."""

    first_ms: int
    last_ms: int
    every_ms: int = 0

    def begun(self, at_ms: float) -> int | None:
        """When it began, if it is in force at this instant."""
        turns = (int(at_ms) - self.first_ms) // self.every_ms if self.every_ms else 0
        begin_ms = self.first_ms + turns * self.every_ms
        return begin_ms if begin_ms <= at_ms < begin_ms + self.last_ms - self.first_ms else None

    def between(self, since_ms: int, until_ms: int) -> list[Span]:
        """The spans that touch this time."""
        if not self.every_ms:
            return [(self.first_ms, self.last_ms)]
        first = (since_ms - self.last_ms) // self.every_ms
        begins = range(self.first_ms + first * self.every_ms, until_ms, self.every_ms)
        return [(begin, begin + self.last_ms - self.first_ms) for begin in begins]

    def window(self, name: str, mode: WindowMode, spread_ms: int) -> Window:
        """As the product has it."""
        if not self.every_ms:
            return Window(name, mode, (name,), from_ms=self.first_ms, until_ms=self.last_ms, spread_ms=spread_ms)
        cron = f"{self.first_ms // 1000}/{self.every_ms // 1000} * * * * *"
        lasts_ms = self.last_ms - self.first_ms
        return Window(name, mode, (name,), schedule=cron, lasts_ms=lasts_ms, spread_ms=spread_ms)


class Noted(NamedTuple):
    """What a window was from an instant (ms) on. No times: there was none."""

    at_ms: int
    times: Times | None

    def covers(self, at_ms: float) -> bool:
        return self.times is not None and self.times.begun(at_ms) is not None


def any_times(random: Callable[[], float], now_ms: int, last_end_ms: int) -> Times | None:
    """About now, or recurring; None: the window is deleted."""
    chosen = random()
    if chosen < 0.2:
        return None
    if chosen < 0.5:
        every_s = (10, 15, 20)[int(random() * 3)]
        first_ms = int(random() * every_s) * 1000
        return Times(first_ms, first_ms + 2000 + int(random() * 3000), every_s * 1000)
    first_ms = now_ms + int(random() * 9000) - 3000
    last_ms = min(first_ms + 2000 + int(random() * 8000), last_end_ms)
    return Times(first_ms, last_ms) if first_ms < last_ms else None


class Windows(Machines):
    """Three jobs: one that a window holds, one that a window skips, and one whose alerts a window mutes."""

    definitions: ClassVar[Mapping[str, Definition]] = {
        "hold": Definition("@every 3s", "http://t/", 0, tags=("hold",), retry=RETRY),
        "skip": Definition("@every 3s", "http://t/", 0, tags=("skip",), retry=RETRY),
        "free": Definition("@every 3s", "http://t/", 0, tags=("free",), retry=RETRY),
    }

    def __init__(self, seed: int, trouble: float = 0.03) -> None:
        super().__init__(seed, trouble)
        self.noted: dict[str, list[Noted]] = {name: [Noted(0, None)] for name in self.definitions}

    def run(self) -> World:
        """As `Machines`: so nothing is lost, and what was held goes on after the end."""
        for name in MODES:
            self._in(None, self._operate(name))
        super().run()
        self._ended_as_windows_say()
        return self.world

    # -- the operator --------------------------------------------------------------------------------------------

    async def _operate(self, name: str) -> None:
        """Makes, changes and deletes the window of one job. A request without an answer is not repeated."""
        w = self.world
        random = w.random.random
        for _ in range(CHANGES):
            await turn(random() * 6)
            times = any_times(random, w.clock().now_ms(), LAST_END_MS)
            with suppress(StoreUnavailable):
                await w.store.write(partial(self._put, name, times, int(random() * 2) * 1500))

    def _put(self, name: str, times: Times | None, spread_ms: int) -> None:
        made = None if times is None else times.window(name, MODES[name], spread_ms)
        put_window(self.world.store, name, made)
        self.noted[name].append(Noted(self.world.clock().now_ms(), times))

    def _calm(self) -> None:
        """What recurs for ever is deleted: then each job may run once more."""
        super()._calm()
        for name, noted in self.noted.items():
            if noted[-1].times is not None and noted[-1].times.every_ms:
                self._put(name, None, 0)

    # -- what must hold ------------------------------------------------------------------------------------------

    async def answer(self, node: str, request: dict[str, str]) -> Reply:
        try:
            self._may_leave(request["Horae-Execution-Id"])
        except Broken as exc:  # the worker would take it for an answer
            self.loop.failure = str(exc)
        return await super().answer(node, request)

    def _may_leave(self, execution: str) -> None:
        """Two seconds after a window is in the database, nothing leaves in it, nor what it skips at any time."""
        name, _, due = execution.partition(":")
        now = self.world.clock().now_ms()
        window = self.noted[name][-1]
        owed = self.world.store.executions.get(execution)
        if name == "free":
            if owed is not None and not self.troubled and not owed.attempts and now - owed.send_ms > MUTED_MS:
                raise Broken(f"{execution} is sent late, and a window that mutes holds nothing")
            return
        if owed is None or window.times is None or now - window.at_ms < IN_FORCE_MS:
            return
        begun = window.times.begun(now)
        if begun is not None and (now - begun >= IN_FORCE_MS or owed.send_ms >= begun):
            raise Broken(f"{execution} is sent in its window")
        if name == "skip" and not owed.attempts and window.covers(int(due)):
            raise Broken(f"{execution} is sent, and it was due in a window that skips")

    def _ended_as_windows_say(self) -> None:
        """A window that holds ends nothing. One that skips ends what was due in it, and nothing else."""
        for execution, final in self.world.store.history.items():
            name, _, text = execution.partition(":")
            due = int(text)
            if name != "skip":
                if final.state not in SENT_FINAL:
                    raise Broken(f"{execution} is {final.state}, and nothing skips it")
                continue
            last = self.noted[name][-1]
            was_skipped = final.state is State.SKIPPED and not final.attempts
            if not was_skipped and final.state not in SENT_FINAL:
                raise Broken(f"{execution} is {final.state}")
            if was_skipped and not any(n.covers(due) for n in self.noted[name]):
                raise Broken(f"{execution} is skipped, and no window was about its time")
            if was_skipped and f"'{name}'" not in (final.reason or ""):
                raise Broken(f"{execution} does not name the window that skipped it")
            if not final.attempts and last.covers(due) and last.at_ms < due - IN_FORCE_MS and not was_skipped:
                raise Broken(f"{execution} was due in a window that skips, and is not recorded as skipped")


class AwayInWindows(Away):
    """No node is there for up to 40 s. A window holds all jobs for some of the time, and is changed and deleted meanwhile."""

    definitions: ClassVar[Mapping[str, Definition]] = {
        name: replace(d, tags=("held",)) for name, d in Away.definitions.items()
    }

    def __init__(self, seed: int) -> None:
        super().__init__(seed, 0.0)
        self.noted = [Noted(0, None)]

    def run(self) -> World:
        self._in(None, self._operate())
        return super().run()

    async def _operate(self) -> None:
        w = self.world
        random = w.random.random
        for _ in range(CHANGES):
            await turn(random() * 12)
            times = any_times(random, w.clock().now_ms(), LAST_END_MS + 15_000)
            mutes = random() < 0.1
            put_window(w.store, "held", None if times is None else times.window("held", "mute" if mutes else "hold", 0))
            self.noted.append(Noted(w.clock().now_ms(), None if mutes else times))

    def _held_ms(self, since_ms: int, until_ms: float) -> float:
        """For how much of this time windows held everything, each as it was until it was changed."""
        spans: list[tuple[float, float]] = []
        for note, following in pairwise([*self.noted, Noted(2**62, None)]):
            if note.times is not None:
                found = note.times.between(since_ms, int(until_ms))
                spans += [(max(a, since_ms), min(b, until_ms, following.at_ms)) for a, b in found]
        held, reached = 0.0, float(since_ms)
        for first, last in sorted(spans):
            held += max(0.0, last - max(first, reached))
            reached = max(reached, last)
        return held

    def _may_be_missed(self, i: str, now_ms: float) -> None:
        super()._may_be_missed(i, now_ms)
        job, due = i.partition(":")[0], int(i.partition(":")[2])
        free_ms = now_ms - due - self._held_ms(due, now_ms)
        if free_ms < UNCLAIMED_MS - PREFETCH_MS:
            raise Broken(f"{i} is missed, and a window held it for all but {free_ms:.0f} ms")
        if job == "all" and free_ms < WINDOW_SECONDS * 1000:
            raise Broken(f"{i} is missed within its window, without the time in which it was held")

    def _nothing_sent_against_its_policy(self) -> None:
        for i, sent in self.rules.sent.items():
            job, due = i.partition(":")[0], int(i.partition(":")[2])
            _, token, at = sent[0]
            now_ms = START_MS + at * 1000
            free_ms = now_ms - due - self._held_ms(due, now_ms)
            if token == 1 and job == "none" and free_ms > UNCLAIMED_MS - PREFETCH_MS + IN_FORCE_MS:
                raise Broken(f"{i} is sent {free_ms:.0f} ms after it was due and not held, although catchUp is none")

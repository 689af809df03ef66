"""Maintenance windows that come, change and go while whole workers send: see `nodes.py`.

An operator makes a window that holds and one that skips, puts them again with another beginning and end, and deletes them,
before and in the time that they are about. What they were is noted here as it takes effect in the database, and the rules
are asked of that: nothing of the code that reads and judges windows is used for it.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from cluster.core.errors import StoreUnavailable
from cluster.core.execution.model import RetryPolicy
from cluster.core.job.definition import Definition
from cluster.core.lifecycle import SENT_FINAL, State
from cluster.core.windows import Window
from tests.simulation.model import turn
from tests.simulation.nodes import Machines
from tests.simulation.world import START_MS, Broken, World

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cluster.outbound.sender import Reply

IN_FORCE_MS = 2000
"""So long after it is in the database a window is in force on every node."""
LAST_END_MS = START_MS + 30_000
CHANGES = 3
RETRY = RetryPolicy(3, 1.0, 2.0, 300.0, 0.2)
Span = tuple[int, int]


class Noted(NamedTuple):
    """What a window was from an instant (ms) on. No span: there was none."""

    at_ms: int
    span: Span | None

    def covers(self, at_ms: float) -> bool:
        return self.span is not None and self.span[0] <= at_ms < self.span[1]


class Windows(Machines):
    """Three jobs: one that a window holds, one that a window skips, and one that no window concerns."""

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
        for name in ("hold", "skip"):
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
            first = w.clock().now_ms() + int(random() * 9000) - 3000
            last = min(first + 2000 + int(random() * 8000), LAST_END_MS)
            span = (first, last) if first < last and random() < 0.8 else None
            with suppress(StoreUnavailable):
                await w.store.write(partial(self._put, name, span))

    def _put(self, name: str, span: Span | None) -> None:
        if span is None:
            self.world.store.windows.pop(name, None)
        else:
            mode: Any = name
            made = Window(name, mode, tags=(name,), from_ms=span[0], until_ms=span[1])
            self.world.store.windows[name] = made
        self.noted[name].append(Noted(self.world.clock().now_ms(), span))

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
        if owed is None or window.span is None or now - window.at_ms < IN_FORCE_MS:
            return
        begun = max(0, now - window.span[0])
        if window.covers(now) and (begun >= IN_FORCE_MS or owed.send_ms >= window.span[0]):
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

"""Loops that no error ends, and the way to cancel tasks for certain."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from cluster.clock import Clock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

log = structlog.get_logger()

Wait = float | asyncio.Event | None
"""What a turn of a loop returns."""

FIRST_PAUSE = 0.25
LONGEST_PAUSE = 5.0


class Loop:
    """One turn after another. An error in a turn is logged, and the next turn follows after a pause.

    `turn` does one bounded step, handles the errors it knows, and returns the seconds to wait before the next turn, or the
    event to wait for; None ends the loop. An error that reaches this class is a bug or an unforeseen document. It must never end the loop
    silently: a node without one of its loops looks alive and does nothing.
    """

    def __init__(self, name: str, turn: Callable[[], Awaitable[Wait]]) -> None:
        self.name = name
        self.task: asyncio.Task[None] | None = None
        self.failing_since: float | None = None
        """When (monotonic, s) the first of the turns failed that have failed in a row; None if the last one succeeded."""
        self._turn = turn
        self._ended = False

    def start(self) -> asyncio.Task[None]:
        """Begin. The task ends when it is cancelled or a turn returns None."""
        self.task = asyncio.get_running_loop().create_task(self._run(), name=self.name)
        return self.task

    def healthy(self, seconds: float) -> bool:
        """Whether it runs and has not failed at every turn for so many seconds. A loop that ended by itself is healthy."""
        if self._ended or self.task is None or self.task.done():
            return self._ended
        return self.failing_since is None or Clock.monotonic() - self.failing_since < seconds

    async def _run(self) -> None:
        pause = FIRST_PAUSE
        while True:
            try:
                wait = await self._turn()
            except Exception:  # see the class
                if self.failing_since is None:
                    self.failing_since = Clock.monotonic()
                log.exception("loop_failed", loop=self.name, pause_s=pause)
                await asyncio.sleep(pause)
                pause = min(LONGEST_PAUSE, 2 * pause)
                continue
            pause, self.failing_since = FIRST_PAUSE, None
            if wait is None:
                self._ended = True
                return
            if isinstance(wait, asyncio.Event):
                await wait.wait()
            else:
                await asyncio.sleep(wait)


async def cancel_and_wait(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks until they have ended.

    To cancel once is not enough: on Python 3.11 `wait_for`, which the driver uses, loses a cancellation that arrives
    together with the result it waits for.
    """
    left = {t for t in tasks if not t.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=0.25)

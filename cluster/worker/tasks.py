"""The tasks of one node's dispatcher: started, waited for, cancelled together. A task that fails is logged, never silent."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import structlog

from cluster.loops import cancel_and_wait

if TYPE_CHECKING:
    from collections.abc import Coroutine

log = structlog.get_logger()


class Tasks:
    """Short tasks, each of one execution, host, limit or batch."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Begin this; it may be waited for, and must not."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    async def wait(self, seconds: float) -> None:
        """Wait until all that run now have ended, at most so long."""
        running = list(self._running)
        if running:
            await asyncio.wait(running, timeout=seconds)

    async def cancel(self) -> None:
        """Cancel what runs, and wait until it has ended."""
        await cancel_and_wait(self._running)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            log.error("dispatch_failed", exc_info=exc)

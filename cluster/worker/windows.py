"""The maintenance windows as one node knows them: read again when that was a second ago, before jobs are read.

So an execution is judged by windows that were read a second before its job at most, and its job is read again when that
was a second ago: a window is in force on every node within two seconds of its answer. If the windows cannot be read, no
job is read either, and nothing is sent.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from cluster.core.execution.outcome import planned_ms
from cluster.core.limits.permits import QUEUE_PREFIX
from cluster.core.windows import HoldingWindow, Planned, SkippingWindow, Subject, decide, held_ms
from cluster.store import engine_jobs, windows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.clock import Clock
    from cluster.core.execution.model import Execution, Job
    from cluster.core.windows import Window, WindowPeriod
    from cluster.store.mongo.client import Database

READ_SECONDS = 0.9
JOINED_SECONDS = 0.1
"""A read that began so recently serves others too."""


class WindowWatch:
    """The windows of all jobs, for one node."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._windows: list[Window] = []
        self._read_at = float("-inf")
        self._reading: asyncio.Future[None] | None = None
        self._reading_since = float("-inf")
        self._periods: list[WindowPeriod] = []
        self._periods_read_at = float("-inf")

    async def refresh(self) -> None:
        """Read the windows if that was too long ago. Raises `StoreError`."""
        at = self._clock.monotonic()
        if at - self._read_at > READ_SECONDS:
            # Several batches are prepared at one instant: one reads for all of them, if it has only just begun.
            if self._reading is None or self._reading.done() or at - self._reading_since > JOINED_SECONDS:
                self._reading, self._reading_since = asyncio.ensure_future(self._read(at)), at
                self._reading.add_done_callback(_seen)
            await asyncio.shield(self._reading)

    async def _read(self, at: float) -> None:
        found = await windows.present(self._db)
        # Another read may have begun later and ended earlier.
        if at > self._read_at:
            self._windows, self._read_at = found, at

    async def held_ms(self, executions: Sequence[Execution]) -> dict[str, int | None]:
        """For how long windows have held each of these since its send time, first attempts of jobs; None: a window skips it.
        By id.

        Windows that were changed or deleted since are counted as they were. Raises `StoreError`.
        """
        periods = await self._read_periods()
        if not periods:
            return {e.id: 0 for e in executions}
        jobs = (await engine_jobs.by_id(self._db, {e.job_id for e in executions})).jobs
        now_ms = self._clock.now_ms()
        found: dict[str, int | None] = {}
        alike: dict[tuple[Subject, int, str], int | None] = {}  # nearly all of a batch are
        for e in executions:
            job = jobs.get(e.job_id)
            subject = Subject() if job is None or job.channel is not None else _subject(job)
            key = (subject, e.send_ms, e.batch)
            if key not in alike:
                alike[key] = held_ms(periods, *key, now_ms)
            found[e.id] = alike[key]
        return found

    async def _read_periods(self) -> list[WindowPeriod]:
        """What windows are and were. Asked for only after an outage; of many batches then, not for each."""
        at = self._clock.monotonic()
        if at - self._periods_read_at > READ_SECONDS:
            self._periods, self._periods_read_at = await windows.periods(self._db, 0), at
        return self._periods

    def decide(self, execution: Execution, job: Job) -> HoldingWindow | SkippingWindow | None:
        """What the windows do to an execution. None: nothing."""
        if not self._windows or job.channel is not None:
            return None
        is_message = execution.message is not None
        by_hand = execution.due_ms if execution.trigger and not is_message else None
        planned = Planned(
            send_ms=execution.send_ms,
            first_ms=planned_ms(execution, job),
            # What was accepted is sent: a window that skips holds messages, as it holds what was under way before.
            attempted=bool(execution.attempts) or is_message,
            asked_ms=by_hand if execution.replayed_ms is None else execution.replayed_ms,
        )
        return decide(self._windows, _subject(job), planned, self._clock.now_ms())


def _subject(job: Job) -> Subject:
    key = job.limit_key or ""
    queue = key.removeprefix(QUEUE_PREFIX) if key.startswith(QUEUE_PREFIX) else None
    return Subject(job.tags, job.host, queue)


def _seen(reading: asyncio.Future[None]) -> None:
    """Whoever waits for it is told of its error; if nobody does any more, nobody need be."""
    if not reading.cancelled():
        reading.exception()

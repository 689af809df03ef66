"""The writes that one node still owes: results of executions, and batches to delete that are done."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster.worker.held_batch import HeldBatch, HeldBatches
    from cluster.worker.model import DroppedExecution, FinishedRequest


class RecordQueue:
    """Filled by the steps that send, emptied by the one that records. Nothing in it is ever dropped."""

    def __init__(self, held: HeldBatches) -> None:
        self._held = held
        self._results: list[FinishedRequest | DroppedExecution] = []
        self._awaited: list[FinishedRequest | DroppedExecution] = []
        self._finished: list[HeldBatch] = []
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        return len(self._results) + len(self._awaited)

    @property
    def awaited(self) -> bool:
        """Whether something waits for one of the results to be written: a permit, or the next run of a job."""
        return bool(self._awaited)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to write."""
        return not self._results and not self._awaited and not self._finished

    def add(self, result: FinishedRequest | DroppedExecution) -> None:
        """An execution has a result."""
        awaited = result.job is not None and (result.job.limit_key is not None or result.job.overlap_skip)
        (self._awaited if awaited else self._results).append(result)
        self._wake.set()

    def close_if_done(self, held: HeldBatch) -> None:
        """A batch of which nothing is open is held no longer; unless its lease was lost, the next flush deletes it."""
        if held.done and self._held.get(held.batch.id) is held:
            self._held.forget(held)
            if not held.lost:
                self._finished.append(held)
                self._wake.set()

    async def wait(self) -> None:
        """Wait until there is something to write."""
        await self._wake.wait()

    def take(self, most: int | None = None) -> list[FinishedRequest | DroppedExecution]:
        """The oldest results, those that something waits for first. Whoever takes them records them."""
        results = self._awaited + self._results
        count = len(results) if most is None else min(most, len(results))
        taken, first = results[:count], len(self._awaited)
        self._awaited = results[count:first]
        self._results = results[max(count, first) :]
        if count == len(results):
            self._wake.clear()
        return taken

    def take_finished(self) -> list[HeldBatch]:
        """The batches to delete."""
        finished, self._finished = self._finished, []
        return finished

    def wake_if_finished(self) -> None:
        """Have batches deleted, if no result comes along with them."""
        if self._finished:
            self._wake.set()

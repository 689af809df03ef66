"""The latest results of jobs that this node recorded, on their way to the jobs.

Not each result is written: of a job only the latest counts, so the database sees at most `SAVED_PER_TURN` small writes a
second of one node, however much it sends. What a dying node had not saved yet is found by the leader, in
`cluster.leader.compare_results`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.store.last_results import LastResult

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cluster.core.execution.model import Ending

SAVED_PER_TURN = 200


class LastResults:
    """Results that are still to be saved, one a job: the longest waiting first, but changes of `failing` before them."""

    def __init__(self) -> None:
        self._waiting: dict[str, LastResult] = {}
        self._changed: dict[str, None] = {}
        """Jobs among them that fail now and did not by the last result of this node, or the other way round."""
        self._failing: set[str] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, endings: Iterable[Ending]) -> None:
        """Executions that this node recorded as final."""
        for e in endings:
            x = e.execution
            if x.message is not None:
                continue
            self._add(LastResult(x.job_id, x.due_ms, e.state.value, e.attempts[-1].sent_ms if e.attempts else None))

    def _add(self, result: LastResult) -> None:
        job_id = result.job_id
        earlier = self._waiting.get(job_id)
        if earlier is not None and earlier.due_ms > result.due_ms:
            return
        self._waiting[job_id] = result  # an entry that exists keeps its place, so that no job waits for ever
        if result.failing != (job_id in self._failing):
            self._changed[job_id] = None
        else:
            self._changed.pop(job_id, None)

    def take(self, limit: int = SAVED_PER_TURN) -> list[LastResult]:
        """Take up to `limit` results to be saved."""
        ids = list(self._changed)[:limit]
        for job_id in self._waiting:
            if len(ids) >= limit:
                break
            if job_id not in self._changed:
                ids.append(job_id)
        taken = [self._waiting.pop(job_id) for job_id in ids]
        for result in taken:
            self._changed.pop(result.job_id, None)
            (self._failing.add if result.failing else self._failing.discard)(result.job_id)
        return taken

    def return_unsaved(self, results: Sequence[LastResult]) -> None:
        """Results that could not be saved."""
        for result in results:
            if result.job_id not in self._waiting:
                self._waiting[result.job_id] = result
                self._changed[result.job_id] = None

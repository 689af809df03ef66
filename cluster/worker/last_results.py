"""The latest results of jobs that this node recorded, on their way to the jobs.

Not each result is written: of a job only the latest counts, so the database sees at most `SAVED_PER_TURN` small writes a
second of one node, and of all nodes together no more than of two such, however much they send. Of jobs that run again and
again far fewer are written: a save costs MongoDB more than a whole execution, because `jobs` has many indexes, and that of
such a job is outdated a moment later. What a dying node had not saved yet is found by the leader, in
`cluster.leader.compare_results`.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from cluster.core.lifecycle import STATE_TEXT
from cluster.store.last_results import LastResult

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cluster.core.execution.model import Ending

SAVED_PER_TURN = 200
BUSY_SAVED_PER_TURN = 20
"""Of busy jobs: those whose result before was due less than `BUSY_MS` earlier."""
BUSY_MS = 30_000
JOBS_REMEMBERED = 20_000
SHARING_NODES = 2
"""These figures are for so many nodes. More of them share what two may save, and each of them sees a job less often."""
LAST_SAVE = 1000
"""So many a node saves when it shuts down."""


class LastResults:
    """Results that are still to be saved, one a job: the longest waiting first, but changes of `failing` before them."""

    def __init__(self) -> None:
        self._waiting: dict[str, LastResult] = {}
        """Of jobs that are not busy."""
        self._busy: dict[str, LastResult] = {}
        self._last_due_ms: dict[str, int] = {}
        """Of some jobs, when their latest result was due."""
        self._changed: dict[str, None] = {}
        """Jobs among them that fail now and did not by the last result of this node, or the other way round."""
        self._failing: set[str] = set()
        self._sharing = 1.0

    def share_with(self, nodes: int) -> None:
        """So many nodes save the results of these jobs: `jobs` sees no more writes for that."""
        self._sharing = max(1.0, nodes / SHARING_NODES)

    def __len__(self) -> int:
        return len(self._waiting) + len(self._busy)

    def add(self, endings: Iterable[Ending]) -> None:
        """Executions that this node recorded as final."""
        for e in endings:
            x = e.execution
            if x.message is not None:
                continue
            self._add(
                LastResult(x.job_id, x.due_ms, STATE_TEXT[e.state], e.attempts[-1].sent_ms if e.attempts else None)
            )

    def _add(self, result: LastResult) -> None:
        job_id = result.job_id
        last = self._last_due_ms
        before = last.get(job_id)
        earlier = self._waiting.get(job_id) or self._busy.get(job_id)
        if earlier is not None and earlier.due_ms > result.due_ms:
            return
        busy = before is not None and result.due_ms - before < BUSY_MS * self._sharing
        last[job_id] = result.due_ms if before is None else max(before, result.due_ms)
        if len(last) > JOBS_REMEMBERED:
            del last[next(iter(last))]
        if busy:
            self._waiting.pop(job_id, None)  # it runs again before its first result was saved
        # An entry that exists keeps its place, so that no job waits for ever.
        queue = self._busy if busy or job_id in self._busy else self._waiting
        queue[job_id] = result
        self._note_change(result)

    def _note_change(self, result: LastResult) -> None:
        if result.failing != (result.job_id in self._failing):
            self._changed[result.job_id] = None
        else:
            self._changed.pop(result.job_id, None)

    def take(self, most: int | None = None) -> list[LastResult]:
        """Take the results to be saved in one turn, or up to `most` of them before the node ends.

        Of busy jobs they are few, but for changes of `failing`.
        """
        limit, busy_limit = (
            (max(1, int(n / self._sharing)) if most is None else most) for n in (SAVED_PER_TURN, BUSY_SAVED_PER_TURN)
        )
        ids = list(self._changed)[:limit]
        ids += self._unchanged(self._waiting, limit - len(ids))
        ids += self._unchanged(self._busy, min(busy_limit, limit - len(ids)))
        return [self._take(job_id) for job_id in ids]

    def _unchanged(self, queue: Iterable[str], limit: int) -> list[str]:
        return list(islice((job_id for job_id in queue if job_id not in self._changed), limit))

    def _take(self, job_id: str) -> LastResult:
        result = self._waiting.pop(job_id, None) or self._busy.pop(job_id)
        self._changed.pop(job_id, None)
        (self._failing.add if result.failing else self._failing.discard)(job_id)
        return result

    def return_unsaved(self, results: Sequence[LastResult]) -> None:
        """Results that could not be saved. Whether one changes `failing` is known no more, so it counts as one that does."""
        for result in results:
            job_id = result.job_id
            (self._failing.discard if result.failing else self._failing.add)(job_id)
            later = self._waiting.get(job_id) or self._busy.get(job_id)
            if later is None:
                self._waiting[job_id] = result
            self._note_change(later or result)

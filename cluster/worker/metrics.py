"""The counts of one worker since it started: for heartbeats, statistics per minute, metrics and the failure digest."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from cluster.core.histogram import Histogram
from cluster.core.lifecycle import STATE_TEXT
from cluster.core.stats_series import add_lateness
from cluster.worker.failure_digest import FailureDigest
from cluster.worker.last_results import LastResults
from cluster.worker.model import DroppedExecution, FinishedRequest
from cluster.worker.named_counts import NamedCounts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.core.execution.model import Ending, Rescheduled


_KINDS = [f"http_{hundreds}xx" for hundreds in range(10)]


class WorkerStats:
    """Counts and histograms (ms) of one worker. They only grow."""

    def __init__(self) -> None:
        self.counters: Counter[str] = Counter()
        self.drift = Histogram()
        self.duration = Histogram()
        self.queue_time = Histogram()
        """How long executions that were due waited on this node before their requests left."""
        self.attempt_results: Counter[str] = Counter()
        """Attempts by their result: `http_2xx` ... or the kind of error."""
        self.failures = FailureDigest()
        self.last_results = LastResults()
        self.named = NamedCounts()

    def record(
        self,
        final: Sequence[Ending],
        retried: Sequence[Rescheduled],
        results: Sequence[FinishedRequest | DroppedExecution],
    ) -> None:
        """These results were recorded: these executions are final, those are retried."""
        self.counters.update([STATE_TEXT[e.state] for e in final])
        self.last_results.add(final)
        states = {e.execution.id: STATE_TEXT[e.state] for e in final} | {m.execution.id: "retried" for m in retried}
        self.named.record(results, states)
        waiting = sum(isinstance(r, DroppedExecution) and r.again_ms is not None for r in results)
        self.counters["retried"] += len(retried) - waiting
        finished = [r for r in results if isinstance(r, FinishedRequest)]
        self.counters["attempts"] += len(finished)
        kinds = [r.reply.error or _KINDS[min(9, (r.reply.status or 0) // 100)] for r in finished]
        self.attempt_results.update(kinds)
        for r, kind in zip(finished, kinds, strict=True):
            if kind != "http_2xx":
                self.failures.add(r.job.target.url, kind, r.execution.id)
        self.duration.add_all([r.reply.duration_ms for r in finished])
        self.queue_time.add_all(
            [r.attempts[-1].sent_ms - max(r.execution.send_ms, r.held.claimed_ms) for r in finished]
        )
        first = [r for r in finished if len(r.attempts) == 1]
        self.drift.add_all([r.drift_ms for r in first])
        add_lateness(self.counters, *[r.attempts[0].late for r in first])

"""Counts by host, queue and tag, of one node since they were taken last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.core.limits.permits import QUEUE_PREFIX
from cluster.core.stats_series import Point, add_lateness
from cluster.worker.model import FinishedRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cluster.worker.model import DroppedExecution

MOST_NAMES = 200
"""Names counted apart, of each kind and in each interval."""
OTHERS = "(others)"


class NamedCounts:
    """Points by kind (`host`, `queue`, `tag`) and name."""

    def __init__(self) -> None:
        self._points: dict[str, dict[str, Point]] = {"host": {}, "queue": {}, "tag": {}}

    def record(self, results: Sequence[FinishedRequest | DroppedExecution], states: Mapping[str, str]) -> None:
        """These results were recorded; `states`: by execution id, the final state, or `retried`."""
        hosts = self._points["host"]
        for r in results:
            x = r.execution
            finished = r if isinstance(r, FinishedRequest) else None
            points = [hosts.get(x.host) or self._point("host", x.host)]
            if x.limit_key is not None and x.limit_key.startswith(QUEUE_PREFIX):
                points.append(self._point("queue", x.limit_key.removeprefix(QUEUE_PREFIX)))
            if finished is not None and finished.job.tags:
                points += [self._point("tag", tag) for tag in finished.job.tags]
            state = states.get(x.id)
            if finished is None and state == "retried":  # it only waits for another execution of its job
                state = None
            for point in points:
                if state is not None:
                    point.counts[state] += 1
                if finished is not None:
                    point.counts["attempts"] += 1
                    point.duration.add(finished.reply.duration_ms)
                    if len(finished.attempts) == 1:
                        point.drift.add(finished.drift_ms)
                        add_lateness(point.counts, finished.attempts[0].late)

    def _point(self, by: str, name: str) -> Point:
        points = self._points[by]
        point = points.get(name)
        if point is None:
            name = name if len(points) < MOST_NAMES else OTHERS
            point = points.setdefault(name, Point(0, name))
        return point

    def take(self) -> list[tuple[str, Point]]:
        """Take all points with their kinds."""
        taken = [(by, point) for by, points in self._points.items() for point in points.values()]
        self._points = {by: {} for by in self._points}
        return taken

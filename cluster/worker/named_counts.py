"""Counts by host, queue and tag, of one node since they were taken last."""

from __future__ import annotations

from collections import defaultdict
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
        groups: defaultdict[tuple[str, str], list[FinishedRequest | DroppedExecution]] = defaultdict(list)
        for r in results:
            x = r.execution
            groups["host", x.host].append(r)
            if x.limit_key is not None and x.limit_key.startswith(QUEUE_PREFIX):
                groups["queue", x.limit_key.removeprefix(QUEUE_PREFIX)].append(r)
            if isinstance(r, FinishedRequest):
                for tag in r.job.tags:
                    groups["tag", tag].append(r)
        for (by, name), members in groups.items():
            _add(self._point(by, name), members, states)

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


def _add(point: Point, results: Sequence[FinishedRequest | DroppedExecution], states: Mapping[str, str]) -> None:
    finished = [r for r in results if isinstance(r, FinishedRequest)]
    counted: Sequence[FinishedRequest | DroppedExecution] = finished
    if len(finished) < len(results):
        # What was dropped and is "retried" only waits for another execution of its job.
        counted = [r for r in results if isinstance(r, FinishedRequest) or states.get(r.execution.id) != "retried"]
    point.counts.update([states[r.execution.id] for r in counted if r.execution.id in states])
    if not finished:
        return
    point.counts["attempts"] += len(finished)
    point.duration.add_all([r.reply.duration_ms for r in finished])
    first = [r for r in finished if len(r.attempts) == 1]
    point.drift.add_all([r.drift_ms for r in first])
    if first:
        add_lateness(point.counts, *[r.attempts[0].late for r in first])

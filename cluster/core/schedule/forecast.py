"""The load forecast: how many requests each second has, and how much a spread would flatten the peaks. Pure.

It is computed per distinct schedule, so that a hundred thousand jobs on `0 * * * * *` cost as much as one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.core.schedule.schedule import schedule_from_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class JobGroup:
    """The jobs that share a schedule and a spread."""

    key: str
    spread_seconds: int
    jobs: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """Requests per second from `from_ms` on. There was no time to count the jobs in `jobs_not_counted`."""

    from_ms: int
    per_second: list[float]
    jobs_not_counted: int

    def busiest(self, count: int) -> list[tuple[int, float]]:
        """The seconds with the most requests, as `(instant in ms, requests)`, the busiest first."""
        busiest = sorted(range(len(self.per_second)), key=lambda i: (-self.per_second[i], i))[:count]
        return [(self.from_ms + i * 1000, self.per_second[i]) for i in busiest if self.per_second[i] > 0]

    def buckets(self, seconds: int) -> list[float]:
        """Sums over `seconds` each."""
        return [sum(self.per_second[i : i + seconds]) for i in range(0, len(self.per_second), seconds)]

    def busiest_if_spread(self, seconds: int) -> float:
        """The busiest second if every job were spread over `seconds` more: the maximum of a moving mean."""
        worst = total = 0.0
        for i, n in enumerate(self.per_second):
            total += n - (self.per_second[i - seconds] if i >= seconds else 0)
            worst = max(worst, total / seconds)
        return worst


def forecast(groups: Iterable[JobGroup], from_ms: int, seconds: int, has_time: Callable[[], bool]) -> Forecast:
    """Count the requests of these jobs in `seconds` from `from_ms` (a whole second) on, the largest groups first.

    `has_time` says whether there is time for another schedule. Requests due before `from_ms` that a spread moves into
    the forecast are counted.
    """
    # Steps up and down, summed up at the end: a spread is two steps, however long it is.
    steps = [0.0] * (seconds + 1)
    left_out = 0
    for herd in sorted(groups, key=lambda h: -h.jobs):
        if not has_time():
            left_out += herd.jobs
            continue
        width = max(1, herd.spread_seconds)
        begin = from_ms - (width - 1) * 1000
        share = herd.jobs / width
        for due in schedule_from_key(herd.key).between(begin, from_ms + seconds * 1000, seconds + width):
            first = (due - from_ms) // 1000
            steps[max(0, first)] += share
            steps[min(seconds, first + width)] -= share
    per_second, level = [], 0.0
    for step in steps[:seconds]:
        level += step
        per_second.append(round(max(0.0, level), 3))
    return Forecast(from_ms, per_second, left_out)


def bars(values: Sequence[float]) -> str:
    """A line of block characters as high as the values. The highest is full, a value of 0 is a space."""
    most = max(values, default=0)
    if most <= 0:
        return " " * len(values)
    return "".join(" " if v <= 0 else BARS[min(7, int(v / most * 8))] for v in values)

"""Numbers over time: counts and histograms per step, from documents that count a minute or an hour."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cluster.core.execution.lateness import LatenessParts
from cluster.core.histogram import Histogram

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86_400
KEPT_HOURS_S = 90 * DAY_S
KEPT_MINUTES_S = {"cluster": 30 * DAY_S, "host": DAY_S, "queue": DAY_S, "tag": DAY_S}
"""How long each minute is kept, for the cluster and by name; each hour is kept for 90 days."""
STEPS_S = (60, 300, 900, 3600, 6 * 3600, 86_400)
"""The steps that are chosen from if none is asked for."""
MOST_POINTS = 1500
CHOSEN_POINTS = 120


LATENESS_PARTS = LatenessParts._fields
LATENESS_PREFIX = "late_ms_"
_LATENESS_NAMES = tuple(LATENESS_PREFIX + part for part in LATENESS_PARTS)
LATENESS_COUNT = "late_counted"
"""Of how many first attempts the parts were counted: a release before does not count them."""


def add_lateness(counts: Counter[str], *first_attempts: Sequence[int]) -> None:
    """Count the parts of the lateness of first attempts (ms), of each in the order of `LATENESS_PARTS`."""
    counts[LATENESS_COUNT] += len(first_attempts)
    late = [parts for parts in first_attempts if any(parts)]  # nearly none of them
    for name, times in zip(_LATENESS_NAMES, zip(*late, strict=True), strict=False):
        if ms := sum(times):
            counts[name] += ms


@dataclass(slots=True)
class Point:
    """What was counted from `at_ms` on, for one step; `name`: of the host, queue or tag."""

    at_ms: int
    name: str | None = None
    counts: Counter[str] = field(default_factory=Counter)
    drift: Histogram = field(default_factory=Histogram)
    duration: Histogram = field(default_factory=Histogram)

    @property
    def lateness(self) -> dict[str, float] | None:
        """The mean of each part of the lateness (ms); None: no node counted them."""
        n = self.counts[LATENESS_COUNT]
        return {part: self.counts[LATENESS_PREFIX + part] / n for part in LATENESS_PARTS} if n else None

    def add(self, counts: Mapping[str, int], drift: Mapping[str, int], duration: Mapping[str, int]) -> None:
        """Add counts by name, and bucket counts by the number of their bucket."""
        self.counts.update(counts)
        for histogram, buckets in ((self.drift, drift), (self.duration, duration)):
            for number, n in buckets.items():
                if int(number) < len(histogram.counts):
                    histogram.counts[int(number)] += n


@dataclass(frozen=True, slots=True)
class StatsSpan:
    """Which time, in which steps, from documents of which length: `from_ms` is a multiple of the step, all else seconds."""

    from_ms: int
    until_ms: int
    step_s: int
    source_s: int


def span(by: str, from_ms: int, until_ms: int, step_s: int | None, now_ms: int) -> StatsSpan:
    """The span that answers a request: the step grows to whole hours where minutes are not kept any more, and to as much
    as `MOST_POINTS` allow.
    """
    seconds = max(1, (until_ms - from_ms) // 1000)
    minutes = now_ms - from_ms < KEPT_MINUTES_S[by] * 1000
    source = MINUTE_S if minutes else HOUR_S
    if step_s is None:
        step_s = next((s for s in STEPS_S if s >= source and seconds / s <= CHOSEN_POINTS), DAY_S)
    least = max(step_s, source, seconds / MOST_POINTS)
    step = int(-(-least // source) * source)
    if minutes and step % HOUR_S == 0 and step >= HOUR_S and now_ms - until_ms > HOUR_S * 1000:
        source = HOUR_S
    return StatsSpan(from_ms - from_ms % (step * 1000), until_ms, step, source)


def whole_steps(points: Iterable[Point], s: StatsSpan) -> list[Point]:
    """The points added up to the steps of a span, one for each step and name, in order of time."""
    steps: defaultdict[tuple[int, str | None], list[Point]] = defaultdict(list)
    for p in points:
        steps[p.at_ms - p.at_ms % (s.step_s * 1000), p.name].append(p)
    sums = []
    for (at_ms, name), parts in steps.items():
        total = Point(at_ms, name)
        for p in parts:
            total.counts.update(p.counts)
            total.drift.merge(p.drift.counts)
            total.duration.merge(p.duration.counts)
        sums.append(total)
    return sorted(sums, key=lambda p: (p.at_ms, p.name or ""))


def with_empty_steps(points: Iterable[Point], s: StatsSpan, name: str | None = None) -> list[Point]:
    """The points of one series, and empty ones for steps in which nothing was counted."""
    by_time = {p.at_ms: p for p in points}
    return [by_time.get(at, Point(at, name)) for at in range(s.from_ms, s.until_ms, s.step_s * 1000)]

"""Schedules with a calendar: occurrences on excluded days are left out, or moved to an included day near by.

A moved occurrence keeps its time of day in the zone of the job. Two that fall together are one, because the occurrences
are a set of instants. All of it is pure: the occurrence after an instant does not depend on earlier calls.

Consecutive excluded days are a *stretch*. What is moved out of one lands within a day of the included side of its end
(`next`) or of its beginning (`previous`), so the stretches can be searched one by one, in order. Instants are in s.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from cluster.core.schedule.calendar_days import LONGEST_DAYS
from cluster.core.zones import instant_of, next_change, offset

if TYPE_CHECKING:
    from cluster.core.schedule.calendar_days import Exclusion

_DAY = 86_400
_WINDOW = 26 * 3600
"""What is moved lands within so long of the end of its stretch: a day, and a change of the clocks."""
_TRIES = 1000
"""So many occurrences in a row that fall on excluded days are looked at, each on another stretch. Then the search ends:
the calendar leaves nothing of the schedule for years."""


class Engine(Protocol):
    """Occurrences of a schedule, one after the other."""

    def next_after(self, after: int) -> int | None:
        """The first instant later than `after`, both in s since 1970."""


class _Stretch(NamedTuple):
    """Excluded time `start <= t < end`. `end` None: it does not end."""

    start: int
    end: int | None


class Excluding:
    """The occurrences of `base` with an exclusion."""

    def __init__(self, base: Engine, exclusion: Exclusion) -> None:
        self._base = base
        self._mode = exclusion.mode
        self._zone = exclusion.zone
        self._day_zone = exclusion.day_zone
        self._days = exclusion.days

    def next_after(self, after: int) -> int | None:
        """The first occurrence later than `after`. None if there is none, or none for very long."""
        own = self._included(after)
        if self._mode == "skip":
            return own
        return self._moved(after, own)

    # -- days ----------------------------------------------------------------------------------------------------

    def _day(self, at: int) -> int:
        return (at + offset(self._day_zone, at)) // _DAY

    def excludes(self, at: int) -> bool:
        """Whether an instant is on an excluded day."""
        return self._days.excludes(self._day(at))

    def _start_of(self, day: int) -> int:
        return instant_of(self._day_zone, day * _DAY)

    def _included(self, after: int) -> int | None:
        """The first occurrence on an included day."""
        t = self._base.next_after(after)
        for _ in range(_TRIES):
            if t is None:
                return None
            day = self._day(t)
            if not self._days.excludes(day):
                return t
            free = self._days.included_from(day + 1)
            if free is None:
                return None
            # Where clocks go back over midnight, the next day begins before the end of this one.
            t = self._base.next_after(max(t, self._start_of(free) - 1))
        return None

    def _excluded(self, after: int, until: int | None) -> int | None:
        """The first occurrence on an excluded day. None if there is none, or only in stretches that begin after `until`."""
        t = self._base.next_after(after)
        for _ in range(_TRIES):
            if t is None:
                return None
            day = self._day(t)
            excluded = self._days.excludes(day)
            if until is not None and t > until and not (excluded and self._stretch_at(t).start <= until):
                return None
            if excluded:
                return t
            following = self._days.excluded_from(day + 1)
            if following is None:
                return None
            t = self._base.next_after(max(t, self._start_of(following) - 1))
        return None

    def _stretch_at(self, t: int) -> _Stretch:
        """The stretch that an excluded instant lies in."""
        day = self._day(t)
        before = self._days.included_from(day, -1)
        behind = self._days.included_from(day)
        start = 0 if before is None else self._start_of(before + 1)
        return _Stretch(start, None if behind is None else self._start_of(behind))

    # -- moving --------------------------------------------------------------------------------------------------

    def _moved(self, after: int, own: int | None) -> int | None:
        """The first occurrence later than `after` that is moved there, or `own` if that is not later."""
        forward = self._mode == "next"
        start = after
        if forward:  # a stretch that ends less than a window before `after` may still land behind it
            start = max(-1, after - _WINDOW)
            if start >= 0 and self.excludes(start):
                start = self._stretch_at(start).start - 1
        until = None if own is None else own if forward else own + _WINDOW
        for _ in range(_TRIES):
            t = self._excluded(start, until)
            if t is None:
                return own
            stretch = self._stretch_at(t)
            earliest = stretch.end if forward else stretch.start - _WINDOW
            if earliest is not None and own is not None and earliest > own:
                return own
            landed = self._landed(stretch, after)
            if landed is not None:
                return landed if own is None else min(own, landed)
            if stretch.end is None:
                return own
            start = max(t, stretch.end - 1)
        return own

    def _landed(self, stretch: _Stretch, after: int) -> int | None:
        """The first instant later than `after` that an occurrence of this stretch is moved to. None: there is none."""
        forward = self._mode == "next"
        edge = stretch.end if forward else stretch.start
        if edge is None or (edge + _WINDOW if forward else edge) <= after:
            return None
        edge_local = edge + offset(self._zone, edge)
        first: int | None = None
        for k in range(LONGEST_DAYS + 2):
            midnight = (edge_local // _DAY + (-k if forward else k)) * _DAY
            low, high = max(self._at(midnight), stretch.start), self._at(midnight + _DAY)
            high = high if stretch.end is None else min(high, stretch.end)
            if low < high:
                for begin, end in self._pieces(low, high, midnight + edge_local % _DAY):
                    found = self._first_landed(begin, end, after)
                    if found is not None and (first is None or found < first):
                        first = found
            elif k > 1:
                break
        return first

    def _pieces(self, low: int, high: int, cut_local: int) -> list[tuple[int, int]]:
        """Parts of a day in which a later occurrence is moved to a later instant, or to the same."""
        cuts = {self._at(cut_local)}
        at = low
        while (change := next_change(self._zone, at, high)) is not None:
            at = change.at
            cuts.add(at)
        bounds = [low, *sorted(c for c in cuts if low < c < high), high]
        return list(pairwise(bounds))

    def _first_landed(self, low: int, high: int, after: int) -> int | None:
        """The first instant later than `after` that an occurrence `low <= t < high` of one piece is moved to."""
        t = self._base.next_after(low - 1)
        while t is not None and t < high:
            target = self._target(t)
            if target is None:  # so are the others of this piece
                return None
            if target > after:
                return target
            # Times of day go by as on the day that they are moved to, but for a change of the clocks.
            behind = after - target
            changed = abs(offset(self._zone, target) - offset(self._zone, after))
            t = self._base.next_after(t + max(0, behind - changed))
        return None

    def _target(self, t: int) -> int | None:
        """Where an excluded occurrence is moved to. None: there is no included day near enough, and it is left out."""
        step: Literal[1, -1] = 1 if self._mode == "next" else -1
        local = t + offset(self._zone, t)
        by: int = step
        while abs(by) <= LONGEST_DAYS:
            moved = self._at(local + by * _DAY)
            day = self._day(moved)
            if not self._days.excludes(day):
                return moved
            free = self._days.included_from(day, step)
            if free is None:
                return None
            by += step * max(1, abs(free - day) - 1)
        return None

    def _at(self, local: int) -> int:
        """The instant of a local time: its first one, or the end of the gap that it falls into."""
        at = instant_of(self._zone, local)
        in_gap = local % 60 != 0 and at + offset(self._zone, at) != local
        return instant_of(self._zone, local - local % 60) if in_gap else at

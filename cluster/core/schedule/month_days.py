"""Days of a month that are named by a rule: `LW`, `L-3`, `15W`. As in Quartz, a month without such a day has none."""

from __future__ import annotations

from calendar import monthrange
from datetime import date
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_EPOCH = date(1970, 1, 1).toordinal()
_MONTHS_AHEAD = 50 * 12
"""A rule that names no day within this many months never does."""
_LAST_YEAR = 9998


class MonthDay:
    """One rule, in the months of a schedule."""

    def __init__(self, rule: str, months: Collection[int]) -> None:
        self._months = frozenset(months)
        self._weekday = rule.endswith("W")
        self._before_last = 0 if rule == "LW" else int(rule[2:]) if rule.startswith("L-") else None
        self._day = int(rule[:-1]) if self._before_last is None else 0

    def days_from(self, day: int) -> Iterator[int]:
        """The days (since 1970-01-01) from `day` on, ascending, for 50 years or until 9998."""
        start = date.fromordinal(max(1, day + _EPOCH))
        year, month = start.year, start.month
        for _ in range(_MONTHS_AHEAD):
            found = self._in(year, month) if month in self._months else None
            if found is not None and found >= day:
                yield found
            year, month = (year, month + 1) if month < 12 else (year + 1, 1)
            if year > _LAST_YEAR:
                return

    def _in(self, year: int, month: int) -> int | None:
        last = monthrange(year, month)[1]
        number = self._day if self._before_last is None else last - self._before_last
        if not 1 <= number <= last:
            return None
        found = date(year, month, number).toordinal() - _EPOCH
        if not self._weekday:
            return found
        weekday = (found + 3) % 7  # 1970-01-01 was a Thursday
        if weekday == 5:
            return found - 1 if number > 1 else found + 2
        if weekday == 6:
            return found + 1 if number < last else found - 2
        return found

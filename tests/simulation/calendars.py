"""Jobs change while the calendar that some of them name changes too, and leaders have them follow, replaced or not.

The follower is `cluster.leader.follow_calendars`, beside everything of `changing.py`: users who looked the calendar up a
while ago, leaders that start, die and are absent. What is owed by a calendar is read by the oracle of `horae verify`.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cluster.core.errors import StoreUnavailable
from cluster.core.job.definition import JobCalendar
from cluster.core.lifecycle import JobState
from cluster.core.schedule.calendar_days import excluded_days
from cluster.leader.follow_calendars import CalendarFollower
from cluster.store.calendars import Calendar
from tests.simulation.changing import Changing
from tests.simulation.model import turn
from tests.simulation.world import START_MS, Broken, World

if TYPE_CHECKING:
    from cluster.core.job.definition import Definition
    from cluster.store.mongo.client import Document

TODAY = START_MS // 86_400_000
DAYS: tuple[list[tuple[int, int]], ...] = ([], [(TODAY, TODAY)], [(TODAY + 9, TODAY + 9)])
"""The days that the calendar excludes, one after the other: none, all of the run, none of it."""
CHANGES = 4


def _calendar(n: int) -> Calendar:
    return Calendar("c", {}, excluded_days(DAYS[n % 3]), 0)


class FollowingCalendars(Changing):
    """In the end every job follows the last change; until then it owes what it was written by."""

    def __init__(self, seed: int, trouble: float = 0.04) -> None:
        super().__init__(seed, trouble)
        self._store.calendars = {"c": _calendar(0)}
        self._changes = 0

    @property
    def _store(self) -> Any:
        return self.world.store

    def run(self) -> World:
        world = super().run()
        self._all_follow()
        return world

    def _begin_others(self) -> None:
        """Somebody who changes the calendar, and two leaders that both think it is for them to have its jobs follow."""
        if not self._changes:
            self.world.spawn("calendar", self._change_calendar())
        for _ in range(2):
            self.world.spawn("follower", self._follow(self.world.now + 55.0))

    def _again(self, name: str) -> None:
        if name == "follower":
            self.world.spawn(name, self._follow(60.0))
        elif name == "calendar":
            self.world.spawn(name, self._change_calendar())
        super()._again(name)

    def _resumed_as_promised(self, d: Document, _revision: int, until: int) -> None:
        """The followers change the job too, in its pause and after it: no pause ends too soon. That each ends is asked last."""
        if d["state"] != JobState.PAUSED and self.world.clock().now_ms() < until:
            raise Broken(f"{d['_id']} was resumed before the end of its pause")

    async def _change_calendar(self) -> None:
        while self._changes < CHANGES:
            await turn(self.world.random.random() * 12)
            self._changes += 1
            self._store.calendars["c"] = _calendar(self._changes)

    async def _follow(self, until: float) -> None:
        w = self.world
        clock: Any = w.clock()
        follower = CalendarFollower(self._store, clock)
        while w.now < until:
            more = False
            with suppress(StoreUnavailable):
                more = (await follower.step()).more
            await turn(0.05 if more else 0.5)

    def _definition(self) -> Definition:
        """Two of three name the calendar, with the days of now: the request may be written much later."""
        made = super()._definition()
        if self.world.random.random() < 0.3:
            return made
        return replace(made, calendar=JobCalendar("c", "skip", self._store.calendars["c"].days))

    def _all_follow(self) -> None:
        last = self._store.calendars["c"].version
        for d in self._store.documents.values():
            calendar = d.get("calendar")
            follows = d["state"] in (JobState.ACTIVE, JobState.PAUSED)
            if calendar is not None and follows and calendar["version"] != last:
                raise Broken(f"{d['_id']} has not followed the last change of its calendar")

"""Where another scheduler and Horae differ when the clocks change.

Horae follows Debian's cron: a fixed time in the gap of a spring night runs when the gap ends, one that comes twice in
autumn runs once; a schedule with `*` in minute or hour follows real time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.core.instants import format_instant
from cluster.core.schedule.cron_syntax import ALIASES
from cluster.core.schedule.schedule import InvalidSchedule, parse_schedule
from cluster.core.zones import next_change

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cluster.core.zones import OffsetChange

YEAR_SECONDS = 366 * 86_400


def clock_remarks(schedule: str, timezone: str, now_ms: int, *, starred_once: bool) -> Iterator[str]:
    """Where a cron schedule meets a change of the clocks within a year and the other scheduler runs it differently.

    `starred_once`: in a repeated hour, the other one runs every schedule once (EventBridge); otherwise it follows real
    time always, and runs fixed times twice (Kubernetes).
    """
    words = ALIASES.get(schedule, schedule).split()[-5:]
    if words[0].startswith("@"):
        return
    fixed = "*" not in words[0] and "*" not in words[1]
    for change in _changes(timezone, now_ms // 1000):
        gap = change.after > change.before
        low, high = sorted((change.at + change.before, change.at + change.after))
        local = _first_in(schedule, low, high)
        if local is None:
            continue
        when = format_instant(local * 1000)[:16].replace("T", " ")
        if gap and fixed:
            end = format_instant(high * 1000)[11:16]
            yield f"{when} does not exist in {timezone}: it was left out there, and Horae runs it at {end}"
        elif not gap and fixed and not starred_once:
            yield f"{when} comes twice in {timezone}: it ran twice there, and Horae runs it the first time only"
        elif not gap and not fixed and starred_once:
            yield f"{when} comes twice in {timezone}: it ran once there, and Horae runs it in both hours"


def _changes(timezone: str, now: int) -> Iterator[OffsetChange]:
    after = now
    while (change := next_change(timezone, after, now + YEAR_SECONDS)) is not None:
        yield change
        after = change.at


def _first_in(schedule: str, low: int, high: int) -> int | None:
    """The first local time that matches in `[low, high)`: in UTC, local times and instants are the same numbers."""
    try:
        found = parse_schedule(schedule, "UTC").between(low * 1000, high * 1000, 1)
    except InvalidSchedule:
        return None
    return found[0] // 1000 if found else None

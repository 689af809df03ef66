"""The last occurrence of a schedule in a bounded time, found with a few questions for the next one."""

from __future__ import annotations

from functools import lru_cache

from cluster.core.schedule.schedule import schedule_from_key


@lru_cache(maxsize=1000)
def last_occurrence(key: str, start_ms: int, end_ms: int) -> int | None:
    """The last occurrence t with `start_ms <= t <= end_ms` of the schedule with this key. None if there is none."""
    schedule = schedule_from_key(key)

    def after(at_ms: int) -> int | None:
        found = schedule.next_after(at_ms)
        return found if found is not None and found <= end_ms else None

    last = after(start_ms - 1)
    if last is None:
        return None
    # Back from the end, in steps that grow from the first gap: most schedules have gaps of about one length.
    step = (after(last) or end_ms) - last + 1000
    behind_all = end_ms
    while (probe := end_ms - step) > last:
        if (found := after(probe)) is not None:
            last = found
            break
        behind_all = probe
        step *= 2
    # No occurrence is later than `behind_all`. Each round halves what is between.
    while (following := after(last)) is not None:
        middle = (following + behind_all) // 2
        found = after(middle)
        if found is None:
            behind_all = middle
        last = following if found is None else found
    return last

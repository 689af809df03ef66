"""What a person should know before a backfill: clocks that changed, other schedules, and what becomes of old requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.core.instants import format_instant
from cluster.core.zones import next_change

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.core.explain.timeline import ActivePeriod
    from cluster.core.job.definition import StoredJob

MOST = 20
"""Remarks of one kind."""


def remarks(
    job: StoredJob,
    past: Sequence[ActivePeriod],
    dues: Sequence[int],
    to_send: int,
    per_second: float,
    missed_across: Sequence[tuple[int, int, int]] = (),
) -> list[str]:
    """Sentences about a backfill of these due times (ms, ascending), of which `to_send` would be sent. `missed_across`: the
    missed ranges that are partly within its time, as the first and the last occurrence and their number.
    """
    if not dues:
        return []
    first, last = dues[0], dues[-1]
    return [
        *_before_creation(job, dues),
        *_other_schedules(job, past, first, last),
        *_clock_changes(job, first, last),
        *_policies(job, to_send, per_second),
        *_missed(missed_across),
    ]


def _missed(across: Sequence[tuple[int, int, int]]) -> list[str]:
    return [
        f"{count} occurrences from {format_instant(first)} to {format_instant(last)} are recorded as missed together, and not "
        "all of them are in this time: the others stay missed, and the record of them all stays too"
        for first, last, count in across[:MOST]
    ]


def _before_creation(job: StoredJob, dues: Sequence[int]) -> list[str]:
    early = sum(t < job.created_ms for t in dues)
    if not early:
        return []
    are = "is" if early == 1 else "are"
    return [f"{early} of them {are} before the job was created, at {format_instant(job.created_ms)}"]


def _other_schedules(job: StoredJob, past: Sequence[ActivePeriod], first: int, last: int) -> list[str]:
    found: list[str] = []
    for p in past:
        if p.to_ms is None or p.to_ms < first or p.from_ms > last or p.from_ms < job.created_ms:
            continue
        if p.parsed.key == job.schedule_key:
            continue
        zone = "" if p.timezone == "UTC" else f" {p.timezone}"
        found.append(
            f"from {format_instant(p.from_ms)} to {format_instant(p.to_ms)} its schedule was `{p.schedule}`{zone}: "
            "the backfill takes the present one for that time too"
        )
    paused = [
        f"it was paused from {format_instant(p.to_ms)} on: the backfill takes what it did not owe then too"
        for p in past
        if p.to_ms is not None and p.ended_by == "pause" and first <= p.to_ms <= last
    ]
    return [*found[-MOST:], *paused[-MOST:]]


def _clock_changes(job: StoredJob, first: int, last: int) -> list[str]:
    if not job.schedule_key.startswith("cron|"):
        return []
    _, expression, zone = job.schedule_key.split("|")
    _, minute, hour, *_ = expression.split(" ")
    follows = "*" in minute or "*" in hour
    found: list[str] = []
    at = first // 1000 - 1
    while len(found) < MOST and (change := next_change(zone, at, last // 1000)) is not None:
        at = change.at
        when = f"at {format_instant(at * 1000)} clocks in {zone} went"
        if change.after > change.before:
            how = "follows real time" if follows else "runs when the gap ends, if its time fell into it"
            found.append(f"{when} forward: the job {how}")
        else:
            how = "follows real time, so it runs in both passes of the hour" if follows else "runs once in it"
            found.append(f"{when} back, and an hour came twice: the job {how}")
    return found


def _policies(job: StoredJob, to_send: int, per_second: float) -> list[str]:
    found: list[str] = []
    definition = job.definition
    age = definition.retry.max_age_seconds
    takes = to_send / per_second
    if age is not None and takes > age:
        found.append(
            f"maxAgeSeconds ({age:g}) counts from the request, and the backfill takes {takes:.0f} s: what is sent later "
            "than that ends as dead; raise maxPerSecond or maxAgeSeconds, or take a shorter range"
        )
    if definition.overlap == "skip" and to_send > 1:
        found.append("`overlap` is `skip`: each run waits for the end of the one before it, and none is skipped")
    if definition.start_ms is not None or definition.end_ms is not None:
        found.append("what is outside its startAt and endAt is left out")
    return found

"""Maintenance windows: times in which executions of some jobs are held or skipped, or their alerts are muted.

A window recurs (a cron expression says when it begins, and it lasts a while) or has one beginning and one end. It concerns
the jobs with one of its tags, hosts or queues. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from zlib import crc32

from cluster.core.schedule.schedule import parse_schedule

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAX_SPANS = 1000
"""So many times in a row at which a window begins or ends are looked at."""
WindowMode = Literal["hold", "skip", "mute"]


@dataclass(frozen=True, slots=True)
class Subject:
    """What windows look at of a job."""

    tags: tuple[str, ...] = ()
    host: str = ""
    """Host and port of the target."""
    queue: str | None = None


@dataclass(frozen=True, slots=True)
class WindowSpan:
    """The time `from_ms <= t < to_ms`."""

    from_ms: int
    to_ms: int


@dataclass(frozen=True, slots=True)
class Window:
    """A window. Either `schedule` and `lasts_ms`, or `from_ms` and `until_ms` are set."""

    name: str
    mode: WindowMode
    tags: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    schedule: str | None = None
    timezone: str = "UTC"
    lasts_ms: int = 0
    from_ms: int | None = None
    until_ms: int | None = None
    spread_ms: int = 0
    """What it held leaves within so long after its end."""

    def concerns(self, subject: Subject) -> bool:
        """Whether it is about a job."""
        host = subject.host
        return (
            not set(self.tags).isdisjoint(subject.tags)
            or (subject.queue is not None and subject.queue in self.queues)
            or any(host == h or host.rpartition(":")[0] == h for h in self.hosts)
        )

    def span_at(self, at_ms: int) -> WindowSpan | None:
        """When it is in force, if it is at this instant. Windows that follow each other without a gap count one by one."""
        if self.schedule is None:
            first, last = self.from_ms or 0, self.until_ms or 0
            return WindowSpan(first, last) if first <= at_ms < last else None
        begin = parse_schedule(self.schedule, self.timezone).next_after(at_ms - self.lasts_ms)
        return WindowSpan(begin, begin + self.lasts_ms) if begin is not None and begin <= at_ms else None

    def begins_after(self, at_ms: int) -> int | None:
        """When it is in force next, behind this instant. None: never."""
        if self.schedule is None:
            return self.from_ms if (self.from_ms or 0) > at_ms else None
        return parse_schedule(self.schedule, self.timezone).next_after(at_ms)

    def leaves_ms(self, span: WindowSpan, name: str) -> int:
        """When something of this name that was held leaves. Names are spread over the time after the end."""
        return span.to_ms + (crc32(name.encode()) % self.spread_ms if self.spread_ms else 0)


@dataclass(frozen=True, slots=True)
class WindowPeriod:
    """What a window was in `from_ms <= t < to_ms`; None: it is so still."""

    window: Window
    from_ms: int
    to_ms: int | None

    def held_until_ms(self, at_ms: int, name: str) -> int | None:
        """Until when something of this name was held that was to be sent at an instant. None: it was not held."""
        span = self.window.span_at(at_ms)
        if span is None or (self.to_ms is not None and at_ms >= self.to_ms):
            return None
        leaves_ms = self.window.leaves_ms(span, name)
        return leaves_ms if self.to_ms is None else min(leaves_ms, self.to_ms)

    def holds_after(self, at_ms: int) -> int | None:
        """When it began to be in force next, behind this instant. None: never."""
        begin_ms = self.window.begins_after(at_ms)
        return None if begin_ms is None or (self.to_ms is not None and begin_ms >= self.to_ms) else begin_ms


@dataclass(frozen=True, slots=True)
class HoldingWindow:
    """A window holds an execution, for as long as `span`."""

    window: Window
    span: WindowSpan


@dataclass(frozen=True, slots=True)
class SkippingWindow:
    """An execution was due within a window that skips."""

    window: Window

    @property
    def reason(self) -> str:
        """As it is recorded."""
        return skip_reason(self.window.name)


SKIP_REASON = "the window "


def skip_reason(name: str) -> str:
    """Why an execution was skipped."""
    return f"{SKIP_REASON}'{name}' was in force when it was due"


@dataclass(frozen=True, slots=True)
class Planned:
    """An execution, as windows look at it. Instants in ms."""

    send_ms: int
    """When it is to be sent next."""
    first_ms: int
    """When its first attempt was planned."""
    attempted: bool
    asked_ms: int | None
    """When it was asked for by hand. None: a schedule owes it."""


def decide(
    windows: Iterable[Window], subject: Subject, planned: Planned, now_ms: int
) -> HoldingWindow | SkippingWindow | None:
    """What windows do to an execution that would be sent now or soon. None: nothing.

    What was due within a window that skips is skipped, also if it comes late; what was under way before waits for the end.
    What a person asks for during a window is sent.
    """
    at_ms = max(now_ms, planned.send_ms)
    held: HoldingWindow | None = None
    for window in windows:
        if window.mode == "mute" or not window.concerns(subject):
            continue
        owed_first = planned.asked_ms is None and not planned.attempted
        if window.mode == "skip" and owed_first and window.span_at(planned.first_ms) is not None:
            return SkippingWindow(window)
        span = window.span_at(at_ms)
        if span is None or (planned.asked_ms is not None and span.from_ms <= planned.asked_ms):
            continue
        if held is None or span.to_ms > held.span.to_ms:
            held = HoldingWindow(window, span)
    return held


def held_ms(periods: Sequence[WindowPeriod], subject: Subject, send_ms: int, name: str, now_ms: int) -> int | None:
    """For how much of the time from its send time until now windows have held a first attempt. None: a window skips it.

    A window that was changed or deleted counts as it was, until then. Only one that is there still skips.
    """
    concerning = [p for p in periods if p.window.mode != "mute" and p.window.concerns(subject)]
    present = (p.window for p in concerning if p.to_ms is None)
    if any(w.mode == "skip" and w.span_at(send_ms) is not None for w in present):
        return None
    at_ms, held = send_ms, 0
    for _ in range(MAX_SPANS):
        if at_ms >= now_ms:
            return held
        ends = [end for p in concerning if (end := p.held_until_ms(at_ms, name)) is not None]
        if ends:
            end_ms = min(max(ends), now_ms)
            held += end_ms - at_ms
            at_ms = end_ms
            continue
        begins = [begin for p in concerning if (begin := p.holds_after(at_ms)) is not None]
        if not begins:
            return held
        at_ms = min(begins)
    return now_ms - send_ms if held == at_ms - send_ms else held


def muted_by(windows: Sequence[Window], subject: Subject, now_ms: int) -> Window | None:
    """The window that mutes the alerts of a job now."""
    muting = (w for w in windows if w.mode == "mute" and w.concerns(subject))
    return next((w for w in muting if w.span_at(now_ms) is not None), None)

"""Which notices of an incident are sent, and to which channels.

Whoever is notified that an incident began is notified that it is over; whoever is not is not. What decides is the document
of the incident alone: a notice is *committed* by a write of its own before its alert job is made. A window that mutes the
job drops only notices that are not committed. So a leader that finds a notice uncommitted knows that nobody has received
it, and nobody will: the write of another leader that commits it is on a revision that is gone by then.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cluster.core.alerts import NoticeKind

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from cluster.core.alerts import Incident, Notice


def with_commitments(incident: Incident, usable: Container[str], locked: Container[str]) -> Incident:
    """All notices to usable channels are committed. Those to locked ones wait, and those to channels that do not exist go.

    So the notices of one channel are committed in their order, and never the end of an incident before its beginning.
    """
    pending: list[Notice] = []
    notified = [] if incident.notified is None else list(incident.notified)
    for n in incident.pending_notices:
        if n.committed:
            pending.append(n)
            continue
        now = tuple(c for c in n.channels if c in usable)
        later = tuple(c for c in n.channels if c in locked)
        if now:
            pending.append(replace(n, channels=now, committed=True))
        if later:
            pending.append(replace(n, channels=later))
        if n.since_ms == incident.opened_ms and n.kind is not NoticeKind.RESOLVED:
            notified += now
    known = None if incident.notified is None else tuple(dict.fromkeys(notified))
    return replace(incident, pending_notices=tuple(pending), notified=known)


def without_news(incident: Incident) -> Incident:
    """The incident without the notices that are not worth sending when a window that mutes them has ended.

    Reminders are not. Nor is anything about an incident that began and ended while it was muted, to the channels that
    were not notified of its beginning.
    """
    unheard = {
        (n.since_ms, channel)
        for n in incident.pending_notices
        if n.kind is NoticeKind.BEGAN and not n.committed and not (incident.open and n.since_ms == incident.opened_ms)
        for channel in n.channels
    }

    def stays(n: Notice, channel: str) -> bool:
        return n.committed or (n.kind is not NoticeKind.REMINDER and (n.since_ms, channel) not in unheard)

    return _only(incident, stays)


def without_made(incident: Incident, usable: Container[str], locked: Container[str]) -> Incident:
    """The incident without the committed notices, of which the alert jobs exist, except to channels that are locked.

    A channel that has gone knows of nothing: one that is made under its name is another one.
    """
    gone = {
        c for n in incident.pending_notices if n.committed for c in n.channels if c not in usable and c not in locked
    }
    known = None if incident.notified is None else tuple(c for c in incident.notified if c not in gone)
    return _only(
        replace(incident, notified=known),
        lambda n, channel: channel in locked if n.committed else channel not in gone,
    )


def _only(incident: Incident, stays: Callable[[Notice, str], bool]) -> Incident:
    kept = (replace(n, channels=tuple(c for c in n.channels if stays(n, c))) for n in incident.pending_notices)
    return replace(incident, pending_notices=tuple(n for n in kept if n.channels))

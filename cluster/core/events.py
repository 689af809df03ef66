"""Live events: what happened to executions, jobs, the leader, circuit breakers and alerts, as values for viewers.

The id of an event is a position in the database's log of changes, the same on every node. Ids are hexadecimal texts that
sort as the events happened. An event shows what `GET` shows of the same thing, and never a header, a body or a secret.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cluster.core.execution.view import FINAL_STATES
from cluster.core.instants import format_instant

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cluster.core.execution.model import Attempt

KINDS = ("execution", "job", "leader", "breaker", "alert")
EXECUTION_STATES = FINAL_STATES | {"retrying"}
"""An execution makes an event when an attempt failed and another one follows, and when it is final."""
_POSITION = re.compile(r"82([0-9A-F]{8})([0-9A-F]{8})[0-9A-F]{2,2000}\Z", re.ASCII)


@dataclass(slots=True)
class LiveEvent:
    """One event. `job_id`: the job that it is about, if it is about one; `state`: of an execution.

    `tags` are those of the job; None: they were not looked up.
    """

    id: str
    kind: str
    data: dict[str, Any]
    job_id: str | None = None
    state: str | None = None
    tags: frozenset[str] | None = None
    frame: bytes | None = None
    """The event as it is sent, once it was made for a viewer: the others share it."""

    def know_tags(self, tags: frozenset[str]) -> None:
        """Keep the tags of its job."""
        self.tags = tags

    def keep_frame(self, frame: bytes) -> bytes:
        """Keep the event as it is sent."""
        self.frame = frame
        return frame


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events a viewer wants: of one of `kinds`, of these jobs, of jobs with one of these tags, of executions in one
    of these states. Empty: all.
    """

    kinds: frozenset[str] = frozenset()
    jobs: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()
    states: frozenset[str] = frozenset()

    def matches(self, e: LiveEvent) -> bool:
        """Whether the viewer wants this event. An event that is about no job matches no job and no tag."""
        return (
            (not self.kinds or e.kind in self.kinds)
            and (not self.states or e.state in self.states)
            and (not self.jobs or e.job_id in self.jobs)
            and (not self.tags or (e.tags is not None and not self.tags.isdisjoint(e.tags)))
        )


@dataclass(frozen=True, slots=True)
class Demand:
    """What the viewers of a node want together, so that the database leaves out all else.

    `states`: of executions; `tags`: whether tags have to be looked up.
    """

    kinds: frozenset[str] = frozenset()
    states: frozenset[str] = frozenset()
    tags: bool = False

    def __or__(self, other: Demand) -> Demand:
        return Demand(self.kinds | other.kinds, self.states | other.states, self.tags or other.tags)

    def covers(self, other: Demand) -> bool:
        """Whether nothing that `other` wants is left out."""
        return self | other == self


def demand_of(f: EventFilter) -> Demand:
    """What one viewer wants."""
    kinds = f.kinds or frozenset(KINDS)
    if f.jobs or f.tags:
        kinds -= {"leader", "breaker"}
    if f.states:
        kinds &= {"execution"}
    states = (f.states or EXECUTION_STATES) if "execution" in kinds else frozenset[str]()
    return Demand(kinds, states, bool(f.tags))


def position_time(position: str) -> tuple[int, int] | None:
    """The database's time of a position, `(seconds since 1970, number within the second)`; None: it is none."""
    match = _POSITION.match(position)
    return None if match is None else (int(match[1], 16), int(match[2], 16))


def execution_event(position: str, execution_id: str, state: str, known: Mapping[str, Any]) -> LiveEvent:
    """An execution that is final or is tried again. `known`: what the change says of it, by the names of `GET`."""
    job_id, _, rest = execution_id.partition(":")
    due = rest[:13]
    data = {
        "executionId": execution_id,
        "jobId": job_id,
        "state": state,
        "scheduledAt": format_instant(int(due)) if due.isdigit() else None,
        **known,
    }
    return LiveEvent(position, "execution", data, job_id, state)


def attempt_fields(last: Attempt | None, state: str, count: int) -> dict[str, Any]:
    """What an event shows of the last attempt of an execution with `count` attempts."""
    if last is None:
        return {}
    error = last.error
    if error is None and state != "succeeded" and last.status is not None:
        error = f"the target answered {last.status}"
    return {
        "timestamp": format_instant(last.sent_ms),
        "attempt": count,
        "status": last.status,
        "duration": f"{last.duration_ms:.0f}ms",
        "error": None if state == "succeeded" else error,
        "node": last.node,
    }

"""Chaining a job to another one: the intent first, then the check that no cycle is closed, then the change of the job.

Of two changes that would close a cycle together each has written its intent before it looks. So one of them at least sees the
other, and they are never both made. `cluster/README.md` ("What follows an execution") says more.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.clock import Clock
from cluster.core.errors import Conflict, Fault, InvalidInput, ParentMissing
from cluster.core.lifecycle import JobState
from cluster.store import chain_links
from cluster.store.mongo import schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from collections.abc import Set as AbstractSet

    from cluster.core.job.definition import JobChange, StoredJob
    from cluster.store.mongo.client import Database

LONGEST = 100
"""Jobs of one chain above a job, whichever of its links was made last."""
INTENT_MS = 60_000
"""An intent that is older is of a change that was not made."""
FRESH_SECONDS = 30.0
"""Within so long the change must be written after its intent: well within `INTENT_MS`."""
TRIES = 5
FIELD = "after.jobId"
NO_LINKS: Mapping[str, str | None] = {}
"""Nothing is known of which job runs after which."""


@dataclass(frozen=True, slots=True)
class Link:
    """The note of a change that is about to be written: its id, the job, the one that it is to run after, and when it was made."""

    id: str
    job: str
    after: str
    at: float

    @property
    def is_fresh(self) -> bool:
        """Whether the change may still be written."""
        return monotonic() - self.at < FRESH_SECONDS


def monotonic() -> float:
    """Seconds, of which only differences mean something."""
    return Clock.monotonic()


@dataclass(frozen=True, slots=True)
class RequestTime:
    """When a request began (ms), and how long ago that is: an import may take minutes, and an intent must not be born old."""

    began_ms: int
    at: float

    @classmethod
    def begin(cls, now_ms: int) -> RequestTime:
        """The time of a request that begins now."""
        return cls(now_ms, monotonic())

    def now_ms(self) -> int:
        """The present time."""
        return self.began_ms + int((monotonic() - self.at) * 1000)


async def require_version(db: Database, change: JobChange) -> None:
    """Raises `Conflict` for callbacks and chains while nodes may run that would forget what follows an execution."""
    d = change.job.definition
    if (d.callbacks or d.after is not None) and (await schema.version_of(db) or 0) < schema.FOLLOW_UPS_VERSION:
        raise Conflict(
            f"callbacks and `after` need schema version {schema.FOLLOW_UPS_VERSION}: replace every node, then run "
            "`horae db migrate`"
        )


def new_link_needed(old: StoredJob | None, change: JobChange) -> bool:
    """Whether the change gives the job another job to run after. A deleted job runs after none."""
    after = change.job.definition.after
    before = None if old is None or old.state is JobState.DELETED else old.definition.after
    return after is not None and (before is None or before.job_id != after.job_id)


async def link(
    db: Database,
    old: StoredJob | None,
    change: JobChange,
    time: RequestTime,
    likely: Mapping[str, str | None] = NO_LINKS,
) -> Link | None:
    """Note what the change is about to do, and check it. None: it chains the job to no other one than before.

    `likely`: which job jobs probably run after, such as those of one import. Their links are read at once.
    Raises `ParentMissing` for a job that does not exist, and `InvalidInput` for a cycle, or for one job too many.
    """
    after = change.job.definition.after
    if after is None or not new_link_needed(old, change):
        return None
    child, parent = change.job.id, after.job_id
    if child == parent:
        raise InvalidInput([Fault(FIELD, "must name another job: a job cannot run after itself")])
    for left in range(TRIES, 0, -1):
        made, now_ms = Link(uuid.uuid4().hex, child, parent, monotonic()), time.now_ms()
        await _intend(db, made, now_ms)
        fault = await _fault(db, child, parent, now_ms, likely)
        if fault is None:
            return made
        await withdraw(db, made)
        if fault.certain or left == 1:
            raise InvalidInput([Fault(FIELD, fault.message)])
        # Another change is about to close the cycle. One of both is made, if they do not look at the same time again.
        await asyncio.sleep(random.uniform(0.02, 0.2))  # noqa: S311 - spreads requests, guards nothing
    raise AssertionError  # pragma: no cover - the last try returns or raises


async def _intend(db: Database, made: Link, now_ms: int) -> None:
    parent = made.after
    if await chain_links.intend(db, made.job, parent, now_ms, made.id):
        return
    had_no_room = await chain_links.make_room(db, parent)
    if await chain_links.intend(db, made.job, parent, now_ms, made.id):
        return
    if had_no_room:
        most = f"{chain_links.MOST_CHAINED:,} jobs run after '{parent}', and no more can: name one of these, or another job"
        raise InvalidInput([Fault(FIELD, most)])
    raise ParentMissing([Fault(FIELD, f"there is no job '{parent}', or it was deleted: create it first")])


async def confirm(db: Database, link: Link) -> None:
    """The change is made."""
    await chain_links.confirm(db, link.job, link.after, link.id)


async def withdraw(db: Database, link: Link) -> None:
    """The change is not made."""
    await chain_links.withdraw(db, link.after, link.id)


@dataclass(frozen=True, slots=True)
class _Found:
    message: str
    certain: bool
    """Whether it is so by what is stored, and not by what another change is about to do."""


async def _fault(db: Database, child: str, parent: str, now_ms: int, likely: Mapping[str, str | None]) -> _Found | None:
    """Why the job may not run after the other one. None: it may."""
    seen, certain = {parent}, {parent}
    level: AbstractSet[str] = {parent}
    links: dict[str, dict[str, bool]] = {}
    for jobs_above in range(1, LONGEST + 1):
        if unread := level - links.keys():
            # Also read early, a link is read behind the own intent, and its intents before what is stored.
            likely_above = _chain_above(unread, likely) - links.keys()
            links |= await chain_links.parents(db, unread | likely_above, now_ms - INTENT_MS)
        above = _merged(links[job] for job in level)
        if child in above:
            why = f"would close a cycle: '{parent}' runs after '{child}', or after a job that does"
            return _Found(why, certain=above[child] and certain >= set(level))
        certain |= {job for job, stored in above.items() if stored and certain >= set(level)}
        level = above.keys() - seen
        seen |= level
        if not level:
            return await _fault_below(db, child, LONGEST - jobs_above, now_ms)
    return _too_long()


def _chain_above(jobs: Iterable[str], links: Mapping[str, str | None]) -> set[str]:
    """The jobs above these by `links`, as far as a chain may be long."""
    found: set[str] = set()
    for job in jobs:
        name = links.get(job)
        while name is not None and name not in found and len(found) < LONGEST:
            found.add(name)
            name = links.get(name)
    return found


def _merged(links: Iterable[Mapping[str, bool]]) -> dict[str, bool]:
    """The jobs of all these, each with whether one of these says that it is stored."""
    merged: dict[str, bool] = {}
    for found in links:
        for job, stored in found.items():
            merged[job] = merged.get(job, False) or stored
    return merged


def _too_long() -> _Found:
    return _Found(f"would put more than {LONGEST} jobs above one of the chain", certain=True)


async def _fault_below(db: Database, child: str, most: int, now_ms: int) -> _Found | None:
    """Why the jobs that run after the job may not be so far below: there are more than `most` levels of them. None: they may.

    Of two changes that make one chain too long together each has written its intent before it looks up and down.
    """
    seen = {child}
    level: AbstractSet[str] = {child}
    for _ in range(most + 1):
        level = await chain_links.children(db, level, now_ms - INTENT_MS) - seen
        seen |= level
        if not level:
            return None
    return _too_long()

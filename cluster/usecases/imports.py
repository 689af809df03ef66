"""Imports: many jobs at once, each as if it had been put by itself."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.core.actor import HORAE, acting
from cluster.core.errors import InvalidInput
from cluster.core.job.chain_order import parents_first
from cluster.core.job.changes import end_pause
from cluster.core.job.wanted_state import define_in_state
from cluster.core.lifecycle import JobState
from cluster.store import calendars, chain_links, jobs, pauses
from cluster.usecases import chains
from cluster.usecases.jobs import (
    new_job_id,
    new_stamp,
    put,
    record_retention,
    require_alert_channels,
    require_callback_channels,
    stored_secrets,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cluster.core.job.definition import JobChange
    from cluster.core.job.wanted import WantedJob
    from cluster.store.mongo.client import Database


LINES_PER_TURN = 20
"""After this many lines the event loop runs other tasks: to look for the next occurrence of a schedule may take a ms."""


@dataclass(frozen=True, slots=True)
class ImportLine:
    """One job of an import: its number in the input (1..), its id if it has one, and the job."""

    number: int
    job_id: str | None
    wanted: WantedJob
    size: int = 0
    """Bytes of the line."""

    @property
    def name(self) -> str:
        """The id of its job; of a job whose id will be generated one that no job has."""
        return self.job_id or f":{self.number}"


@dataclass(frozen=True, slots=True)
class ImportResult:
    """How many jobs of some lines were created, updated, unchanged; `refused` are the other lines with their faults."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    refused: tuple[tuple[ImportLine, InvalidInput], ...] = ()


async def import_chunk(db: Database, lines: Sequence[ImportLine], now_ms: int) -> ImportResult:
    """Create or replace the jobs of these lines, as `put` does, in a few writes. Ids must not repeat in one chunk.

    It is safe to repeat for lines with ids: a job that is as it should be stays as it is.
    """
    time = chains.RequestTime.begin(now_ms)
    named = [(line.job_id or new_job_id(now_ms), line) for line in lines]
    stored = await jobs.get_many(db, [line.job_id for line in lines if line.job_id is not None])
    over = [c for old in stored.values() if (c := end_pause(old, new_stamp(now_ms))) is not None]
    if over:  # as `change_job` does
        with acting(HORAE):
            await pauses.end(db, over)
        stored |= await jobs.get_many(db, [c.job.id for c in over])
    days = await calendars.days_of(db, {n for line in lines if (n := line.wanted.calendar_name) is not None})
    inserts: list[JobChange] = []
    updates: list[JobChange] = []
    linked: list[tuple[str, ImportLine]] = []
    refused: list[tuple[ImportLine, InvalidInput]] = []
    unchanged = revived = 0
    for number, (job_id, line) in enumerate(named):
        if number % LINES_PER_TURN == 0:
            await asyncio.sleep(0)
        old = stored.get(job_id)
        try:
            await require_alert_channels(db, line.wanted.alert_channels)
            await require_callback_channels(db, line.wanted.callback_channels)
            definition = line.wanted.with_days(days).resolve(stored_secrets(old))
            change = define_in_state(old, job_id, definition, new_stamp(now_ms), line.wanted.state, line.wanted.pause)
        except InvalidInput as exc:
            refused.append((line, exc))
            continue
        if change is not None:
            await chains.require_version(db, change)
        if change is None:
            unchanged += 1
        elif chains.new_link_needed(old, change):
            linked.append((job_id, line))
        elif old is None:
            inserts.append(change)
        else:
            updates.append(change)
            revived += old.state is JobState.DELETED
    await record_retention(db, [*inserts, *updates])
    links = await chain_links.links_of_created(db, [c.job.id for c in inserts], now_ms) if inserts else {}
    raced = await jobs.insert_many(db, inserts, links)
    if not await jobs.update_many(db, updates):
        # Another request changed one of these jobs meanwhile. Each is put once more, to find out which were written: a
        # job that is as it should be stays as it is.
        raced |= {c.job.id for c in updates}
    for job_id, line in named:
        if job_id in raced:
            await put(db, job_id, line.wanted, time.now_ms())
    chained = await _put_linked(db, linked, refused, time)
    created = len(inserts) + revived + chained
    updated = len(lines) - created - unchanged - len(refused)
    return ImportResult(created, updated, unchanged, tuple(refused))


def others_first(lines: Iterable[tuple[str, ImportLine]]) -> list[tuple[str, ImportLine]]:
    """These lines by name, in an order in which a job comes after the one that it runs after. Cycles stay as they are."""
    by_name = dict(lines)
    return [(name, by_name[name]) for name in parents_first(_links_of(by_name.items()))]


def _links_of(lines: Iterable[tuple[str, ImportLine]]) -> dict[str, str | None]:
    """Which job these lines' jobs are to run after, by name."""
    after = {name: line.wanted.definition.after for name, line in lines}
    return {name: None if a is None else a.job_id for name, a in after.items()}


async def _put_linked(
    db: Database,
    linked: Sequence[tuple[str, ImportLine]],
    refused: list[tuple[ImportLine, InvalidInput]],
    time: chains.RequestTime,
) -> int:
    """Put the jobs that run after others, one by one; those last whose other job is among them too. How many are new."""
    created, left = 0, others_first(linked)
    links = _links_of(linked)  # those of a chain are read at once, and not job by job for each of its jobs
    while left:
        waiting: list[tuple[str, ImportLine]] = []
        faults: list[tuple[ImportLine, InvalidInput]] = []
        for job_id, line in left:
            try:
                created += (await put(db, job_id, line.wanted, time.now_ms(), likely_links=links))[1]
            except InvalidInput as exc:
                waiting.append((job_id, line))
                faults.append((line, exc))
        if len(waiting) == len(left):
            refused += faults
            break
        left = waiting
    return created

"""Actions: what a request for one change of many jobs matches, and its beginning. The leader does it (`leader/act.py`)."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cluster.core.actor import current_actor
from cluster.core.audit_entry import AuditEntry, entry_id, with_counts
from cluster.core.errors import Conflict, Fault, InvalidInput, NotFound
from cluster.store import actions, audit
from cluster.store.progress import DONE
from cluster.store.queries import action_targets, job_list

if TYPE_CHECKING:
    from cluster.core.job.definition import StoredJob
    from cluster.store.actions import Action
    from cluster.store.mongo.client import Database
    from cluster.store.queries.job_filter import JobListQuery

KINDS = ("pause", "resume", "trigger", "delete", "patch")
MOST_JOBS = 200_000
"""Jobs of one action: their ids are read and stored within the deadline of one request."""
PAGE = 500
"""Jobs of one page; less at a low rate. What a page costs by itself, some 70 ms, is a small part of it then."""
SAMPLE = 10


@dataclass(frozen=True, slots=True)
class Preview:
    """How many jobs an action would change, and the first of them by name."""

    matched: int
    sample: tuple[StoredJob, ...]


async def preview(db: Database, q: JobListQuery) -> Preview:
    """What the filter matches now. Raises `InvalidInput` for too many jobs."""
    matched = await action_targets.count(db, q, MOST_JOBS)
    _require_few(matched)
    return Preview(matched, await sample(db, q))


async def sample(db: Database, q: JobListQuery) -> tuple[StoredJob, ...]:
    """The first jobs that match, by name."""
    by_name = replace(q, order="name", descending=False, limit=SAMPLE, after=None)
    return tuple(listed.job for listed in (await job_list.page(db, by_name)).jobs if listed.job is not None)


async def start(db: Database, action: Action, q: JobListQuery | None) -> Action:
    """Store the jobs that match now, none if `q` is None, then the action. A request that is repeated finds the first one.

    The pages of each try have a name of their own, and no leader sees them before the action names them. Raises
    `InvalidInput` for too many jobs.
    """
    stored = await actions.get(db, action.id)
    if stored is not None:
        return stored
    size = max(1, min(PAGE, int(action.per_second)))
    pages = uuid.uuid4().hex
    page: list[str] = []
    matched = number = 0
    if q is not None:
        async for job_id in action_targets.matching_ids(db, q, MOST_JOBS):
            matched += 1
            _require_few(matched)
            page.append(job_id)
            if len(page) == size:
                await actions.insert_page(db, pages, number, page, action.created_ms)
                page, number = [], number + 1
    if page:
        await actions.insert_page(db, pages, number, page, action.created_ms)
    action = replace(action, matched=matched, pages=pages, by=current_actor())
    if await actions.insert(db, action):
        await audit.record(db, entry_of(action))
        return action
    await actions.delete_pages(db, pages)
    return require(await actions.get(db, action.id), action.id)


async def stop(db: Database, action_id: str, now_ms: int) -> Action:
    """Stop the action: no further page is begun. Raises `NotFound`, and `Conflict` if it is done already."""
    action = require(await actions.stop(db, action_id, now_ms), action_id)
    if action.state == DONE:
        raise Conflict("the action is done: there is nothing left to stop")
    await audit.record(db, entry_of(action))
    return action


def entry_of(action: Action) -> AuditEntry:
    """The entry of the audit log that stands for all changes of the action, with its counts so far. The action is stored
    first, and the leader writes the entry again with each page: so a change has its entry, and none is invented.
    """
    entry = AuditEntry(
        id=entry_id(action.created_ms, action.id),
        at_ms=action.created_ms,
        object=object_of(action),
        action=action.kind,
        by=action.by,
        detail={"filter": action.filter["asked"], "fields": list(action.fields)},
    )
    counts = {"matched": action.matched, "done": action.done, "leftOut": action.left_out, "failed": action.failed}
    return with_counts(entry, **counts)


def object_of(action: Action) -> str:
    """What the audit log and the revisions of jobs call the action."""
    return f"action:{action.id}"


def require(action: Action | None, action_id: str) -> Action:
    """The action. Raises `NotFound` if there is none."""
    if action is None:
        raise NotFound(f"there is no action '{action_id[:64]}', or it ended more than a week ago")
    return action


def _require_few(matched: int) -> None:
    if matched > MOST_JOBS:
        raise InvalidInput(
            [Fault("filter", f"matches more than {MOST_JOBS:,} jobs: narrow it, and take several actions")]
        )

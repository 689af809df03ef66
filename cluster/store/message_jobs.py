"""Messages as dispatch needs them: made of their executions, without a read, but for large bodies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.store import channels, executions
from cluster.store.alert_jobs import to_channel
from cluster.store.mongo.message_codec import message_as_job

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.core.execution.model import Execution, Job
    from cluster.store.mongo.client import Database


async def as_jobs(
    db: Database, sent: Sequence[Execution], *, large_bodies: bool = False
) -> tuple[dict[str, Job], dict[str, str]]:
    """These messages by id; and by id why others cannot be sent. `large_bodies`: read those too."""
    bodies: dict[str, bytes] = {}
    if large_bodies:
        bodies = await executions.large_bodies(db, [e.id for e in sent])
    jobs: dict[str, Job] = {}
    unreadable: dict[str, str] = {}
    for e in sent:
        try:
            if large_bodies and e.message and "body_size" in e.message and e.id not in bodies:
                continue  # it is not owed any more: this node has lost it
            jobs[e.job_id] = message_as_job(e, e.message or {}, db.keyring, bodies.get(e.id))
        except Exception as exc:  # whatever is wrong with one message, the others are sent
            unreadable[e.job_id] = _why(exc)
    to_channels = {str(j.channel) for j in jobs.values() if j.channel is not None}
    if to_channels:
        usable, locked = await channels.for_sending(db, to_channels)
        for name, job in [(i, j) for i, j in jobs.items() if j.channel is not None]:
            channel = usable.get(str(job.channel))
            if channel is None:
                unreadable[name] = locked.get(str(job.channel), f"there is no channel '{job.channel}'")
                del jobs[name]
                continue
            try:
                jobs[name] = to_channel(job, channel)
            except Exception as exc:  # as above: its body may be none that a channel has a form for
                unreadable[name] = _why(exc)
                del jobs[name]
    return jobs, unreadable


def _why(exc: Exception) -> str:
    return f"{type(exc).__name__}: {str(exc)[:200]}"

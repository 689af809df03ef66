"""What follows one execution, as users see it: its callbacks, and the runs of jobs that are chained to its job."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.core.execution.follow_up import FAILURE, SUCCESS
from cluster.core.ids import callback_id, chained_id, is_callback, is_message
from cluster.store import chain_links
from cluster.store.mongo.operation import operation
from cluster.store.queries.jobs_and_executions import WITHOUT_MESSAGE, merge_by_id

if TYPE_CHECKING:
    from cluster.core.execution.view import ExecutionView
    from cluster.store.mongo.client import Database

MOST = 100


async def of_execution(db: Database, run: ExecutionView, now_ms: int) -> list[ExecutionView]:
    """What is owed or final of it, at most 100. Their ids follow from the execution; jobs are asked as they are now."""
    if is_callback(run.job_id):
        return []
    ids = [callback_id(run.id, kind, run.due_ms) for kind in (SUCCESS, FAILURE)]
    if not is_message(run.job_id):
        children = (await chain_links.chained_ids(db, [run.job_id])).get(run.job_id, [])
        ids += [chained_id(job, run.id, run.due_ms) for job in sorted(children)[:MOST]]
    query = {"_id": {"$in": ids}}
    with operation():
        owed = await db.api["executions"].find(query, WITHOUT_MESSAGE).to_list()
        final = await db.api["history"].find(query, WITHOUT_MESSAGE).to_list()
    views = merge_by_id(owed, final, now_ms)
    return [views[i] for i in ids if i in views]

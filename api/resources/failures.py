"""`/executions/failures`: what failed for good, grouped by host and error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from api.http.requests import QueryParameters
from api.http.responses import send_json
from api.resources import rendering
from api.resources.jobs import Resource
from cluster.core.instants import format_instant
from cluster.core.lifecycle import State
from cluster.store.queries import failure_groups
from cluster.store.queries.failure_groups import FailureGroup, FailureQuery

if TYPE_CHECKING:
    from falcon.asgi import Request, Response

FAILED = frozenset({State.FAILED.value, State.DEAD.value})
DAY_MS = 86_400_000
DEFAULT_GROUPS, MAX_GROUPS = 50, 200
JOBS_NAMED = 20


class Failures(Resource):
    """`/executions/failures`."""

    async def on_get(self, req: Request, resp: Response) -> None:
        """The groups of failures, the largest first; of the last 24 hours unless `since` says otherwise."""
        q = QueryParameters(req, ("since", "until", "state", "limit"))
        states = q.choices("state", FAILED) or FAILED
        since, until = q.instant("since"), q.instant("until")
        limit = q.number("limit", DEFAULT_GROUPS, MAX_GROUPS)
        q.raise_faults()
        since_ms = self.clock.now_ms() - DAY_MS if since is None else since
        found = await failure_groups.failures(self.db, FailureQuery(states, since_ms, until, limit))
        send_json(
            resp,
            {
                "since": format_instant(since_ms),
                "executions": found.executions,
                "complete": found.counted_since_ms is None,
                "countedSince": None if found.counted_since_ms is None else format_instant(found.counted_since_ms),
                "groupsInAll": found.groups_in_all,
                "groups": [_group_json(g) for g in found.groups],
            },
        )


def _group_json(g: FailureGroup) -> dict[str, Any]:
    return {
        "host": g.host,
        "error": g.error,
        "status": g.status,
        "executions": g.executions,
        "jobs": len(g.job_ids),
        "jobIds": list(g.job_ids[:JOBS_NAMED]),
        "latestAt": format_instant(g.latest_ms),
        "latest": [rendering.execution_json(v) | {"jobId": v.job_id} for v in g.latest],
    }

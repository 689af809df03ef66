"""`/cluster/work` and `/cluster/database`: what the cluster has in hand, and the replica set that it stands on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from api.http.requests import QueryParameters
from api.http.responses import send_json
from api.resources.jobs import Resource
from cluster.core.instants import format_instant, format_optional_instant
from cluster.store.maintenance import health
from cluster.store.queries import work_in_hand

if TYPE_CHECKING:
    from falcon.asgi import Request, Response

    from cluster.store.queries.work_in_hand import HeldLease, LimitInUse, OpenRange

LISTED = 50
"""Of each kind so many are listed; `...InAll` is the number of all."""


class ClusterWork(Resource):
    """`/cluster/work`."""

    async def on_get(self, req: Request, resp: Response) -> None:
        """Leases of batches, limits with who waits for them, and ranges of time that are still to be caught up."""
        QueryParameters(req, ()).raise_faults()
        leased, limits, ranges = await asyncio.gather(
            work_in_hand.leases(self.db, LISTED),
            work_in_hand.limits_in_use(self.db, LISTED),
            work_in_hand.open_ranges(self.db, LISTED),
        )
        send_json(
            resp,
            {
                "leases": [_lease_json(lease) for lease in leased[1]],
                "leasesInAll": leased[0],
                "limits": [_limit_json(u) for u in limits[1]],
                "limitsInAll": limits[0],
                "catchUp": [_range_json(r) for r in ranges[1]],
                "catchUpInAll": ranges[0],
            },
        )


class ClusterDatabase(Resource):
    """`/cluster/database`."""

    async def on_get(self, req: Request, resp: Response) -> None:
        """MongoDB as this node sees it. What its user may not read is null."""
        QueryParameters(req, ()).raise_faults()
        state = await health.read_replica_set(self.db, self.clock.monotonic)
        members = state.members
        send_json(
            resp,
            {
                "server": state.server,
                "replicaSet": state.set_name,
                "schemaVersion": state.schema_version,
                "roundTripMs": round(state.round_trip_ms, 1),
                "oplogWindowSeconds": None if state.oplog_window_ms is None else state.oplog_window_ms // 1000,
                "members": None
                if members is None
                else [{"name": m.name, "state": m.state, "healthy": m.healthy, "lagMs": m.lag_ms} for m in members],
            },
        )


def _lease_json(lease: HeldLease) -> dict[str, Any]:
    return {
        "batch": lease.batch,
        "nodeId": lease.node,
        "token": lease.token,
        "claims": lease.claims,
        "claimedAt": format_optional_instant(lease.claimed_ms),
        "expiresAt": format_instant(lease.expires_ms),
        "executions": lease.executions,
        "attempt": lease.attempt,
        "late": lease.late,
        "host": lease.host or None,
    }


def _limit_json(u: LimitInUse) -> dict[str, Any]:
    return {
        "queue": u.queue,
        "jobId": u.job_id,
        "maxPerSecond": u.limits.per_second,
        "maxConcurrent": u.limits.concurrent,
        "running": u.running,
        "runningExecutions": list(u.running_ids),
        "waiting": u.waiting,
        "nextExecutions": list(u.next_ids),
    }


def _range_json(r: OpenRange) -> dict[str, Any]:
    return {
        "schedule": r.schedule,
        "jobId": r.job_id,
        "from": format_instant(r.from_ms),
        "until": format_instant(r.to_ms),
        "noticedAt": format_instant(r.noticed_ms),
        "reached": format_instant(r.reached_ms),
    }

"""`/cluster`: leader, nodes, backlog, circuit breakers, rates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from api.http.responses import send_json
from api.resources.jobs import Resource
from cluster.core.histogram import Histogram
from cluster.core.instants import format_instant, format_optional_instant
from cluster.store import batches, breakers, leases, nodes
from cluster.store.queries import jobs_and_executions
from cluster.store.queries.active_jobs import ActiveJobs

if TYPE_CHECKING:
    from falcon.asgi import Request, Response

    from api.http.context import Services
    from cluster.core.limits.circuit_breaker import Breaker
    from cluster.store.nodes import NodeStatus

MAX_BREAKERS = 100
"""The breakers that opened first are listed; `breakersInAll` is the number of all."""
RATE_NAMES = ("succeeded", "failed", "dead", "retried", "attempts")


class Cluster(Resource):
    """`/cluster`."""

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self._jobs = ActiveJobs(self.db, self.clock.monotonic)

    async def on_get(self, _req: Request, resp: Response) -> None:
        """The state of the cluster in the database; every node responds with the same."""
        leader = await leases.leadership(self.db)
        present, now_ms = await nodes.nodes_and_clock(self.db)
        waiting = await batches.backlog(self.db)
        in_all, not_closed = await breakers.earliest_opened(self.db, MAX_BREAKERS)
        send_json(
            resp,
            {
                "leader": {
                    "nodeId": leader.node,
                    "term": leader.term,
                    "since": format_optional_instant(leader.since_ms),
                    "renewedAt": format_optional_instant(leader.renewed_ms),
                },
                "nodes": [_node_json(n) for n in present],
                "backlog": {
                    "ready": waiting.ready,
                    "leased": waiting.leased,
                    "late": waiting.late,
                    "heldBack": waiting.held_back,
                    "oldestDueAt": format_optional_instant(waiting.oldest_ms),
                },
                "breakers": [_breaker_json(b, now_ms) for b in not_closed],
                "breakersInAll": in_all,
                "activeJobs": await self._jobs.number(),
                "rates": await self._rates(present, now_ms),
            },
        )

    async def _rates(self, present: list[NodeStatus], now_ms: int) -> dict[str, Any]:
        since, counts = await jobs_and_executions.recent_counts(self.db, now_ms)
        seconds = max(1.0, (now_ms - since) / 1000)
        drift = Histogram()
        for n in present:
            drift.merge(n.counters.get("drift_recent", ()))
        return {
            "windowSeconds": round(seconds, 1),
            **{f"{name}PerSecond": round(counts.get(name, 0) / seconds, 2) for name in RATE_NAMES},
            "driftMsP50": drift.quantile(0.5),
            "driftMsP99": drift.quantile(0.99),
        }


def _breaker_json(b: Breaker, now_ms: int) -> dict[str, Any]:
    return {
        "host": b.host,
        "state": "half-open" if b.half_open else "open",
        "openedAt": format_instant(b.opened_ms),
        "triedAgainAt": format_instant(max(b.until_ms, now_ms)),
        "opens": b.opens,
        "reason": b.why,
    }


def _node_json(n: NodeStatus) -> dict[str, Any]:
    return {
        "nodeId": n.id,
        "host": n.host,
        "pid": n.pid,
        "version": n.version,
        "startedAt": format_instant(n.started_ms),
        "seenAt": format_instant(n.seen_ms),
        "clockOffsetMs": n.clock_offset_ms,
        "inFlight": n.in_flight,
        "waiting": n.waiting,
        "leading": n.leading,
        "draining": n.draining,
    }

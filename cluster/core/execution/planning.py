"""From jobs and due times to execution and batch documents: grouping, and nothing else."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import TYPE_CHECKING, TypeVar

from cluster.core.execution.model import Batch, Execution
from cluster.core.ids import execution_id, spread_ms
from cluster.core.limits.permits import batch_limit_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cluster.core.execution.model import JobSchedule

T = TypeVar("T")
MAX_BATCH = 128
MIN_BATCH = 16


@dataclass(frozen=True, slots=True)
class Plan:
    """What to insert: executions first, then batches."""

    executions: list[Execution]
    batches: list[Batch]


@dataclass(frozen=True, slots=True)
class Grouping:
    """How executions become batches: at most `size` each, claimable `prefetch_ms` before they are sent.

    Late work is grouped by lane alone, in order of due time: it goes out as soon as it is claimed.
    """

    size: int
    prefetch_ms: int
    late: bool = False


def batch_size(executions_per_group: int, nodes: int) -> int:
    """Batches small enough that every live node gets some of one second's work, large enough to stay cheap."""
    return max(MIN_BATCH, min(MAX_BATCH, -(-executions_per_group // max(1, 2 * nodes))))


def group_by_host(items: Sequence[T], host: Callable[[T], str]) -> list[tuple[str, list[T]]]:
    """What goes to one host apart, so that it can be held back alone; hosts with little are put together under ''.

    With thousands of hosts a batch for each would cost more than it saves: whoever sends looks at each host anyway.
    """
    counts = Counter(host(i) for i in items)
    if len(counts) == 1:
        return [(next(iter(counts)), list(items))]
    apart: dict[str, list[T]] = {}
    for i in items:
        name = host(i)
        apart.setdefault(name if counts[name] >= MIN_BATCH else "", []).append(i)
    return list(apart.items())


def plan_batches(
    owed: Iterable[tuple[JobSchedule, Sequence[int]]], grouping: Grouping, nodes: int, new_id: Callable[[], str]
) -> Plan:
    """Executions for `(job, due instants)` pairs, in batches that share a send second, lane and attempt number.

    `new_id` makes batch ids. Due instants that the job does not owe must have been left out.
    """
    # (send, due, job): executions are made last, when the batch they name is known.
    groups: defaultdict[tuple[int, int, str], list[tuple[int, int, JobSchedule]]] = defaultdict(list)
    for job, dues in owed:
        spread = spread_ms(job.id, job.spread_seconds)
        for due in dues:
            send = due + spread
            groups[0 if grouping.late else send // 1000, job.lane, batch_limit_key(job.limit_key) or ""].append(
                (send, due, job)
            )
    made = Plan([], [])
    for (_, lane, gate), group in sorted(groups.items(), key=itemgetter(0)):
        if grouping.late:
            group.sort(key=itemgetter(0))
        size = MAX_BATCH if grouping.late else min(grouping.size, batch_size(len(group), nodes))
        for host, share in group_by_host(group, _host):
            for start in range(0, len(share), size):
                _batch(
                    made,
                    share[start : start + size],
                    Batch(new_id(), (), lane, 0, 0, 0, host=host, limit_key=gate or None),
                    grouping,
                )
    return made


def _host(owed: tuple[int, int, JobSchedule]) -> str:
    return owed[2].host


def _batch(made: Plan, owed: Sequence[tuple[int, int, JobSchedule]], like: Batch, grouping: Grouping) -> None:
    """Add these executions and their batch."""
    members = [
        Execution(
            execution_id(job.id, due),
            job.id,
            due,
            send,
            job.schedule_version,
            like.id,
            like.lane,
            host=job.host,
            limit_key=job.limit_key,
        )
        for send, due, job in owed
    ]
    send = members[0].send_ms
    made.executions.extend(members)
    made.batches.append(
        replace(
            like,
            ids=tuple(e.id for e in members),
            send_ms=send,
            claimable_ms=send - grouping.prefetch_ms,
            late=grouping.late,
        )
    )

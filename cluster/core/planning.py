"""From jobs and due times to execution and batch documents: grouping, and nothing else."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING

from cluster.core.ids import execution_id, spread_ms
from cluster.core.model import Batch, Execution

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cluster.core.model import Owing

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


def plan(
    owed: Iterable[tuple[Owing, Sequence[int]]], grouping: Grouping, nodes: int, new_id: Callable[[], str]
) -> Plan:
    """Executions for `(job, due instants)` pairs, in batches that share a send second, lane and attempt number.

    `new_id` makes batch ids. Due instants that the job does not owe must have been left out.
    """
    # (send, due, job): executions are made last, when the batch they name is known.
    groups: defaultdict[tuple[int, int], list[tuple[int, int, Owing]]] = defaultdict(list)
    for job, dues in owed:
        spread = spread_ms(job.id, job.spread_seconds)
        for due in dues:
            send = due + spread
            groups[0 if grouping.late else send // 1000, job.lane].append((send, due, job))
    executions: list[Execution] = []
    batches: list[Batch] = []
    for (_, lane), group in sorted(groups.items(), key=itemgetter(0)):
        if grouping.late:
            group.sort(key=itemgetter(0))
        size = MAX_BATCH if grouping.late else min(grouping.size, batch_size(len(group), nodes))
        for start in range(0, len(group), size):
            name = new_id()
            members = [
                Execution(execution_id(job.id, due), job.id, due, send, job.schedule_version, name, lane)
                for send, due, job in group[start : start + size]
            ]
            send = members[0].send_ms
            executions.extend(members)
            batches.append(
                Batch(name, tuple(e.id for e in members), lane, 0, send, send - grouping.prefetch_ms, grouping.late)
            )
    return Plan(executions, batches)

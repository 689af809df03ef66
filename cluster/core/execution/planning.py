"""From jobs and due times to executions and batches: grouping, and nothing else."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, TypeVar

from cluster.core.execution.batching import DEFAULT, DUE_NOW, BatchOptions, make_batch
from cluster.core.execution.model import FIRST_CLAIM, FIRST_TOKEN, Execution
from cluster.core.ids import LANES, execution_id, lane_of, spread_ms
from cluster.core.limits.permits import sharing_key
from cluster.core.timings import PREFETCH_MS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cluster.core.execution.crowds import Crowds
    from cluster.core.execution.model import Batch, JobSchedule

T = TypeVar("T")
MAX_BATCH = 128
MAX_CROWD_BATCH = 512
"""Of one host, in a second that holds more than two batches of `MAX_BATCH` for each node, where one or two nodes do the work. A
batch costs its node and MongoDB a dozen commands, however many executions it holds, and first executions are small.
"""
MIN_BATCH = 16
FEW_LANES = 16
"""Hosts of so many lanes, with few executions each, share no batch beyond their lane."""
SHARED_SIZE = 64
"""Hosts of more lanes share batches of about so many executions, if there are so many. A claim costs a node and MongoDB some
ms each, and what it brings is sent for a tenth of that: with batches of six, two nodes on two cores never catch up at 1,000/s.
"""
SHARING_NODES = 2
"""For so many nodes the executions of one second are divided. More nodes take turns: a batch costs what it costs, however few
it holds."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Executions and the batches they name. Executions are inserted first."""

    executions: list[Execution]
    batches: list[Batch]


def batch_size(executions_per_group: int, nodes: int) -> int:
    """The most executions of a batch: small enough that several nodes share one second, large enough to be cheap."""
    return max(MIN_BATCH, min(MAX_BATCH, -(-executions_per_group // _shares(nodes))))


def crowd_batch_size(executions: int, nodes: int) -> int:
    """The same of a second that holds so many executions. One or two nodes have batches of a size, as many for each of them. More
    nodes, that all have work to do, share batches of the usual size.
    """
    if nodes > SHARING_NODES or executions <= _shares(nodes) * MAX_BATCH:
        return batch_size(executions, nodes)
    some = max(1, nodes)
    batches = max(_shares(nodes), some * -(-executions // (some * MAX_CROWD_BATCH)))
    return -(-executions // batches)


def _shares(nodes: int) -> int:
    return 2 * max(1, min(nodes, SHARING_NODES))


def split_by_host(items: Sequence[T], host: Callable[[T], str], size: int) -> Iterator[Sequence[T]]:
    """The items of each batch, in their order. A host with many has batches of its own, of at most `size`, so that they can be
    held back; hosts with few share them by lane. A `size` beyond `MAX_BATCH` is for one host with all of them: of several, each
    has the part of it that it has of the items, or all that a host has would go to one node.

    With hundreds of hosts a batch for each lane of each second would cost more than it saves: then several lanes share one,
    and what one of these hosts holds back is taken out of a batch that was claimed.
    """
    counts = Counter(host(i) for i in items)
    lanes = {name: lane_of(name) for name, count in counts.items() if count < MIN_BATCH} if len(counts) > 1 else {}
    buckets, shared_size = LANES, min(size, MAX_BATCH)
    if len(set(lanes.values())) > FEW_LANES:
        buckets = min(LANES, -(-sum(counts[name] for name in lanes) // SHARED_SIZE))
        shared_size = MAX_BATCH
    groups: defaultdict[str | int, list[T]] = defaultdict(list)
    for i in items:
        name = host(i)
        groups[lanes[name] % buckets if name in lanes else name].append(i)
    for key, group in groups.items():
        most = shared_size if isinstance(key, int) else max(min(size, MAX_BATCH), -(-size * len(group) // len(items)))
        for start in range(0, len(group), most):
            yield group[start : start + most]


def plan_batches(
    owed: Iterable[tuple[JobSchedule, Sequence[int]]],
    nodes: int,
    new_id: Callable[[], str],
    *,
    late: bool = False,
    crowds: Crowds | None = None,
) -> Plan:
    """Executions for `(job, due instants)` pairs, in batches of one send second and queue.

    `late`: batches of late work have many send seconds, in order of due time: they are sent as soon as they are claimed.
    `crowds`: batches of a crowded second are larger, and may be claimed earlier or later, as it says, but for those that wait for
    their limit anyway.
    `new_id` makes batch ids. The due instants must be those that the job owes.
    """
    # (send, due, job): executions are made last, when the batch they name is known.
    groups: defaultdict[tuple[int, str], list[tuple[int, int, JobSchedule]]] = defaultdict(list)
    for job, dues in owed:
        spread = spread_ms(job.id, job.spread_seconds)
        for due in dues:
            send = due + spread
            groups[0 if late else send // 1000, sharing_key(job.limit_key)].append((send, due, job))
    made = Plan([], [])
    for (second, limit), group in sorted(groups.items(), key=itemgetter(0)):
        if late:
            group.sort(key=itemgetter(0))
        counted = None if limit else crowds
        if counted is None:
            place, size = 0, MAX_BATCH if late else batch_size(len(group), nodes)
        else:
            place = counted.add(second, len(group))
            size = crowd_batch_size(place + len(group), nodes)
        for share in split_by_host(group, _host, size):
            members = _executions(share, new_id())
            place += len(members)
            prefetch_ms = PREFETCH_MS
            if counted is not None:
                prefetch_ms = counted.prefetch_ms(second, place, len(members), may_wait=nodes == SHARING_NODES)
            options = BatchOptions(prefetch_ms, late=late, caught_up=late)
            made.executions.extend(members)
            made.batches.append(make_batch(members, options))
    return made


def plan_messages(messages: Sequence[Execution], nodes: int, new_id: Callable[[], str], now_ms: int) -> Plan:
    """The batches of messages, by send second and queue; and the messages, each with the batch that it names.

    Those that are due by now share batches, which are claimable at once.
    """
    groups: defaultdict[tuple[int, str], list[Execution]] = defaultdict(list)
    for e in messages:
        second = 0 if e.send_ms <= now_ms else e.send_ms // 1000
        groups[second, sharing_key(e.limit_key)].append(e)
    made = Plan([], [])
    for (second, _), group in sorted(groups.items(), key=itemgetter(0)):
        _add(made, group, batch_size(len(group), nodes), new_id, DEFAULT if second else DUE_NOW)
    return made


def plan_requested(executions: Iterable[Execution], new_id: Callable[[], str]) -> Plan:
    """The batches of executions that were asked for in number, by queue: late work, claimable at once."""
    groups: defaultdict[str, list[Execution]] = defaultdict(list)
    for e in executions:
        groups[sharing_key(e.limit_key)].append(e)
    made = Plan([], [])
    for group in groups.values():
        _add(made, group, MAX_BATCH, new_id, BatchOptions(prefetch_ms=0, late=True))
    return made


def _add(made: Plan, group: Sequence[Execution], size: int, new_id: Callable[[], str], options: BatchOptions) -> None:
    for share in split_by_host(group, attrgetter("host"), size):
        name = new_id()
        members = [replace(e, batch=name) for e in share]
        made.executions.extend(members)
        made.batches.append(make_batch(members, options))


def _host(owed: tuple[int, int, JobSchedule]) -> str:
    return owed[2].host


def _executions(owed: Sequence[tuple[int, int, JobSchedule]], batch_id: str) -> list[Execution]:
    """The executions of one batch, from `(send, due, job)`, under the token of its first claim."""
    return [
        Execution(
            id=execution_id(job.id, due),
            job_id=job.id,
            due_ms=due,
            send_ms=send,
            schedule_version=job.schedule_version,
            batch=batch_id,
            lane=job.lane,
            owner=FIRST_CLAIM,
            token=FIRST_TOKEN,
            host=job.host,
            limit_key=job.limit_key,
        )
        for send, due, job in owed
    ]

"""The only maker of a `Batch` from executions: a batch says of its members only what is true of all of them.

A batch is the unit of leasing. Its members share the number of attempts made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from cluster.core.execution.model import FIRST_CLAIM, Batch
from cluster.core.limits.permits import batch_limit_key
from cluster.core.timings import PREFETCH_MS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cluster.core.execution.model import Execution

T = TypeVar("T")
MAX_BODY_BYTES = 16 * 1024 * 1024
"""Large bodies that are in memory at once while executions are recorded or replayed."""


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """The fields of a batch that do not follow from its members."""

    prefetch_ms: int = PREFETCH_MS
    """How long before its send time the batch may be claimed. 0 for a replay or a run by hand: it is due now, and must
    not overtake the batches that have been claimable for longer.
    """
    deferred_until_ms: int | None = None
    """The instant (cluster time) from which the batch may be claimed, if it was released because it may not be sent
    now.
    """
    late: bool = False
    """Late work is claimed after everything that is due now."""
    not_before_ms: int | None = None
    """The instant at which a node released it, if it may be claimed again at once: it counts as claimable from then."""
    caught_up: bool = False
    """Written by catch-up, which has applied the policies of its jobs."""
    by_limit: bool = False
    """Name the members' limit even if it is one job's own. Other batches name the limit of a queue only."""
    token: int = 0
    """The fencing token continues from the greatest of this one and the members' own, but for those of a first claim."""
    claims: int = 0
    """The number of claims of the batch that the members leave."""


DEFAULT = BatchOptions()
DUE_NOW = BatchOptions(prefetch_ms=0)


def make_batch(members: Sequence[Execution], options: BatchOptions = DEFAULT) -> Batch:
    """The batch that these executions name: at least one, all of the same batch and number of attempts.

    It is to be sent when the first of them is, and has that one's lane, which operators see.
    """
    first = min(members, key=lambda e: e.send_ms)
    hosts = {e.host for e in members}
    limits = {e.limit_key if options.by_limit else batch_limit_key(e.limit_key) for e in members}
    deferred_ms = options.deferred_until_ms
    claimable_ms = max(first.send_ms - options.prefetch_ms, options.not_before_ms or 0)
    return Batch(
        id=first.batch,
        ids=tuple(e.id for e in members),
        lane=first.lane,
        attempt=len(first.attempts),
        send_ms=first.send_ms,
        claimable_ms=claimable_ms if deferred_ms is None else deferred_ms,
        late=options.late,
        token=max(options.token, *(0 if e.owner == FIRST_CLAIM else e.token for e in members)),
        claims=options.claims,
        host=hosts.pop() if len(hosts) == 1 else "",
        limit_key=limits.pop() if len(limits) == 1 else None,
        unclaimed=False if options.caught_up or deferred_ms is not None else None,
        deferred=deferred_ms is not None,
    )


def in_portions(items: Sequence[T], size_of: Callable[[T], int], most: int) -> Iterator[Sequence[T]]:
    """Items in their order, in portions of a bounded sum of sizes each; one that is larger than that stands alone."""
    start = size = 0
    for i, item in enumerate(items):
        more = size_of(item)
        if size + more > most and i > start:
            yield items[start:i]
            start, size = i, 0
        size += more
    yield items[start:]

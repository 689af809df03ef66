"""Where the lateness of a first attempt came from: its parts add up to it.

| part | from | until |
|---|---|---|
| written | the planned time | the claim, if the batch is late work: it was written, or put back, too late |
| claimed | the planned time | the claim, of any other batch |
| waited | the claim, or the planned time | a slot is free |
| held_back | | the circuit breaker, the slots of the host or the limit lets it go |
| sent | it may go | the request leaves: a large body was read, or another run was looked for |
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cluster.core.value import value

if TYPE_CHECKING:
    from collections.abc import Mapping


class LatenessParts(NamedTuple):
    """Milliseconds."""

    written: int = 0
    claimed: int = 0
    waited: int = 0
    held_back: int = 0
    sent: int = 0


ON_TIME = LatenessParts()
SPLIT_MS = 10
"""Lateness up to this is noise of clocks and event loops, and not worth the time to split it."""

KEPT_MS = 100
"""The parts of a longer lateness are kept with their attempt. A busy cluster sends most of its executions some ms late, and
each would take 10 % more room."""


@value(frozen=True, slots=True)
class SendTimes:
    """When an attempt was planned, claimed, let go and sent (cluster time, ms), and how long it was held back (ms).

    `late_work`: its batch is late work.
    """

    planned: int
    claimed: int
    started: int
    sent: int
    held_back: int
    late_work: bool


def lateness_parts(t: SendTimes) -> LatenessParts:
    """The parts. A clock that was corrected meanwhile makes none of them negative."""
    total = t.sent - t.planned
    if total <= 0:
        return ON_TIME
    before_claim = min(max(0, t.claimed - t.planned), total)
    sent = min(max(0, t.sent - t.started), total - before_claim)
    rest = total - before_claim - sent
    held_back = min(max(0, t.held_back), rest)
    return LatenessParts(
        written=before_claim if t.late_work else 0,
        claimed=0 if t.late_work else before_claim,
        waited=rest - held_back,
        held_back=held_back,
        sent=sent,
    )


def kept_parts(parts: LatenessParts) -> dict[str, int]:
    """The parts that are kept with an attempt, by name: those that are not 0; none if all of them is at most `KEPT_MS`."""
    if parts is ON_TIME or sum(parts) <= KEPT_MS:  # nearly always
        return {}
    return {name: ms for name, ms in parts._asdict().items() if ms}


def parts_of(kept: Mapping[str, int] | None) -> LatenessParts:
    """The inverse. Parts that a later release may add are left out."""
    return ON_TIME if not kept else LatenessParts(*(kept.get(name, 0) for name in LatenessParts._fields))

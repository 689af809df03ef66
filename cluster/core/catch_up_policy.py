"""Which occurrences of a past range run late, and which are recorded as missed. Values in, values out.

| `catchUp` | occurrences that run |
|---|---|
| `all` | all within the window |
| `latest` | the latest one of the whole range, if it is within the window |
| `none` | none |

The window ends when the range was found, and is never longer than half the retention: history cannot tell beyond its
retention whether an occurrence was sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

CatchUpPolicy = Literal["all", "latest", "none"]
_DAY_MS = 86_400_000


def window_start_ms(found_ms: int, window_seconds: int, retention_days: float) -> int:
    """The start (ms) of the window of a range that was found at `found_ms`."""
    return found_ms - min(window_seconds * 1000, int(retention_days * _DAY_MS / 2))


def split(policy: str, owed: Sequence[int], window_from_ms: int, *, owes_later: bool) -> tuple[list[int], list[int]]:
    """The due times `owed` (ms, ascending) of one part of a range as `(missed, runs)`. Joined, the two are `owed`.

    `owes_later`: the job owes an occurrence behind this part, so that the latest one is not among these.
    """
    missed = sum(t < window_from_ms for t in owed)
    if policy == "none" or (policy == "latest" and owes_later):
        missed = len(owed)
    elif policy == "latest":
        missed = max(missed, len(owed) - 1)
    return list(owed[:missed]), list(owed[missed:])


def missed_reason(policy: str, window_seconds: int) -> str:
    """Why an occurrence that was not materialised in time is recorded as missed."""
    if policy == "all":
        return f"it was not scheduled in time, and it was older than catchUpWindowSeconds ({window_seconds})"
    return f"it was not scheduled in time, and catchUp is {policy}"

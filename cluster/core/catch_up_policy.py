"""Which occurrences run late, and which are recorded as missed. Values in, values out.

Of a past range that no leader wrote down:

| `catchUp` | occurrences that run |
|---|---|
| `all` | all within the window |
| `latest` | the latest one of the whole range, if it is within the window |
| `none` | none |

Of an execution that was written down and stood unclaimed: all within the window; with `latest` only if no later
occurrence of the job is due; with `none` none.

The window ends when the range was found, or the execution was claimed, and is never longer than half the retention: history cannot tell beyond its
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


def unclaimed_reason(policy: str, window_seconds: int, *, within_window: bool, later_due: bool) -> str | None:
    """Why an execution that stood unclaimed is missed. None: it is sent, however late it is.

    `later_due`: a later occurrence of its job is due and owed.
    """
    if policy == "none":
        return "it was not sent in time, and catchUp is none"
    if not within_window:
        return f"it was not sent in time, and it was older than catchUpWindowSeconds ({window_seconds})"
    if policy == "latest" and later_due:
        return "it was not sent in time, catchUp is latest, and a later occurrence was due"
    return None

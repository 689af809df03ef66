"""The order in which jobs that run after others can be written: each names a job that must be there."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def parents_first(after: Mapping[str, str | None]) -> list[str]:
    """These jobs, each behind the one that it runs after (the value) if that is among them. Cycles stay as they are."""
    ordered: dict[str, None] = {}
    for job_id in after:
        above: dict[str, None] = {}
        name: str | None = job_id
        while name is not None and name in after and name not in ordered and name not in above:
            above[name] = None
            name = after[name]
        ordered |= dict.fromkeys(reversed(above))
    return list(ordered)

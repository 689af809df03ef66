"""The memory of a node when many jobs with large bodies are due at once."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from ops.bench.results import Row
from ops.bench.testbed import database_now, lateness, running_cluster, wait_for

if TYPE_CHECKING:
    from ops.bench.testbed import Testbed

LIMIT_MB = 768
"""The limit of memory that the shipped manifests set."""


def large_bodies(testbed: Testbed, size: int, body_bytes: int) -> Row:
    """`size` jobs with bodies of so many bytes, due at one instant, on one node."""
    with running_cluster(testbed, nodes=1) as cluster:
        at = (database_now(cluster) + timedelta(seconds=110)).replace(microsecond=0)
        schedule = f"@at {at.isoformat().replace('+00:00', 'Z')}"
        text = "x" * (body_bytes - 100)
        cluster.load({**cluster.job(n, schedule), "body": {"text": text}} for n in range(size))
        wait_for(lambda: database_now(cluster) >= at, 120, "the clock of the database does not advance")
        before = peak = cluster.memory()

        def delivered() -> bool:
            nonlocal peak
            peak = max(peak, cluster.memory())
            return cluster.db["history"].estimated_document_count() >= size

        wait_for(delivered, 120, "the jobs were not delivered within 120 s")
        row = Row(
            f"{size} bodies of {body_bytes / 1e6:g} MB due at one instant, one node",
            node_mb=peak,
            **lateness(cluster, {}),
        )
        return replace(
            row,
            missing=size - row.executions,
            note=f"{peak:.0f} MB at most ({before:.0f} MB before), of {LIMIT_MB} MB",
        )

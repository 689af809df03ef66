"""Executions and attempts as values, for tests of what is shown of them."""

from __future__ import annotations

from typing import Any

from cluster.core.execution.model import Attempt, Execution


def execution(job_id: str, due: int, **fields: Any) -> Execution:
    return Execution(f"{job_id}:{due:013d}", job_id, due, due, "v", "b", 0, **fields)


def attempt(number: int, sent: int, status: int | None = 200, error: str | None = None) -> Attempt:
    return Attempt(number, sent, "node-1", 7, 119.6, status, error, "the reason" if error else None, "ok")

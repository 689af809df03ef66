"""The results of benchmarks: rows and their table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ops.support.output import print_table

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table. CPU is in microseconds per execution, memory in MB, lateness in ms."""

    case: str
    rate: float = 0.0
    executions: int = 0
    missing: int = 0
    twice: int = 0
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    longest: float | None = None
    earliest: float | None = None
    cpu_node: float | None = None
    cpu_mongod: float | None = None
    cpu_target: float | None = None
    node_mb: float | None = None
    note: str = ""
    extra: dict[str, float] = field(default_factory=dict)


def cpu_per_execution(seconds: Sequence[float], executions: int) -> dict[str, Any]:
    """The fields of a row for the CPU seconds of nodes, mongod and target."""
    node, mongod, target = (s / executions * 1e6 for s in seconds)
    return {"cpu_node": node, "cpu_mongod": mongod, "cpu_target": target}


def print_results(facts: dict[str, Any], rows: list[Row]) -> None:
    """Print the facts of the machine and the table."""
    print(", ".join(f"{k} {v}" for k, v in facts.items()))
    print_table(
        "Horae",
        [
            "case",
            "rate/s",
            "executions",
            "missing",
            "twice",
            "p50",
            "p95",
            "p99",
            "max",
            "min",
            "CPU node",
            "mongod",
            "target",
            "node MB",
            "note",
        ],
        [
            (
                r.case,
                round(r.rate),
                r.executions,
                r.missing,
                r.twice,
                *(None if v is None else round(v) for v in (r.p50, r.p95, r.p99, r.longest, r.earliest)),
                *(None if v is None else round(v) for v in (r.cpu_node, r.cpu_mongod, r.cpu_target, r.node_mb)),
                r.note,
            )
            for r in rows
        ],
    )
    print(
        "Lateness: ms after the planned send time. CPU: us per execution, all nodes together. Memory: of the largest node."
    )

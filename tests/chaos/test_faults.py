"""Mixed faults at random while jobs run: `make chaos`, with `SEED=`, `MINUTES=`, `RATE=`, `NODES=` and
`FAULTS=` (names, with commas between) from the environment.

A three-member MongoDB, three nodes, a receiver that logs, and jobs that are created, changed, paused, resumed,
triggered and deleted.
The faults are in `faults.py`. All traffic between the nodes, the members and the receiver goes through `wire.py`,
unless only deaths are chosen.
The run is saved in `.chaos/`, drawn, and checked by `checker.py`.
"""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.chaos.checker import figures
from tests.chaos.evidence import Bounds
from tests.chaos.fault_run import (
    CHOSEN,
    FULL,
    MINUTES,
    NODES,
    RATE,
    SAVED,
    SEED,
    inject_mixed_faults,
    judge,
    run_under_faults,
)
from tests.chaos.saved import save
from tests.support.cluster_progress import every_second

if TYPE_CHECKING:
    import random
    from pathlib import Path

    from tests.chaos.checker import Violation
    from tests.chaos.evidence import Recorded, Run
    from tests.chaos.faults import Faults


def known(run: Run, violation: Violation) -> tuple[Any, ...]:
    """The evidence of the execution that a violation names: calls, records, arrivals, and the faults."""
    named = re.search(r"(\S+):(\d{13})", violation.what)
    job, due = (named[1], int(named[2])) if named else ("", 0)
    return (
        violation,
        [c for c in run.calls if c.job == job],
        [r for r in run.recorded if r.execution == f"{job}:{due}" or _within(r, job, due)],
        [s for s in run.seen if s.execution == f"{job}:{due}"],
        [(f.kind, f.start_ms, f.end_ms) for f in run.faults],
    )


def _within(record: Recorded, job: str, due_ms: int) -> bool:
    """Whether it is a missed range that this occurrence is in."""
    of, first = record.execution.split(":")[:2]
    return of == job and record.last_ms is not None and int(first) <= due_ms <= record.last_ms


@pytest.mark.chaos
@pytest.mark.timeout(7200)
def test_under_mixed_faults_no_rule_is_violated(tmp_path: Path) -> None:
    """Nothing is missed, invented, early, or doubled without a fault; after the last one all is on time again."""
    if os.environ.get("BROKEN") or os.environ.get("RECOVERY") or {"member_clock"} == CHOSEN:
        pytest.skip("BROKEN is for test_broken.py, RECOVERY for test_recovery.py, member_clock for test_clocks.py")
    print(f"\nSEED={SEED} MINUTES={MINUTES} RATE={RATE} FAULTS={','.join(sorted(CHOSEN)) or 'all'}")
    judge(run_under_faults(tmp_path, RATE, NODES, SEED, inject_mixed_faults, full=FULL))


@pytest.mark.long
@pytest.mark.takes(95)
@pytest.mark.timeout(420)
def test_under_a_short_mix_of_faults_no_rule_is_violated(tmp_path: Path) -> None:
    """The leader is killed, the next one is cut off from the database, then the primary is killed.

    All nodes are killed at once in `tests/system/test_cluster.py`.
    """

    def inject(faults: Faults, _: random.Random) -> None:
        for fault in (faults.kill_leader, faults.isolate_leader, faults.kill_primary):
            faults.done(fault)
            time.sleep(3)

    # On two cores beside other tests a request may be late by seconds: only that bound is wider than in a run by itself.
    bounds = Bounds(late_ms=5000, recovery_ms=25_000)
    run = run_under_faults(tmp_path, 15, 2, 17, inject, jobs=every_second, bounds=bounds)
    found = save(run, SAVED / "run-short.json")
    assert not found, (found[:20], *(known(run, v) for v in found[:3]))
    assert figures(run)["missing"] == 0

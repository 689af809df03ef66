"""A member of the database whose clock is five minutes off becomes the primary, whose clock is the cluster's.

Requests leave five minutes early or late, which cannot be avoided; no occurrence is lost or invented, and after the next
election all are on time. After a clock that was ahead, five minutes without requests follow: these were sent in advance.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.chaos.evidence import Fault
from tests.chaos.fault_run import CHOSEN, NODES, SEED, judge, run_under_faults
from tests.chaos.hooks import FAKETIME, clocked, hooked
from tests.chaos.observe import now_ms
from tests.chaos.of_members import led_by
from tests.support.cluster_progress import every_second
from tests.support.processes import Nodes
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    import random
    from pathlib import Path

    from tests.chaos.faults import Faults

OFF = 300
WRONG_FOR = 25


@pytest.mark.takes(8)
@pytest.mark.skipif(not FAKETIME.exists(), reason="libfaketime is not installed (Debian: apt-get install faketime)")
def test_the_heartbeat_shows_a_clock_that_was_set(tmp_path: Path, mongodb_uri: str, db_name: str) -> None:
    """So the fault `wrong_clock` has its effect, and none after its end."""
    points, clocks = tmp_path / "points", tmp_path / "clocks"
    points.mkdir()
    clocks.mkdir()
    nodes = Nodes(tmp_path, mongodb_uri, db_name, 1, **hooked(points), **clocked(clocks))
    try:
        ((name, pid),) = wait_until(nodes.alive, 30, "a node").items()

        def off() -> int:
            found = nodes.db["nodes"].find_one({"_id": name})
            assert found
            return round(int(found["clock_offset_ms"]) / 1000)

        def shows(seconds: int) -> bool:
            return off() == seconds

        for by in (60, -60, 0):
            (clocks / str(pid)).write_text(f"{by:+d}s")
            wait_until(partial(shows, by), 20, f"{by} s")
    finally:
        nodes.close()


@pytest.mark.chaos
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not FAKETIME.exists(), reason="libfaketime is not installed (Debian: apt-get install faketime)")
@pytest.mark.parametrize("off", [-OFF, OFF])
def test_under_a_primary_with_a_wrong_clock_every_occurrence_arrives(off: int, tmp_path: Path) -> None:
    """Once, or again around the fault; none is missed or recorded otherwise."""
    if {"member_clock"} != CHOSEN:
        pytest.skip("choose with FAULTS=member_clock")

    def inject(faults: Faults, _: random.Random) -> None:
        mongo = faults.cluster.mongo
        start = now_ms()
        led_by(mongo, mongo.ports[1])
        print("the wrong clock leads", flush=True)
        time.sleep(WRONG_FOR)
        led_by(mongo, mongo.ports[0])
        print("the right one leads again", flush=True)
        if off > 0:
            time.sleep(off + WRONG_FOR)  # occurrences due until then were sent ahead of time
        faults.cluster.injected.append(Fault("member_clock", start, now_ms()))

    wrong = {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME": f"{off:+d}s",
    }
    # Targets that answer at once: an attempt by one clock and the next by another contradict each other in history.
    run = run_under_faults(
        tmp_path,
        20,
        NODES,
        SEED,
        inject,
        calls=False,
        members={1: wrong},
        before=lambda m: led_by(m, m.ports[0]),
        jobs=every_second,
    )
    judge(replace(run, excused=("early",) if off > 0 else ()))

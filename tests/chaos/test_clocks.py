"""The clock of the database's primary is set, or a member whose clock is five minutes off becomes the primary.

The nodes' machines contradict it: for a minute cluster time goes on without it. So nothing is early, late or missed, under
none of the three policies of `catchUp`, and the alert is there.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from ops.support.embedded_mongodb import free_port
from tests.chaos.evidence import Fault
from tests.chaos.fault_run import CHOSEN, NODES, SEED, judge, run_under_faults
from tests.chaos.hooks import FAKETIME, clocked, hooked
from tests.chaos.observe import now_ms
from tests.chaos.of_members import led_by
from tests.chaos.second_opinion import verify_report, wrong_findings
from tests.support.cluster_progress import every_second, settle
from tests.support.mongo import ReplicaSet, needs_mongod
from tests.support.processes import Nodes, Receiver, end
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    import random
    from pathlib import Path

    from tests.chaos.faults import Faults

OFF = 300
WRONG_FOR = 25
POLICIES = ("all", "latest", "none")
SET_FOR = 15


def _of_each_policy(receiver: Receiver, count: int) -> list[dict[str, Any]]:
    return [{**job, "catchUp": POLICIES[i % 3]} for i, job in enumerate(every_second(receiver, count))]


@pytest.mark.long
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


def _set(clock: Path, seconds: int) -> None:
    staged = clock.with_suffix(".staged")
    staged.write_text(f"{seconds:+d}s")
    staged.rename(clock)


@pytest.mark.takes(45)
@pytest.mark.timeout(150)
@needs_mongod
@pytest.mark.skipif(not FAKETIME.exists(), reason="libfaketime is not installed (Debian: apt-get install faketime)")
@pytest.mark.parametrize(
    "off", [pytest.param(120, marks=pytest.mark.long), pytest.param(-120, marks=pytest.mark.chaos)]
)
def test_a_clock_of_the_primary_that_is_set_for_a_while_changes_nothing(off: int, tmp_path: Path) -> None:
    """Two minutes off for 15 s: each occurrence of each policy comes once and on time, and `horae verify` knows of it."""
    clock, port = tmp_path / "clock", free_port()
    _set(clock, 0)
    mongo = ReplicaSet(
        tmp_path, [port], environment={port: {**clocked(tmp_path), "FAKETIME_TIMESTAMP_FILE": str(clock)}}
    )
    receiver = nodes = None
    try:
        receiver = Receiver(tmp_path)
        nodes = Nodes(tmp_path, mongo.uri, "clocks", 2)
        job = {"schedule": "* * * * * *", "type": "ATLEAST_ONCE"}
        nodes.load([{**job, "jobId": p, "catchUp": p, "api": f"{receiver.url}/ok/{p}"} for p in POLICIES])
        settle(nodes)
        first = now_ms() // 1000 * 1000 + 4000

        def came(due: int) -> bool:
            assert receiver is not None
            return all(f"{p}:{due}" in receiver.by_execution() for p in POLICIES)

        set_at, back_at, until = first + 4000, first + 4000 + SET_FOR * 1000, first + 11_000 + SET_FOR * 1000
        wait_until(lambda: came(set_at), 30, "executions before the clock is set")
        _set(clock, off)
        wait_until(lambda: came(back_at), SET_FOR + 30, "executions while the clock is wrong")
        _set(clock, 0)
        wait_until(lambda: came(until), 40, "executions after it was set back")
        late = {
            a.execution: a.at_ms - int(a.execution.partition(":")[2])
            for a in receiver.arrivals()
            if first <= int(a.execution.partition(":")[2]) <= until
        }
        assert len(late) == len(POLICIES) * ((until - first) // 1000 + 1), "each came"
        assert sum(first <= int(a.execution.partition(":")[2]) <= until for a in receiver.arrivals()) == len(late)
        assert {e: ms for e, ms in late.items() if not -50 <= ms <= 5000} == {}, "none is early or late"
        assert nodes.db["history"].count_documents({"state": {"$ne": "succeeded"}}) == 0
        assert "clock_in_doubt" in nodes.log()
        report = verify_report(mongo.uri, "clocks", first, 5)
        assert wrong_findings(report) == []
        assert [round(by_ms / 1000) for _, _, by_ms in report.doubts] == [off]
    finally:
        if nodes is not None:
            nodes.close()
        if receiver is not None:
            end(receiver.process)
        mongo.stop()


@pytest.mark.chaos
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not FAKETIME.exists(), reason="libfaketime is not installed (Debian: apt-get install faketime)")
@pytest.mark.parametrize("off", [-OFF, OFF])
def test_under_a_primary_with_a_wrong_clock_every_occurrence_arrives(off: int, tmp_path: Path) -> None:
    """Once, or again around the fault; on time, and none is missed or recorded otherwise, whatever its `catchUp` is."""
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
        jobs=_of_each_policy,
    )
    judge(run)

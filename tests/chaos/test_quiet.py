"""A real run without a fault has nothing to explain: no violation of any rule, while jobs come and go."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.chaos.checker import check, figures
from tests.chaos.observe import Watch, collect
from tests.chaos.second_opinion import verify_report, wrong_findings
from tests.support.cluster_progress import every_second, next_second, recorded_until, settle, wait_past
from tests.support.processes import Nodes, Receiver, end
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(120)
CALLBACKS = {"_id": {"$regex": r"^cb\."}}


@pytest.mark.takes(17)
def test_a_quiet_run_is_clean(tmp_path: Path, mongodb_uri: str, db_name: str) -> None:
    """Every occurrence that must come has come once and on time, none that must not; terms stay, nothing is owed."""
    receiver = Receiver(tmp_path)
    nodes = Nodes(tmp_path, mongodb_uri, db_name, 1)
    watch = Watch(nodes, receiver, mongodb_uri, 1, 10)
    try:
        nodes.load(every_second(receiver, 10))
        settle(nodes)
        start = next_second(nodes) + 2000
        finish = start + 10_000
        wait_past(nodes, finish)
        watch.end()
        wait_until(lambda: recorded_until(nodes, finish), 30, "everything due is recorded")
        wait_until(lambda: f"j9:{finish - 1000}" in receiver.by_execution() or None, 5, "the last arrivals")
        asked = {t.execution for t in watch.triggers if t.execution}
        asked |= {i for p in watch.posted if (i := p.execution) and not p.cancelled and int(i.split(":")[1]) < finish}
        wait_until(lambda: not nodes.db["executions"].find_one(CALLBACKS, {}), 10, "what follows messages")
        # The receiver's log is written a few times a second, and what is recorded must be in it.
        asked |= {d["_id"] for d in nodes.db["history"].find({"attempts.0": {"$exists": True}}, {})}
        wait_until(lambda: asked <= receiver.by_execution().keys() or None, 10, "the last runs by hand, and messages")
        run = collect(nodes, receiver, watch, 10, (start, finish), [])
        # Beside other tests on two cores a second is nothing.
        assert check(replace(run, bounds=replace(run.bounds, late_ms=5000))) == []
        assert figures(run)["executions audited"] >= 100
        assert {c.outcome for c in watch.calls} == {"ok"}
        assert watch.triggers
        assert all(t.execution for t in watch.triggers)
        assert watch.leaders[-1].cursor_ms
        report = verify_report(mongodb_uri, db_name, start - 60_000, 10)
        assert wrong_findings(report) == []
        assert report.counts.findings["redelivered"] == 0
        assert report.counts.occurrences >= 100
        assert report.counts.executions >= figures(run)["executions audited"]
    finally:
        watch.end()
        nodes.close()
        end(receiver.process)

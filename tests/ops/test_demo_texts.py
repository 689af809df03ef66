"""What `horae demo` says: the live line, the overview, and the end of a log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from config.settings import load_settings
from ops.local.demo import Demo, print_overview, status_line
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

RATES = dict.fromkeys(("succeededPerSecond", "failedPerSecond", "deadPerSecond", "retriedPerSecond"), 1.0)
IMPORTED = {"created": 200, "updated": 0, "unchanged": 0}


def cluster(held_back: int, p50: float | None, p99: float | None, breakers: int = 0) -> dict[str, Any]:
    return {
        "breakersInAll": breakers,
        "rates": {**RATES, "driftMsP50": p50, "driftMsP99": p99},
        "leader": {"nodeId": "n", "term": 1},
        "backlog": {"ready": 7, "heldBack": held_back, "leased": 3},
    }


def test_the_live_line_counts_apart_what_is_held_back() -> None:
    assert "backlog 7 due, 3 with nodes" in status_line(cluster(0, 5, 13))
    assert "backlog 7 due (6 held back by their host or a limit), 3 with nodes" in status_line(cluster(6, 5, 13))


def test_the_live_line_tells_of_open_breakers_while_there_are_any() -> None:
    assert status_line(cluster(0, 5, 13, breakers=2)).endswith("with nodes   open breakers 2")
    assert "breakers" not in status_line(cluster(0, 5, 13))


def test_lateness_of_minutes_is_shown_as_the_bound_that_it_is() -> None:
    """After a restart the catch-up falls into buckets that are minutes wide."""
    line = status_line(cluster(0, 300_000, 3_600_000))
    assert ("p50 <5min" in line, "p99 <60min" in line) == (True, True)


def test_the_end_of_a_log_is_of_this_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed before the last start says nothing about this one."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "receiver.log").write_text("it failed yesterday\n")
    monkeypatch.setattr("sys.executable", "/bin/echo")
    started = Demo(load_settings(data_dir=str(tmp_path)), 5001)
    started.run("receiver", "receiver")
    wait_until(started.ended_process, 20, "the end of the process")
    assert started.last_log_lines("receiver") == "-m ops receiver"


def test_the_overview_names_only_what_is_not_as_usual(capsys: pytest.CaptureFixture[str]) -> None:
    """The address if the port is another one, the directory if the data is elsewhere."""
    print_overview(load_settings(port=5000, data_dir=".horae"), 5001, IMPORTED)
    usual = capsys.readouterr().out
    assert ".venv/bin/horae leases" in usual
    assert ("HORAE_DATA_DIR" in usual, "HORAE_URL" in usual) == (False, False)
    print_overview(load_settings(port=5713, data_dir="elsewhere"), 5001, IMPORTED)
    other = capsys.readouterr().out
    assert "HORAE_DATA_DIR=elsewhere .venv/bin/horae leases" in other
    assert "export HORAE_URL=http://127.0.0.1:5713" in other

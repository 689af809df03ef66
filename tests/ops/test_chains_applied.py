"""`horae jobs apply` with jobs that run after others: an export is ordered by id, and not by what runs after what."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
from click.testing import CliRunner

from ops.cli import cli
from ops.support.client import Client

if TYPE_CHECKING:
    from pathlib import Path

TARGET = "http://127.0.0.1:1/x"


def test_apply_takes_chained_jobs_in_any_order(node_url: str, tmp_path: Path) -> None:
    """A job that exists already and is given another one to run after counts too."""
    client, file = Client(node_url), tmp_path / "jobs.ndjson"
    client.call("PUT", "/jobs/tied-b", {"schedule": "@daily", "api": TARGET})
    links = {"tied-a": "tied-b", "tied-b": "tied-y", "tied-y": "tied-z"}
    jobs = [{"jobId": child, "api": TARGET, "after": {"jobId": parent}} for child, parent in links.items()]
    file.write_bytes(
        b"\n".join(orjson.dumps(j) for j in (*jobs, {"jobId": "tied-z", "schedule": "@daily", "api": TARGET}))
    )
    try:
        done = CliRunner().invoke(cli, ["jobs", "apply", str(file)], env={"HORAE_URL": node_url})
        assert done.exit_code == 0, done.output
        assert {j: client.call("GET", f"/jobs/{j}")["after"]["jobId"] for j in links} == links
    finally:
        for job in client.jobs():
            client.call("DELETE", f"/jobs/{job['jobId']}")

"""Runs by hand from the shell, of jobs with `overlap: skip`."""

from __future__ import annotations

import asyncio
from typing import Any

import click
import pytest
from click.testing import CliRunner

from api.resources import jobs as job_resources
from cluster.store.queries import jobs_and_executions
from ops.commands.executions import retry_command
from ops.commands.jobs_control import add_control_commands


class Node:
    """A node on which another run of each job has not ended."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    def call(self, method: str, path: str, *_: Any, **__: Any) -> dict[str, Any]:
        self.paths.append(f"{method} {path}")
        return asyncio.run(_answer(path))


async def _answer(path: str) -> dict[str, Any]:
    return dict(await job_resources.with_overlap_note(None, "a:2", waits="wait" in path, path=path))  # type: ignore[arg-type]


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Node:
    async def running(*_: Any) -> str:
        return "a:1"

    monkeypatch.setattr(jobs_and_executions, "exclusive_run", running)
    return Node()


@click.group
def group() -> None:
    """As `horae jobs` and `horae executions`."""


add_control_commands(group)
group.add_command(retry_command)


@pytest.mark.parametrize(
    ("command", "path"), [(["trigger", "a"], "/jobs/a/trigger"), (["retry", "a:2"], "/executions/a%3A2/retry")]
)
def test_a_run_that_is_skipped_or_waits_says_so(node: Node, command: list[str], path: str) -> None:
    """On standard error, with the run that is in its way and the option that waits."""
    skipped = CliRunner().invoke(group, command, obj=lambda: node)
    waits = CliRunner().invoke(group, [*command, "--overlap", "wait"], obj=lambda: node)
    assert node.paths == [f"POST {path}", f"POST {path}?overlap=wait"]
    assert (skipped.exit_code, waits.exit_code) == (0, 0)
    assert "execution a:1 has not ended, so that this run is skipped: --overlap wait waits" in skipped.stderr
    assert "execution a:1 has not ended, so that this run is sent when it has" in waits.stderr
    assert "a:1" not in skipped.stdout + waits.stdout


def test_many_jobs_cannot_wait_each_for_a_run(node: Node) -> None:
    """Only jobs that are named by their ids."""
    refused = CliRunner().invoke(group, ["trigger", "--all", "--overlap", "wait"], obj=lambda: node)
    assert (refused.exit_code, node.paths) == (2, [])

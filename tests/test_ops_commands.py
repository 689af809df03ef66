"""Operators' commands on a live database: what they print, what they change, and their exit status."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from cluster.core.instants import render
from cluster.store import schema
from cluster.store.client import Database
from ops.cli import cli
from tests.support.engine import job_document, put_jobs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from click.testing import Result


class Ops:
    """Commands, and the database behind them."""

    def __init__(self, uri: str, name: str) -> None:
        self._uri = uri
        self._name = name

    def __call__(self, *arguments: str, text: str | None = None) -> Result:
        environment = {"MONGODB_URI": self._uri, "DB_NAME": self._name}
        return CliRunner().invoke(cli, list(arguments), env=environment, input=text)

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "--json").stdout)

    def on(self, use: Callable[[Database], Awaitable[Any]]) -> Any:
        """Use the database."""

        async def once() -> Any:
            db = Database.open(self._uri, self._name, "test")
            try:
                return await use(db)
            finally:
                await db.close()

        return asyncio.run(once())


@pytest.fixture
def ops(mongodb_uri: str, db_name: str) -> Iterator[Ops]:
    found = Ops(mongodb_uri, db_name)
    found.on(schema.ensure)
    yield found
    found.on(lambda db: db.api.client.drop_database(db_name))


def test_explain(ops: Ops) -> None:
    """Sentences for people, JSON for programs; exit 1 if it did not run, 2 for a time that is none."""
    midnight = int(time.time()) // 86_400 * 86_400_000
    ops.on(lambda db: put_jobs(db, job_document("a", "0 0 3 * * *", active_from=midnight - 2 * 86_400_000)))
    at = render(midnight - 86_400_000 + 3 * 3_600_000)
    told = ops("explain", "a", at[:16])
    assert (told.exit_code, told.stdout.splitlines()[0]) == (0, "a is active.")
    assert "The leader has not looked at the job's last change yet" in told.stdout
    assert f"{at}  it was due by `0 0 3 * * *`" in told.stdout
    found = ops.json("explain", "a", "2023-11-14T12:00:00+01:00")
    assert [e["state"] for e in found["explanations"]] == ["absent"]
    last, following = ops.json("explain", "a")["explanations"]
    assert (last["state"], following["state"]) == ("waiting", "ahead")
    assert ops("explain", "a", "2023-11-14T00:00:00Z").exit_code == 1
    assert ops("explain", "nobody").exit_code == 1
    wrong = ops("explain", "a", "yesterday")
    assert wrong.exit_code == 2
    assert "03:00" in wrong.output

"""`horae verify` as an operator uses it: what it prints, and its exit status."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from bson.datetime_ms import DatetimeMS
from click.testing import CliRunner
from pymongo import MongoClient

from cluster.core.instants import format_instant
from cluster.core.verify.findings import FINAL_STATES
from cluster.store.mongo.client import Database
from cluster.store.queries import verify_records
from ops.bench import verify
from ops.cli import cli
from tests.support.engine import job_document, put_jobs
from tests.support.verify_records import final

if TYPE_CHECKING:
    from click.testing import Result

SECONDS = 30


class Verifier:
    """A database with one job that was due every second for half a minute, two minutes ago; and the command on it."""

    def __init__(self, uri: str, name: str) -> None:
        self._environment = {"MONGODB_URI": uri, "DB_NAME": name}
        self._uri = uri
        self._name = name
        self.began = asyncio.run(self._fill())

    async def _fill(self) -> int:
        db = Database.open(self._uri, self._name, "test")
        began = await verify_records.now_ms(db) // 1000 * 1000 - 120_000
        end = DatetimeMS(began + SECONDS * 1000 - 1)
        job = job_document("second", active_from=began, end_at=end, ends_at=end, state="completed")
        job.pop("unsettled")
        await put_jobs(db, job)
        await db.api["history"].insert_many([final(job, began + n * 1000) for n in range(SECONDS)])
        await db.close()
        return began

    def lose(self, second: int) -> None:
        async def once() -> None:
            db = Database.open(self._uri, self._name, "test")
            await db.api["history"].delete_one({"_id": f"second:{self.began + second * 1000:013d}"})
            await db.close()

        asyncio.run(once())

    def __call__(self, *arguments: str) -> Result:
        return CliRunner().invoke(cli, ["verify", *arguments], env=self._environment)


@pytest.fixture
def verifier(mongodb_uri: str, db_name: str) -> Verifier:
    return Verifier(mongodb_uri, db_name)


def test_verify_fails_if_an_execution_is_lost(verifier: Verifier) -> None:
    """Exit status 0 and a sentence if nothing is missing, 1 and the id of a lost execution, only within the time range."""
    clean = verifier()
    assert clean.exit_code == 0, clean.output
    assert f"1 jobs, {SECONDS} occurrences" in clean.stdout
    assert "nothing is missing" in clean.stdout
    assert f"Results: {SECONDS} succeeded, 0 failed, 0 dead" in clean.stdout
    verifier.lose(7)
    bad = verifier("--job", "second")
    assert bad.exit_code == 1
    assert f"second:{verifier.began + 7000:013d}" in bad.stdout
    assert "FOUND: 1 missing." in bad.stdout
    found = json.loads(verifier("--since", "10m", "--json").stdout)
    assert (found["clean"], found["counts"]["missing"], found["executions"]) == (False, 1, SECONDS - 1)
    assert [f["kind"] for f in found["findings"]] == ["missing"]
    assert found["ended"] == {**dict.fromkeys(FINAL_STATES, 0), "succeeded": SECONDS - 1}
    later = verifier(
        "--since", format_instant(verifier.began + 8000), "--until", format_instant(verifier.began + 20_000), "--json"
    )
    assert later.exit_code == 0
    assert json.loads(later.stdout)["occurrences"] == 13


def test_the_benchmark_data_of_verify_is_clean(mongodb_uri: str, db_name: str) -> None:
    """The inserted documents are those of a successful run, all of them are checked; the command's own memory is measured."""
    shape = verify.Shape(30, 20, 60)
    of_this_process = b"x" * (400 * 2**20)
    with MongoClient[dict[str, Any]](mongodb_uri) as client:
        since = verify.fill(client[db_name], shape, int(time.time() * 1000))
        assert client[db_name]["jobs"].index_information().keys() > {"_id_", "chained"}  # as a cluster has them
        done = verify.run_verify(mongodb_uri, db_name, since)
        client.drop_database(db_name)
    assert (done.report["clean"], done.report["executions"], done.report["jobs"]) == (True, 600, 30)
    assert 10 < done.peak_mb < len(of_this_process) / 2**20
    assert done.cpu_seconds > 0


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--since", "yesterday"), "TIME"),
        (("--since", "1m", "--until", "10m"), "--until"),
        (("--late", "0"), "--late"),
        (("--job", "no such thing"), "--job"),
        (("--job", "absent"), "absent"),
    ],
)
def test_a_wrong_option_is_named(verifier: Verifier, arguments: tuple[str, ...], named: str) -> None:
    """With exit status 2."""
    result = verifier(*arguments)
    assert result.exit_code == 2
    assert named in result.stderr


def test_help_says_what_verify_proves() -> None:
    """What is proven if nothing is found, and the kinds of findings, one per line."""
    said = CliRunner().invoke(cli, ["verify", "--help"]).stdout
    assert "If nothing is found" in said
    assert "nothing was lost" not in said
    assert "\n  orphan         not finished, and no batch lists it" in said

"""A database made by the release before: this one works on it, migrates it under way, and refuses what it does not know."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING

import pytest
from bson.datetime_ms import DatetimeMS
from click.testing import CliRunner

from cluster.core.errors import ConfigurationError, Conflict
from cluster.store.maintenance import migrate
from cluster.store.mongo import schema
from ops.cli import cli
from tests.support import live, plain_http
from tests.support.engine import job_document, put_jobs, rows
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from click.testing import Result

    from cluster.store.mongo.client import Database


async def command(uri: str, name: str, *arguments: str) -> Result:
    """In a thread: a command has an event loop of its own."""
    environment = {"MONGODB_URI": uri, "DB_NAME": name}
    return await asyncio.to_thread(CliRunner().invoke, cli, list(arguments), env=environment)


async def before(db: Database, jobs: int) -> None:
    """As schema version 1 left it: jobs without `host`."""
    await db.api["meta"].update_one({"_id": "schema"}, {"$set": {"version": 1}})
    documents = [job_document(f"old{i}", "0 0 3 * * *", url=f"https://h{i % 3}.example.com/x") for i in range(jobs)]
    for d in documents:
        d.pop("host", None)
    await put_jobs(db, *documents)


@pytest.mark.takes(12)
async def test_a_node_works_on_both_versions_while_documents_are_migrated(
    database: Database, mongodb_uri: str, db_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node works on the old version and raises nothing by itself. Migrating is refused while a node of the old release
    lives, goes on where it was broken off, leaves what is changed meanwhile alone, and the node delivers all along.
    """
    await before(database, 5)
    monkeypatch.setattr(migrate, "PAGE", 2)
    with live.node(mongodb_uri, db_name) as url:
        assert await schema.version_of(database) == 1
        job = {"schedule": "* * * * * *", "api": "http://127.0.0.1:1/x", "retry": {"maxAttempts": 1}}
        plain_http.put(f"{url}/jobs/live", json=job).raise_for_status()

        async def delivered(since: int) -> bool:
            query = {"job_id": "live", "due_at": {"$gte": DatetimeMS(since)}, "attempts.0": {"$exists": True}}
            return await database.api["history"].find_one(query) is not None

        await eventually(lambda: delivered(0), 15)
        old = {"_id": "old-node", "seen_at": DatetimeMS(int(time.time() * 1000)), "version": "0.0.9"}
        await database.api["nodes"].insert_one(old)
        with pytest.raises(Conflict, match="old-node"):
            await migrate.migrate(database)
        await database.api["nodes"].delete_one({"_id": "old-node"})
        assert await migrate.migrate(database, pages=1) == migrate.Migrated(1, 1, 1)
        assert await schema.version_of(database) == 1
        await database.api["jobs"].update_one({"_id": "old4"}, {"$set": {"url": "https://new/x", "host": "new:443"}})
        monkeypatch.undo()
        done = await command(mongodb_uri, db_name, "db", "migrate", "--json")
        assert done.exit_code == 0, done.output
        told = json.loads(done.stdout)
        assert (told["from"], told["to"]) == (1, schema.SCHEMA_VERSION)
        hosts = {d["_id"]: d["host"] for d in await rows(database, "jobs") if d["_id"].startswith("old")}
        assert hosts == {f"old{i}": f"h{i % 3}.example.com:443" for i in range(4)} | {"old4": "new:443"}
        assert [d["_id"] for d in await rows(database, "meta") if d["_id"] == "migration"] == []
        found = plain_http.get(f"{url}/jobs?q=h1.example").json()["items"]
        assert [j["jobId"] for j in found] == ["old1"]
        since = int(time.time() * 1000)
        await eventually(lambda: delivered(since), 15)
        assert plain_http.get(f"{url}/readyz").status_code == 200
    again = await migrate.migrate(database)
    assert (again.before, again.changed) == (schema.SCHEMA_VERSION, 0)


@pytest.mark.parametrize(
    ("version", "words"),
    [(schema.SCHEMA_VERSION + 1, "a newer release has migrated it"), (0, "of the releases between")],
)
async def test_a_database_of_another_version_is_refused(
    database: Database, mongodb_uri: str, db_name: str, version: int, words: str
) -> None:
    """With both versions in the sentence; `serve` ends with status 2 and touches nothing."""
    await database.api["meta"].update_one({"_id": "schema"}, {"$set": {"version": version}})
    with pytest.raises(ConfigurationError, match=words):
        await schema.ensure(database)
    checked = await command(mongodb_uri, db_name, "db", "check", "--json")
    assert checked.exit_code == 1
    assert words in checked.stdout
    from ops.server.serve import check_schema

    with pytest.raises(ConfigurationError, match=f"schema version {version}"):
        check_schema(mongodb_uri, db_name)


async def test_db_check_names_a_missing_index(database: Database, mongodb_uri: str, db_name: str) -> None:
    """A sound database: exit 0. One without an index: named, exit 1."""
    fine = await command(mongodb_uri, db_name, "db", "check", "--json")
    assert fine.exit_code == 0, fine.output
    seen = {f["what"]: f["level"] for f in json.loads(fine.stdout)["findings"]}
    assert {seen["schema"], seen["indexes"], seen["server"], seen["oplog"]} == {"ok"}
    assert seen["replica set"] == "warn"
    await database.api["batches"].drop_index("claimable")
    try:
        bad = await command(mongodb_uri, db_name, "db", "check")
    finally:
        await schema.ensure(database)  # others get this database after its next emptying, with its indexes
    assert bad.exit_code == 1
    assert "batches.claimable" in bad.stdout

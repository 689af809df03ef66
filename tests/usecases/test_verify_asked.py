"""That and when somebody asked to send again is kept in history, by every way there is, and `horae verify` goes by it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

from cluster.usecases.executions import replay
from tests.support.cranked_cluster import EACH, Cluster
from tests.support.engine import rows

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database

TWICE = {**EACH, "retry": {"maxAttempts": 2, "initialDelaySeconds": 1, "maxDelaySeconds": 1, "jitter": 0}}


async def test_what_was_asked_for_is_explained_and_nothing_else(database: Database) -> None:
    """Dead after two attempts, asked for, sent well: no finding. The same without a trace of anybody's asking is one."""
    status = 500
    c = await Cluster.begin(database, lambda _: httpx.Response(status))
    await c.put("a", TWICE)
    await c.run(8)
    dead = [d for d in await rows(database, "history") if d["state"] == "dead"]
    assert [a["n"] for a in dead[0]["attempts"]] == [1, 2]
    assert [d["asked_at"] for d in dead] == [None] * len(dead)
    status = 200
    c.clock.now += 123
    asked = c.clock.now
    await replay(database, dead[0]["_id"], asked, 3650)
    await c.run(2)
    sent = await database.api["history"].find_one({"_id": dead[0]["_id"]})
    assert sent is not None
    assert (sent["state"], [a["n"] for a in sent["attempts"]]) == ("succeeded", [1, 2, 1])
    assert int(sent["asked_at"]) == asked
    assert await c.findings() == {}
    here = {"_id": sent["_id"]}
    await database.api["history"].update_one(here, {"$set": {"asked_at": None}})
    assert await c.findings() == {"a": ["duplicate"]}
    await database.api["history"].update_one(here, {"$unset": {"asked_at": ""}})
    assert await c.findings() == {}, "of a release that kept nothing"

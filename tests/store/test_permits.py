"""`permits`: two neighbouring releases keep the same list."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.core.limits.permits import Limits, Permit, grant
from cluster.store import permits

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database


async def test_nodes_of_the_release_before_keep_the_same_list(database: Database) -> None:
    """They know execution ids only. What they enter counts, what they remove is removed, and no permit id restores it."""
    collection = database.api["permits"]
    await collection.insert_one({"_id": "q:two", "next_ms": 0.0, "held": ["a", "b"], "rev": 1})
    seen = await permits.read(database, "q:two")
    assert seen.granted == {"a": "", "b": ""}
    granted = grant(seen, Limits(None, 2), {"a": "x", "c": "y"}, 1000)
    assert granted.at_ms == {"a": 1000}
    assert await permits.write(database, "q:two", seen, granted.permits)
    assert (await permits.read(database, "q:two")).granted == {"a": "x", "b": ""}
    assert (await permits.running_counts(database, ["q:two"])) == {"q:two": 2}
    await collection.update_one({"_id": "q:two", "rev": 2}, {"$set": {"next_ms": 0.0, "held": ["b", "c"], "rev": 3}})
    assert (await permits.read(database, "q:two")).granted == {"b": "", "c": ""}
    await permits.release(database, [Permit("q:two", "a", 1000, "x")])
    assert (await permits.read(database, "q:two")).granted == {"b": "", "c": ""}

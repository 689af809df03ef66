"""`/queues`: limits that jobs share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.api_client import paths

if TYPE_CHECKING:
    from tests.support.api_client import Api


async def test_queues_are_created_changed_and_deleted(api: Api) -> None:
    """And listed; invalid ones are refused."""
    made = await api.call("PUT", "/queues/mail", {"maxPerSecond": 2})
    assert (made.status_code, made.headers["location"]) == (201, "/queues/mail")
    assert made.json["running"] is None
    again = await api.call("PUT", "/queues/mail", {"maxConcurrent": 3})
    assert (again.status_code, again.json["maxPerSecond"], again.json["maxConcurrent"]) == (200, None, 3)
    assert (await api.call("GET", "/queues/mail")).json["running"] == 0
    assert [q["name"] for q in (await api.call("GET", "/queues")).json["items"]] == ["mail"]
    wrong = await api.call("PUT", "/queues/mail", {"maxConcurrent": 0, "rate": 1})
    assert sorted(paths(wrong)) == ["maxConcurrent", "rate"]
    assert paths(await api.call("PUT", "/queues/a%20b", {})) == ["name"]
    assert (await api.call("DELETE", "/queues/mail")).status_code == 204
    assert (await api.call("DELETE", "/queues/mail")).status_code == 404
    assert (await api.call("GET", "/queues/mail")).status_code == 404

"""`GET /messages`: what has not ended, page by page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.support.api_client import TARGET
from tests.support.engine import noting, worker
from tests.support.workers import run_dry

if TYPE_CHECKING:
    from tests.support.api_client import Api


async def send(api: Api, **fields: Any) -> str:
    made = await api.call("POST", "/messages", {"api": TARGET, **fields})
    assert made.status_code == 202, made.text
    return str(made.json["messageId"])


async def test_messages_that_have_not_ended_are_listed_page_by_page(api: Api) -> None:
    """Those that are being sent, then those that wait, due first; without bodies, secrets and headers."""
    late = await send(api, delay="2h", tags=["billing"], body={"x": "not shown"}, headers={"X-Key": "not shown"})
    soon = await send(api, delay="1h", expiresAt="2036-01-01T00:00:00Z")
    now = [await send(api), await send(api)]
    listed = (await api.call("GET", "/messages")).json
    assert [m["messageId"] for m in listed["items"]] == [*sorted(now), soon, late]
    assert [m["waiting"] for m in listed["items"]] == [False, False, True, True]
    assert listed["nextCursor"] is None
    assert "not shown" not in str(listed)
    last = listed["items"][-1]
    assert (last["state"], last["api"], last["tags"], last["attempt"]) == ("pending", TARGET, ["billing"], 0)
    found: list[str] = []
    cursor = ""
    while True:
        page = (await api.call("GET", f"/messages?limit=1{cursor}")).json
        found += [m["messageId"] for m in page["items"]]
        if page["nextCursor"] is None:
            break
        cursor = f"&cursor={page['nextCursor']}"
    assert found == [*sorted(now), soon, late]


async def test_what_was_sent_or_cancelled_is_not_listed(api: Api) -> None:
    sent, cancelled = await send(api), await send(api, delay="1h")
    await run_dry(worker(api.db, noting([])))
    assert (await api.call("DELETE", f"/messages/{cancelled}")).status_code == 204
    assert (await api.call("GET", "/messages")).json == {"items": [], "nextCursor": None}
    assert (await api.call("GET", f"/messages/{sent}")).json["state"] == "succeeded"
    assert (await api.call("GET", "/messages?cursor=x")).status_code == 422


async def test_a_message_is_explained_and_one_that_there_is_not_is_404(api: Api) -> None:
    waits = await send(api, delay="1h")
    shown = (await api.call("GET", f"/messages/{waits}/explain")).json
    assert (shown["messageId"], len(shown["explanations"])) == (waits, 1)
    (answer,) = shown["explanations"]
    assert answer["state"] == "pending"
    assert answer["summary"].startswith("It waits: it is due at")
    assert answer["executionId"].startswith(f"{waits}:")
    assert {f["at"] is None for f in answer["facts"]} == {False}
    none = await api.call("GET", "/messages/msg.00000000000000000000000000/explain")
    assert (none.status_code, "its record has expired" in none.json["detail"]) == (404, True)
    assert (await api.call("GET", "/messages/x/explain")).status_code == 404
    assert (await api.call("GET", f"/messages/{waits}/explain?at=2026-01-01T00:00:00Z")).status_code == 422

"""Pages of jobs, filters, and cursors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.api_client import paths, walk

if TYPE_CHECKING:
    from tests.support.api_client import Api


async def test_pages_hold_every_job_once(api: Api) -> None:
    """With any page size, newest first, although many were created in the same ms."""
    lines = b"\n".join(b'{"jobId":"j%03d","schedule":"@daily","api":"http://127.0.0.1:1/"}' % i for i in range(60))
    await api.call("POST", "/jobs/import", lines, Content_Type="application/x-ndjson")
    newest = await api.make(jobId="newest")
    for size in (1, 7, 61, 100):
        found = await walk(api, f"limit={size}")
        assert found[0] == newest
        assert sorted(found[1:]) == [f"j{i:03d}" for i in range(60)]


async def test_changes_between_pages_repeat_or_hide_no_job(api: Api) -> None:
    """Jobs that are created or deleted between two pages."""
    for i in range(9):
        await api.make(jobId=f"j{i}")
    first = (await api.call("GET", "/jobs?limit=4")).json
    await api.make(jobId="late")
    await api.call("DELETE", f"/jobs/{first['items'][3]['jobId']}")
    rest = (await api.call("GET", f"/jobs?limit=50&cursor={first['nextCursor']}")).json
    assert [j["jobId"] for j in first["items"]] == ["j8", "j7", "j6", "j5"]
    assert [j["jobId"] for j in rest["items"]] == ["j4", "j3", "j2", "j1", "j0"]


async def test_an_unreadable_job_hides_no_other(api: Api) -> None:
    """A job or execution with a corrupt document is named; all others are listed, page by page."""
    for i in range(6):
        await api.make(jobId=f"j{i}")
    await api.db.api["jobs"].update_one({"_id": "j3"}, {"$unset": {"schedule_version": ""}})
    first = (await api.call("GET", "/jobs?limit=3")).json
    assert [j["jobId"] for j in first["items"]] == ["j5", "j4"]
    assert [u["jobId"] for u in first["unreadable"]] == ["j3"]
    assert "schedule_version" in first["unreadable"][0]["reason"]
    rest = (await api.call("GET", f"/jobs?limit=3&cursor={first['nextCursor']}")).json
    assert [j["jobId"] for j in rest["items"]] == ["j2", "j1", "j0"]
    assert "unreadable" not in rest
    answer = await api.call("GET", "/jobs/j3")
    assert (answer.status_code, answer.json["type"]) == (500, "urn:horae:problem:unreadable")
    assert "j3" in answer.json["detail"]


async def test_state_tag_and_name_narrow_the_list(api: Api) -> None:
    """Text in a name is text, not a pattern."""
    await api.make(jobId="a", name="Nightly (invoices)", tags=["x", "y"])
    await api.make(jobId="b", name="nightly sync", tags=["y"])
    await api.make(jobId="c", name="other.*")
    await api.call("POST", "/jobs/b/pause")
    for query, expected in (
        ("state=paused", ["b"]),
        ("state=active,paused", ["c", "b", "a"]),
        ("tag=y", ["b", "a"]),
        ("tag=y&state=active", ["a"]),
        ("q=NIGHTLY", ["b", "a"]),
        ("q=(inv", ["a"]),
        ("q=.*", []),
        ("q=other.*", ["c"]),
        ("tag=%24ne", []),
    ):
        assert await walk(api, query) == expected, query


async def test_all_errors_of_a_query_are_reported_together(api: Api) -> None:
    """Unknown names, invalid values and foreign cursors."""
    refused = await api.call("GET", "/jobs?limit=0&state=gone&foo=1&tag=&q=a&q=b")
    assert set(paths(refused)) == {"limit", "state", "foo", "tag", "q"}
    for cursor in ("x", "bnVsbA", "WyJhIiwxXQ", "WzFd", "%00", "WzEsInhcdTAwMDAiXQ", "Wy0xLCJhIl0"):
        answer = await api.call("GET", f"/jobs?cursor={cursor}")
        # Only the last but one is a place in this list: an instant, and an id with a character that no id has.
        assert answer.status_code == (200 if cursor == "WzEsInhcdTAwMDAiXQ" else 422), cursor
    assert paths(await api.call("GET", "/jobs?cursor=abc")) == ["cursor"]

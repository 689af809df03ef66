"""Importing NDJSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest

from api.resources import imports
from cluster.core.documents.job import BODY_LIMIT
from cluster.store import jobs
from tests.support.api_client import job

if TYPE_CHECKING:
    from tests.support.api_client import Api


async def send(api: Api, *lines: Any) -> dict[str, Any]:
    raw = b"\n".join(line if isinstance(line, bytes) else orjson.dumps(line) for line in lines)
    answer = await api.call("POST", "/jobs/import", raw, Content_Type="application/x-ndjson")
    assert answer.status_code == 200, answer.text
    return answer.json  # type: ignore[no-any-return]


async def test_valid_lines_are_stored_and_invalid_ones_reported(api: Api) -> None:
    """Each invalid line with its number and all its errors."""
    done = await send(
        api,
        job(jobId="a"),
        b"",
        b"{nope",
        job(jobId="b c", schedule="x"),
        b"[1]",
        job(schedule="@at 2020-01-01T00:00:00Z"),
        b'{"schedule":"@daily","schedule":"@daily","api":"http://127.0.0.1/"}',
        job(),
    )
    assert (done["created"], done["failed"]) == (2, 5)
    assert [e["line"] for e in done["errors"]] == [3, 4, 5, 6, 7]
    assert [f["path"] for f in done["errors"][1]["errors"]] == ["jobId", "schedule"]
    assert await api.db.api["jobs"].count_documents({}) == 2


async def test_importing_again_changes_nothing(api: Api) -> None:
    """The same lines again are unchanged, a one-off that has passed included; a changed one is updated."""
    now = api.clock.now_ms()
    lines = [job(jobId=f"j{i}", name=str(i)) for i in range(1200)]
    at = {"jobId": "once", "schedule": f"@at {_second(now + 60_000)}", "api": "http://127.0.0.1:1/"}
    assert (await send(api, *lines, at))["created"] == 1201
    api.clock.shift = 120_000
    lines[3]["name"] = "new"
    done = await send(api, *lines, at)
    assert (done["created"], done["updated"], done["unchanged"], done["failed"]) == (0, 1, 1200, 0)


def _second(ms: int) -> str:
    from cluster.core.instants import format_instant

    return format_instant(ms // 1000 * 1000)


async def test_the_last_line_of_a_job_counts(api: Api) -> None:
    """A job that occurs twice gets the definition of its last line; a deleted job is created again."""
    done = await send(api, job(jobId="a", name="1"), job(jobId="a", name="2"), job(jobId="a", name="3"))
    assert (done["created"], done["updated"]) == (1, 2)
    assert (await api.call("GET", "/jobs/a")).json["name"] == "3"
    await api.call("DELETE", "/jobs/a")
    assert (await send(api, job(jobId="a")))["created"] == 1


async def test_an_import_wins_over_concurrent_changes(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs that are created or changed between the read and the write of an import."""
    await api.make(jobId="old", name="before")
    read = jobs.get_many

    async def many(db: Any, ids: Any) -> Any:
        found = await read(db, ids)
        monkeypatch.setattr(jobs, "get_many", read)
        await api.make(jobId="new", name="by another")
        await api.call("PATCH", "/jobs/old", {"name": "by another"})
        return found

    monkeypatch.setattr(jobs, "get_many", many)
    await send(api, job(jobId="new", name="import"), job(jobId="old", name="import"))
    for name in ("new", "old"):
        assert (await api.call("GET", f"/jobs/{name}")).json["name"] == "import"


async def test_long_lines_are_refused_and_many_errors_counted(api: Api) -> None:
    """A line beyond the limit is one invalid line; the first hundred invalid lines are listed, the rest are counted."""
    done = await send(api, job(body="x" * BODY_LIMIT), job(jobId="a"), *([b"no"] * 150))
    assert (done["created"], done["failed"], len(done["errors"]), done["errorsNotShown"]) == (1, 151, 100, 51)
    assert done["errors"][0]["line"] == 1


async def test_an_import_must_be_ndjson(api: Api) -> None:
    """Another content type is 415 and names the right one."""
    refused = await api.call("POST", "/jobs/import", job())
    assert refused.status_code == 415
    assert "application/x-ndjson" in refused.json["detail"]


def chained(job_id: str, after: str, **fields: Any) -> dict[str, Any]:
    return {"jobId": job_id, "api": "http://127.0.0.1:1/", "after": {"jobId": after}, **fields}


async def test_a_job_may_come_chunks_before_the_one_that_it_runs_after(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An export is ordered by id. What names a job that never comes is reported with its own line, and so is a cycle."""
    monkeypatch.setattr(imports, "CHUNK_LINES", 2)
    others = [job(jobId=f"n{i}") for i in range(4)]
    lines = [chained("a", "b"), chained("lost", "nobody"), chained("b", "zz"), chained("x", "y"), *others]
    done = await send(api, *lines, chained("y", "x"), chained("q", "a"), job(jobId="zz"), b"{nope")
    assert [(e["line"], e["jobId"]) for e in done["errors"]] == [(2, "lost"), (4, "x"), (9, "y"), (12, None)]
    assert {f["path"] for e in done["errors"][:3] for f in e["errors"]} == {"after.jobId"}
    assert (done["created"], done["failed"]) == (8, 4)
    assert (await api.call("GET", "/jobs/b")).json["after"]["jobId"] == "zz"


async def test_a_line_that_waits_does_not_undo_a_later_line_of_its_job(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "CHUNK_LINES", 1)
    done = await send(api, chained("a", "zz", name="1"), job(jobId="b"), job(jobId="a", name="2"), job(jobId="zz"))
    assert (done["created"], [e["line"] for e in done["errors"]]) == (3, [1])
    assert (await api.call("GET", "/jobs/a")).json["name"] == "2"


@pytest.mark.parametrize(("limit", "value"), [("WAITING_LINES", 1), ("WAITING_BYTES", 100)])
async def test_only_so_many_lines_wait(api: Api, monkeypatch: pytest.MonkeyPatch, limit: str, value: int) -> None:
    """The others are refused, and accepted when they are sent again."""
    monkeypatch.setattr(imports, "CHUNK_LINES", 1)
    monkeypatch.setattr(imports, limit, value)
    lines = [chained("a", "zz"), chained("b", "zz"), job(jobId="zz")]
    done = await send(api, *lines)
    assert (done["created"], [e["line"] for e in done["errors"]]) == (2, [2])
    again = await send(api, *lines)
    assert (again["created"], again["unchanged"], again["failed"]) == (1, 2, 0)

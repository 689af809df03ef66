"""Pausing until a time and for a reason: what a caller sends and reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest

from cluster.core.instants import format_instant
from tests.support.api_client import job, paths

if TYPE_CHECKING:
    from tests.support.api_client import Api

HOUR = 3_600_000


def ahead(api: Api, ms: int = HOUR) -> str:
    return format_instant(api.clock.now_ms() + ms)


async def shown(api: Api) -> tuple[Any, ...]:
    found = (await api.call("GET", "/jobs/j")).json
    return found["state"], found["pausedUntil"], found["pauseReason"]


async def test_a_job_shows_until_when_and_why_it_is_paused(api: Api) -> None:
    """By itself and in the list; an empty body, or none, pauses until a resume."""
    await api.make(jobId="j")
    until = ahead(api)
    paused = await api.call("POST", "/jobs/j/pause", {"until": until, "reason": "moving"})
    assert (paused.status_code, paused.json["pausedUntil"], paused.json["pauseReason"]) == (200, until, "moving")
    assert paused.headers["etag"] == '"2"'
    listed = (await api.call("GET", "/jobs?state=paused")).json["items"][0]
    assert (listed["pausedUntil"], listed["pauseReason"]) == (until, "moving")
    assert (await api.call("POST", "/jobs/j/pause")).json["revision"] == 2
    assert (await api.call("POST", "/jobs/j/pause", {})).json["pausedUntil"] == until
    resumed = (await api.call("POST", "/jobs/j/resume")).json
    assert (resumed["state"], resumed["pausedUntil"], resumed["pauseReason"]) == ("active", None, None)


async def test_a_paused_job_gets_the_terms_that_a_pause_names(api: Api) -> None:
    """What it leaves out stays, null removes it, and each change is a revision."""
    await api.make(jobId="j")
    await api.call("POST", "/jobs/j/pause")
    first, second = ahead(api), ahead(api, 2 * HOUR)
    steps: list[tuple[dict[str, Any], tuple[Any, ...], int]] = [
        ({"until": first}, ("paused", first, None), 3),
        ({"reason": "why"}, ("paused", first, "why"), 4),
        ({"until": second}, ("paused", second, "why"), 5),
        ({"until": second, "reason": "why"}, ("paused", second, "why"), 5),
        ({"until": None}, ("paused", None, "why"), 6),
        ({"reason": None}, ("paused", None, None), 7),
    ]
    for body, expected, revision in steps:
        answer = await api.call("POST", "/jobs/j/pause", body)
        assert (await shown(api), answer.json["revision"]) == (expected, revision), body


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"until": "2020-01-01T00:00:00Z"}, "until"),
        ({"until": "tomorrow"}, "until"),
        ({"until": 5}, "until"),
        ({"reason": ""}, "reason"),
        ({"reason": "x" * 501}, "reason"),
        ({"till": None}, "till"),
        ([], ""),
    ],
)
async def test_bad_terms_are_refused_by_the_name_of_their_field(api: Api, body: Any, path: str) -> None:
    """And the job goes on."""
    await api.make(jobId="j")
    answer = await api.call("POST", "/jobs/j/pause", body)
    assert (answer.status_code, paths(answer)) == (422, [path])
    assert (await shown(api))[0] == "active"


async def test_a_pause_ends_within_a_year(api: Api) -> None:
    """A later end is a mistake: without an end it lasts until a resume."""
    await api.make(jobId="j")
    answer = await api.call("POST", "/jobs/j/pause", {"until": ahead(api, 367 * 24 * HOUR)})
    assert (answer.status_code, paths(answer)) == (422, ["until"])
    assert (await api.call("POST", "/jobs/j/pause", {"until": ahead(api, 365 * 24 * HOUR)})).status_code == 200


async def test_a_pause_honours_if_match(api: Api) -> None:
    """Also one that only changes the terms."""
    await api.make(jobId="j")
    assert (await api.call("POST", "/jobs/j/pause", {"until": ahead(api)}, If_Match='"2"')).status_code == 412
    assert (await api.call("POST", "/jobs/j/pause", {"until": ahead(api)}, If_Match='"1"')).status_code == 200


async def test_definitions_carry_the_terms(api: Api) -> None:
    """Created, patched and imported; a replacement without them clears them, a patch without them keeps them."""
    until = ahead(api)
    await api.make(jobId="j", state="paused", pausedUntil=until, pauseReason="not yet")
    assert await shown(api) == ("paused", until, "not yet")
    await api.call("PATCH", "/jobs/j", {"name": "n"})
    assert await shown(api) == ("paused", until, "not yet")
    await api.call("PATCH", "/jobs/j", {"pausedUntil": None})
    assert await shown(api) == ("paused", None, "not yet")
    line = orjson.dumps(job(jobId="j", state="paused", pausedUntil=until))
    done = await api.call("POST", "/jobs/import", line, Content_Type="application/x-ndjson")
    assert (done.json["updated"], await shown(api)) == (1, ("paused", until, None))
    assert (await api.call("POST", "/jobs/import", line, Content_Type="application/x-ndjson")).json["unchanged"] == 1
    await api.call("PUT", "/jobs/j", job())
    assert await shown(api) == ("paused", None, None)


async def test_terms_need_a_paused_job(api: Api) -> None:
    """Each of them is named."""
    fields = {"pausedUntil": ahead(api), "pauseReason": "why"}
    answer = await api.call("PUT", "/jobs/j", job(**fields))
    assert (answer.status_code, paths(answer)) == (422, ["pausedUntil", "pauseReason"])
    answer = await api.call("PUT", "/jobs/j", job(state="paused", pausedUntil="2020-01-01T00:00:00Z"))
    assert (answer.status_code, paths(answer)) == (422, ["pausedUntil"])


async def test_a_read_document_can_be_put_back_after_the_end(api: Api) -> None:
    """The job is still paused for want of a leader: its end is in the past, and is what is stored."""
    await api.make(jobId="j")
    await api.call("POST", "/jobs/j/pause", {"until": ahead(api)})
    api.clock.shift = 2 * HOUR
    answer = await api.call("PATCH", "/jobs/j", {"name": "n"})
    assert (answer.status_code, answer.json["state"], answer.json["revision"]) == (200, "active", 4)


async def test_explain_says_until_when_and_why(api: Api) -> None:
    """During the pause, and for an instant after its end."""
    await api.make(jobId="j", schedule="* * * * * *")
    until = ahead(api)
    await api.call("POST", "/jobs/j/pause", {"until": until, "reason": "moving"})

    async def told(at: str) -> dict[str, Any]:
        answer = (await api.call("GET", f"/jobs/j/explain?at={at}")).json
        return dict(answer["explanations"][0])

    during, after = await told(ahead(api, 60_000)), await told(ahead(api, 2 * HOUR))
    said = str(during)
    assert (during["state"], "moving" in said, until in said) == ("paused", True, True), said
    assert f"paused until {until}" in after["summary"], after

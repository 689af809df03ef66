"""What is said of a field that an object does not have: it names a field of that object, and of no other one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.support.api_client import Api

WINDOW = {"mode": "hold", "tags": ["a"], "from": "2030-01-01T00:00:00Z", "until": "2030-01-02T00:00:00Z"}
IN_THE_PATH = "is unknown; remove it (the name of an object is in its path)"


@pytest.mark.parametrize(
    ("method", "path", "body", "field", "message"),
    [
        ("PUT", "/windows/w", WINDOW, "name", IN_THE_PATH),
        ("PUT", "/calendars/c", {"weekdays": ["SAT"]}, "name", IN_THE_PATH),
        ("PUT", "/queues/q", {"maxPerSecond": 1}, "name", IN_THE_PATH),
        ("PUT", "/channels/c", {"type": "webhook", "url": "https://ops.example/"}, "name", IN_THE_PATH),
        ("PUT", "/windows/w", WINDOW, "tag", "is unknown; did you mean tags?"),
        ("PUT", "/windows/w", WINDOW, "id", "is unknown; remove it"),
        ("PUT", "/windows/w", WINDOW, "enabled", "is unknown; remove it"),
        ("PUT", "/windows/w", WINDOW, "tz", "is unknown; the field of the time zone is timezone"),
        ("PUT", "/windows/w", WINDOW, "duration_seconds", "is unknown; did you mean durationSeconds?"),
        ("PUT", "/calendars/c", {}, "weekday", "is unknown; did you mean weekdays?"),
        ("PUT", "/queues/q", {}, "maxPerSec", "is unknown; did you mean maxPerSecond?"),
        ("POST", "/jobs/actions", {"action": "pause", "filter": {"all": True}}, "dryrun", "is unknown; did you mean dryRun?"),
        ("POST", "/messages", {"api": "https://api.example.com/"}, "method", "is unknown; every request is a POST, so remove it"),
        ("POST", "/messages", {"api": "https://api.example.com/"}, "enabled", "is unknown; remove it"),
        ("POST", "/messages", {"api": "https://api.example.com/"}, "name", "is unknown; remove it"),
        ("POST", "/messages", {"api": "https://api.example.com/"}, "dedup_id", "is unknown; did you mean dedupId?"),
    ],
)  # fmt: skip
async def test_an_unknown_field_is_told_by_the_fields_of_its_object(
    api: Api, method: str, path: str, body: dict[str, Any], field: str, message: str
) -> None:
    """Words of other schedulers are told where the object has such a field."""
    answer = await api.call(method, path, {**body, field: "x"})
    assert answer.status_code == 422
    assert {"path": field, "message": message} in answer.json["errors"]


JOB = {"schedule": "@hourly", "api": "https://api.example.com/"}
MESSAGE = {"api": "https://api.example.com/"}
BULK = {"action": "pause", "filter": {"all": True}}


@pytest.mark.parametrize(
    ("method", "path", "body", "field", "nested", "message"),
    [
        ("PUT", "/jobs/j", JOB, "retry", "maxAtempts", "is unknown; did you mean maxAttempts?"),
        ("PUT", "/jobs/j", JOB, "calendar", "onexcluded", "is unknown; did you mean onExcluded?"),
        ("PUT", "/jobs/j", JOB, "after", "job_id", "is unknown; did you mean jobId?"),
        ("PUT", "/jobs/j", JOB, "auth", "user", "is unknown; did you mean username?"),
        ("PUT", "/jobs/j", JOB, "alerts", "channel", "is unknown; did you mean channels?"),
        ("PUT", "/jobs/j", JOB, "onFailure", "url", "is unknown; the field of the target's URL is api"),
        ("PUT", "/jobs/j", JOB, "retry", "revision", "is unknown; remove it"),
        ("PUT", "/jobs/j", JOB, "retry", "name", "is unknown; remove it"),
        ("POST", "/messages", MESSAGE, "retry", "max_attempts", "is unknown; did you mean maxAttempts?"),
        ("POST", "/messages", MESSAGE, "onSuccess", "chanel", "is unknown; did you mean channel?"),
        ("POST", "/jobs/actions", BULK, "filter", "tags", "is unknown; did you mean tag?"),
        ("POST", "/executions/retry", {}, "filter", "jobID", "is unknown; did you mean jobId?"),
        ("POST", "/schedules/preview", JOB, "calendar", "nam", "is unknown; did you mean name?"),
    ],
)  # fmt: skip
async def test_an_unknown_field_within_an_object_is_told_by_the_fields_of_that_one(
    api: Api, method: str, path: str, body: dict[str, Any], field: str, nested: str, message: str
) -> None:
    """Wherever the object stands. A name that only the outer object has is not meant."""
    answer = await api.call(method, path, {**body, field: {**body.get(field, {}), nested: "x"}})
    assert answer.status_code == 422
    assert {"path": f"{field}.{nested}", "message": message} in answer.json["errors"]


async def test_a_value_that_must_be_true_is_told_as_json_has_it(api: Api) -> None:
    """`True` is no word of JSON."""
    answer = await api.call("POST", "/jobs/actions", {"action": "pause", "filter": {"all": False}})
    assert answer.json["errors"] == [{"path": "filter.all", "message": "must be true"}]

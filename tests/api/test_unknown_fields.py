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


async def test_a_value_that_must_be_true_is_told_as_json_has_it(api: Api) -> None:
    """`True` is no word of JSON."""
    answer = await api.call("POST", "/jobs/actions", {"action": "pause", "filter": {"all": False}})
    assert answer.json["errors"] == [{"path": "filter.all", "message": "must be true"}]

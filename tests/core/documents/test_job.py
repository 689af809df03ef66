"""The document of a job: each fault has its path, and no value is converted to another type."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.core.documents.job import JobSpec
from cluster.core.documents.job_json import job_document, read_job
from cluster.core.errors import Fault, InvalidInput
from config.settings import load_settings
from ops.local.demo import LOOPBACK

JOB = {"schedule": "@daily", "api": "https://a.example/"}


@pytest.mark.parametrize(
    ("fields", "paths"),
    [
        ({"maxPerSecond": 0}, ["maxPerSecond"]),
        ({"maxPerSecond": -1, "maxConcurrent": 0}, ["maxPerSecond", "maxConcurrent"]),
        ({"maxConcurrent": 1.5}, ["maxConcurrent"]),
        ({"queue": "a b"}, ["queue"]),
        ({"queue": ""}, ["queue"]),
        ({"queue": "mail", "maxConcurrent": 1}, ["queue"]),
        ({"successCodes": []}, ["successCodes"]),
        ({"successCodes": [200, 200]}, ["successCodes"]),
        ({"successCodes": [199]}, ["successCodes.0"]),
        ({"successCodes": [200, "6xx"]}, ["successCodes.1"]),
        ({"successCodes": [True]}, ["successCodes.0"]),
        ({"retry": {"maxAgeSeconds": 0}}, ["retry.maxAgeSeconds"]),
    ],
)
def test_each_fault_of_limits_and_codes_has_its_path(fields: dict[str, object], paths: list[str]) -> None:
    """Each fault has its path and says how to correct it."""
    with pytest.raises(InvalidInput) as caught:
        read_job({**JOB, **fields}, {})
    assert [f.path for f in caught.value.faults] == paths
    assert all("must" in f.message for f in caught.value.faults)


@pytest.mark.parametrize(
    "fields",
    [
        {"maxPerSecond": 0.5, "maxConcurrent": 2},
        {"queue": "mail.out-1"},
        {"successCodes": [200, "3xx", 404]},
        {"retry": {"maxAgeSeconds": 3600.0}},
    ],
)
def test_limits_and_codes_read_as_they_were_written(fields: dict[str, object]) -> None:
    """The document of a definition reads as the same definition."""
    first = read_job({**JOB, **fields}, {}).resolve(None)
    shown = job_document(first)
    assert read_job(shown, {}).resolve(None) == first
    for name, value in fields.items():
        assert shown[name] == value or (isinstance(value, dict) and value.items() <= shown[name].items())


def test_no_value_is_converted_to_another_type() -> None:
    """A value of another type is a fault, for every field of the model."""
    odd: list[Any] = ["x", 1, 1.5, True, [], {}, None, [1], {"a": 1}]
    for name, field in JobSpec.model_fields.items():
        if field.annotation is Any:
            continue
        alias = field.alias or name
        refused = 0
        elsewhere: list[Fault] = []
        for value in odd:
            try:
                read_job({"schedule": "@daily", "api": "https://a.example/", alias: value}, {})
            except InvalidInput as exc:
                elsewhere += [f for f in exc.faults if not f.path.startswith(alias)]
                refused += 1
        assert refused >= 5, alias
        assert elsewhere == []


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("url", "endpoint", "webhook_url"), "api"),
        (("cron", "cronExpression", "cron_expression"), "schedule"),
        (("payload", "data"), "body"),
        (("enabled", "disabled", "suspend"), 'state: "active" or "paused"'),
        (("method", "httpMethod", "HTTP_METHOD"), "every request is a POST"),
        (("tz", "timeZone"), "timezone"),
        (("timeout", "retries", "id", "max_attempts", "job_name"), "field is"),
        (("every", "interval", "rate"), "@every"),
        (("at", "runAt", "run_at"), "@at"),
        (("job_id", "JobId"), "jobId"),
        (("API",), "did you mean api?"),
        (("username", "api_key", "token"), "auth"),
        (("command", "Script"), "runs no commands"),
        (("concurrencyPolicy",), "overlap"),
        (("labels",), "tags"),
        (("contentType", "http_headers"), "headers"),
        (("userAgent", "user_agent"), "User-Agent"),
        (("query", "params", "queryString"), "part of the URL in api"),
        (("link", "address"), "URL is api"),
        (("auth_token", "access_token", "credentials"), "auth"),
        (("callback", "endpoint_url", "httpTarget"), "api"),
        (("callback_url", "failureCallback", "onError"), "onFailure"),
        (("isActive", "is_enabled", "isPaused"), 'state: "active" or "paused"'),
        (("startingDeadlineSeconds", "misfirePolicy", "misfire_grace_time", "coalesce"), "catchUp"),
        (("jitter", "flexibleTimeWindow"), "spreadSeconds"),
        (("notBefore", "start_time"), "startAt"),
        (("notAfter", "expires"), "endAt"),
        (("attemptDeadline", "request_timeout"), "timeoutSeconds"),
        (("retryPolicy", "retryConfig"), "retry"),
        (("title",), "name"),
        (("notifications",), "alerts"),
        (("maxInstances",), "overlap"),
    ],
)
def test_a_name_of_another_scheduler_gets_the_name_of_here(names: tuple[str, ...], words: str) -> None:
    """Whatever its case and separators."""
    for name in names:
        with pytest.raises(InvalidInput) as caught:
            read_job({**JOB, name: 1}, {})
        (fault,) = caught.value.faults
        assert fault.path == name
        assert words in fault.message


def test_the_demo_allows_both_loopbacks() -> None:
    """`localhost` may be either."""
    networks = load_settings(None, allowed_networks=LOOPBACK).allowed_networks
    for url in ("http://127.0.0.1:5001/x", "http://[::1]:5001/x"):
        assert read_job({**JOB, "api": url}, {"networks": networks}).definition.url == url
    for url in ("http://[::2]:5001/x", "http://10.0.0.1/", "http://[::ffff:10.0.0.1]/"):
        with pytest.raises(InvalidInput):
            read_job({**JOB, "api": url}, {"networks": networks})

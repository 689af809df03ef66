"""`horae import k8s`: CronJob manifests, read as Kubernetes documents them, and what has no equal."""

from __future__ import annotations

from typing import Any

import pytest

from ops.migrate.cronjobs import NotYaml, translate_cronjobs
from tests.support.moving import DATA, next_runs, remarks, translated


def cronjobs(text: str, template: str = "https://x.example/{name}", timezone: str | None = "UTC") -> Any:
    return translated(translate_cronjobs, text, template, timezone=timezone)


def manifest(schedule: str, **spec: Any) -> str:
    lines = "".join(f"  {name}: {value}\n" for name, value in spec.items())
    return f"kind: CronJob\nmetadata: {{name: x}}\nspec:\n  schedule: '{schedule}'\n{lines}"


@pytest.mark.parametrize(
    ("schedule", "after", "expected"),
    [
        ("* * * * *", "2026-11-28T10:00:30Z", ["2026-11-28T10:01:00Z", "2026-11-28T10:02:00Z"]),
        # Either day field is enough: Friday 4 December, then Friday 11, then the 13th.
        ("0 0 13 * 5", "2026-12-05T00:00:00Z", ["2026-12-11T00:00:00Z", "2026-12-13T00:00:00Z"]),
        ("0 0 13 * fri", "2026-12-05T00:00:00Z", ["2026-12-11T00:00:00Z", "2026-12-13T00:00:00Z"]),
        # A step makes a day field a restriction, unlike in cron: odd days and Mondays.
        ("0 0 */2 * 1", "2026-11-28T00:00:00Z", ["2026-11-29T00:00:00Z", "2026-11-30T00:00:00Z"]),
        ("0 0 */1 * 1", "2026-11-28T00:00:00Z", ["2026-11-30T00:00:00Z", "2026-12-07T00:00:00Z"]),
        ("0 0 ? * 1", "2026-11-28T00:00:00Z", ["2026-11-30T00:00:00Z", "2026-12-07T00:00:00Z"]),
        ("? 3 ? ? ?", "2026-11-28T03:58:00Z", ["2026-11-28T03:59:00Z", "2026-11-29T03:00:00Z"]),
        ("5/20 8-9 * * *", "2026-11-28T08:10:00Z", ["2026-11-28T08:25:00Z", "2026-11-28T08:45:00Z"]),
        ("0 0 1,*/1 * 1", "2026-11-28T00:00:00Z", ["2026-11-30T00:00:00Z", "2026-12-07T00:00:00Z"]),
        ("*/60 9 * * *", "2026-11-28T00:00:00Z", ["2026-11-28T09:00:00Z", "2026-11-29T09:00:00Z"]),
        ("0 0 * DEC-DEC SUN-MON", "2026-11-28T00:00:00Z", ["2026-12-06T00:00:00Z", "2026-12-07T00:00:00Z"]),
        ("@weekly", "2026-11-28T00:00:00Z", ["2026-11-29T00:00:00Z", "2026-12-06T00:00:00Z"]),
        ("@annually", "2026-11-28T00:00:00Z", ["2027-01-01T00:00:00Z", "2028-01-01T00:00:00Z"]),
        ("@every 1h30m", "2026-11-28T00:00:00Z", ["2026-11-28T01:30:00Z", "2026-11-28T03:00:00Z"]),
    ],
)
def test_a_schedule_is_due_when_kubernetes_runs_it(schedule: str, after: str, expected: list[str]) -> None:
    """Five fields, ? as *, steps from a number on, names, and the macros."""
    translation = cronjobs(manifest(schedule))
    assert translation.left_out == 0, remarks(translation)
    assert next_runs(translation.jobs[0], after, 2) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (manifest("0 0 * * 7"), "does not know '7'"),
        (manifest("0 22-2 * * *"), "ends before it begins"),
        (manifest("0 0 0 * * *"), "6 fields"),
        (manifest("@reboot"), "does not know '@reboot'"),
        (manifest("@every 1.5s"), "whole hours"),
        (manifest("@every 0s"), "from 1s"),
        (manifest("0 0 L * *"), "does not know 'L'"),
        (manifest("0 0 * * *", timeZone="Mars/Phobos"), "not an IANA time zone"),
        (manifest("TZ=UTC 0 0 * * *", timeZone="UTC"), "remove the first"),
        (manifest("0 0 * * *", concurrencyPolicy="Maybe"), "concurrencyPolicy"),
        (manifest("0 0 * * *", suspend="'yes'"), "suspend: must be true or false"),
        (manifest("0 0 * * *", startingDeadlineSeconds="soon"), "startingDeadlineSeconds: must be a whole number"),
        ("kind: CronJob\nspec: {schedule: '* * * * *'}", "metadata.name"),
        ("kind: CronJob\nmetadata: {name: x}", "no spec"),
        ("kind: CronJob\nmetadata: {name: x}\nspec: {}", "no spec.schedule"),
        ("just a text", "not an object"),
    ],
)
def test_what_kubernetes_or_horae_does_not_know_is_left_out(text: str, words: str) -> None:
    """With the reason; the documents around it are moved."""
    translation = cronjobs(f"{text}\n---\n{manifest('@daily').replace('name: x', 'name: after')}")
    assert [job["jobId"] for job in translation.jobs] == ["after"]
    (found,) = remarks(translation, "NOT MOVED")
    assert words in found


def test_a_file_of_documents_and_lists_is_moved() -> None:
    """`kubectl` prints lists; an item of a typed list has no kind. What is no CronJob is named."""
    translation = cronjobs((DATA / "cronjobs.yaml").read_text(), timezone=None)
    assert translation.left_out == 1
    jobs = {job["jobId"]: job for job in translation.jobs}
    assert list(jobs) == [
        *("hello", "nightly-report", "friday-13", "b-friday-13", "monthly", "every", "in-schedule"),
    ]
    assert "state" not in jobs["hello"]
    assert jobs["monthly"]["catchUpWindowSeconds"] == 302_400
    assert jobs["in-schedule"]["timezone"] == "Asia/Tokyo"
    assert next_runs(jobs["monthly"], count=2) == ["2026-12-01T05:00:00Z", "2027-01-01T05:00:00Z"]
    assert next_runs(jobs["b-friday-13"], "2027-01-01T00:00:00Z", 2) == ["2027-01-01T08:00:00Z", "2027-01-01T08:20:00Z"]
    found = "\n".join(remarks(translation))
    for words in (
        "has CronJobs without timeZone",
        "CronJob hello, CronJob a/friday-13, CronJob b/friday-13, CronJob every",
        "CronJob b/friday-13: its id is 'b-friday-13'",
        "CronJob b/friday-13: concurrencyPolicy Replace",
        "CronJob monthly: startingDeadlineSeconds 999999",
        "CronJob in-schedule: the time zone is the one in spec.schedule, Asia/Tokyo",
        "CronJob sunday-is-not-7: NOT MOVED",
        "ConfigMap settings: is no CronJob",
    ):
        assert words in found


def test_policies_become_fields_and_the_rest_is_named() -> None:
    """A suspended CronJob is a paused job, never an active one."""
    text = (DATA / "cronjobs.yaml").read_text()
    (job,) = [
        j for j in cronjobs(text.replace("suspend: true", "suspend: false")).jobs if j["name"] == "nightly.report"
    ]
    assert (job["jobId"], job["overlap"], job["retry"]) == ("nightly-report", "skip", {"maxAttempts": 1})
    assert (job["catchUp"], job["catchUpWindowSeconds"]) == ("latest", 200)
    found = "\n".join(remarks(cronjobs(text.replace("suspend: true", "suspend: false"))))
    for words in (
        "spec.successfulJobsHistoryLimit has no",
        "jobTemplate.spec.activeDeadlineSeconds has no",
        "backoffLimit",
    ):
        assert f"CronJob billing/nightly.report: {words}" in found
    assert "CronJob billing/nightly.report: its id is 'nightly-report'" in found
    suspended = [j for j in cronjobs(text).jobs if j["name"] == "nightly.report"]
    assert [j["state"] for j in suspended] == ["paused"]


def test_where_the_clocks_change_a_remark_says_what_differs() -> None:
    """Kubernetes leaves a time in the gap out and runs a repeated one twice; Horae does what cron does."""
    fixed = "\n".join(remarks(cronjobs(manifest("30 2 * * *", timeZone="Europe/Berlin"))))
    assert "2027-03-28 02:30 does not exist in Europe/Berlin" in fixed
    assert "Horae runs it at 03:00" in fixed
    assert "2027-10-31 02:30 comes twice in Europe/Berlin" in fixed
    for text in (
        manifest("*/30 * * * *", timeZone="Europe/Berlin"),
        manifest("30 4 * * *", timeZone="Europe/Berlin"),
        manifest("30 2 * * *", timeZone="Asia/Tokyo"),
    ):
        assert remarks(cronjobs(text), "Horae runs it") == []
    assert remarks(cronjobs(manifest("@daily", timeZone="Africa/Cairo")), "does not exist in Africa/Cairo")


def test_the_command_is_that_of_the_first_container() -> None:
    """Quoted as a shell would need it, then percent-encoded; empty where the image decides."""
    translation = cronjobs((DATA / "cronjobs.yaml").read_text(), "https://x.example/run?c={command}")
    assert translation.jobs[0]["api"] == "https://x.example/run?c=%2Fbin%2Fsh%20-c%20%27date%3B%20echo%20Hello%27"
    assert translation.jobs[-1]["api"] == "https://x.example/run?c="


def test_a_file_that_is_not_yaml_is_refused_with_the_line() -> None:
    """Also a template of Helm, and a tag that would make an object."""
    for text in ("a: [", "schedule: @daily", "{{- if .Values.x }}\na: b", "a: !!python/object/apply:os.system [ls]"):
        with pytest.raises(NotYaml, match=r"line [12]"):
            cronjobs(text)


def test_json_is_yaml() -> None:
    """`kubectl get cronjobs -o json`."""
    text = '{"kind": "List", "items": [{"kind": "CronJob", "metadata": {"name": "j"}, "spec": {"schedule": "@daily"}}]}'
    assert cronjobs(text).jobs[0]["jobId"] == "j"

"""`horae import eventbridge`: schedules and rules, read as AWS documents them, and what has no equal."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ops.migrate.eventbridge import NotJson, translate_eventbridge
from ops.migrate.translation import line_of
from tests.support.moving import DATA, next_runs, remarks, translated


def eventbridge(*items: Any, text: str | None = None) -> Any:
    return translated(translate_eventbridge, "\n".join(map(json.dumps, items)) if text is None else text)


def schedule(expression: str, **fields: Any) -> dict[str, Any]:
    return {"Name": "x", "ScheduleExpression": expression, **fields}


@pytest.mark.parametrize(
    ("expression", "after", "expected"),
    [
        ("cron(0 10 * * ? *)", "2026-11-28T10:00:00Z", ["2026-11-29T10:00:00Z", "2026-11-30T10:00:00Z"]),
        ("cron(15 12 * * ? *)", "2026-11-28T00:00:00Z", ["2026-11-28T12:15:00Z", "2026-11-29T12:15:00Z"]),
        ("cron(0 18 ? * MON-FRI *)", "2026-11-28T00:00:00Z", ["2026-11-30T18:00:00Z", "2026-12-01T18:00:00Z"]),
        # Days of the week are numbered from 1, Sunday: 2-6 is Monday to Friday.
        ("cron(0 18 ? * 2-6 *)", "2026-11-28T00:00:00Z", ["2026-11-30T18:00:00Z", "2026-12-01T18:00:00Z"]),
        ("cron(0 18 ? * 1 *)", "2026-11-28T00:00:00Z", ["2026-11-29T18:00:00Z", "2026-12-06T18:00:00Z"]),
        ("cron(0 18 ? * 7 *)", "2026-11-28T19:00:00Z", ["2026-12-05T18:00:00Z", "2026-12-12T18:00:00Z"]),
        ("cron(0 8 1 * ? *)", "2026-11-28T00:00:00Z", ["2026-12-01T08:00:00Z", "2027-01-01T08:00:00Z"]),
        ("cron(0/15 * * * ? *)", "2026-11-28T10:31:00Z", ["2026-11-28T10:45:00Z", "2026-11-28T11:00:00Z"]),
        ("cron(1/10 5 * * ? *)", "2026-11-28T05:42:00Z", ["2026-11-28T05:51:00Z", "2026-11-29T05:01:00Z"]),
        ("cron(0/10 * ? * MON-FRI *)", "2026-11-28T00:00:00Z", ["2026-11-30T00:00:00Z", "2026-11-30T00:10:00Z"]),
        ("cron(0/5 8-17 ? * MON-FRI *)", "2026-11-27T17:50:00Z", ["2026-11-27T17:55:00Z", "2026-11-30T08:00:00Z"]),
        ("cron(15 10 ? * 6L 2022-2031)", "2026-11-28T00:00:00Z", ["2026-12-25T10:15:00Z", "2027-01-29T10:15:00Z"]),
        ("cron(15 10 ? * FRIL *)", "2026-11-28T00:00:00Z", ["2026-12-25T10:15:00Z", "2027-01-29T10:15:00Z"]),
        ("cron(0 9 ? * 3#2 *)", "2026-11-28T00:00:00Z", ["2026-12-08T09:00:00Z", "2027-01-12T09:00:00Z"]),
        ("cron(0 9 ? * TUE#2 *)", "2026-11-28T00:00:00Z", ["2026-12-08T09:00:00Z", "2027-01-12T09:00:00Z"]),
        # The last day of the week is Saturday.
        ("cron(0 9 ? * L *)", "2026-11-28T10:00:00Z", ["2026-12-05T09:00:00Z", "2026-12-12T09:00:00Z"]),
        ("cron(0 9 L * ? *)", "2026-11-28T00:00:00Z", ["2026-11-30T09:00:00Z", "2026-12-31T09:00:00Z"]),
        # 3 January 2027 is a Sunday: the nearest weekday is Monday the 4th.
        ("cron(0 9 3W * ? *)", "2026-12-28T00:00:00Z", ["2027-01-04T09:00:00Z", "2027-02-03T09:00:00Z"]),
        ("cron(0 0 1 1/3 ? *)", "2026-11-28T00:00:00Z", ["2027-01-01T00:00:00Z", "2027-04-01T00:00:00Z"]),
        ("cron(0 0 1 JAN,JUL ? *)", "2026-11-28T00:00:00Z", ["2027-01-01T00:00:00Z", "2027-07-01T00:00:00Z"]),
        ("cron(0 0 ? * FRI-SUN *)", "2026-11-28T00:00:00Z", ["2026-11-29T00:00:00Z", "2026-12-04T00:00:00Z"]),
        ("cron(0 0 ? * 6-1 *)", "2026-11-28T00:00:00Z", ["2026-11-29T00:00:00Z", "2026-12-04T00:00:00Z"]),
        ("cron(0 0 1 1 ? 2028)", "2026-11-28T00:00:00Z", ["2028-01-01T00:00:00Z"]),
        ("cron(0 0 1 1 ? 2026-2028)", "2026-11-28T00:00:00Z", ["2027-01-01T00:00:00Z", "2028-01-01T00:00:00Z"]),
        ("rate(1 minute)", "2026-11-28T00:00:00Z", ["2026-11-28T00:01:00Z", "2026-11-28T00:02:00Z"]),
        ("rate(5 hours)", "2026-11-28T00:00:00Z", ["2026-11-28T05:00:00Z", "2026-11-28T10:00:00Z"]),
        ("rate(2 days)", "2026-11-28T00:00:00Z", ["2026-11-30T00:00:00Z", "2026-12-02T00:00:00Z"]),
        ("at(2027-11-20T13:00:00)", "2026-11-28T00:00:00Z", ["2027-11-20T13:00:00Z"]),
    ],
)
def test_an_expression_is_due_when_eventbridge_runs_it(expression: str, after: str, expected: list[str]) -> None:
    """By the tables of AWS: its fields, signs, numbering of days and years, in UTC where no zone is given."""
    translation = eventbridge(schedule(expression))
    assert translation.left_out == 0, remarks(translation)
    assert next_runs(translation.jobs[0], after, 2) == expected


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (schedule("cron(0 12 * * * *)"), "exactly one of"),
        (schedule("cron(0 12 ? * ? *)"), "exactly one of"),
        (schedule("cron(0 12 * * ?)"), "5 fields"),
        (schedule("cron(0 12 ? * 0 *)"), "does not know '0'"),
        (schedule("cron(0 12 ? * 8 *)"), "does not know '8'"),
        (schedule("cron(0 ? * * ? *)"), "does not know '?'"),
        (schedule("cron(0 12 ? * 2#1,6 *)"), "define two schedules"),
        (schedule("cron(0 0 1 1 ? 2020-2023)"), "its years are over"),
        (schedule("cron(0 0 1 1 ? 2000/2)"), "would be"),
        (schedule("cron(0 0 30 2 ? *)"), "never fires"),
        (schedule("rate(0 minutes)"), "must be a number"),
        (schedule("rate(5 seconds)"), "minutes, hours or days"),
        (schedule("at(2022-11-20T13:00:00)"), "in the past"),
        (schedule("at(2027-13-20T13:00:00)"), "month must be"),
        (schedule("at(2027-11-20)"), "local time such as"),
        (schedule("at(2027-03-28T02:30:00)", ScheduleExpressionTimezone="Europe/Berlin"), "does not exist"),
        (schedule("every day"), "is none of"),
        (schedule("rate(1 day)", ScheduleExpressionTimezone="Mars"), "not an IANA time zone"),
        (schedule("rate(1 day)", State="SLEEPY"), "State"),
        (schedule("rate(1 day)", EndDate="soon"), "is not a date"),
        (schedule("rate(1 day)", EndDate="2020-01-01T00:00:00Z"), "endAt"),
        (schedule("rate(1 day)", FlexibleTimeWindow={"Mode": "FLEXIBLE"}), "MaximumWindowInMinutes"),
        ({"Name": "x", "EventPattern": "{}"}, "a rule for events"),
        ({"Name": "x", "State": "ENABLED"}, "get-schedule"),
        ({"ScheduleExpression": "rate(1 day)"}, "has no Name"),
        ("text", "neither a schedule nor a rule"),
    ],
)
def test_what_eventbridge_or_horae_does_not_know_is_left_out(item: Any, words: str) -> None:
    """With the reason; the definitions around it are moved."""
    translation = eventbridge(item, {**schedule("rate(1 day)"), "Name": "after"})
    assert [job["jobId"] for job in translation.jobs] == ["after"]
    (found,) = remarks(translation, "NOT MOVED")
    assert words in found


def test_a_file_of_schedules_and_rules_is_moved() -> None:
    """Several values one after another, as a loop over `get-schedule` prints them, and the list of `list-rules`."""
    translation = eventbridge(text=(DATA / "schedules.json").read_text())
    jobs = {job["jobId"]: job for job in translation.jobs}
    assert list(jobs) == [
        *("last-friday", "once", "every-five", "in-the-gap", "weekdays", "sunday-is-1", "second-tuesday"),
        *("near-the-15th", "last-day", "some-years-2031", "some-years-2033", "daily-rate"),
    ]
    assert next_runs(jobs["once"]) == ["2031-11-20T12:00:00Z"]
    assert jobs["once"]["body"] == "TEST_PAYLOAD"
    # The end is exclusive.
    assert next_runs(jobs["every-five"]) == ["2031-01-01T00:02:00Z", "2031-01-01T00:07:00Z"]
    assert next_runs(jobs["sunday-is-1"], "2026-11-28T08:10:00Z", 3) == [
        *("2026-11-28T08:30:00Z", "2026-11-29T08:00:00Z", "2026-11-29T08:30:00Z"),
    ]
    assert next_runs(jobs["near-the-15th"], count=2) == ["2026-12-15T12:00:00Z", "2027-01-15T12:00:00Z"]
    assert next_runs(jobs["some-years-2031"]) == ["2031-01-01T00:00:00Z"]
    found = "\n".join(remarks(translation))
    for words in (
        "in-the-gap: 2027-03-28 02:30 does not exist in Europe/Berlin",
        "sunday.is.1: its id is 'sunday-is-1'",
        "some-years: its years are not one run: it becomes 2 jobs",
        "daily-rate: its interval counts from the creation of the job",
        "over: NOT MOVED",
        "both-days: NOT MOVED",
        "events: NOT MOVED",
    ):
        assert words in found
    assert "every-five: its interval" not in found


def test_what_is_deleted_when_it_is_over_is_deleted_here_too() -> None:
    """One that runs once as soon as it has run, one with an end after that; without the action the job is kept for a while."""
    over = {"ActionAfterCompletion": "DELETE"}
    end = {"EndDate": "2031-01-01T00:12:00Z"}
    translation = eventbridge(
        {**schedule("at(2031-11-20T13:00:00)", **over), "Name": "once"},
        {**schedule("rate(5 minutes)", **over, **end), "Name": "ends"},
        {**schedule("rate(5 minutes)", **over), "Name": "no-end"},
        {**schedule("at(2031-11-20T13:00:00)", ActionAfterCompletion="NONE"), "Name": "kept"},
        {**schedule("cron(5 * * * ? 2031)"), "Name": "years"},
    )
    shown = {j["jobId"]: (j.get("deleteAfterRun"), j.get("completedRetentionDays")) for j in translation.jobs}
    assert shown == {
        "once": (True, None),
        "ends": (None, 0),
        "no-end": (None, None),
        "kept": (None, None),
        "years": (None, None),
    }
    (remark,) = remarks(translation, "completedRetentionDays")
    assert remark.startswith(("kept, years:", "kept: "))
    assert "once" not in remark


@pytest.mark.parametrize("listed", ["Schedules", "Rules"])
def test_a_page_of_a_longer_list_is_named(listed: str) -> None:
    """`--max-items` cuts a list, and says so by a token alone."""
    translation = eventbridge({listed: [schedule("rate(1 day)")], "NextToken": "eyJ"})
    assert [job["jobId"] for job in translation.jobs] == ["x"]
    assert [r for r in remarks(translation) if "NextToken" in r]
    assert not [r for r in remarks(eventbridge({listed: [schedule("rate(1 day)")]})) if "NextToken" in r]


def test_the_fields_of_a_schedule_and_its_target_become_those_of_a_job() -> None:
    """A disabled schedule is a paused job, never an active one."""
    text = (DATA / "schedules.json").read_text()
    translation = eventbridge(text=text.replace("DISABLED", "ENABLED"))
    friday = translation.jobs[0]
    assert (friday["jobId"], friday["spreadSeconds"], friday["timezone"]) == ("last-friday", 900, "America/New_York")
    assert b'"body":{"at": "{{scheduledAt}}", "n": 12345678901234567.89}' in line_of(friday)
    assert friday["retry"] == {"maxAttempts": 4, "maxAgeSeconds": 3600}
    # In New York: 31 January 2031 is a Friday; the last one of 2032 is 31 December.
    assert next_runs(friday, count=2) == ["2031-01-31T15:15:00Z", "2031-02-28T15:15:00Z"]
    assert next_runs(friday, "2032-12-01T00:00:00Z") == ["2032-12-31T15:15:00Z"]
    assert remarks(translation, "last-friday: Target.DeadLetterConfig")
    disabled = [j for j in eventbridge(text=text).jobs if j["jobId"] == "last-friday"]
    assert [j["state"] for j in disabled] == ["paused"]


def test_a_repeated_hour_is_named_for_schedules_that_follow_it() -> None:
    """EventBridge runs them once, Horae in both hours; a fixed time runs once in both."""
    zone = {"ScheduleExpressionTimezone": "America/New_York"}
    every = remarks(eventbridge(schedule("cron(0/30 * * * ? *)", **zone)), "comes twice")
    assert [text for text in every if "2027-11-07 01:00 comes twice in America/New_York" in text]
    assert remarks(eventbridge(schedule("cron(30 1 * * ? *)", **zone)), "comes twice") == []


def test_what_has_no_equal_in_a_target_is_named() -> None:
    """Fields that are not known yet, too; values are not repeated."""
    item = schedule(
        "rate(1 day)",
        KmsKeyArn="arn:aws:kms:secret",
        EventPattern="{}",
        Targets=[
            {
                "Arn": "a",
                "InputPath": "$.x",
                "HttpParameters": {"HeaderParameters": {"X-Key": "secret"}},
                "Input": "<aws.scheduler.schedule-arn>",
                "RetryPolicy": {"MaximumRetryAttempts": 185},
            },
            {"Arn": "b"},
        ],
    )
    translation = eventbridge(item)
    found = "\n".join(remarks(translation))
    for words in ("KmsKeyArn has no", "EventPattern", "InputPath has no", "HttpParameters has no", "2 targets", "185"):
        assert words in found
    assert "an <aws.scheduler...> attribute" in found
    assert "secret" not in found
    assert translation.jobs[0]["retry"]["maxAttempts"] == 100


def test_braces_in_an_input_are_sent_as_they_are() -> None:
    """Horae fills in nothing that EventBridge would have left alone; both kinds of names together have no equal."""
    (job,) = eventbridge(schedule("rate(1 day)", Target={"Input": "{{jobId}}"})).jobs
    assert (job["body"], job["templates"]) == ("{{jobId}}", False)
    both = eventbridge(schedule("rate(1 day)", Target={"Input": "{{x}} <aws.scheduler.execution-id>"}))
    assert remarks(both, "NOT MOVED: Target.Input")


def test_a_template_of_cloudformation_is_read() -> None:
    """A resource without a Name has its logical name."""
    template = {
        "Resources": {
            "Nightly": {"Type": "AWS::Scheduler::Schedule", "Properties": {"ScheduleExpression": "rate(1 hour)"}},
            "Rule": {"Type": "AWS::Events::Rule", "Properties": {"Name": "r", "ScheduleExpression": "rate(2 hours)"}},
            "Table": {"Type": "AWS::DynamoDB::Table", "Properties": {}},
        }
    }
    assert [job["jobId"] for job in eventbridge(template).jobs] == ["Nightly", "r"]


def test_dates_are_read_in_both_forms_of_the_cli() -> None:
    """ISO 8601, and seconds since 1970."""
    for start in ("2031-01-01T01:00:00+01:00", 1_924_992_000.0):
        (job,) = eventbridge(schedule("rate(1 hour)", StartDate=start)).jobs
        assert job["startAt"] == "2031-01-01T00:00:00.000Z"


def test_a_file_that_is_not_json_is_refused_with_the_line() -> None:
    """Also after a value that is."""
    for text in ("{", '{"Name": "x"}\n{,}'):
        with pytest.raises(NotJson, match="line"):
            eventbridge(text=text)
    assert eventbridge(text=" \n").jobs == []

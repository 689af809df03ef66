"""EventBridge Scheduler schedules and EventBridge rules, as the AWS CLI prints them or CloudFormation has them (JSON)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cluster.core.documents.json_source import JsonText
from cluster.core.zones import zone_names
from ops.migrate.clock_changes import clock_remarks
from ops.migrate.eventbridge_expressions import bounded, instant_of, periods_of
from ops.migrate.translation import Draft, Untranslatable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ops.migrate.translation import Job, Translation

FILE = ""
"""The place of a remark about the whole file."""
GOES_ON = object()
"""Stands behind the definitions of a list that goes on elsewhere."""
MAX_ATTEMPTS = 100
ENABLED = ("ENABLED", "ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS")
RESOURCES = ("AWS::Scheduler::Schedule", "AWS::Events::Rule")
_READ = frozenset(
    {
        "Name",
        "GroupName",
        "ScheduleExpression",
        "ScheduleExpressionTimezone",
        "StartDate",
        "EndDate",
        "State",
        "FlexibleTimeWindow",
        "Target",
        "Targets",
        "Description",
        "ActionAfterCompletion",
        "Arn",
        "RoleArn",
        "CreationDate",
        "LastModificationDate",
        "ResponseMetadata",
        "EventBusName",
        "CreatedBy",
    }
)
_READ_OF_TARGET = frozenset({"Id", "Arn", "RoleArn", "Input", "RetryPolicy"})
_CONTEXT = {
    "<aws.scheduler.scheduled-time>": "{{scheduledAt}}",
    "<aws.scheduler.execution-id>": "{{executionId}}",
    "<aws.scheduler.attempt-number>": "{{attempt}}",
}
STANDING = (
    "a request is sent to a URL instead of the target: what the target did must be behind the URL",
    (
        "without a RetryPolicy EventBridge tries up to 185 times within a day; Horae sends a request up to "
        "retry.maxAttempts times (5)"
    ),
)


class NotJson(ValueError):
    """The file is not JSON. The message says where."""


def translate_eventbridge(text: str, translation: Translation) -> None:
    """Add the jobs of the schedules and rules in a file: one JSON value, or several one after another. Raises `NotJson`."""
    for number, value in enumerate(_values(text), 1):
        for name, item in _items(value):
            if item is GOES_ON:
                translation.remark(FILE, "has a NextToken: it is a page of a longer list; print the others too")
                continue
            _translate(item, name or f"value {number}", translation)
    if translation.jobs:
        for difference in STANDING:
            translation.remark(FILE, difference)


def _values(text: str) -> Iterator[Any]:
    decoder, position = json.JSONDecoder(), 0
    while (rest := text[position:].lstrip()) and (position := len(text) - len(rest)) < len(text):
        try:
            value, position = decoder.raw_decode(text, position)
        except json.JSONDecodeError as exc:
            raise NotJson(f"line {exc.lineno}, column {exc.colno}: {exc.msg}") from exc
        yield value


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    """The definitions in a value, with the names that CloudFormation gives them."""
    if isinstance(value, list):
        for item in value:
            yield from _items(item)
    elif isinstance(value, dict) and isinstance(value.get("Resources"), dict):
        for name, resource in value["Resources"].items():
            if isinstance(resource, dict) and resource.get("Type") in RESOURCES:
                properties = resource.get("Properties")
                yield name, {"Name": name, **properties} if isinstance(properties, dict) else properties
    elif isinstance(value, dict) and (
        lists := [value[k] for k in ("Schedules", "Rules") if isinstance(value.get(k), list)]
    ):
        for items in lists:
            yield from _items(items)
        if value.get("NextToken"):
            yield FILE, GOES_ON
    else:
        yield "", value


def _translate(item: Any, place: str, translation: Translation) -> None:
    if not isinstance(item, dict):
        translation.leave_out(place, "is neither a schedule nor a rule")
        return
    name = item.get("Name")
    place = str(name or place)
    remarks: list[str] = []
    try:
        if not isinstance(name, str) or not name:
            raise Untranslatable("has no Name")
        timezone = _timezone(item)
        periods = periods_of(_expression(item), timezone, translation.now_ms)
        fields, command = _fields(item, remarks)
        dates = [_date(item, key) for key in ("StartDate", "EndDate")]
    except Untranslatable as exc:
        translation.leave_out(place, str(exc))
        return
    if periods[0].schedule.startswith("@every") and dates[0] is None:
        remarks.append(
            "its interval counts from the creation of the job; EventBridge counted from that of the schedule"
        )
    if len(periods) > 1:
        remarks.append(f"its years are not one run: it becomes {len(periods)} jobs")
    for period in periods:
        job: Job = {"schedule": period.schedule, "timezone": timezone, **bounded(period, *dates), **fields}
        kept = _after_completion(item, job)
        called = f"{name}-{period.label}" if period.label else name
        if not translation.add(place, Draft(called, command, _description(item), job)):
            continue
        if (job_id := translation.jobs[-1]["jobId"]) != called:
            remarks.append(f"its id is '{job_id}': '{called}' is taken, or has characters that an id cannot have")
        remarks += kept
        remarks += clock_remarks(period.schedule, timezone, translation.now_ms, starred_once=True)
        for remark in remarks:
            translation.remark(place, remark)


def _expression(item: dict[str, Any]) -> str:
    expression = item.get("ScheduleExpression")
    if isinstance(expression, str) and expression:
        return expression
    if item.get("EventPattern"):
        raise Untranslatable("is a rule for events, without a schedule")
    raise Untranslatable("has no ScheduleExpression; `aws scheduler get-schedule` prints it, list-schedules does not")


def _timezone(item: dict[str, Any]) -> str:
    timezone = item.get("ScheduleExpressionTimezone") or "UTC"
    if timezone not in zone_names():
        raise Untranslatable(f"ScheduleExpressionTimezone: '{timezone}' is not an IANA time zone")
    return str(timezone)


def _date(item: dict[str, Any], key: str) -> int | None:
    value = item.get(key)
    return None if value is None else instant_of(value)


def _description(item: dict[str, Any]) -> str:
    own = item.get("Description")
    group = item.get("GroupName")
    place = f"EventBridge, {item['ScheduleExpression']}" + (
        f", group {group}" if group not in (None, "default") else ""
    )
    return f"{own} ({place})"[:4000] if own else place


def _after_completion(item: dict[str, Any], job: Job) -> list[str]:
    """What becomes of the job when it is over, added to the job; and what is different here."""
    runs_once = str(job["schedule"]).startswith("@at")
    if not runs_once and "endAt" not in job:
        return []
    if item.get("ActionAfterCompletion") == "DELETE":
        job |= {"deleteAfterRun": True} if runs_once else {"completedRetentionDays": 0}
        return []
    return ["EventBridge keeps it when it is over; Horae deletes the job after completedRetentionDays (30)"]


def _fields(item: dict[str, Any], remarks: list[str]) -> tuple[Job, str]:
    """The fields beside the times, and what stands for the command: the target's ARN. Raises `Untranslatable`."""
    fields: Job = {}
    state = item.get("State") or "ENABLED"
    if state == "DISABLED":
        fields["state"] = "paused"
    elif state not in ENABLED:
        raise Untranslatable(f"State: EventBridge does not know '{state}'")
    window = item.get("FlexibleTimeWindow") or {}
    if isinstance(window, dict) and window.get("Mode") == "FLEXIBLE":
        minutes = window.get("MaximumWindowInMinutes")
        if not isinstance(minutes, int) or not 1 <= minutes <= 1440:
            raise Untranslatable("FlexibleTimeWindow: MaximumWindowInMinutes must be 1 to 1440")
        fields["spreadSeconds"] = minutes * 60
    if item.get("EventPattern"):
        remarks.append("EventPattern: Horae does not react to events; only the schedule was moved")
    remarks += [f"{key} has no equal" for key in item if key not in _READ | {"EventPattern"} and item[key] is not None]
    targets = item.get("Targets") or [item.get("Target")]
    if isinstance(targets, list) and len(targets) > 1:
        remarks.append(f"has {len(targets)} targets: the job has the input and retries of the first, and one URL")
    target = targets[0] if isinstance(targets, list) and isinstance(targets[0], dict) else {}
    _add_target(target, fields, remarks)
    return fields, str(target.get("Arn") or "")


def _add_target(target: dict[str, Any], fields: Job, remarks: list[str]) -> None:
    """The input as the body, and the retry policy."""
    if isinstance(text := target.get("Input"), str):
        if "{{" in text and "<aws.scheduler." in text:
            raise Untranslatable(
                "Target.Input: has {{ }}, which Horae would fill in, and <aws.scheduler...> attributes"
            )
        if "{{" in text:
            fields["templates"] = False
        fields["body"] = _body(text, remarks)
    policy = target.get("RetryPolicy")
    if isinstance(policy, dict):
        retry = {}
        if isinstance(attempts := policy.get("MaximumRetryAttempts"), int):
            retry["maxAttempts"] = min(attempts + 1, MAX_ATTEMPTS)
            if attempts >= MAX_ATTEMPTS:
                remarks.append(f"MaximumRetryAttempts {attempts}: retry.maxAttempts is {MAX_ATTEMPTS}, the most")
        if isinstance(age := policy.get("MaximumEventAgeInSeconds"), int):
            retry["maxAgeSeconds"] = age
        if retry:
            fields["retry"] = retry
    if target.get("DeadLetterConfig"):
        remarks.append(
            "Target.DeadLetterConfig: what was given up stays in Horae's history as dead, and is sent again on request"
        )
    ignored = _READ_OF_TARGET | {"DeadLetterConfig"}
    remarks += [f"Target.{key} has no equal" for key in target if key not in ignored and target[key] is not None]


def _body(text: str, remarks: list[str]) -> Any:
    """The input, as JSON if it is JSON, with Horae's names for what EventBridge fills in. It keeps its digits and blanks."""
    for name, ours in _CONTEXT.items():
        text = text.replace(name, ours)
    if "<aws.scheduler." in text:
        remarks.append("its Input has an <aws.scheduler...> attribute that has no equal; it is sent as it stands")
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return text
    return value if value is None or isinstance(value, str) else JsonText(text.strip().encode())

"""CronJob manifests: several YAML documents, lists, and what `kubectl get cronjobs -o yaml` (or json) prints."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

import yaml

from cluster.core.schedule.cron_syntax import ALIASES
from cluster.core.zones import zone_names
from ops.migrate.clock_changes import clock_remarks
from ops.migrate.cron_fields import kubernetes_schedule
from ops.migrate.translation import Draft, Untranslatable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ops.migrate.translation import Job, Translation

FILE = ""
"""The place of a remark about the whole file."""
LONGEST_WINDOW = 302_400
"""The longest catch-up window that a node with the default retention accepts."""
MAX_ATTEMPTS = 100
_OVERLAP = {"Allow": "allow", "Forbid": "skip", "Replace": "allow"}
_ZONE_IN_SCHEDULE = re.compile(r"(?:CRON_)?TZ=(\S+)\s+(.+)\Z", re.DOTALL)
_GO_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?\Z")
_READ = {"schedule", "timeZone", "suspend", "concurrencyPolicy", "startingDeadlineSeconds", "jobTemplate"}
STANDING = (
    "a request is sent instead of a pod that runs: what its containers did must be behind the URL",
    (
        "a pod runs as long as it takes; Horae waits for an answer for timeoutSeconds (30), and sends a request that failed "
        "again (retry.maxAttempts, 5)"
    ),
)


class NotYaml(ValueError):
    """The file is not YAML. The message says where."""


def translate_cronjobs(text: str, translation: Translation, *, timezone: str | None) -> None:
    """Add the jobs of the CronJobs in a file. `timezone`: the zone of the cluster's controller. Raises `NotYaml`."""
    try:
        documents = list(yaml.safe_load_all(text))
    except yaml.MarkedYAMLError as exc:
        at = exc.problem_mark or exc.context_mark
        where = "" if at is None else f"line {at.line + 1}, column {at.column + 1}: "
        raise NotYaml(f"{where}{exc.problem or exc.context}") from exc
    except yaml.YAMLError as exc:  # a character that YAML forbids
        raise NotYaml(" ".join(str(exc).split())) from exc
    for number, document in enumerate(documents, 1):
        for item in _items(document):
            _translate(item, f"document {number}", translation, timezone)
    if translation.jobs:
        for difference in STANDING:
            translation.remark(FILE, difference)


def _items(document: Any, kind: str | None = None) -> Iterator[Any]:
    """The objects in a document; the items of a list may leave out their kind."""
    if document is None:
        return
    if isinstance(document, list):
        for item in document:
            yield from _items(item, kind)
    elif isinstance(document, dict) and isinstance(document.get("items"), list):
        of = str(document.get("kind", "List")).removesuffix("List") or None
        for item in document["items"]:
            yield from _items(item, of)
    elif isinstance(document, dict) and kind is not None:
        yield {"kind": kind, **document}
    else:
        yield document


def _translate(item: Any, place: str, translation: Translation, timezone: str | None) -> None:
    if not isinstance(item, dict):
        translation.leave_out(place, "is not an object of Kubernetes")
        return
    metadata = item.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    name = str(metadata.get("name") or str(metadata.get("generateName") or "").rstrip("-"))
    namespace = str(metadata.get("namespace") or "")
    kind = str(item.get("kind"))
    place = f"{kind} {namespace + '/' if namespace else ''}{name}"
    if kind != "CronJob":
        translation.remark(place, "is no CronJob; there is nothing to move")
        return
    spec = item.get("spec")
    try:
        if not name:
            raise Untranslatable("has no metadata.name")
        if not isinstance(spec, dict):
            raise Untranslatable("has no spec")
        fields, remarks = _fields(spec, timezone, translation)
        draft = Draft(name, _command(spec), place, fields, f"{namespace}-{name}" if namespace else None)
    except Untranslatable as exc:
        translation.leave_out(place, str(exc))
        return
    if not translation.add(place, draft):
        return
    job_id = translation.jobs[-1]["jobId"]
    if job_id != name:
        translation.remark(place, f"its id is '{job_id}': '{name}' is taken, or has characters that an id cannot have")
    for remark in remarks:
        translation.remark(place, remark)
    for difference in clock_remarks(fields["schedule"], fields["timezone"], translation.now_ms, starred_once=False):
        translation.remark(place, difference)


def _fields(spec: dict[str, Any], timezone: str | None, translation: Translation) -> tuple[Job, list[str]]:
    """The fields of the job, and what has no equal. Raises `Untranslatable`."""
    remarks = [f"spec.{key} has no equal" for key in spec if key not in _READ and spec[key] is not None]
    zone, schedule = _timing(spec, remarks)
    if zone is None:
        zone = timezone or "UTC"
        if timezone is None:
            translation.remark(
                FILE,
                "has CronJobs without timeZone, which follow the clock of the cluster's controller: read as UTC; give "
                "another zone with --timezone",
            )
    fields: Job = {"schedule": schedule, "timezone": zone}
    if _flag(spec, "suspend"):
        fields["state"] = "paused"
    policy = spec.get("concurrencyPolicy") or "Allow"
    if policy not in _OVERLAP:
        raise Untranslatable(f"concurrencyPolicy: Kubernetes does not know '{policy}'")
    if policy == "Replace":
        remarks.append(
            "concurrencyPolicy Replace: Horae does not end what runs; overlap is allow, so that the new one starts. "
            "overlap skip would leave it out"
        )
    elif policy == "Forbid":
        fields["overlap"] = _OVERLAP[policy]
    fields["catchUp"] = "latest"
    deadline = _number(spec, "startingDeadlineSeconds")
    if deadline is None:
        remarks.append(
            "has no startingDeadlineSeconds, so that Kubernetes makes up for the last run however late; Horae does so "
            "for catchUpWindowSeconds, 3600"
        )
    else:
        fields["catchUpWindowSeconds"] = min(deadline, LONGEST_WINDOW)
        if deadline > LONGEST_WINDOW:
            remarks.append(
                f"startingDeadlineSeconds {deadline}: catchUpWindowSeconds is {LONGEST_WINDOW}, half the default retention"
            )
    _add_template(spec, fields, remarks)
    return fields, remarks


def _timing(spec: dict[str, Any], remarks: list[str]) -> tuple[str | None, str]:
    """The zone, if one is given, and the schedule. Raises `Untranslatable`."""
    text = spec.get("schedule")
    if not isinstance(text, str) or not text.strip():
        raise Untranslatable("has no spec.schedule")
    zone = spec.get("timeZone")
    if inside := _ZONE_IN_SCHEDULE.match(text.strip()):
        if zone is not None:
            raise Untranslatable("has a time zone in spec.schedule and another in spec.timeZone: remove the first")
        zone, text = inside[1], inside[2]
        remarks.append(f"the time zone is the one in spec.schedule, {zone}, which Kubernetes 1.29 and later refuse")
    if zone is not None and zone not in zone_names():
        raise Untranslatable(f"'{zone}' is not an IANA time zone")
    return zone, _schedule(text.strip())


def _schedule(text: str) -> str:
    words = text.split()
    if words[0].startswith("@"):
        if words[0] == "@every" and len(words) == 2:
            return _every(words[1])
        if text not in ALIASES:
            raise Untranslatable(f"Kubernetes does not know '{text}'")
        return text
    if len(words) != 5:
        raise Untranslatable(f"spec.schedule has {len(words)} fields; Kubernetes knows five")
    return kubernetes_schedule(words)


def _every(duration: str) -> str:
    match = _GO_DURATION.match(duration)
    if match is None or not any(match.groups()):
        raise Untranslatable(f"@every {duration}: only whole hours, minutes and seconds, such as 1h30m, have an equal")
    return f"@every {duration}"


def _add_template(spec: dict[str, Any], fields: Job, remarks: list[str]) -> None:
    """What the Job's own spec says."""
    job = _inner(spec, "jobTemplate", "spec")
    backoff = _number(job, "backoffLimit")
    if backoff is not None:
        fields["retry"] = {"maxAttempts": min(backoff + 1, MAX_ATTEMPTS)}
        remarks.append("backoffLimit counted failed pods; retry.maxAttempts, one more, counts requests")
    remarks += [
        f"jobTemplate.spec.{key} has no equal"
        for key in job
        if key not in ("backoffLimit", "template") and job[key] is not None
    ]


def _command(spec: dict[str, Any]) -> str:
    """The command line of the first container; empty where its image decides."""
    containers = _inner(spec, "jobTemplate", "spec", "template", "spec").get("containers")
    first = containers[0] if isinstance(containers, list) and containers and isinstance(containers[0], dict) else {}
    words = [*(first.get("command") or ()), *(first.get("args") or ())]
    return shlex.join(str(word) for word in words)


def _inner(value: Any, *path: str) -> dict[str, Any]:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def _flag(spec: dict[str, Any], name: str) -> bool:
    value = spec.get(name)
    if value is not None and not isinstance(value, bool):
        raise Untranslatable(f"{name}: must be true or false")
    return bool(value)


def _number(spec: dict[str, Any], name: str) -> int | None:
    value = spec.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise Untranslatable(f"{name}: must be a whole number, 0 or more")
    return value

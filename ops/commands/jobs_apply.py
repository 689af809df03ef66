"""The changes of `horae jobs apply`: compares the jobs of files with the jobs of the API. Only files are read here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click
import orjson

from cluster.core import instants
from cluster.core.documents import json_source, strict_json
from cluster.core.documents.base import to_camel
from cluster.core.documents.follow_ups import CALLBACKS
from cluster.core.documents.job import JobSpec
from cluster.core.documents.json_source import JsonText, fragment
from cluster.core.documents.retry import RetrySpec
from cluster.core.errors import InvalidInput
from cluster.core.job.chain_order import parents_first
from ops.support.secret_places import has_values, masked, with_omitted

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

FIELDS = frozenset(to_camel(name) for name in JobSpec.model_fields)
Job = dict[str, Any]
RETRY: Job = RetrySpec().model_dump(by_alias=True)
DEFAULTS = {
    to_camel(n): f.get_default(call_default_factory=True)
    for n, f in JobSpec.model_fields.items()
    if not f.is_required()
} | {"retry": RETRY}


@dataclass(frozen=True, slots=True)
class ApplyPlan:
    """Jobs to create, to change (with each differing field before and after), to delete, and unchanged ones.

    `compared`: jobs that may differ in values of secrets alone, which only the API can compare. It changes none that is equal.
    """

    create: list[Job] = field(default_factory=list)
    change: list[tuple[Job, dict[str, tuple[Any, Any]]]] = field(default_factory=list)
    delete: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    compared: list[Job] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        """Whether there are no changes."""
        return not (self.create or self.change or self.delete)

    @property
    def to_put(self) -> list[Job]:
        """The jobs to create, to change and to compare, each behind the one that it runs after: that must exist."""
        jobs = {j["jobId"]: j for j in (*self.create, *(job for job, _ in self.change), *self.compared)}
        return [jobs[name] for name in parents_first({name: _after(j) for name, j in jobs.items()})]


def _after(job: Job) -> str | None:
    """The job that this one runs after. An invalid one is for the API to refuse."""
    after = job.get("after")
    name = after.get("jobId") if isinstance(after, dict) else None
    return name if isinstance(name, str) else None


def read_values(files: Iterable[Path]) -> list[tuple[str, Job]]:
    """The objects in files of JSON (an object or array) or NDJSON, each with where it stands."""
    return [value for file in files for value in _values(file, file.read_bytes())]


def check_jobs(values: Iterable[tuple[str, Job]]) -> list[Job]:
    """The jobs among these, which must have ids. Raises `UsageError` for a job without `jobId`."""
    jobs: dict[str, Job] = {}
    for where, job in values:
        job_id = job.get("jobId")
        if not isinstance(job_id, str) or not job_id:
            raise click.UsageError(f"{where}: add a jobId; `apply` needs it to find the job again")
        if job_id in jobs:
            raise click.UsageError(f"{where}: the job '{job_id}' occurs twice; remove one")
        jobs[job_id] = job
    return list(jobs.values())


def _values(file: Path, raw: bytes) -> list[tuple[str, Job]]:
    try:
        return [(str(file), _job(str(file), text, value)) for text, value in _split(raw)]
    except strict_json.NotJson:
        pass
    except InvalidInput as exc:
        raise click.UsageError(f"{file}: {exc.faults[0].message}") from exc
    values = []
    for number, line in enumerate(raw.split(b"\n"), 1):
        where = f"{file}:{number}"
        if line.strip():
            try:
                values.append((where, _job(where, line, strict_json.loads(line))))
            except strict_json.NotJson as exc:
                raise click.UsageError(f"{where}: neither JSON nor NDJSON: {exc}") from exc
            except InvalidInput as exc:
                raise click.UsageError(f"{where}: {exc.faults[0].message}") from exc
    return values


def _split(raw: bytes) -> list[tuple[bytes, Any]]:
    """The JSON value in a file, or the elements of its array, each with its source. Raises `NotJson`, `InvalidInput`."""
    value = strict_json.loads(raw)
    if not isinstance(value, list):
        return [(raw, value)]
    return list(zip(json_source.elements(raw), value, strict=True))


def _job(where: str, raw: bytes, value: Any) -> Job:
    if not isinstance(value, dict):
        raise click.UsageError(f"{where}: a job must be a JSON object")
    return json_source.keep_body(raw, value)


def definition(job: Job) -> Job:
    """The definition within a job of the API, without fields that have their default value.

    The state is part of it, unless the job is completed: that follows from its schedule.
    """
    defined = {}
    for name, shown_value in job.items():
        if name == "state" and shown_value == "completed":
            continue
        value = _instant(shown_value) if name in ("startAt", "endAt", "pausedUntil") else shown_value
        if name in FIELDS and name != "type" and not (name in DEFAULTS and value == DEFAULTS[name]):
            defined[name] = value
    return {"jobId": job["jobId"], **defined}


def export_line(job: Job) -> str:
    """The definition within a job of the API as one line. A body with line breaks stands in a string, byte for byte."""
    defined = definition(job)
    body = defined.get("body")
    if isinstance(body, JsonText) and b"\n" in body.text:
        defined |= {"bodyType": "json", "body": body.text.decode()}
    return orjson.dumps(defined, fragment).decode()


def make_plan(wanted: Iterable[Job], existing: dict[str, Job], *, prune: bool) -> ApplyPlan:
    """The changes from `existing` to `wanted`. A secret is there or not; its value is never compared here."""
    plan = ApplyPlan()
    names = set()
    for job in wanted:
        names.add(job["jobId"])
        before = existing.get(job["jobId"])
        if before is None:
            plan.create.append(job)
            continue
        differing = _differing(definition(before), definition(_complete(with_omitted(masked(job), before))))
        if differing:
            plan.change.append((job, differing))
        elif has_values(job):
            plan.compared.append(job)
        else:
            plan.unchanged.append(job["jobId"])
    if prune:
        plan.delete.extend(sorted(set(existing) - names))
    return plan


def _complete(job: Job) -> Job:
    """The job with all fields of `retry`, of its callbacks and of `after`, and with its body as JSON, as the API shows it."""
    retry, body = job.get("retry"), job.get("body")
    if isinstance(retry, dict):
        job = {**job, "retry": {**RETRY, **retry}}
    for name in CALLBACKS:
        callback = job.get(name)
        if isinstance(callback, dict) and "api" in callback:
            shown = {n: v for n, v in callback.items() if n != "signingSecret" or v is not None}
            job = {**job, name: {"headers": {}, **shown}}
    if isinstance(after := job.get("after"), dict):
        job = {**job, "after": {"on": "succeeded", **after}}
    if job.get("bodyType") == "json":
        job = {name: value for name, value in job.items() if name != "bodyType"}
        if isinstance(body, str):
            job["body"] = JsonText(body.strip(" \t\r\n").encode())
    return job


def _instant(value: Any) -> Any:
    """A time as the API shows it. An invalid one is returned as it is, for the API to refuse."""
    try:
        return instants.format_instant(instants.parse_instant(value))
    except (TypeError, ValueError):
        return value


def _differing(before: Job, new: Job) -> dict[str, tuple[Any, Any]]:
    # A job of the files without a state stays as it is; so does a job that is completed.
    ignored = {"type"} | ({"state"} - (before.keys() & new.keys()))
    names = [n for n in dict.fromkeys([*before, *new]) if n not in ignored]
    return {n: (before.get(n), new.get(n)) for n in names if before.get(n) != new.get(n)}


def _runs(job: dict[str, Any]) -> str:
    """When a job of a file runs: by its schedule, or after another job."""
    after = job.get("after")
    return f"after {after.get('jobId')}" if isinstance(after, dict) else str(job.get("schedule"))


def plan_lines(plan: ApplyPlan) -> list[str]:
    """The changes as lines of text."""
    lines = [
        f"+ {j['jobId']}  {_runs(j)}  {j.get('api')}" + ("  (paused)" if j.get("state") == "paused" else "")
        for j in plan.create
    ]
    for job, differing in plan.change:
        lines.append(f"~ {job['jobId']}")
        lines += [f"    {n}: {_short(before)} -> {_short(new)}" for n, (before, new) in differing.items()]
    lines += [f"? {j['jobId']}  gives secrets, which are compared when they are applied" for j in plan.compared]
    lines += [f"- {name}" for name in plan.delete]
    return lines


def _short(value: Any) -> str:
    text = orjson.dumps(value, fragment).decode()
    return text if len(text) <= 80 else text[:77] + "..."

"""The changes of `horae jobs apply`: compares the jobs of files with the jobs of the API. Only files are read here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click
import orjson

from cluster.core import instants
from cluster.core.documents.base import to_camel
from cluster.core.documents.job import JobSpec
from cluster.core.documents.retry import RetrySpec

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

FIELDS = frozenset(to_camel(name) for name in JobSpec.model_fields)
Job = dict[str, Any]
RETRY: Job = RetrySpec().model_dump(by_alias=True)
DEFAULTS = {to_camel(n): f.get_default() for n, f in JobSpec.model_fields.items() if not f.is_required()} | {
    "retry": RETRY
}


@dataclass(frozen=True, slots=True)
class ApplyPlan:
    """Jobs to create, to change (with each differing field before and after), to delete, and unchanged ones."""

    create: list[Job] = field(default_factory=list)
    change: list[tuple[Job, dict[str, tuple[Any, Any]]]] = field(default_factory=list)
    delete: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        """Whether there are no changes."""
        return not (self.create or self.change or self.delete)


def read_jobs(files: Iterable[Path]) -> list[Job]:
    """The jobs in files of JSON (an object or array) or NDJSON. Raises `UsageError` for a job without `jobId`."""
    jobs: dict[str, Job] = {}
    for file in files:
        raw = file.read_bytes()
        for where, job in _values(file, raw):
            job_id = job.get("jobId")
            if not isinstance(job_id, str) or not job_id:
                raise click.UsageError(f"{where}: add a jobId; `apply` needs it to find the job again")
            if job_id in jobs:
                raise click.UsageError(f"{where}: the job '{job_id}' occurs twice; remove one")
            jobs[job_id] = job
    return list(jobs.values())


def _values(file: Path, raw: bytes) -> list[tuple[str, Job]]:
    try:
        value = orjson.loads(raw)
        values = [(str(file), v) for v in (value if isinstance(value, list) else [value])]
    except orjson.JSONDecodeError:
        values = []
        for number, line in enumerate(raw.split(b"\n"), 1):
            if line.strip():
                try:
                    values.append((f"{file}:{number}", orjson.loads(line)))
                except orjson.JSONDecodeError as exc:
                    raise click.UsageError(f"{file}:{number}: neither JSON nor NDJSON: {exc}") from exc
    for where, v in values:
        if not isinstance(v, dict):
            raise click.UsageError(f"{where}: a job must be a JSON object")
    return values


def definition(job: Job) -> Job:
    """The definition within a job of the API, without fields that have their default value."""
    defined = {}
    for name, shown_value in job.items():
        value = _instant(shown_value) if name in ("startAt", "endAt") else shown_value
        if name in FIELDS and name != "type" and not (name in DEFAULTS and value == DEFAULTS[name]):
            defined[name] = value
    return {"jobId": job["jobId"], **defined}


def make_plan(wanted: Iterable[Job], existing: dict[str, Job], *, prune: bool) -> ApplyPlan:
    """The changes from `existing` to `wanted`. Secrets count as equal: the API does not show them."""
    plan = ApplyPlan()
    names = set()
    for job in wanted:
        names.add(job["jobId"])
        before = existing.get(job["jobId"])
        if before is None:
            plan.create.append(job)
            continue
        differing = _differing(definition(before), definition(_complete(job)))
        if differing:
            plan.change.append((job, differing))
        else:
            plan.unchanged.append(job["jobId"])
    if prune:
        plan.delete.extend(sorted(set(existing) - names))
    return plan


def _complete(job: Job) -> Job:
    """The job with all fields of `retry`, as the API shows it."""
    retry = job.get("retry")
    if not isinstance(retry, dict):
        return job
    return {**job, "retry": {**RETRY, **retry}}


def _instant(value: Any) -> Any:
    """A time as the API shows it. An invalid one is returned as it is, for the API to refuse."""
    try:
        return instants.format_instant(instants.parse_instant(value))
    except (TypeError, ValueError):
        return value


def _differing(before: Job, new: Job) -> dict[str, tuple[Any, Any]]:
    names = [n for n in dict.fromkeys([*before, *new]) if n not in ("signingSecret", "previousSigningSecret", "type")]
    return {n: (before.get(n), new.get(n)) for n in names if before.get(n) != new.get(n)}


def plan_lines(plan: ApplyPlan) -> list[str]:
    """The changes as lines of text."""
    lines = [f"+ {j['jobId']}  {j.get('schedule')}  {j.get('api')}" for j in plan.create]
    for job, differing in plan.change:
        lines.append(f"~ {job['jobId']}")
        lines += [f"    {n}: {_short(before)} -> {_short(new)}" for n, (before, new) in differing.items()]
    lines += [f"- {name}" for name in plan.delete]
    return lines


def _short(value: Any) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= 80 else text[:77] + "..."

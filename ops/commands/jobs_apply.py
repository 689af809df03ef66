"""What `horae jobs apply` will do, as values: the jobs of files compared with the jobs of the API. No I/O but reading files."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click
import orjson

from cluster.core import instants
from cluster.core.documents.base import to_camel
from cluster.core.documents.job import JobSpec, RetrySpec

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
    """Jobs to create, to change (with the fields that differ, before and after), to delete, and those that fit."""

    create: list[Job] = field(default_factory=list)
    change: list[tuple[Job, dict[str, tuple[Any, Any]]]] = field(default_factory=list)
    delete: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.create or self.change or self.delete)


def read_jobs(files: Iterable[Path]) -> list[Job]:
    """The jobs of files: one JSON object or array each, or NDJSON. Every job needs its `jobId`."""
    found: dict[str, Job] = {}
    for file in files:
        raw = file.read_bytes()
        for where, job in _values(file, raw):
            job_id = job.get("jobId")
            if not isinstance(job_id, str) or not job_id:
                raise click.UsageError(f"{where}: a job that is applied needs a jobId, by which it is known next time")
            if job_id in found:
                raise click.UsageError(f"{where}: the job '{job_id}' comes twice")
            found[job_id] = job
    return list(found.values())


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
                    raise click.UsageError(f"{file}:{number}: is neither JSON nor NDJSON: {exc}") from exc
    for where, v in values:
        if not isinstance(v, dict):
            raise click.UsageError(f"{where}: a job is a JSON object")
    return values


def definition(job: Job) -> Job:
    """What its user defined of a job that the API shows; fields that say nothing beyond their default are left out."""
    kept = {}
    for name, given in job.items():
        value = _instant(given) if name in ("startAt", "endAt") else given
        if name in FIELDS and name != "type" and not (name in DEFAULTS and value == DEFAULTS[name]):
            kept[name] = value
    return {"jobId": job["jobId"], **kept}


def make_plan(wanted: Iterable[Job], existing: dict[str, Job], *, prune: bool) -> ApplyPlan:
    """What makes `there` as `wanted`. A secret cannot be compared, because it is never shown: it is taken as the same."""
    made = ApplyPlan()
    names = set()
    for job in wanted:
        names.add(job["jobId"])
        old = existing.get(job["jobId"])
        if old is None:
            made.create.append(job)
            continue
        differing = _differing(definition(old), definition(_complete(job)))
        if differing:
            made.change.append((job, differing))
        else:
            made.unchanged.append(job["jobId"])
    if prune:
        made.delete.extend(sorted(set(existing) - names))
    return made


def _complete(job: Job) -> Job:
    """With what is left out of `retry`, as the API shows it."""
    retry = job.get("retry")
    if not isinstance(retry, dict):
        return job
    return {**job, "retry": {**RETRY, **retry}}


def _instant(value: Any) -> Any:
    """A time as the API shows it; what is none stays, for the API to refuse."""
    try:
        return instants.format_instant(instants.parse_instant(value))
    except (TypeError, ValueError):
        return value


def _differing(old: Job, new: Job) -> dict[str, tuple[Any, Any]]:
    names = [n for n in dict.fromkeys([*old, *new]) if n not in ("signingSecret", "previousSigningSecret", "type")]
    return {n: (old.get(n), new.get(n)) for n in names if old.get(n) != new.get(n)}


def plan_lines(made: ApplyPlan) -> list[str]:
    """The plan for people, a line each."""
    lines = [f"+ {j['jobId']}  {j.get('schedule')}  {j.get('api')}" for j in made.create]
    for job, differing in made.change:
        lines.append(f"~ {job['jobId']}")
        lines += [f"    {n}: {_short(old)} -> {_short(new)}" for n, (old, new) in differing.items()]
    lines += [f"- {name}" for name in made.delete]
    return lines


def _short(value: Any) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= 80 else text[:77] + "..."

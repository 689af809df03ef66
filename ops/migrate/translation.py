"""The result of a translation: jobs that Horae accepts, and a remark for each thing that has no equal.

Every job is checked here as a node would check it, so that a line that is printed is a line that `apply` accepts. What
cannot be translated is left out with a remark; nothing is guessed in silence.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import orjson

from cluster.core.documents import strict_json
from cluster.core.documents.job import check_job_id
from cluster.core.documents.job_json import DocumentLimits, read_job
from cluster.core.documents.json_source import fragment
from cluster.core.errors import CallerError, InvalidInput
from cluster.core.job.changes import ChangeStamp, define
from cluster.core.targets import InvalidTarget, parse_target

Job = dict[str, Any]
MAX_ID = 64
MAX_NAME = 200
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
# Which networks a node may send to is its operator's setting, and not known here.
_ANY_NETWORK = DocumentLimits(networks=(ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")))


class Untranslatable(ValueError):
    """This has no equal in Horae. The message says why, and what to do."""


class InvalidTemplate(ValueError):
    """The URL template is wrong. The message says how to correct it."""


@dataclass(frozen=True, slots=True)
class Remark:
    """One thing that has no equal, and every place where it stands."""

    text: str
    left_out: bool
    places: list[str]

    def line(self) -> str:
        """The remark as one line. A remark about the whole file has no place."""
        shown = ", ".join(self.places[:5])
        more = f" and {len(self.places) - 5} more" if len(self.places) > 5 else ""
        return f"{shown}{more}{': ' if shown else ''}{'NOT MOVED: ' if self.left_out else ''}{self.text}"


class UrlTemplate:
    """The URL of each job: a text with `{name}` and `{command}`. Raises `InvalidTemplate`."""

    def __init__(self, text: str) -> None:
        self.text = text
        unknown = sorted(set(_PLACEHOLDER.findall(text)) - {"name", "command"})
        if unknown:
            raise InvalidTemplate(f"{{{unknown[0]}}} is unknown; use {{name}} and {{command}}")
        try:
            parse_target(self.url("name", "command"))
        except InvalidTarget as exc:
            raise InvalidTemplate(str(exc)) from exc

    @property
    def has_command(self) -> bool:
        """Whether the command is part of the URL."""
        return "{command}" in self.text

    def url(self, name: str, command: str) -> str:
        """The URL of one job. The values are percent-encoded."""
        values = {"name": quote(name, safe=""), "command": quote(command, safe="")}
        return _PLACEHOLDER.sub(lambda match: values[match[1]], self.text)


@dataclass(frozen=True, slots=True)
class Draft:
    """A job before it has its id: what it is called, where it stood, and its other fields."""

    name: str
    command: str
    description: str
    fields: Job
    second_name: str | None = None
    """The id if another job has the name already; without it, a number is appended."""


@dataclass
class Translation:
    """The jobs and remarks of one file, in its order."""

    template: UrlTemplate
    now_ms: int
    tags: tuple[str, ...] = ()
    jobs: list[Job] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)
    _ids: set[str] = field(default_factory=set)
    _last_number: dict[str, int] = field(default_factory=dict)
    _known: dict[tuple[str, bool], Remark] = field(default_factory=dict)

    def remark(self, place: str, text: str, *, left_out: bool = False) -> None:
        """Name a thing that has no equal. Equal remarks become one, with all their places."""
        remark = self._known.get((text, left_out))
        if remark is None:
            remark = self._known[text, left_out] = Remark(text, left_out, [])
            self.remarks.append(remark)
        if place not in remark.places:
            remark.places.append(place)

    def leave_out(self, place: str, text: str) -> None:
        """Name a thing of which no job is made."""
        self.remark(place, text, left_out=True)

    @property
    def left_out(self) -> int:
        """How many things were left out."""
        return sum(len(r.places) for r in self.remarks if r.left_out)

    def add(self, place: str, draft: Draft) -> bool:
        """Add a job. One that a node would refuse is left out with the reason; then the result is False."""
        job_id = self._free_id(draft)
        job: Job = {"jobId": job_id, "name": draft.name[:MAX_NAME], "description": draft.description}
        if self.tags:
            job["tags"] = list(self.tags)
        job |= draft.fields
        job["api"] = self.template.url(job_id, draft.command)
        problem = self._problem(job)
        if problem is not None:
            self.leave_out(place, problem)
            return False
        self._ids.add(job_id)
        self.jobs.append(job)
        return True

    def _free_id(self, draft: Draft) -> str:
        first = slug(draft.name)
        for name in (first, slug(draft.second_name) if draft.second_name else first):
            if name not in self._ids:
                return name
        number = self._last_number.get(first, 1) + 1
        while (name := f"{first[: MAX_ID - len(str(number)) - 1]}-{number}") in self._ids:
            number += 1
        self._last_number[first] = number
        return name

    def _problem(self, job: Job) -> str | None:
        """What a node would object to."""
        try:
            value = strict_json.loads(line_of(job))
            check_job_id(value.pop("jobId"))
            wanted = read_job(value, _ANY_NETWORK.context)
            define(None, job["jobId"], wanted.definition, ChangeStamp(self.now_ms, "", ""))
        except InvalidInput as exc:
            return "; ".join(f"{fault.path or 'the job'}: {fault.message}" for fault in exc.faults)
        except (CallerError, ValueError, TypeError) as exc:
            return str(exc)
        return None


def line_of(job: Job) -> bytes:
    """One line of NDJSON. A body that is a `JsonText` keeps its digits and blanks. Raises `TypeError` for half characters."""
    return orjson.dumps(job, fragment).replace(b"\n", b" ").replace(b"\r", b" ")


def slug(name: str) -> str:
    """The name as the id of a job: letters, digits, - and _; at most 64."""
    text = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:MAX_ID].rstrip("-")
    return f"{text or 'job'}-1" if text in ("", "actions", "import") else text

"""The list of `GET /jobs`: its parameters, its cursors and its items."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import orjson

from api.http import cursors
from api.http.requests import QueryParameters
from api.http.responses import send_json
from api.resources import rendering
from cluster.core.documents.json_source import fragment
from cluster.core.errors import Fault, InvalidInput, InvariantBroken
from cluster.core.instants import format_optional_instant
from cluster.core.job.search import wanted_words
from cluster.core.lifecycle import JobState
from cluster.core.schedule.schedule import InvalidSchedule, parse_schedule
from cluster.store.mongo import schema
from cluster.store.queries import job_list
from cluster.store.queries.job_filter import JobFilter, JobListQuery, Place, name_contains

if TYPE_CHECKING:
    from falcon.asgi import Request, Response

    from api.http.context import Services
    from cluster.store.queries.job_list import JobVersion, ListedJob

VISIBLE_STATES = tuple(s.value for s in JobState if s is not JobState.DELETED)
ORDERS = ("createdAt", "lastRunAt", "name", "nextRunAt")
DEFAULT_SORT = "-createdAt"
DEFAULT_PAGE, MAX_PAGE = 50, 500
CURSOR_LENGTH = 2400
PINNED_MS = 600_000
"""The order of the next run is as of the first page. Older cursors are refused: ever more schedules would be computed."""
KEPT_BYTES, LARGEST_KEPT = 4 * 1024 * 1024, 16 * 1024
"""Some 4,000 jobs with small bodies; those with large ones are rendered each time."""
_INTEGER = re.compile(r"\d{1,15}\Z", re.ASCII)
NAMES = (
    "state",
    "tag",
    "anyTag",
    "q",
    "host",
    "schedule",
    "calendar",
    "failing",
    "nextRunBefore",
    "sort",
    "limit",
    "cursor",
)


class RenderedJobs:
    """Jobs as JSON, as they were listed last: whoever watches a page does not make its jobs be read and rendered again.

    What changes with each run is not kept: it is written behind them for each list.
    """

    def __init__(self, most_bytes: int = KEPT_BYTES) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._kept: dict[str, tuple[JobVersion, bytes]] = {}

    def get(self, job_id: str, version: JobVersion) -> bytes | None:
        """The JSON of a job in this version; None if it is not kept."""
        kept = self._kept.get(job_id)
        return None if kept is None or kept[0] != version else kept[1]

    def listed(self, j: ListedJob) -> orjson.Fragment:
        """A job in a list."""
        rendered = j.kept
        if rendered is None:
            if j.job is None:
                raise InvariantBroken(f"job '{j.id}' was neither read nor kept")
            rendered = orjson.dumps(rendering.job_json(j.job), default=fragment)
            self._keep(j, rendered)
        of_this_list = {
            "nextRunAt": format_optional_instant(j.next_run_ms),
            "lastRunAt": format_optional_instant(j.last_run_ms),
            "lastState": j.last_state,
            "failing": j.failing,
        }
        return orjson.Fragment(b"%b,%b" % (rendered[:-1], orjson.dumps(of_this_list)[1:]))

    def _keep(self, j: ListedJob, rendered: bytes) -> None:
        if len(rendered) > LARGEST_KEPT:
            return
        before = self._kept.get(j.id)
        self._bytes += len(rendered) - (0 if before is None else len(before[1]))
        if self._bytes > self._most_bytes:
            self._kept.clear()
            self._bytes = len(rendered)
        self._kept[j.id] = j.version, rendered


class JobListParameters(QueryParameters):
    """Query parameters that may be given several times, and those with words of their own."""

    def texts(self, name: str, max_length: int, most: int) -> tuple[str, ...]:
        """Up to `most` different texts, one a parameter."""
        value = self._params.get(name)
        values = [] if value is None else [value] if isinstance(value, str) else value
        if len(values) > most:
            self._fault(name, f"must be given at most {most} times")
        elif not all(1 <= len(v) <= max_length and "\0" not in v for v in values):
            self._fault(name, f"must have 1 to {max_length} characters")
        else:
            return tuple(dict.fromkeys(values))
        return ()

    def flag(self, name: str) -> bool | None:
        """`true` or `false`."""
        value = self.text(name)
        if value is not None and value not in ("true", "false"):
            self._fault(name, "must be true or false")
        return None if value is None else value == "true"

    def order(self) -> tuple[str, bool]:
        """The order, and whether it descends."""
        value = self.text("sort") or DEFAULT_SORT
        name = value.removeprefix("-")
        if name not in ORDERS:
            self._fault("sort", f"must be one of {', '.join(ORDERS)}, with a - before it for the reverse order")
            return "createdAt", True
        return name, value.startswith("-")

    def schedule(self) -> str | None:
        """The beginning of the keys of a schedule, in every time zone."""
        text = self.text("schedule", 256)
        if text is None:
            return None
        try:
            return schedule_keys(text)
        except InvalidSchedule as exc:
            self._fault("schedule", exc.message)
            return None


def schedule_keys(text: str) -> str:
    """The beginning of the keys of a schedule, in every time zone. Raises `InvalidSchedule`."""
    parsed = parse_schedule(text)
    return parsed.key if parsed.kind == "at" else parsed.key.rpartition("|")[0] + "|"


class JobLister:
    """Lists of jobs for one application."""

    def __init__(self, services: Services) -> None:
        self._db = services.db
        self._clock = services.clock
        self._lookahead_ms = int(services.settings.lookahead_seconds * 1000)
        self._searchable = False
        self._rendered = RenderedJobs()

    async def send(self, req: Request, resp: Response) -> None:
        """Send a page of jobs."""
        q = JobListParameters(req, NAMES)
        order, descending = q.order()
        limit, cursor, before_ms = (
            q.number("limit", DEFAULT_PAGE, MAX_PAGE),
            q.text("cursor", CURSOR_LENGTH),
            q.instant("nextRunBefore"),
        )
        wanted, words = await self.wanted(q)
        q.raise_faults()
        now_ms = self._clock.now_ms()
        since_ms, after = _place(cursor, order, now_ms, descending=descending)
        query = JobListQuery(
            filter=wanted,
            limit=limit,
            since_ms=since_ms,
            lookahead_ms=self._lookahead_ms,
            order=order,
            descending=descending,
            after=after,
            before_ms=before_ms,
        )
        if words == ():  # a search for punctuation: no job has such a word
            send_json(resp, {"items": [], "nextCursor": None})
            return
        page = await job_list.page(self._db, query, self._rendered.get)
        content: dict[str, Any] = {
            "items": [self._rendered.listed(j) for j in page.jobs],
            "nextCursor": None if page.after is None else _cursor(page.after, query),
        }
        if page.unreadable:
            content["unreadable"] = [{"jobId": i, "reason": why} for i, why in page.unreadable.items()]
        send_json(resp, content)

    async def wanted(self, q: JobListParameters) -> tuple[JobFilter, tuple[str, ...] | None]:
        """Which jobs are asked for, and the words of the search, if there is one. The caller raises the faults."""
        text = q.text("q")
        host = q.text("host", 300)
        words = None if text is None else wanted_words(text)
        wanted = JobFilter(
            states=tuple(sorted(q.choices("state", VISIBLE_STATES))) or VISIBLE_STATES,
            tags=q.texts("tag", 64, 8),
            any_tags=q.texts("anyTag", 64, 32),
            host=None if host is None else host.lower(),
            schedule=q.schedule(),
            calendar=q.text("calendar", 64),
            failing=q.flag("failing"),
            **(await self.search(text or "", words or ())),
        )
        return wanted, words

    async def search(self, text: str, words: tuple[str, ...]) -> dict[str, Any]:
        """The condition of a search. Until all jobs carry their words, names are searched, as by the release before."""
        if not words:
            return {}
        if not self._searchable:
            self._searchable = (await schema.version_of(self._db) or 0) >= schema.SEARCHABLE_VERSION
        return {"words": words} if self._searchable else {"name_part": name_contains(text)}


def _cursor(place: Place, q: JobListQuery) -> str:
    if (q.order, q.descending) == ("createdAt", True):  # as the release before writes it: it may get the next request
        return cursors.encode(place.value, place.id)
    sort = f"-{q.order}" if q.descending else q.order
    return cursors.encode(sort, q.since_ms, place.section, str(place.value), place.key, place.id)


def _place(cursor: str | None, order: str, now_ms: int, *, descending: bool) -> tuple[int, Place | None]:
    """The instant that the order is as of, and the place behind which the page begins. Raises `InvalidInput`."""
    if cursor is None:
        return now_ms, None
    if (order, descending) == ("createdAt", True):
        created_ms, job_id = cursors.decode(cursor, (int, str))
        return now_ms, Place(0, created_ms, job_id)
    sort, since_ms, section, value, key, job_id = cursors.decode(cursor, (str, int, int, str, str, str))
    if sort != (f"-{order}" if descending else order):
        raise InvalidInput([Fault("cursor", f"is of a list with sort={sort[:20]}; send that sort, or no cursor")])
    textual = order == "name" and section == 0
    if section > 2 or not (textual or _INTEGER.match(value)):
        raise InvalidInput([Fault("cursor", "is not a cursor of this API; leave it out to start at the first page")])
    if order != "nextRunAt":
        since_ms = now_ms
    elif not now_ms - PINNED_MS <= since_ms <= now_ms + PINNED_MS:
        raise InvalidInput([Fault("cursor", "is older than ten minutes; leave it out to start at the first page")])
    return since_ms, Place(section, value if textual else int(value), job_id, key)

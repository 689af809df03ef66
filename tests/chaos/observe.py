"""Records of a run for the checker: the leaders, the calls of the API, and the documents in the database."""

from __future__ import annotations

import random
import threading
import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import httpx
from pymongo import MongoClient
from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern

from tests.chaos.calls import owed
from tests.chaos.evidence import Bounds, Call, Fault, Leader, Posted, Recorded, Run, Seen, Trigger, Verb
from tests.chaos.flood import Flood
from tests.support import plain_http
from tests.support.cluster_progress import every_second

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.support.processes import Nodes, Receiver

ROW = "cron|* * * * * *|UTC"
"""The row of the schedule that every steady job has."""
LEFT_ALONE = 4
"""Of so many jobs made one is never touched again: it has to run to the end."""
LEFT_STEP = 10
PATIENT = {"maxAttempts": 20, "maxDelaySeconds": 4}
"""A target that is down for a while must not make an execution dead."""


def steady_jobs(receiver: Receiver, count: int) -> list[dict[str, Any]]:
    """Jobs j0, j1, … of every second; of the first of every forty some answers fail, break, or are cut short. Two more, c0 and
    c6, run after j0 and j6.

    Two of every forty do not run late (`catchUp` none and latest): what no node is there for is missed.
    """
    policies = {4: "none", 5: "latest"}
    chained = [
        {"jobId": f"c{i}", "after": {"jobId": f"j{i}", "on": "any"}, "api": f"{receiver.url}/ok/c{i}", "retry": PATIENT}
        for i in (0, 6)
        if i < count
    ]
    trouble = {0: "fail/1", 1: "fail/2", 2: "reset/1", 3: "cut/1"}
    steady = [
        {
            **job,
            "api": f"{receiver.url}/{trouble.get(i % 40, 'ok')}/{i}",
            "retry": PATIENT,
            "catchUp": policies.get(i % 40, "all"),
        }
        for i, job in enumerate(every_second(receiver, count))
    ]
    return steady + chained


def now_ms() -> int:
    """The clock of this process, which is the receiver's too."""
    return int(time.time() * 1000)


class Watch:
    """Reads the leader's lease and the horizon, linearizably, and makes calls, until stopped.

    The calls are about jobs of its own; the first `steady` jobs (j0, j1, …) are triggered now and then. Not `calls`:
    it reads only.
    """

    def __init__(
        self,
        nodes: Nodes,
        receiver: Receiver,
        uri: str,
        seed: int,
        steady: int = 0,
        *,
        calls: bool = True,
        messages: int = 0,
    ) -> None:
        self._nodes, self._receiver, self._dice = nodes, receiver, random.Random(seed)
        self._client: MongoClient[dict[str, Any]] = MongoClient(uri, tz_aware=True, serverSelectionTimeoutMS=1000)
        self._ended = threading.Event()
        self._failed: list[BaseException] = []
        self._threads = [threading.Thread(target=self._every, args=(0.2, self._look))]
        if calls:
            self._threads += [threading.Thread(target=self._every, args=(0.7, self._call))]
        if calls and steady:
            self._threads += [threading.Thread(target=self._every, args=(1.1, self._trigger))]
        if calls:
            self._threads += [threading.Thread(target=self._every, args=(0.3, self._post))]
        self.flood = Flood(nodes, receiver, messages if calls else 0, PATIENT)
        self.posted: list[Posted] = []
        self._delays = random.Random(seed + 2)
        self.leaders: list[Leader] = []
        self.calls: list[Call] = []
        self.triggers: list[Trigger] = []
        self._steady = steady
        self._pick = random.Random(seed + 1)
        self._made = 0
        self._runs: dict[str, bool] = {}
        for t in self._threads:
            t.start()

    def end(self) -> None:
        """Stop watching and calling. Raises what any of it failed with: nothing must go unwatched."""
        self._ended.set()
        self.flood.end()
        for t in self._threads:
            t.join(30)
        if self.flood.rate:
            self._resume_all()
        self._client.close()
        if self._failed:
            raise self._failed[0]

    def _every(self, seconds: float, step: Callable[[], None]) -> None:
        try:
            while not self._ended.wait(seconds):
                step()
        except BaseException as exc:
            self._failed.append(exc)

    def _look(self) -> None:
        db = self._client[self._nodes.db.name]
        linear = ReadConcern("linearizable")
        try:
            d = db.get_collection("leases", read_concern=linear).find_one({"_id": "leader"}, max_time_ms=1000)
            if d is None:
                return
            read = now_ms()
            row = db.get_collection("schedules", read_concern=linear).find_one({"_id": ROW}, max_time_ms=1000)
        except PyMongoError:
            return
        cursor, on_it = (_ms(row["next_at"]), row["term"]) if row else (None, None)
        self.leaders.append(Leader(read, d["term"], d["holder"], cursor, on_it))

    def _call(self) -> None:
        verb: Verb
        if len(self._runs) < 4 or not self._dice.randrange(4):
            self._made += 1
            job, verb = f"h{self._made}", "create"
        else:
            job = self._dice.choice(sorted(self._runs))
            verb = "delete" if not self._dice.randrange(4) else "pause" if self._runs[job] else "resume"
            if verb != "delete" and not self._dice.randrange(3):
                verb = "change"
        step = LEFT_STEP if verb == "create" and not self._made % LEFT_ALONE else self._dice.choice((1, 2, 3))
        begun = now_ms()
        outcome = self._ask(verb, job, step)
        self.calls.append(Call(verb, job, begun, now_ms(), outcome, step))
        if verb == "delete":
            self._runs.pop(job, None)
        elif verb == "create" and step == LEFT_STEP:
            pass
        elif verb != "change":
            self._runs[job] = verb != "pause"

    def _resume_all(self) -> None:
        """What came due before a pause waits for the resume, and behind a flood much of it was still owed at the pause."""
        for job in [job for job, runs in self._runs.items() if not runs]:
            begun, outcome = now_ms(), "unknown"
            while outcome == "unknown" and now_ms() - begun < 30_000:
                invoked = now_ms()
                outcome = self._ask("resume", job, 1)
                self.calls.append(Call("resume", job, invoked, now_ms(), outcome, 1))

    def _ask(self, verb: Verb, job: str, step: int) -> Literal["ok", "unknown", "absent"]:
        schedule = f"*/{step} * * * * *"
        body = {
            "jobId": job,
            "schedule": schedule,
            "api": f"{self._receiver.url}/ok/{job}",
            "type": "ATLEAST_ONCE",
            "retry": PATIENT,
        }
        url = f"{self._nodes.url}/jobs"
        try:
            if verb == "create":
                answer = plain_http.post(url, json=body, timeout=10)
            elif verb == "delete":
                answer = plain_http.delete(f"{url}/{job}", timeout=10)
            elif verb == "change":
                answer = plain_http.patch(f"{url}/{job}", json={"schedule": schedule}, timeout=10)
            else:
                answer = plain_http.post(f"{url}/{job}/{verb}", timeout=10)
        except httpx.HTTPError:
            return "unknown"
        # An earlier call without an answer may have been done, so a conflict says nothing certain.
        return "ok" if answer.is_success else "absent" if answer.status_code == 404 else "unknown"

    def _trigger(self) -> None:
        """Trigger a job until that is answered, with one idempotency key: it runs once, however often it is asked."""
        job = f"j{self._pick.randrange(self._steady)}"
        begun, execution = now_ms(), None
        key = {"Idempotency-Key": f"{job}-{begun}"}
        while execution is None and now_ms() - begun < 60_000:
            with suppress(httpx.HTTPError):
                answer = plain_http.post(f"{self._nodes.url}/jobs/{job}/trigger", headers=key, timeout=5)
                if answer.status_code == 202:
                    execution = answer.json()["executionId"]
            if execution is None and self._ended.wait(0.2):
                break
        self.triggers.append(Trigger(job, begun, now_ms(), execution))

    def _post(self) -> None:
        """Post a message until that is answered, with one `dedupId`: it comes once. Some are cancelled, until that is answered."""
        begun, name = now_ms(), None
        delay = self._delays.choice((None, "2s", "20s", "45s"))
        cancel = delay is not None and not self._delays.randrange(5)
        told = {"api": f"{self._receiver.url}/ok/cb"}
        body = {
            "api": f"{self._receiver.url}/ok/m",
            "dedupId": f"m-{begun}-{len(self.posted)}",
            "retry": PATIENT,
            "onSuccess": told,
            "onFailure": told,
        }
        if delay is not None:
            body["delay"] = delay
        answer = self._until_answered(f"{self._nodes.url}/messages", body)
        if answer is not None and answer.status_code == 202:
            name = answer.json()["executionId"]
        cancelled: bool | None = False
        if name is not None and cancel:
            gone = self._until_answered(f"{self._nodes.url}/messages/{name.partition(':')[0]}")
            cancelled = None if gone is None else gone.status_code == 204
        self.posted.append(Posted(begun, now_ms(), name, cancelled, told=True))

    def _until_answered(self, url: str, body: dict[str, Any] | None = None) -> httpx.Response | None:
        """The first answer that says what is the case; None if there was none within a minute, or before the end."""
        begun = now_ms()
        while now_ms() - begun < 60_000:
            with suppress(httpx.HTTPError):
                answer = (
                    plain_http.delete(url, timeout=10) if body is None else plain_http.post(url, json=body, timeout=10)
                )
                if answer.status_code < 500 and answer.status_code != 429:
                    return answer
            if self._ended.wait(0.2):
                return None
        return None


def collect(
    nodes: Nodes,
    receiver: Receiver,
    watch: Watch | None,
    steady: int,
    span: tuple[int, int],
    faults: Sequence[Fault],
    *,
    bounds: Bounds | None = None,
) -> Run:
    """The run between two whole seconds: `steady` jobs j0, j1, … that must always come, and those of the watch."""
    start, end = span
    due = {"$gte": datetime.fromtimestamp(start / 1000, UTC), "$lt": datetime.fromtimestamp(end / 1000, UTC)}
    before = {"state": "missed", "due_at": {"$lt": due["$gte"]}}
    run = Run(
        (),
        tuple(
            Seen(_occurrence(a.execution), a.attempt, a.token, a.at_ms, a.answer)
            for a in receiver.arrivals()
            if start <= int(_occurrence(a.execution).split(":")[1]) < end
        ),
        tuple(_recorded(h) for h in nodes.db["history"].find({"due_at": due}, _OF_HISTORY)),
        tuple(faults),
        tuple(watch.leaders if watch else ()),
        tuple(_occurrence(d["_id"]) for d in nodes.db["executions"].find({"due_at": due}, {"_id": 1})),
        bounds or Bounds(),
        tuple(watch.calls if watch else ()),
        tuple(watch.triggers if watch else ()),
        span=span,
        steady=steady,
        policies=tuple(
            (d["_id"], d["catch_up"]) for d in nodes.db["jobs"].find({"catch_up": {"$ne": "all"}}, {"catch_up": 1})
        ),
        posted=(*watch.posted, *watch.flood.posted()) if watch else (),
        chained=tuple(
            (d["_id"], d["after"]["job"]) for d in nodes.db["jobs"].find({"after.job": {"$exists": True}}, {"after": 1})
        ),
        earlier=tuple(_recorded(h) for h in nodes.db["history"].find(before, _OF_HISTORY)),
    )
    return replace(run, targets=owed(run))


_OF_HISTORY = dict.fromkeys(("state", "attempts", "reason", "ended_at", "last_at", "extended_at"), 1)


def _recorded(d: dict[str, Any]) -> Recorded:
    attempts = tuple((a["n"], a["token"], None if a.get("error") else a.get("status")) for a in d["attempts"])
    last, extended = (_ms(d[f]) if d.get(f) is not None else None for f in ("last_at", "extended_at"))
    return Recorded(_occurrence(d["_id"]), d["state"], attempts, d.get("reason"), _ms(d["ended_at"]), last, extended)


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def _occurrence(execution: str) -> str:
    """The occurrence of an execution id. The build without unique ids appends to it, which must not help the checker."""
    return execution.partition("~")[0]

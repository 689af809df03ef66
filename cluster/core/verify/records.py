"""The record of one execution, and the contradictions within it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.core.execution.attempts_kept import KEEP_FIRST
from cluster.core.instants import format_instant

if TYPE_CHECKING:
    from collections.abc import Iterator

SENT = ("succeeded", "failed")
"""Final states that need a request. `dead` does not: an execution that cannot be sent ends so."""
SENT_FINAL = (*SENT, "dead")
"""Final states that no schedule changes. Another schedule may owe a cancelled or skipped occurrence."""
KNOWN = frozenset(
    {"pending", "leased", "retrying", "succeeded", "failed", "dead", "cancelled", "skipped", "missed", "reopened"}
)
FINAL = KNOWN - {"pending", "leased", "retrying", "reopened"}
DEFAULT_SUCCESS_CODES = frozenset(range(200, 300))
"""The statuses that a job without `successCodes` counts as success."""
SLACK_MS = 1000
"""The largest difference of two nodes' readings of the database's clock, with the rounding of durations."""
CLOSE_MS = 10
"""The usual difference of two nodes' readings of the database's clock."""


@dataclass(slots=True)
class RecordedAttempt:
    """One request: its attempt number, send time (ms), node, fencing token, and duration (ms)."""

    number: int
    sent_ms: int
    node: str
    token: int
    duration_ms: float
    status: int | None
    """The status of a whole answer. An answer that broke off after its status line decides nothing."""


@dataclass(frozen=True, slots=True)
class SuccessRule:
    """The statuses that a job counts as success, for requests from `since_ms` on. Only the present ones are stored with
    the job, so that earlier requests may have been judged by others.
    """

    codes: frozenset[int]
    since_ms: float

    def is_certain(self, a: RecordedAttempt) -> bool:
        """Whether the answer to this request was a success."""
        return a.status in self.codes and a.sent_ms >= self.since_ms

    def is_possible(self, a: RecordedAttempt) -> bool:
        """Whether the answer may have been a success."""
        return a.status in self.codes or (a.status is not None and a.sent_ms < self.since_ms)


@dataclass(frozen=True, slots=True)
class BatchLeaseTimings:
    """How long a batch is leased, and how long before the end its holder stops sending, in ms."""

    lasts_ms: int
    margin_ms: int


@dataclass(slots=True)
class Record:
    """One document of `history` or `executions`; `attempts` by time. `ended_ms` is 0 while it is owed."""

    id: str
    due_ms: int
    send_ms: int
    version: str
    state: str
    attempts: list[RecordedAttempt]
    trigger: bool
    ended_ms: int = 0
    reason: str | None = None
    drift_ms: int | None = None
    replayed: bool = False
    """Owed because a replay was requested."""
    replayed_ms: int | None = None
    """When a replay was last requested. None together with `replay_time_kept`: never."""
    replay_time_kept: bool = False
    """Whether the record would hold that time: a final one of a release that stores it."""
    batch: str = ""
    batch_lists: bool = True
    """Whether the batch it names exists and lists it."""
    stored_job_id: str = ""
    attempts_left_out: int = 0
    """How many attempts between the first and the last ones are not stored."""
    success_codes: frozenset[int] | None = None
    """Of a message: the statuses that it counts as success. None: 2xx. A job has them itself."""
    stored_due_ms: int = 0
    """The job and the due time in the fields of the document. Its id names them too."""

    @property
    def again(self) -> bool:
        """Whether a backfill sent the occurrence once more, under an id of its own."""
        return self.id.count(":") > 1


def contradictions(r: Record, successes: SuccessRule) -> Iterator[str]:
    """The contradictions within this record. None for a sound one."""
    if r.state not in KNOWN:
        yield f"its state is '{r.state}', which is unknown"
        return
    if r.stored_due_ms != r.due_ms or not r.id.startswith(f"{r.stored_job_id}:"):
        yield f"its id and its fields differ: job {r.stored_job_id}, due {format_instant(r.stored_due_ms)}"
    if r.state in SENT and not r.attempts:
        yield f"it is {r.state}, but no request was made"
    elif (wrong := _misjudged(r, successes)) is not None:
        yield wrong
    if r.state in FINAL and r.attempts and r.ended_ms + SLACK_MS < r.attempts[0].sent_ms:
        yield f"it ended at {format_instant(r.ended_ms)}, before its first request was sent"
    for a in r.attempts:
        if a.number < 1 or a.token < 1 or a.duration_ms < 0:
            yield f"attempt {a.number} under token {a.token} took {a.duration_ms} ms"
    if r.drift_ms is not None and len(r.attempts) == 1 and r.state in SENT:
        sent_ms = r.attempts[0].sent_ms
        # The send time of a run that waits for the end of another one moves until it is sent; its drift counts from the request.
        asked_ms = r.replayed_ms if r.replayed_ms is not None else r.due_ms if r.trigger else r.send_ms
        drift_ms = sent_ms - (asked_ms if abs(sent_ms - asked_ms - r.drift_ms) <= SLACK_MS else r.send_ms)
        # A change of spreadSeconds between materialising and sending changes one of the two by whole seconds.
        if abs(drift_ms - r.drift_ms) > SLACK_MS and (drift_ms - r.drift_ms) % 1000:
            yield f"its drift is recorded as {r.drift_ms} ms, but its request was sent {drift_ms} ms after its send time"


def _misjudged(r: Record, successes: SuccessRule) -> str | None:
    """The contradiction between its state and the answers to its requests. None if there is none.

    Only a `succeeded` record holds a success. The node that received a success records it, with or without a lease; the
    record replaces any other result, is never replaced, and cannot be replayed. An attempt that is stored with an owed
    execution, by a retry or after a lost lease, was not a success.
    """
    if r.state == "succeeded":
        if any(successes.is_possible(a) for a in r.attempts):
            return None
        statuses = ", ".join(str(a.status) for a in r.attempts if a.status is not None)
        return f"it succeeded, but {f'no answer was a success: {statuses}' if statuses else 'no request was answered'}"
    for a in r.attempts:
        if successes.is_certain(a):
            return f"it is {r.state}, but the answer to attempt {a.number} was {a.status}, a success"
    return None


def redeliveries(
    r: Record, successes: SuccessRule, lease: BatchLeaseTimings, *, changed: bool
) -> Iterator[tuple[str, bool]]:
    """The requests that sent an attempt a second time, or after a success, each with whether it is explained.

    `changed`: another schedule of the job took effect just before this was due, so that both may have sent it. A replay
    is no second delivery: it starts with attempt 1 after a failure.
    """
    before: dict[int, RecordedAttempt] = {}
    done: RecordedAttempt | None = None
    was_repeated = False
    for place, a in enumerate(r.attempts):
        if r.attempts_left_out and place == KEEP_FIRST:  # what was between is not known
            before, done, was_repeated = {}, None, False
        first = before.get(a.number)
        if first is not None and _starts_replay(r, before, a, successes, done):
            before, done, was_repeated = {}, None, False
        elif first is not None:
            if r.replay_time_kept and not changed and _starts_over(before, a):
                why, explained = "its attempts started from 1, but no replay was requested", False
            else:
                why, explained = _why_repeated(first, a, lease, changed=changed)
            was_repeated = was_repeated or explained
            when = f"{a.sent_ms - first.sent_ms} ms after {first.node}'s (token {first.token})"
            yield f"attempt {a.number} by {a.node} (token {a.token}), {when}: {why}", explained
        elif done is not None and not was_repeated:
            yield (
                f"attempt {a.number} by {a.node} at {format_instant(a.sent_ms)}, after attempt {done.number} succeeded",
                False,
            )
        before[a.number] = a
        if done is None and successes.is_certain(a):
            done = a


_EARLY_CAUSES = "it was released by hand, or the database's clock was set forward, or two nodes held it at once"


def _why_repeated(
    first: RecordedAttempt, a: RecordedAttempt, lease: BatchLeaseTimings, *, changed: bool
) -> tuple[str, bool]:
    """Why an attempt was sent twice, and whether that explains it.

    The tokens of an execution grow: the token of its batch grows with every claim, and a batch that executions move to
    continues from the largest token of them. They start again only if the execution is created again: by a replay, after
    it failed; or by the schedule that took over, after the one before had ended it. (A move of retries that two nodes
    repair after a crash may continue from a smaller token; that concerns the next attempt.) So a larger token is a later
    claim.

    A lease that expires keeps the two requests apart: its holder sends nothing in the last `margin_ms` of it, counted from
    before the claim, and no node claims before its end. A shorter distance has a text of its own and is still no finding:
    there are legal ways to any distance, and none leaves a trace in the records. `horae leases release` ends a lease
    during a request. So do a primary whose clock is ahead, and the sweep, if a node lives but its heartbeat does not get
    through. After each of these, the old holder sends under the smaller token until its next renewal is refused or its own
    deadline has passed, in any case within a lease.
    """
    apart_ms = a.sent_ms - first.sent_ms
    if a.token > first.token and apart_ms >= lease.margin_ms:
        return "the batch was claimed again after its first lease had ended", True
    if changed:
        return "the job was changed just then, and both its schedules sent it", True
    if a.token > first.token:
        return f"sooner than a lease expires: {_EARLY_CAUSES}", True
    if a.token == first.token:
        return "the token is the same, so that nothing explains a second delivery", False
    if apart_ms < lease.lasts_ms:
        return "the node that had lost the lease did not know it yet", True
    return "the lease of the smaller token had expired by then, so that nothing explains a second delivery", False


def _starts_over(before: dict[int, RecordedAttempt], a: RecordedAttempt) -> bool:
    """Whether the latest claim sent an earlier attempt than the one before it. No lease explains that.

    An owed execution keeps its attempts until it ends, so that the next claim continues with the next attempt. Only an
    execution that is created again starts with the first. (A node that lost its lease may send an earlier attempt late,
    but under a smaller token.)
    """
    return max(before) > a.number and a.token >= max(b.token for b in before.values())


def _starts_replay(
    r: Record,
    before: dict[int, RecordedAttempt],
    a: RecordedAttempt,
    successes: SuccessRule,
    done: RecordedAttempt | None,
) -> bool:
    """Whether this attempt is the first of a replay, requested after the earlier attempts had failed.

    Then the send time of the record is that of the replay, unless a late success (`done`) replaced the result of the
    replay. Tokens do not help, because an execution that is released before it is sent is claimed once more. But an
    execution that had a later attempt and starts with the first again was replayed.

    If the record holds the time of the replay, it must be after the first attempt was sent. A record holds only the last
    such time, so that earlier replays are judged by the rule above.
    """
    first, later = before[a.number], max(before) > 1
    if r.replay_time_kept and (r.replayed_ms is None or r.replayed_ms < first.sent_ms - CLOSE_MS):
        return False
    answered_ms = first.sent_ms + first.duration_ms
    asked = a.number == 1 and a.sent_ms >= answered_ms and not successes.is_certain(first)
    asked = asked and (later or a.token <= first.token)
    return asked and (done is not None or r.send_ms >= answered_ms - CLOSE_MS)

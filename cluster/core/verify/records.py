"""Records of one execution as the auditor reads them, and what in one record cannot be true together with the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.core.instants import format_instant

if TYPE_CHECKING:
    from collections.abc import Iterator

SENT = ("succeeded", "failed")
"""Final, and never without a request. `dead` may be: what nobody can send ends so."""
SENT_FINAL = (*SENT, "dead")
"""Final for good: what was cancelled or skipped may be owed again by another schedule."""
KNOWN = frozenset(
    {"pending", "leased", "retrying", "succeeded", "failed", "dead", "cancelled", "skipped", "missed", "reopened"}
)
FINAL = KNOWN - {"pending", "leased", "retrying", "reopened"}
DEFAULT_SUCCESS_CODES = frozenset(range(200, 300))
"""The successes of a job without `successCodes`."""
SLACK_MS = 1000
"""Two nodes' readings of the database's clock, and the rounding of durations."""

CLOSE_MS = 10
"""Two nodes' readings of that clock when nothing is wrong."""


@dataclass(slots=True)
class RecordedAttempt:
    """One request: attempt number, when it left (ms), by which node, under which token, for how long (ms)."""

    number: int
    sent_ms: int
    node: str
    token: int
    duration_ms: float
    status: int | None


@dataclass(frozen=True, slots=True)
class SuccessRule:
    """What a job calls a success: these statuses, for all that left from `since_ms` on. Where they are kept is with the
    job alone, as it is now; so what left before it was changed may have been judged by others.
    """

    codes: frozenset[int]
    since_ms: float

    def is_certain(self, a: RecordedAttempt) -> bool:
        """Whether this request was answered by a success."""
        return a.status in self.codes and a.sent_ms >= self.since_ms

    def is_possible(self, a: RecordedAttempt) -> bool:
        """Whether it may have been."""
        return a.status in self.codes or (a.status is not None and a.sent_ms < self.since_ms)


@dataclass(frozen=True, slots=True)
class BatchLeaseTimings:
    """How long a batch is leased, and how long before the end its holder sends nothing more, in ms."""

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
    """Owed again because somebody asked."""
    replayed_ms: int | None = None
    """When somebody last asked to send it once more, as it says; None with `asked_kept`: nobody did."""
    replay_time_kept: bool = False
    """Whether it would say so: a final one of a release that keeps it."""
    batch: str = ""
    batch_lists: bool = True
    """Whether the batch it names exists and lists it."""
    stored_job_id: str = ""
    stored_due_ms: int = 0
    """What the document says besides its id."""


def contradictions(r: Record, successes: SuccessRule) -> Iterator[str]:
    """What in this record cannot be; nothing, for a sound one."""
    if r.state not in KNOWN:
        yield f"its state is '{r.state}', which does not exist"
        return
    if r.stored_due_ms != r.due_ms or not r.id.startswith(f"{r.stored_job_id}:"):
        yield f"its id and its fields differ: job {r.stored_job_id}, due {format_instant(r.stored_due_ms)}"
    if r.state == "missed":
        yield f"it is missed, but {'was sent' if r.attempts else 'stands alone, not as a range'}"
    if r.state in SENT and not r.attempts:
        yield f"it is {r.state}, but no request was ever made"
    elif (wrong := _misjudged(r, successes)) is not None:
        yield wrong
    if r.state in FINAL and r.attempts and r.ended_ms + SLACK_MS < r.attempts[0].sent_ms:
        yield f"it ended at {format_instant(r.ended_ms)}, before its first request left"
    for a in r.attempts:
        if a.number < 1 or a.token < 1 or a.duration_ms < 0:
            yield f"attempt {a.number} under token {a.token} took {a.duration_ms} ms"
    if r.drift_ms is not None and len(r.attempts) == 1 and r.state in SENT:
        seen = r.attempts[0].sent_ms - r.send_ms
        # A change of spreadSeconds between writing it down and sending moves one of the two by whole seconds.
        if abs(seen - r.drift_ms) > SLACK_MS and (seen - r.drift_ms) % 1000:
            yield f"its drift is said to be {r.drift_ms} ms, and its request left {seen} ms after its send time"


def _misjudged(r: Record, successes: SuccessRule) -> str | None:
    """How its state and the answers to its requests contradict each other.

    No record but a `succeeded` one holds a success, whatever came first: a success is written down by whoever heard it,
    lease or no lease, takes the place of all else, is never replaced, and nobody may ask for it again. An attempt that is
    kept with what is owed, by a retry or after a lost lease, is one that was none.
    """
    if r.state == "succeeded":
        if any(successes.is_possible(a) for a in r.attempts):
            return None
        heard = ", ".join(str(a.status) for a in r.attempts if a.status is not None)
        return f"it succeeded, but {f'no answer was a success: {heard}' if heard else 'no request was ever answered'}"
    for a in r.attempts:
        if successes.is_certain(a):
            return f"it is {r.state}, but attempt {a.number} was answered {a.status}, a success"
    return None


def redeliveries(
    r: Record, successes: SuccessRule, lease: BatchLeaseTimings, *, changed: bool
) -> Iterator[tuple[str, bool]]:
    """Requests that brought the same attempt once more, or came after a success; and whether that is explained.

    `changed`: another schedule of the job took over just before this was due, so that both may have sent it. A request by
    hand is no second delivery: it begins anew with attempt 1 after one that failed.
    """
    before: dict[int, RecordedAttempt] = {}
    done: RecordedAttempt | None = None
    again = False
    for a in r.attempts:
        first = before.get(a.number)
        if first is not None and _asked_again(r, before, a, successes, done):
            before, done, again = {}, None, False
        elif first is not None:
            if r.replay_time_kept and not changed and _anew(before, a):
                why, explained = "it began anew, and nobody had asked for that", False
            else:
                why, explained = _why_again(first, a, lease, changed=changed)
            again = again or explained
            when = f"{a.sent_ms - first.sent_ms} ms after {first.node}'s (token {first.token})"
            yield f"attempt {a.number} by {a.node} (token {a.token}), {when}: {why}", explained
        elif done is not None and not again:
            yield (
                f"attempt {a.number} by {a.node} at {format_instant(a.sent_ms)}, after attempt {done.number} succeeded",
                False,
            )
        before[a.number] = a
        if done is None and successes.is_certain(a):
            done = a


_ENDED_OTHERWISE = "it was released by hand, or the database's clock was set forward, or two nodes held it at once"


def _why_again(
    first: RecordedAttempt, a: RecordedAttempt, lease: BatchLeaseTimings, *, changed: bool
) -> tuple[str, bool]:
    """What explains that an attempt was made twice, and whether anything does.

    The tokens of an execution grow: its batch's with every claim, and a batch that executions move to goes on from the
    largest that one of them brings along. They begin anew only where it is written down anew: by hand, after it failed;
    or by the schedule that took over, after the one before had ended it. (A move of retries that two nodes repair after a
    crash may go on from a smaller one; that is the next attempt's.) So a larger one is a later claim.

    A lease that ends by itself keeps the two apart: its holder sends nothing in the last `margin_ms` of it, counted from
    before it asked, and nobody claims before the end. What comes sooner is told in words of its own and yet is no
    finding, for there are legal ways to any distance, and none leaves a trace in what is recorded: `horae leases release`
    ends a lease in the midst of a request, and so do a primary whose clock is ahead and the sweep, of a node that lives
    and whose heartbeat does not get through. After each of them the old holder sends on until it learns of it, under the
    smaller token: when its next renewal is refused, or what it last believed in is over, in any case within a lease.
    """
    apart_ms = a.sent_ms - first.sent_ms
    if a.token > first.token and apart_ms >= lease.margin_ms:
        return "the batch was claimed again, its first lease had ended", True
    if changed:
        return "the job was changed just then, and both its schedules sent it", True
    if a.token > first.token:
        return f"sooner than a lease ends by itself: {_ENDED_OTHERWISE}", True
    if a.token == first.token:
        return "under the same token nothing explains a second delivery", False
    if apart_ms < lease.lasts_ms:
        return "whoever had lost the lease did not know yet", True
    return "the lease of the smaller token was over by then, and nothing explains a second delivery", False


def _anew(before: dict[int, RecordedAttempt], a: RecordedAttempt) -> bool:
    """Whether the latest claim sent an earlier attempt than the last: no lease explains that.

    Attempts stay with what is owed until it ends, so who claims it goes on with the next one. Only what is written down
    once more begins with the first. (Who has lost his lease may send an earlier one late: under a smaller token.)
    """
    return max(before) > a.number and a.token >= max(b.token for b in before.values())


def _asked_again(
    r: Record,
    before: dict[int, RecordedAttempt],
    a: RecordedAttempt,
    successes: SuccessRule,
    done: RecordedAttempt | None,
) -> bool:
    """Whether somebody asked for this one after the first had failed.

    Its send time is that of the request then; unless a success that came late (`done`) took the place of what was asked.
    Tokens tell nothing: one that is put back before it is sent is claimed once more. But who was at a later attempt and
    begins with the first anew was asked to.

    Where records keep when somebody asked, it must have been after the first was sent. They keep the last time alone: what
    began anew before that is judged by the above.
    """
    first, later = before[a.number], max(before) > 1
    if r.replay_time_kept and (r.replayed_ms is None or r.replayed_ms < first.sent_ms - CLOSE_MS):
        return False
    answered_ms = first.sent_ms + first.duration_ms
    asked = a.number == 1 and a.sent_ms >= answered_ms and not successes.is_certain(first)
    asked = asked and (later or a.token <= first.token)
    return asked and (done is not None or r.send_ms >= answered_ms - CLOSE_MS)

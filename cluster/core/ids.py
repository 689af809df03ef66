"""Ids and hashes that no release may change: execution ids, lanes, spread offsets.

An execution id is the idempotency key of one occurrence, so it is a pure function of job and due time.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from functools import lru_cache
from typing import NamedTuple

JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
MESSAGE_ID = re.compile(r"msg\.[0-9A-HJKMNP-TV-Z]{26}\Z")
MESSAGE_PREFIX = "msg."
CALLBACK_PREFIX = "cb."
_ANY_JOB = re.compile(r"(alert\.)?[A-Za-z0-9_-]{1,64}\Z|(msg|cb)\.[0-9A-HJKMNP-TV-Z]{26}\Z")
"""Alert jobs, messages and callbacks have ids that no user can choose."""
_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Base 32 after Crockford, in ASCII order: equal lengths sort as the numbers do."""
_PAIRS = [a + b for a in _DIGITS for b in _DIGITS]
_REQUEST_ID = re.compile(r"(after-)?[0-9a-f]{32}\Z")
CHAINED_MARK = "after-"
MISSED_SUFFIX = ":missed"
"""Ends the id of a range of missed occurrences; what is before it is the id of its first occurrence."""
LANES = 64
"""Hosts with few executions share batches by lane, or by a few lanes. Beyond that no rule depends on it."""


class Occurrence(NamedTuple):
    """The parts of an execution id."""

    job_id: str
    due_ms: int
    backfill_id: str | None = None
    """The backfill that sent the occurrence once more, if it did; or what it follows (`after-...`), if its job is chained."""


def execution_id(job_id: str, due_ms: int, backfill_id: str | None = None) -> str:
    """`job:1795651200000`: always 13 digits, so that the ids of one job sort by due time. An occurrence that a backfill
    sends once more has the id of the backfill behind it: `job:1795651200000:4f9c3ef0a3e94f2bb0f8d9a8f2a1c7de`.
    """
    name = f"{job_id}:{due_ms:013d}"
    return name if backfill_id is None else f"{name}:{backfill_id}"


def parse_execution_id(text: str) -> Occurrence | None:
    """The parts of an execution id. None for any other text."""
    job_id, *rest = text.split(":")
    if not 1 <= len(rest) <= 2 or not _ANY_JOB.match(job_id):
        return None
    due = rest[0]
    if len(due) != 13 or not due.isascii() or not due.isdigit():
        return None
    if len(rest) == 1:
        return Occurrence(job_id, int(due))
    return Occurrence(job_id, int(due), rest[1]) if _REQUEST_ID.match(rest[1]) else None


def message_id(now_ms: int, random_bits: int) -> str:
    """`msg.` and 26 characters: 48 bits of time, which ids sort by, and 80 random bits."""
    number = now_ms << 80 | random_bits
    return MESSAGE_PREFIX + _26_digits(number)


def is_message(job_id: str) -> bool:
    """Whether the id before the due time of an execution is that of a message or a callback: it has no job."""
    return job_id.startswith((MESSAGE_PREFIX, CALLBACK_PREFIX))


def is_callback(job_id: str) -> bool:
    """Whether the id before the due time of an execution is that of a callback."""
    return job_id.startswith(CALLBACK_PREFIX)


def callback_id(followed: str, kind: str, due_ms: int) -> str:
    """The id of the callback of this kind of an execution: `cb.` and 26 characters that follow from both, and its due time."""
    digest = hashlib.sha256(f"callback\0{kind}\0{followed}".encode()).digest()
    number = int.from_bytes(digest[:17]) >> 6
    return execution_id(CALLBACK_PREFIX + _26_digits(number), due_ms)


def _26_digits(number: int) -> str:
    return "".join([_PAIRS[number >> shift & 1023] for shift in range(120, -1, -10)])


def chained_id(job_id: str, followed: str, due_ms: int) -> str:
    """The id of the run of a chained job that follows an execution. No occurrence, run by hand or backfill has it."""
    digest = hashlib.sha256(f"after\0{followed}".encode()).hexdigest()
    return execution_id(job_id, due_ms, f"{CHAINED_MARK}{digest[:32]}")


def is_chained(execution: str) -> bool:
    """Whether it is the run of a chained job."""
    return f":{CHAINED_MARK}" in execution


def is_follow_up(execution: str) -> bool:
    """Whether it follows another execution: a callback, or the run of a chained job."""
    return is_callback(execution) or is_chained(execution)


@lru_cache(maxsize=4096)
def lane_of(host: str) -> int:
    """The lane of a target host (lower case, with its port), 0..63; the same on every node and release."""
    return zlib.crc32(host.lower().encode()) % LANES


def spread_ms(job_id: str, spread_seconds: int) -> int:
    """The time (ms) between the due time and the send time of a job: a stable hash of its id, in whole seconds."""
    if spread_seconds <= 0:
        return 0
    return zlib.crc32(job_id.encode()) % spread_seconds * 1000


def trigger_due_ms(now_ms: int) -> int:
    """The due time of a run by hand: now, but never a whole second, because schedules use those."""
    return now_ms + 1 if now_ms % 1000 == 0 else now_ms

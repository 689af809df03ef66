"""Ids and hashes that no release may change: execution ids, lanes, spread offsets.

An execution id is the idempotency key of one occurrence, so it is a pure function of job and due time.
"""

from __future__ import annotations

import re
import zlib
from typing import NamedTuple

JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
MESSAGE_ID = re.compile(r"msg\.[0-9A-HJKMNP-TV-Z]{26}\Z")
MESSAGE_PREFIX = "msg."
_ANY_JOB = re.compile(r"(alert\.)?[A-Za-z0-9_-]{1,64}\Z|msg\.[0-9A-HJKMNP-TV-Z]{26}\Z")
"""Alert jobs and messages have ids that no user can choose."""
_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Base 32 after Crockford, in ASCII order: equal lengths sort as the numbers do."""
_REQUEST_ID = re.compile(r"[0-9a-f]{32}\Z")
MISSED_SUFFIX = ":missed"
"""Ends the id of a range of missed occurrences; what is before it is the id of its first occurrence."""
LANES = 64
"""A batch holds executions of one lane, so that a slow target fills its own lane only."""


class Occurrence(NamedTuple):
    """The parts of an execution id."""

    job_id: str
    due_ms: int
    backfill_id: str | None = None
    """The backfill that sent the occurrence once more, if it did."""


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
    return MESSAGE_PREFIX + "".join([_DIGITS[number >> shift & 31] for shift in range(125, -1, -5)])


def is_message(job_id: str) -> bool:
    """Whether the id before the due time of an execution is that of a message, and not of a job."""
    return job_id.startswith(MESSAGE_PREFIX)


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

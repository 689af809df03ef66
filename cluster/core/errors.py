"""One error tree. Each branch names the party at fault.

HoraeError
|- CallerError              the request is wrong; the same request fails again
|  |- InvalidInput          faults, each with a path and a sentence
|  |  `- ParentMissing      the job that a job is to run after does not exist
|  |- NotFound
|  |- Conflict              the state of the job or execution forbids the request
|  |- TooMany               this node accepts no more at this moment
|  `- PreconditionFailed    another request changed the job first (If-Match)
|- ConfigurationError       the operator's settings are wrong: every problem in one message
|- StoreError               MongoDB failed
|  |- StoreUnavailable      no answer in time, or no primary; the call may be repeated
|  |  `- OutcomeUnknown     the write was sent and may have been applied
|  |- NoChangeStreams       this database cannot tell what changes
|  `- HistoryLost           what changed since an instant is not kept any more
|- UnreadableDocument       this release cannot read a stored document
|- UndecryptableSecret      none of this node's keys decrypts a stored secret
|- OwnershipLost            this node lost a race and must stop
|  `- TermLost
`- InvariantBroken          a bug in Horae
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class HoraeError(Exception):
    """The base of all errors that Horae raises on purpose."""


class CallerError(HoraeError):
    """The request is wrong."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of an input. `path` is dotted (`retry.maxAttempts`), `message` says how to correct it."""

    path: str
    message: str


class InvalidInput(CallerError):
    """The input has faults. `faults` holds all of them."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(f"{f.path}: {f.message}" for f in self.faults))


class ParentMissing(InvalidInput):
    """The job that a job is to run after does not exist. It may later: in an import it may come behind the other one."""


class NotFound(CallerError):
    """There is no such job, execution, queue or channel."""


class Conflict(CallerError):
    """The state of the job or execution forbids the request."""


class TooMany(CallerError):
    """This node accepts no more messages at this moment; nothing of the request was accepted."""


class PreconditionFailed(CallerError):
    """The revision that the caller named is no longer the current one."""


class ConfigurationError(HoraeError):
    """The settings or the environment are wrong. `problems` lists every problem, one sentence each."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class StoreError(HoraeError):
    """MongoDB did not do what it was asked."""


class StoreUnavailable(StoreError):
    """MongoDB did not answer in time, or has no primary. A write may have been applied."""


class OutcomeUnknown(StoreUnavailable):
    """The write was sent and MongoDB did not answer: it may have been applied."""


class NoChangeStreams(StoreError):
    """The database has no change streams, or its user may not open one. The message says which."""


class HistoryLost(StoreError):
    """The log of changes does not reach back to where a reader wants to begin."""


class UnreadableDocument(HoraeError):
    """A stored document cannot be read. It was edited by hand, or written by another release, or by a bug."""


class UndecryptableSecret(HoraeError):
    """None of this node's keys decrypts the secret. The message names the id of the key, never the secret."""


class OwnershipLost(HoraeError):
    """Another node owns it now."""


class TermLost(OwnershipLost):
    """This node no longer leads."""


class InvariantBroken(HoraeError):
    """A state that the protocols exclude: a bug in Horae."""

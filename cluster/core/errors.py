"""One error tree, named by whose fault it is.

HoraeError
|- CallerError              the request is wrong; retrying it unchanged cannot help
|  |- InvalidInput          faults, each with a path and a sentence
|  |- NotFound
|  |- Conflict              the thing is in a state that forbids this
|  `- PreconditionFailed    somebody else changed it first (If-Match)
|- ConfigurationError       the operator's settings are wrong: every problem in one message
|- StoreError               MongoDB's side
|  |- StoreUnavailable      certainly or possibly not applied; ask again
|  `- OutcomeUnknown        the write may or may not have been applied
|- Unreadable             a stored document is not what this release understands
|- SecretUnreadable         what is stored encrypted opens with none of the keys this node was given
|- OwnershipLost            a race, lost: another holder is right and we must stop
|  `- TermLost
`- InvariantBroken          our own bug
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class HoraeError(Exception):
    """Everything Horae raises on purpose."""


class CallerError(HoraeError):
    """The request is at fault."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with an input: `path` is dotted (`retry.maxAttempts`), `message` says what would be right."""

    path: str
    message: str


class InvalidInput(CallerError):
    """The input has faults; all that were found are in `faults`."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(f"{f.path}: {f.message}" for f in self.faults))


class NotFound(CallerError):
    """No such job or execution."""


class Conflict(CallerError):
    """The thing exists and its state forbids the request."""


class PreconditionFailed(CallerError):
    """The revision named by the caller is no longer the current one."""


class ConfigurationError(HoraeError):
    """Settings or environment are wrong; `problems` lists all of them, one sentence each."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class StoreError(HoraeError):
    """MongoDB could not do what was asked."""


class StoreUnavailable(StoreError):
    """No answer in time, or no primary. A write may or may not have been applied."""


class OutcomeUnknown(StoreUnavailable):
    """The write was sent and no answer came back."""


class UnreadableDocument(HoraeError):
    """A stored document cannot be read: a hand in the database, another release, or a bug; the message says which."""


class UndecryptableSecret(HoraeError):
    """None of the keys opens it; the message names the key's id, never the secret."""


class OwnershipLost(HoraeError):
    """Somebody else holds it now."""


class TermLost(OwnershipLost):
    """This node no longer leads."""


class InvariantBroken(HoraeError):
    """A state that the protocols exclude: a bug of ours."""

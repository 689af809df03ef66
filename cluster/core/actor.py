"""Who acts: a person with a key, a command, the page, or Horae itself. It is context, as a deadline is, and no argument.

A request sets it once (`api/http/actors.py`); what runs without a request is done by Horae. The audit log and the
revisions of jobs name it.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts. `via`: `api`, `page`, `command`, or `horae` for what Horae does by itself."""

    via: str
    key: str | None = None
    """The name of the API key; None: there was none."""
    address: str | None = None
    """The address of the client; of a command on the database, its user and machine."""
    command: str | None = None
    """What the client calls itself; only commands of Horae do."""
    within: str | None = None
    """The import or action that what is done is a part of, such as `action:ID`. It has one entry for all of its changes."""

    def to_document(self) -> dict[str, Any]:
        """As stored."""
        return asdict(self)


HORAE = Actor("horae")
_current: ContextVar[Actor] = ContextVar("actor", default=HORAE)


def actor_from_document(d: dict[str, Any]) -> Actor:
    """The inverse of `to_document`."""
    return Actor(d["via"], d.get("key"), d.get("address"), d.get("command"), d.get("within"))


def current_actor() -> Actor:
    """Who acts now."""
    return _current.get()


def set_actor(actor: Actor) -> None:
    """Who acts from now on, in this task and those that it starts."""
    _current.set(actor)


@contextmanager
def acting(actor: Actor) -> Iterator[None]:
    """Who acts inside the block."""
    token = _current.set(actor)
    try:
        yield
    finally:
        _current.reset(token)

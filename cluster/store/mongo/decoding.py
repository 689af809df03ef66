"""Documents to values, one unreadable document at a time: it must not keep the others from being read.

A document may be unreadable because of a bug, a hand in the database, or a release that is not ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import structlog

from cluster.core.errors import UnreadableDocument

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cluster.store.mongo.client import Document

T = TypeVar("T")
log = structlog.get_logger()


def decode_each(
    kind: str, documents: Sequence[Document], decode: Callable[[Document], T]
) -> tuple[list[T], dict[str, str]]:
    """The values, and for each document that cannot be read its id and why. Said aloud each time."""
    try:
        return [decode(d) for d in documents], {}
    except Exception:  # noqa: S110 - the usual case costs nothing; now they are read one by one
        pass
    values: list[T] = []
    poison: dict[str, str] = {}
    for d in documents:
        try:
            values.append(decode(d))
        except Exception as exc:
            why = f"{type(exc).__name__}: {str(exc)[:200]}"
            poison[str(d.get("_id"))] = why
            log.error("document_unreadable", kind=kind, id=str(d.get("_id")), error=why)  # noqa: TRY400 - said in `error`
    return values, poison


def decode_one(kind: str, document: Document, decode: Callable[[Document], T]) -> T:
    """The value of one document somebody asked for by its id. Raises `Unreadable`, which names it."""
    found, poison = decode_each(kind, [document], decode)
    for document_id, why in poison.items():
        raise UnreadableDocument(f"{kind} '{document_id}' is stored in a form that cannot be read: {why}")
    return found[0]


def decode_readable(kind: str, documents: Iterable[Document], decode: Callable[[Document], T]) -> list[T]:
    """Those that can be read."""
    return decode_each(kind, list(documents), decode)[0]

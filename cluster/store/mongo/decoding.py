"""Documents to values. One unreadable document must not keep the others from being read.

A document may be unreadable because of a bug, a manual change in the database, or another release.
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
    """The values of the readable documents, and by id why the others cannot be read. Each unreadable one is logged."""
    try:
        return [decode(d) for d in documents], {}
    except Exception:  # noqa: S110 - the usual case is fast; the loop below finds the unreadable ones
        pass
    values: list[T] = []
    unreadable: dict[str, str] = {}
    for d in documents:
        try:
            values.append(decode(d))
        except Exception as exc:
            why = f"{type(exc).__name__}: {str(exc)[:200]}"
            unreadable[str(d.get("_id"))] = why
            log.error("document_unreadable", kind=kind, id=str(d.get("_id")), error=why)  # noqa: TRY400 - `error` has it
    return values, unreadable


def decode_one(kind: str, document: Document, decode: Callable[[Document], T]) -> T:
    """The value of one document. Raises `UnreadableDocument`, which names it."""
    values, unreadable = decode_each(kind, [document], decode)
    for document_id, why in unreadable.items():
        raise UnreadableDocument(f"{kind} '{document_id}' is stored in a form that cannot be read: {why}")
    return values[0]


def decode_readable(kind: str, documents: Iterable[Document], decode: Callable[[Document], T]) -> list[T]:
    """The values of the readable documents; unreadable ones are logged and left out."""
    return decode_each(kind, list(documents), decode)[0]

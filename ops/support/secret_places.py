"""Where a job or channel has secrets, in a document of a file or of the API: which are given, kept or missing.

The API shows a stored secret as a placeholder. A file has a placeholder too, or the value. So a secret that a file asks for
and that is not stored is found before anything is changed.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import click
import orjson

from cluster.core.documents.follow_ups import CALLBACKS
from cluster.core.documents.secret_marks import SECRET_PLACEHOLDER

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

Document = dict[str, Any]
Path = tuple[str, ...]
SIGNING = ("signingSecret", "previousSigningSecret")
AUTH = ("password", "token")
MOST_NAMED = 100


def _parts(document: Document) -> Iterator[tuple[Path, Document]]:
    """The document itself, and its callbacks."""
    yield (), document
    for name in CALLBACKS:
        if isinstance(callback := document.get(name), dict):
            yield (name,), callback


def given(document: Document) -> dict[Path, Any]:
    """The secrets of a document by their place: each a placeholder or a value."""
    found: dict[Path, Any] = {}
    for base, part in _parts(document):
        headers = part.get("headers")
        if isinstance(headers, dict):
            found |= {(*base, "headers", n): v for n, v in headers.items() if isinstance(v, dict)}
        found |= {(*base, n): part[n] for n in SIGNING if part.get(n) is not None}
    auth = document.get("auth")
    if isinstance(auth, dict):
        found |= {("auth", n): auth[n] for n in AUTH if auth.get(n) is not None}
    if document.get("type") == "slack" and document.get("url") is not None:
        found["url",] = document["url"]
    return found


def has_values(document: Document) -> bool:
    """Whether a value of a secret is given. The API alone can say whether it is the stored one."""
    return any(value != SECRET_PLACEHOLDER for value in given(document).values())


def masked(document: Document) -> Document:
    """The document with a placeholder for each secret, to compare and to print."""
    places = [path for path, value in given(document).items() if value != SECRET_PLACEHOLDER]
    return _with(document, dict.fromkeys(places, SECRET_PLACEHOLDER))


def with_omitted(document: Document, stored: Document) -> Document:
    """The document with the signing secrets that it leaves out: they stay as they are stored. null removes one."""
    kept: dict[Path, Any] = {}
    before = dict(_parts(stored))
    for base, part in _parts(document):
        old = before.get(base, {})
        kept |= {
            (*base, n): old[n] for n in SIGNING if n not in part and old.get(n) is not None and "channel" not in part
        }
    return _with(document, kept)


def with_removed(document: Document, before: Document) -> Document:
    """The document with null for the signing secrets that `before` has and it has not: it is complete."""
    removed: dict[Path, Any] = {}
    old = dict(_parts(before))
    for base, part in _parts(document):
        removed |= {
            (*base, n): None for n in SIGNING if n in old.get(base, {}) and n not in part and "channel" not in part
        }
    return _with(document, removed)


def missing(document: Document, stored: Document | None) -> list[Path]:
    """The secrets that the document wants kept and that are not stored."""
    kept = {_key(path) for path in given(stored or {})}
    return [p for p, value in given(document).items() if value == SECRET_PLACEHOLDER and _key(p) not in kept]


def _key(path: Path) -> Path:
    return tuple(n.lower() for n in path) if "headers" in path else path


def require_secrets(wanted: Iterable[tuple[Document, Document | None]]) -> None:
    """Raises a `ClickException` that names every missing secret of these documents (each with what is stored of it)."""
    lines: list[str] = []
    example: Document | None = None
    for document, stored in wanted:
        places = missing(document, stored)
        lines += [f"  {_name(document)}: {'.'.join(path)}: has no stored secret" for path in places]
        if places and example is None:
            example = _identity(document)
            for path in places:
                example = _with(example, {path: "..."})
    if example is None:
        return
    more = len(lines) - MOST_NAMED
    raise click.ClickException(
        "nothing was changed: the files have a placeholder for secrets of which no value is stored\n"
        + "\n".join([*lines[:MOST_NAMED], *([f"  ... and {more} more"] if more > 0 else [])])
        + f"\ngive the values with --secrets FILE, an object a line, such as {orjson.dumps(example).decode()}; "
        "or remove the fields that are not wanted any more"
    )


def with_values(documents: Sequence[Document], values: Iterable[tuple[str, Document]]) -> list[Document]:
    """The documents with these values in place of their placeholders. `values`: objects, each with where it stands.

    Raises `UsageError` for a value that a document has no placeholder for. Objects that are not among the documents are
    left alone, so that one file of secrets serves several sets.
    """
    by_name = {_name(d): number for number, d in enumerate(documents)}
    filled = list(documents)
    for where, object_ in values:
        number = by_name.get(_name(object_))
        if number is None:
            continue
        places = {_key(p): p for p, value in given(filled[number]).items() if value == SECRET_PLACEHOLDER}
        wanted: dict[Path, Any] = {}
        for path, value in _leaves({n: v for n, v in object_.items() if n not in ("jobId", "kind", "name")}):
            place = places.get(_key(path))
            if place is None:
                raise click.UsageError(
                    f"{where}: {_name(object_)} has no placeholder at {'.'.join(path)}; remove the value"
                )
            wanted[place] = {"secret": value} if "headers" in place else value
        filled[number] = _with(filled[number], wanted)
    return filled


def _leaves(value: Any, base: Path = ()) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, dict) and list(value) == ["secret"]:
        value = value["secret"]
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, (*base, name))
    else:
        yield base, value


def _identity(document: Document) -> Document:
    return {n: document[n] for n in ("jobId",) if n in document} or {n: document.get(n) for n in ("kind", "name")}


def _name(document: Document) -> str:
    identity = _identity(document)
    return f"job {identity['jobId']}" if "jobId" in identity else f"{identity['kind']} {identity['name']}"


def _with(document: Document, values: dict[Path, Any]) -> Document:
    """A copy of the document with these values at these places."""
    made = document if not values else {**document}
    for path, value in values.items():
        at = made
        for name in path[:-1]:
            at[name] = {**at[name]} if isinstance(at.get(name), dict) else {}
            at = at[name]
        at[path[-1]] = copy.copy(value)
    return made

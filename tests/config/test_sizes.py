"""Limits that keep a file, a function and an object small enough to be read at once.

Every exception is named here with its reason, and an exception that is no longer needed fails too.
"""

from __future__ import annotations

import ast
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parent.parent.parent
MODULES = {
    str(path.relative_to(ROOT)): path.read_text()
    for package in ("api", "cluster", "config", "ops")
    for path in sorted((ROOT / package).rglob("*.py"))
}
FILE_LINES = 350
FUNCTION_LINES = 60
PARAMETERS = 6
POSITIONAL = 5

TABLES: dict[str, str] = {}
"""Files and functions that only list things, and may be as long as the list: `file` or `file::function`, with the reason."""

ASSIGNED_FROM_OUTSIDE = {
    "resp.*": "falcon's response is filled in by its handler",
    "req.context.*": "falcon keeps there what belongs to a request",
    "app.req_options.*": "falcon's settings are attributes",
    "context.obj": "click keeps there what the subcommands share",
    "response.content_length": "a header of aiohttp's response",
    "gasgi.ASGIProtocol": "gunicorn makes its protocol by this name only",
}
"""Targets of assignments to objects of a library, as patterns, with the reason why there is no other way."""


@cache
def trees() -> dict[str, ast.Module]:
    """Parsed when they are asked for: each worker of xdist imports this module, and one of them needs them."""
    return {name: ast.parse(text) for name, text in MODULES.items()}


@cache
def nodes() -> list[tuple[str, ast.AST]]:
    """Each file is walked once for all limits."""
    return [(name, node) for name, tree in trees().items() for node in ast.walk(tree)]


def long_files() -> Iterator[str]:
    return (name for name, text in MODULES.items() if len(text.splitlines()) > FILE_LINES)


def long_functions() -> Iterator[str]:
    for name, node in nodes():
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if (node.end_lineno or 0) - node.lineno + 1 > FUNCTION_LINES:
            yield f"{name}::{node.name}"


def wide_constructors() -> Iterator[str]:
    for name, class_ in nodes():
        if not isinstance(class_, ast.ClassDef):
            continue
        for function in class_.body:
            if isinstance(function, ast.FunctionDef) and function.name == "__init__":
                given = function.args
                if len(given.posonlyargs + given.args + given.kwonlyargs) - 1 > PARAMETERS:
                    yield f"{name}::{class_.name}"


def positional_values() -> Iterator[str]:
    """Classes called with so many arguments in a row that their order has to be looked up."""
    for name, call in nodes():
        if isinstance(call, ast.Call) and len(call.args) > POSITIONAL:
            called = ast.unparse(call.func).rpartition(".")[2].lstrip("_")
            if called[:1].isupper():
                yield f"{name}:{call.lineno}::{called}"


def targets(node: ast.AST) -> Iterator[ast.expr]:
    """The places that a statement assigns to, tuples taken apart."""
    match node:
        case ast.Assign(targets=found) | ast.Delete(targets=found):
            left = list(found)
        case ast.AugAssign(target=one) | ast.AnnAssign(target=one) | ast.For(target=one) | ast.AsyncFor(target=one):
            left = [one]
        case ast.withitem(optional_vars=ast.expr() as one):
            left = [one]
        case _:
            return
    while left:
        target = left.pop()
        if isinstance(target, ast.Tuple | ast.List):
            left += target.elts
        else:
            yield target.value if isinstance(target, ast.Starred) else target


def fields_set_from_outside() -> Iterator[str]:
    """Assignments to `other.field`, and `setattr` on anything."""
    for name, node in nodes():
        for target in targets(node):
            if isinstance(target, ast.Attribute) and ast.unparse(target.value) not in ("self", "cls"):
                yield f"{name}::{ast.unparse(target)}"
        if isinstance(node, ast.Call) and _last_name(node.func) in ("setattr", "__setattr__"):
            owner = ast.unparse(node.args[0])
            if owner not in ("self", "cls"):
                yield f"{name}::setattr({owner})"


def _last_name(called: ast.expr) -> str:
    """`c` of `a.b.c`."""
    return called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""


def over(limit: Callable[[], Iterator[str]], allowed: dict[str, str]) -> list[str]:
    return sorted(set(limit()) - set(allowed))


def is_allowed(entry: str) -> bool:
    return any(fnmatchcase(entry.partition("::")[2], pattern) for pattern in ASSIGNED_FROM_OUTSIDE)


def test_no_file_is_long() -> None:
    """Outside tests and tables."""
    assert over(long_files, TABLES) == []


def test_no_function_is_long() -> None:
    """Its docstring counts too."""
    assert over(long_functions, TABLES) == []


def test_no_constructor_takes_many_parameters() -> None:
    """Values of a dataclass do: they are built by keyword."""
    assert over(wide_constructors, {}) == []


def test_a_value_of_many_fields_is_built_by_keyword() -> None:
    """At most five arguments by position."""
    assert over(positional_values, {}) == []


def test_no_field_of_an_object_is_set_by_another_one() -> None:
    """An object's state is changed by its own methods, so that its rules are in one place."""
    assert [entry for entry in fields_set_from_outside() if not is_allowed(entry)] == []


def test_every_exception_is_needed() -> None:
    """An entry without a use is removed from its list."""
    assert set(TABLES) <= {*long_files(), *long_functions()}
    targets_found = {entry.partition("::")[2] for entry in fields_set_from_outside()}
    unused = [p for p in ASSIGNED_FROM_OUTSIDE if not any(fnmatchcase(found, p) for found in targets_found)]
    assert unused == []

"""The invariants in cluster/README.md are numbered, and each names at least two tests that exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "cluster" / "README.md").read_text()
LEAST = 2


def invariants() -> list[tuple[int, str]]:
    """Number and text of each `### N. ...` below the heading `## Invariants`."""
    section = PAGE[PAGE.index("\n## Invariants\n") :]
    section = section[: section.index("\n## ", 1)]
    parts = re.split(r"^### (\d+)\. .+$", section, flags=re.MULTILINE)[1:]
    return [(int(number), text) for number, text in zip(parts[::2], parts[1::2], strict=True)]


def proofs(text: str) -> list[tuple[str, str]]:
    """`path::test` of each list entry."""
    return re.findall(r"^- `(tests/[\w/]+\.py)::(\w+)`$", text, re.MULTILINE)


@cache
def names_in(path: str) -> frozenset[str]:
    """The names of the tests in a file, without running it."""
    tree = ast.parse((ROOT / path).read_text())
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(n.name for n in ast.walk(tree) if isinstance(n, functions) and n.name.startswith("test_"))


def test_invariants_are_numbered_1_to_6() -> None:
    """Other pages refer to them by number."""
    assert [number for number, _ in invariants()] == [1, 2, 3, 4, 5, 6]


def test_every_invariant_names_two_tests_that_exist() -> None:
    """A test that was renamed or removed has to be replaced on the page too."""
    gone = []
    for number, text in invariants():
        named = proofs(text)
        assert len(named) == text.count("\n- "), f"invariant {number}: each entry is one `path::test`"
        assert len(set(named)) >= LEAST, f"invariant {number} needs {LEAST} tests"
        gone += [
            f"{number}: {path}::{name}"
            for path, name in named
            if not (ROOT / path).is_file() or name not in names_in(path)
        ]
    assert not gone, f"cluster/README.md names tests that do not exist: {gone}"

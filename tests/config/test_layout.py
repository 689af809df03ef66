"""The test modules stand by themselves: shared code is in `tests/support`, `tests/simulation` and `tests/chaos`."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

TESTS = Path(__file__).parent.parent
MODULES = sorted(TESTS.rglob("*.py"))


def imported(module: Path) -> Iterator[str]:
    """The dotted names that a module imports, those below functions and TYPE_CHECKING included."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("module", MODULES, ids=lambda m: str(m.relative_to(TESTS)))
def test_no_module_imports_a_test_module(module: Path) -> None:
    """Neither a test module nor a conftest: a test can be changed without a look at the others."""
    private = [
        name
        for name in imported(module)
        if name.startswith("tests.") and any(p.startswith("test_") or p == "conftest" for p in name.split(".")[:-1])
    ]
    assert not private, f"move what is shared to tests/support: {private}"

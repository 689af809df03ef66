"""The test modules stand by themselves, with shared code in `tests/support`, `tests/simulation` and `tests/chaos`; and every
package of the product has a contract."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

TESTS = Path(__file__).parent.parent
ROOT = TESTS.parent
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


def test_every_package_has_a_contract_that_names_each_of_its_modules() -> None:
    """So a new module needs a place, and `lint-imports` says so when it has none."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    exhaustive = {c for each in contracts if each.get("exhaustive") for c in each["containers"]}
    packages = {
        ".".join(init.parent.relative_to(ROOT).parts)
        for top in ("api", "cluster", "config", "ops")
        for init in (ROOT / top).rglob("__init__.py")
    }
    assert packages - exhaustive == set()

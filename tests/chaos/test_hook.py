"""The source texts of the broken builds are in the code: `make chaos BROKEN=all` is run seldom, and the code changes."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from tests.chaos.broken_builds import BUILDS
from tests.chaos.hooks import HOOK

ROOT = Path(__file__).parents[2]
BROKEN: dict[str, dict[str, list[list[str]]]] = json.loads((HOOK / "broken.json").read_text())


def test_there_is_a_run_for_each_broken_build() -> None:
    """Neither a build that nothing runs, nor a run without its build."""
    assert set(BROKEN) == set(BUILDS)


@pytest.mark.parametrize("build", sorted(BROKEN))
def test_each_change_finds_its_place_in_the_source(build: str) -> None:
    """Exactly once, and what comes out of it is still Python."""
    for module, changes in BROKEN[build].items():
        source = (ROOT / module.replace(".", "/")).with_suffix(".py").read_text()
        for old, new in changes:
            assert source.count(old) == 1, old
            source = source.replace(old, new)
        ast.parse(source)

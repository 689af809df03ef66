"""Every protection of `mutations.toml` stands in the source, and its test fails when it is taken out."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOOK = ROOT / "tests" / "chaos" / "hook"
MUTATIONS: list[dict[str, str]] = tomllib.loads(Path(__file__).with_name("mutations.toml").read_text())["mutation"]
ROW = re.compile(r"^\| (?P<broken>.+) \| `(?P<fails>tests/.+::.+)` \|$", re.MULTILINE)


def test_each_protection_stands_once_in_its_module() -> None:
    """A change of the code that moves a protection must move its row too."""
    for mutation in MUTATIONS:
        source = (ROOT / (mutation["module"].replace(".", "/") + ".py")).read_text()
        assert source.count(mutation["old"]) == 1, f"{mutation['broken']}: {mutation['old']}"


def test_the_page_lists_the_same_protections() -> None:
    """`tests/MUTATIONS.md` is for readers; `mutations.toml` is what runs."""
    rows = ROW.findall((ROOT / "tests" / "MUTATIONS.md").read_text())
    assert rows == [(m["broken"], m["fails"]) for m in MUTATIONS]


@pytest.mark.chaos
@pytest.mark.parametrize("mutation", MUTATIONS, ids=[m["broken"] for m in MUTATIONS])
def test_without_the_protection_its_test_fails(mutation: dict[str, str], tmp_path: Path) -> None:
    """The test runs in a process of its own, which imports the changed source."""
    table = tmp_path / "broken.json"
    table.write_text(json.dumps({"it": {mutation["module"]: [[mutation["old"], mutation["new"]]]}}))
    paths = os.pathsep.join([str(HOOK), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider", mutation["fails"]],
        cwd=ROOT,
        env={
            **os.environ,
            "ALL_EXAMPLES": "1",
            "SIMULATION_TIMES": "2",
            "HORAE_BREAK": "it",
            "HORAE_BREAK_TABLE": str(table),
            "PYTHONPATH": paths,
        },
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    failed = f"\nFAILED {mutation['fails']}" in ran.stdout
    assert failed, f"the test passed or did not run:\n{ran.stdout[-2000:]}\n{ran.stderr[-1000:]}"

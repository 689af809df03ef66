"""One word, one meaning: names that had several meanings do not come back, and no public class name is used twice."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("api", "cluster", "config", "ops")
TREES = {
    path.relative_to(ROOT): ast.parse(path.read_text()) for p in PACKAGES for path in sorted((ROOT / p).rglob("*.py"))
}

CLASSES = frozenset(
    [
        "Owing",
        "Moved",
        "Heard",
        "Way",
        "Gate",
        "Gates",
        "Lane",
        "Lanes",
        "Said",
        "Standing",
        "Trouble",
        "Mine",
        "Vault",
        "Letter",
        "Part",
        "Desk",
        "Board",
        "Judge",
        "Held",
        "Holdings",
        "Line",
        "Lines",
        "Parking",
        "HandBack",
        "Doors",
        "Tally",
        "Census",
    ]
)
FUNCTIONS = frozenset(
    [
        "reown",
        "naming",
        "strays",
        "discard_unsound",
        "bury",
        "everyone",
        "ruled",
        "to_be_heard_of",
        "translated",
        "insist",
        "hand_in",
        "only_unowned_for_a_lease",
        "look_after_waiting",
        "find_orphans",
        "tell",
        "told",
        "some_back",
        "put_back",
    ]
)
MODULES = frozenset(
    [
        "readings",
        "elect",
        "census",
        "catchup",
        "handback",
        "held",
        "runqueue",
        "parking",
        "lines",
        "unsent",
        "gates",
        "breakers",
        "doors",
        "tally",
        "outside",
        "hidden",
        "hiddenspec",
        "jobspec",
        "jobtext",
        "alertspec",
        "reserved",
        "strictjson",
        "told",
        "audited",
        "owing",
        "alertjobs",
        "door",
        "sealing",
        "vault",
        "legible",
        "across",
        "facts",
        "herds",
        "rotation",
        "faults",
        "guard",
        "desk",
        "board",
        "heads",
    ]
) - {"breakers"}  # the collection `breakers` has its module in the store
EVENTS = re.compile(r"\w+_disturbed|set_aside|arbiter_gone|store_away|database_away")


def definitions(*kinds: type[ast.AST]) -> list[tuple[Path, str]]:
    return [
        (path, node.name)
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and isinstance(node, kinds)
    ]


def test_no_public_class_name_is_used_twice_below_cluster() -> None:
    """Otherwise a reader has to look at the imports to know what is meant."""
    names = Counter(
        name for path, name in definitions(ast.ClassDef) if path.parts[0] == "cluster" and not name.startswith("_")
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_no_overloaded_name_is_back() -> None:
    """HTTP handlers and messages are free; these are names of classes, functions and modules."""
    assert [(str(p), n) for p, n in definitions(ast.ClassDef) if n in CLASSES] == []
    assert [(str(p), n) for p, n in definitions(ast.FunctionDef, ast.AsyncFunctionDef) if n in FUNCTIONS] == []
    assert [str(path) for path in TREES if path.stem in MODULES] == []


def test_no_event_has_its_former_name() -> None:
    """ops/EVENTS.md lists those of today."""
    events = [
        node.args[0].value
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "log"
        and node.args
        and isinstance(node.args[0], ast.Constant)
    ]
    assert len(events) > 50
    assert [event for event in events if EVENTS.fullmatch(str(event))] == []

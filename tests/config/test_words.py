"""Names that were given up do not come back, and a public class name below `cluster/` means one thing.

`cluster/GLOSSARY.md` has the words that are used instead.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent.parent

CLASSES = """
Answered Board Breakers Census Desk Doors Dropped Gate Gates HandBack Heard Held Holdings Hooks Judge Lane Lanes Letter
Line Lines Mine Moved Owing Parked Parking Part Ready Said Standing Tally Trouble Vault Way _Firsts
"""
CONSTANTS = "AGAIN ANY CERTAINLY FREE RUNS"
FUNCTIONS = """
_forgo _obey _parted _say_what_holds_up _tell_failing _untold bury changing discard_unsound endings everyone
find_orphans gone hand_in insist known listing look_after_waiting moves naming only_unowned_for_a_lease park permitted
put_back reown rest ruled say seal shut some_back strays tell to_be_heard_of told translated unpark why without
"""
VARIABLES = "desk door doors gate gates letter letters mark office said told vault"
MODULES = """
board breakers catchup census common desk digest doors door elect gates handback held helpers lines manager parking
readings runqueue tally unsent utils vault
"""
"""Old names, and those that say nothing."""
ALLOWED_MODULES = {Path("cluster/store/breakers.py")}
"""Named after its collection."""
EVENTS = """
arbiter_gone batches_unsound breaker_forgotten database_away database_connection_plain drain_cut_short drain_step_failed
embedded_mongod_stays_down jobs_unread key_use_not_noted leader_steps_aside node_back node_draining node_resting
orphans_found result_given_up set_aside store_away worker_drained \\w+_disturbed
"""


@cache
def trees() -> dict[Path, ast.Module]:
    """Parsed when they are asked for: each worker of xdist imports this module, and one of them needs them."""
    return {
        path.relative_to(ROOT): ast.parse(path.read_text())
        for package in ("api", "cluster", "config", "ops")
        for path in sorted((ROOT / package).rglob("*.py"))
    }


def defined(tree: ast.Module) -> Iterator[tuple[type[ast.AST], str]]:
    """The names that a module defines: classes, functions, and assigned names, fields and parameters."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield type(node), node.name
        elif isinstance(node, ast.arg):
            yield ast.arg, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield ast.Name, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield ast.Attribute, node.attr


@cache
def names() -> list[tuple[Path, type[ast.AST], str]]:
    """Every name that is defined, with what it is. Each file is walked once for all tests."""
    return [(path, kind, name) for path, tree in trees().items() for kind, name in defined(tree)]


def found(listed: str, *kinds: type[ast.AST]) -> list[str]:
    banned = set(listed.split())
    return [f"{path}: {name}" for path, kind, name in names() if kind in kinds and name in banned]


def test_no_public_class_name_is_used_twice_below_cluster() -> None:
    """A name in a log, a traceback or a sentence means one class."""
    places: defaultdict[str, list[Path]] = defaultdict(list)
    for path, kind, name in names():
        if path.parts[0] == "cluster" and kind is ast.ClassDef:
            places[name].append(path)
    assert {name: paths for name, paths in places.items() if len(paths) > 1 and not name.startswith("_")} == {}


def test_no_class_has_a_banned_name() -> None:
    """Neither at the top of a module nor inside a class."""
    assert found(CLASSES, ast.ClassDef) == []


def test_no_constant_has_a_banned_name() -> None:
    """They said nothing without a look at their module."""
    assert found(CONSTANTS, ast.Name) == []


def test_no_function_has_a_banned_name() -> None:
    """Methods too."""
    assert found(FUNCTIONS, ast.FunctionDef, ast.AsyncFunctionDef) == []


def test_no_variable_field_or_parameter_has_a_banned_name() -> None:
    """Metaphors, and words that had several meanings."""
    assert found(VARIABLES, ast.Name, ast.Attribute, ast.arg) == []


def test_no_module_has_a_banned_name() -> None:
    """Neither an old one nor one that says nothing."""
    banned = set(MODULES.split())
    assert [str(path) for path in trees() if path.stem in banned and path not in ALLOWED_MODULES] == []


def test_no_event_has_a_banned_name() -> None:
    """`ops/EVENTS.md` lists all events of the code."""
    listed = re.findall(r"^\| `(\w+)`", (ROOT / "ops" / "EVENTS.md").read_text(), re.MULTILINE)
    banned = re.compile("|".join(EVENTS.split()))
    assert len(listed) > 50
    assert [event for event in listed if banned.fullmatch(event)] == []

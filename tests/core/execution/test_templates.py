"""Names between double braces: which are found, which are escaped, and how long that takes."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from cluster.core.execution.model import Execution, Target
from cluster.core.execution.templates import fill_in, unknown_name, unknown_name_in_body

if TYPE_CHECKING:
    from collections.abc import Callable

EXECUTION = Execution("a:1700000000000", "a", 1_700_000_000_000, 1_700_000_000_000, "v1", "b", 0)
TARGET = Target("http://a.example/")
MIB = 1 << 20
LONG = "#if " + "a" * 300


def sent(body: str, *, is_json: bool = False) -> str:
    """What a body is at its second attempt."""
    return fill_in(replace(TARGET, body=body.encode(), body_is_json=is_json), EXECUTION, 2).body.decode()


@pytest.mark.parametrize("is_json", [False, True])
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("{{attempt}}", "2"),
        ("{{{attempt}}}", "{2}"),
        ("{{{{attempt}}}}", "{{attempt}}"),
        ("{{{{{attempt}}}}}", "{{{attempt}}}"),
        ("{{{{attempt}}", "{{2"),
        ("{{attempt}}}}", "2}}"),
        ("{{attempt}}{{{{attempt}}}}{{attempt}}", "2{{attempt}}2"),
        ("{{{{" + LONG + "}}}}", "{{" + LONG + "}}"),
        ("{{ {{attempt}}", "{{ 2"),
    ],
)
def test_the_last_braces_of_a_run_count(body: str, said: str, *, is_json: bool) -> None:
    """Two of them for a name, four for braces that are sent."""
    assert sent(body, is_json=is_json) == said


@pytest.mark.parametrize("name", ["name", LONG])
def test_an_unknown_name_is_found_however_long_it_is(name: str) -> None:
    """And not if it is escaped."""
    assert unknown_name("a {{" + name + "}}") == name[:64]
    for kind in ("text", "json"):
        assert unknown_name_in_body(f'["{{{{{name}}}}}"]'.encode(), kind) == name[:64]
        assert unknown_name_in_body(f'["{{{{{{{{{name}}}}}}}}}"]'.encode(), kind) is None


@pytest.mark.parametrize("piece", ["{{", "{{{{", "{{a", "{{a}", "{{ ", "{{\\\\", "}}"])
@pytest.mark.parametrize("is_json", [False, True])
def test_a_long_body_of_braces_is_read_fast(piece: str, *, is_json: bool) -> None:
    """Both where it is checked and at every attempt: the event loop stands still meanwhile."""
    body = f'["{piece * (MIB // len(piece))} }} }}}}"]'.encode()
    target = replace(TARGET, body=body, body_is_json=is_json)
    assert best(lambda: unknown_name_in_body(body, "json" if is_json else "text")) < 0.1
    assert best(lambda: fill_in(target, EXECUTION, 1)) < 0.1


def best(work: Callable[[], object]) -> float:
    """The seconds of processor time of the fastest of three."""
    seconds = []
    for _ in range(3):
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    return min(seconds)

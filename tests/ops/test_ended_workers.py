"""The memory in which a parent process says which of its workers have ended."""

from __future__ import annotations

import os

import pytest

from cluster.clock import Clock
from ops.server.ended_workers import KEPT, RECENT_SECONDS, EndedWorkers


def test_a_worker_that_ended_is_named_once_to_each_sibling() -> None:
    ended = EndedWorkers(4)
    one, other = ended.reader(), ended.reader()
    ended.introduce(2, 4711, "host-4711-abc")
    assert not one()
    ended.note(2, 4711)
    assert one() == ["host-4711-abc"]
    assert not one()
    assert other() == ["host-4711-abc"]


def test_a_worker_that_ended_before_it_introduced_itself_is_not_named() -> None:
    """Its slot has the name of the one before, which is named already."""
    ended = EndedWorkers(4)
    read = ended.reader()
    ended.introduce(0, 1, "first")
    ended.note(0, 1)
    ended.note(0, 2)
    assert read() == ["first"]


def test_what_was_written_in_another_process_is_read() -> None:
    ended = EndedWorkers(1)
    read = ended.reader()
    child = os.fork()
    if child == 0:
        ended.introduce(0, os.getpid(), "child")
        os._exit(0)
    os.waitpid(child, 0)
    ended.note(0, child)
    assert read() == ["child"]


def test_a_worker_that_begins_hears_of_those_that_ended_just_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one worker a parent has no sibling but the successor. Those that ended long ago have no leases any more."""
    ended = EndedWorkers(1)
    now = Clock.monotonic()
    for age, name in ((RECENT_SECONDS + 1, "old"), (1.0, "recent")):
        monkeypatch.setattr(Clock, "monotonic", staticmethod(lambda age=age: now - age))
        ended.introduce(0, 1, name)
        ended.note(0, 1)
    monkeypatch.setattr(Clock, "monotonic", staticmethod(lambda: now))
    assert ended.reader()() == ["recent"]


def test_the_latest_are_kept_when_many_end() -> None:
    ended = EndedWorkers(1)
    read = ended.reader()
    for n in range(KEPT + 10):
        ended.introduce(0, n + 1, f"node{n}")
        ended.note(0, n + 1)
    assert read() == [f"node{n}" for n in range(10, KEPT + 10)]


@pytest.mark.parametrize("name", ["n" * 90, "gerät-1-0f"])
def test_names_of_any_length_and_script_come_back_as_they_are(name: str) -> None:
    ended = EndedWorkers(1)
    read = ended.reader()
    ended.introduce(0, 1, name)
    ended.note(0, 1)
    assert read() == [name]

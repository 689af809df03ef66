"""Tables of commands."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ops.support.output import print_table

if TYPE_CHECKING:
    import pytest


def test_foreign_texts_cannot_control_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Texts of targets and jobs are shown as they are, without control characters."""
    print_table("t", ["a"], [("closing [/b] and [ssl: x]",), ("\x1b]0;owned\x07 \x1b[31mred",), (None,)])
    shown = capsys.readouterr().out
    assert "closing [/b] and [ssl: x]" in shown
    assert not re.search(r"[\x00-\x08\x0b-\x1f]", shown)

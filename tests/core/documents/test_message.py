"""The JSON of a message."""

from __future__ import annotations

import pytest

from cluster.core.documents.job_json import DocumentLimits
from cluster.core.documents.message import read_message
from cluster.core.errors import InvalidInput

CONTEXT = DocumentLimits(()).context


@pytest.mark.parametrize("delay", [5, 1.5, True, ["30s"]])
def test_a_delay_that_is_no_string_is_refused_with_an_example(delay: object) -> None:
    """A number would leave its unit open."""
    with pytest.raises(InvalidInput) as caught:
        read_message({"api": "https://api.example.com/webhook", "delay": delay}, CONTEXT, 0, 7.0)
    assert [(f.path, f.message) for f in caught.value.faults] == [("delay", 'must be a string, such as "30s"')]


@pytest.mark.parametrize("delay", [None, "30s"])
def test_a_delay_is_a_string_or_left_out(delay: str | None) -> None:
    message = read_message({"api": "https://api.example.com/webhook", "delay": delay}, CONTEXT, 1_000_000, 7.0)
    assert message is not None

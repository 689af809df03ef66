"""Faults that the API finds in what a command was given."""

from __future__ import annotations

import pytest

from ops.support.client import Refused, faults_named

PROBLEM = {"title": "Invalid input", "detail": "2 faults"}


def test_a_fault_is_shown_with_the_option_that_gave_the_field() -> None:
    """`api` is what the API calls the URL; a field without an option keeps its name."""
    errors = [{"path": "api", "message": "must be a URL"}, {"path": "headers.X-A", "message": "is too long"}]
    errors.append({"path": "retry", "message": "is unknown"})
    with pytest.raises(Refused) as caught, faults_named({"api": "URL", "headers": "--header"}):
        raise Refused(422, {**PROBLEM, "errors": errors})
    assert caught.value.message.splitlines()[1:] == [
        "  URL, api: must be a URL",
        "  --header, headers.X-A: is too long",
        "  retry: is unknown",
    ]

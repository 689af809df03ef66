"""The part of a job's document that names a calendar."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cluster.core.documents.base import Model

NAME_PATTERN = "^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}$"


class CalendarUse(Model):
    """The calendar whose days a job does not run on."""

    name: str = Field(
        pattern=NAME_PATTERN,
        max_length=64,
        description="The calendar (`PUT /calendars/{name}`).",
        examples=["holidays"],
    )
    on_excluded: Literal["skip", "nextIncluded", "previousIncluded"] = Field(
        default="skip",
        description="What becomes of an occurrence on an excluded day: left out, or moved to the next or the previous day "
        "that is not excluded, at the same local time of day. Two that fall together are one.",
    )

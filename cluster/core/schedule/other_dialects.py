"""Cron lines of other schedulers: the sentence that says what to write here instead. Nothing is read differently by it."""

from __future__ import annotations

import re

from cluster.core.schedule.cron_syntax import DAYS, FIELDS, MONTHS

_ZONE = re.compile(r"(?:CRON_)?TZ=(\S*)\Z", re.IGNORECASE)
_WRAPPED = re.compile(r"(cron|rate)\((.*)\)\s*\Z", re.IGNORECASE | re.DOTALL)
_YEAR = re.compile(r"(?:19|20|21)\d\d(?:[-/,]\d+)*\Z", re.ASCII)
_NAME = re.compile(r"(?<![A-Z])([A-Z]{3})(?![A-Z])", re.ASCII)
_ORDER = "second minute hour day-of-month month day-of-week"


def hint(text: str) -> str | None:
    """What to write instead of a text of another scheduler. None if there is nothing to say before it is read."""
    words = text.split()
    if zone := _ZONE.match(words[0]):
        return f"the time zone goes into the field timezone: remove '{words[0]}' and set timezone to '{zone[1]}'"
    if wrapped := _WRAPPED.match(text.strip()):
        if wrapped[1].lower() == "rate":
            return f"'{text}' is not known here; write an interval such as @every 5m"
        return f"write the expression alone, without {wrapped[1]}(...): '{_without_year(wrapped[2].split())}'"
    upper = [word.upper() for word in words]
    return _year_at_the_end(words, upper) or _name_in_another_field(upper) or _hashed(upper)


def _year_at_the_end(words: list[str], upper: list[str]) -> str | None:
    """Six fields that are minute to year, as in AWS EventBridge."""
    if len(upper) != 6:
        return None
    last = upper[5]
    is_year = bool(_YEAR.match(last))
    weekday_is_fifth = upper[4] == "?" or _names_in(upper[4], DAYS)
    day_is_third = upper[2] == "?" or _names_in(upper[3], MONTHS)
    if not is_year and not (last in ("*", "?") and (weekday_is_fifth or day_is_third)):
        return None
    return (
        f"six fields are {_ORDER}, and in '{' '.join(words)}' the last one stands where others write a year: "
        f"write '{_without_year(words)}'" + (", and startAt and endAt for the years" if is_year else "")
    )


def _without_year(words: list[str]) -> str:
    return " ".join(words[:5])


def _name_in_another_field(upper: list[str]) -> str | None:
    fields = FIELDS[-len(upper) :] if len(upper) in (5, 6) else ()
    for field, word in zip(fields, upper, strict=False):
        for names, kind, place in ((DAYS, "a day of the week", "day of week"), (MONTHS, "a month", "month")):
            if field.name != place and (name := _names_in(word, names)):
                order = _ORDER if len(upper) == 6 else _ORDER.removeprefix("second ")
                return f"{field.name}: '{name}' is {kind}; the {len(upper)} fields are {order}"
    return None


def _hashed(upper: list[str]) -> str | None:
    """`H` of Jenkins and `~` of OpenBSD: a time that differs from job to job."""
    fields = FIELDS[-len(upper) :] if len(upper) in (5, 6) else ()
    for field, word in zip(fields, upper, strict=False):
        if "~" in word or re.match(r"H(?:\(|/|,|\Z)", word):
            return (
                f"{field.name}: '{word}' asks for a time of its own for each job: write a fixed number, and set spreadSeconds, "
                "which sends each job at its own second of that stretch"
            )
    return None


def _names_in(word: str, names: dict[str, int]) -> str | None:
    return next((name for name in _NAME.findall(word) if name in names), None)

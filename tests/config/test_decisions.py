"""ops/decisions/: records are numbered 1 to n without gaps or doubles, share one form, and the index lists them all."""

from __future__ import annotations

import re
from pathlib import Path

DECISIONS = Path(__file__).parents[2] / "ops" / "decisions"
RECORDS = sorted(DECISIONS.glob("[0-9]*.md"))


def test_numbers_have_no_gap_and_no_double() -> None:
    """File names count 0001, 0002, ..."""
    assert [int(record.name[:4]) for record in RECORDS] == list(range(1, len(RECORDS) + 1))


def test_every_record_has_the_form() -> None:
    """Its number in the title, a status with a date, and the three parts in order."""
    for record in RECORDS:
        text = record.read_text()
        assert text.startswith(f"# {int(record.name[:4])}. "), record.name
        assert re.search(r"^\*\*Status\*\*: [a-z].*\d{4}-\d\d-\d\d", text, re.MULTILINE), record.name
        parts = re.findall(r"^## (.+)$", text, re.MULTILINE)
        assert parts == ["Context", "Decision", "Consequences"], record.name


def test_the_index_lists_them_all() -> None:
    """One row each, in order, with the number and the title of the record."""
    index = (DECISIONS / "README.md").read_text()
    rows = re.findall(r"^\| \[(\d+)\]\(([^)]+)\) \| (.+) \|$", index, re.MULTILINE)
    expected = [
        (str(int(record.name[:4])), record.name, record.read_text().splitlines()[0].partition(". ")[2])
        for record in RECORDS
    ]
    assert rows == expected

"""`horae herd`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.engine import job_document, put_jobs

if TYPE_CHECKING:
    from tests.support.commands import Commands


def test_herd_finds_the_worst_second(horae: Commands) -> None:
    """Per distinct schedule, in the next hour, with the effect of spreading."""
    jobs = [job_document(f"m{i}", "0 * * * * *") for i in range(30)] + [job_document("s", "30 * * * * *")]
    horae.on(lambda db: put_jobs(db, *jobs, job_document("p", "0 * * * * *", state="paused")))
    told = horae.json("herd")
    assert (told["jobs"], told["distinctSchedules"], told["sends"]) == (31, 2, 1860)
    assert told["worst"][0]["sends"] == 30
    assert told["worst"][0]["at"].endswith(":00.000Z")
    assert told["worstSecondIfSpread"]["10"] == 3
    assert "the worst seconds" in horae("herd").stdout

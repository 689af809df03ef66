"""`horae explain`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cluster.core.instants import format_instant
from tests.support.engine import job_document, put_jobs
from tests.support.messages import send

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database
    from tests.support.commands import Commands


def test_explain_prints_sentences_and_json(horae: Commands) -> None:
    """Exit status 1 if the job did not run, 2 for an invalid time."""
    midnight = int(time.time()) // 86_400 * 86_400_000
    horae.on(lambda db: put_jobs(db, job_document("a", "0 0 3 * * *", active_from=midnight - 2 * 86_400_000)))
    at = format_instant(midnight - 86_400_000 + 3 * 3_600_000)
    told = horae("explain", "a", at[:16])
    assert (told.exit_code, told.stdout.splitlines()[0]) == (0, "a is active.")
    assert "The leader has not settled the job's last change yet" in told.stdout
    assert f"{at}  it was due by `0 0 3 * * *`" in told.stdout
    found = horae.json("explain", "a", "2023-11-14T12:00:00+01:00")
    assert [e["state"] for e in found["explanations"]] == ["absent"]
    last, following = horae.json("explain", "a")["explanations"]
    assert (last["state"], following["state"]) == ("waiting", "ahead")
    assert horae("explain", "a", "2023-11-14T00:00:00Z").exit_code == 1
    assert horae("explain", "nobody").exit_code == 1
    wrong = horae("explain", "a", "yesterday")
    assert wrong.exit_code == 2
    assert "03:00" in wrong.output


def test_a_message_is_explained_by_its_id_or_that_of_its_execution(horae: Commands) -> None:
    now = int(time.time() * 1000)
    sent: list[str] = []

    async def accept(db: Database) -> None:
        sent.extend(await send(db, now, now + 3_600_000))

    horae.on(accept)
    name = sent[0].partition(":")[0]
    told = horae("explain", name)
    assert (told.exit_code, told.stdout.splitlines()[0]) == (0, f"{name} is a message.")
    assert "It waits: it is due at" in told.stdout
    (answer,) = horae.json("explain", sent[0])["explanations"]
    assert (answer["state"], answer["executionId"]) == ("pending", sent[0])
    assert horae("explain", name, "10m").exit_code == 2
    missing = horae("explain", f"msg.{'0' * 26}")
    assert (missing.exit_code, "never accepted" in missing.output) == (1, True)

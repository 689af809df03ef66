"""`horae verify` for what follows executions: each callback that is owed, and each run of a chained job, is there.

What a record owes is said by the record (`callback`), and by the jobs that are chained to its job now. An execution that is
still owed, or whose late result is marked, will be followed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.core.execution.follow_up import kind_of
from cluster.core.ids import callback_id, chained_id, is_message
from cluster.core.verify.findings import Finding
from cluster.store import executions, followed
from cluster.store.history import DAY_MS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from cluster.core.execution.follow_up import ChainedJob
    from cluster.core.verify.subjects import Bounds, VerifiedJob
    from cluster.store.mongo.client import Database, Document

MARGIN_MS = 30_000
"""Near a change of a job it is not known what its nodes knew: a write may take the API's deadline, and an attempt its time."""


async def missing(
    db: Database,
    page: Sequence[Document],
    jobs: Mapping[str, VerifiedJob],
    chained: Mapping[str, Sequence[ChainedJob]],
    owed: Collection[str],
    bounds: Bounds,
) -> list[Finding]:
    """What should follow the executions of these records, and is neither owed nor recorded."""
    kept_ms = bounds.now_ms - int(bounds.shortest_days * DAY_MS)
    expected: dict[str, Finding] = {}
    for d in page:
        if kind_of(str(d.get("state"))) is None or d["_id"] in owed or d.get("unfollowed"):
            continue
        try:
            if int(d["ended_at"]) >= kept_ms and (d.get("callback") or d["job_id"] in chained):
                expected |= _expected(d, jobs.get(d["job_id"]), chained.get(d["job_id"], ()))
        except Exception:  # noqa: S112 - a record that cannot be read is a finding of its own
            continue
    if not expected:
        return []
    # Owed first: what ends between the two reads is in history before it leaves `executions`.
    there = await executions.existing_ids(db, expected.keys())
    there |= await followed.recorded(db, expected.keys() - there)
    return [finding for name, finding in expected.items() if name not in there]


def _expected(d: Document, job: VerifiedJob | None, chained: Sequence[ChainedJob]) -> dict[str, Finding]:
    """What follows the execution of this record, by id, with the finding if it is not there."""
    name, due_ms, kind = d["_id"], int(d["due_at"]), kind_of(d["state"])
    expected: dict[str, Finding] = {}
    unchanged = is_message(d["job_id"]) or (
        job is not None and job.deleted_ms is None and job.defined_ms < int(d["ended_at"])
    )
    if d.get("callback") and unchanged and kind is not None:
        text = f"it is {d['state']}, and its callback is neither owed nor recorded"
        expected[callback_id(name, kind, due_ms)] = Finding("missing", d["job_id"], name, text)
    sent = [int(a["sent_at"]) for a in d["attempts"]]
    began_ms = sent[-1] if sent else int(d["ended_at"])
    for c in chained:
        result = followed.ended_of({**d, "made": len(sent)})
        # Its last attempt must have begun when nodes knew the chained job.
        if c.owes_run(result, MARGIN_MS) and c.owes_run(followed.ended_at(result, began_ms), MARGIN_MS):
            run = chained_id(c.id, name, due_ms)
            text = f"it runs after {name}, which is {d['state']}, but is neither owed nor recorded"
            expected[run] = Finding("missing", c.id, run, text)
    return expected

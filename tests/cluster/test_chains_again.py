"""Chained jobs after deletions and changes that come between the end of an execution and what follows it."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, Any

import pytest

from cluster.core.documents.job_json import apply_patch, read_job
from cluster.store import chain_links
from cluster.store import jobs as stored
from cluster.usecases import chains, executions, imports, jobs
from cluster.usecases.imports import ImportLine
from tests.support.chains import Target, chain, deliver, fault_of, put
from tests.support.cranked_cluster import CONTEXT
from tests.support.engine import T0, Crank, rows, worker
from tests.support.leaders import Crashed, crash_after
from tests.support.workers import deliver_until

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database


async def test_a_job_that_is_created_again_closes_no_cycle(database: Database) -> None:
    await put(database, "p")
    await chain(database, "c", "p")
    await chain(database, "d", "c")
    await jobs.delete(database, "c", T0 - 4000)
    await jobs.patch(
        database, "p", lambda d: apply_patch(d, {"after": {"jobId": "d"}, "schedule": None}, CONTEXT), (), T0 - 3000
    )
    path, message = await fault_of(database, "c", "p")
    assert (path, "cycle" in message) == ("after.jobId", True)


async def test_a_job_that_is_created_again_is_followed_though_its_link_was_trimmed(database: Database) -> None:
    target = Target()
    await put(database, "p")
    await chain(database, "c", "p")
    await jobs.delete(database, "c", T0 - 4000)
    await chain_links.trim(database, T0)
    await chain(database, "c", "p", at_ms=T0 - 3000)
    await executions.trigger(database, "p", T0)
    await deliver(database, target)
    assert target.came == ["p", "c"]


async def test_a_job_that_is_created_again_names_a_job_that_exists(database: Database) -> None:
    await put(database, "p")
    await chain(database, "c", "p")
    await jobs.delete(database, "c", T0 - 4000)
    await jobs.delete(database, "p", T0 - 4000)
    path, message = await fault_of(database, "c", "p")
    assert (path, "there is no job" in message) == ("after.jobId", True)


async def _recorded_and_not_followed(db: Database, patch: pytest.MonkeyPatch) -> Target:
    """`c` runs after `p`, whose execution has succeeded; its node died before it wrote what follows."""
    target = Target()
    await put(db, "p")
    await chain(db, "c", "p")
    await executions.trigger(db, "p", T0)
    with patch.context() as patched:
        crash_after(patched, "history", "record", 1)
        with contextlib.suppress(Crashed):
            await deliver_until(db, worker(db, target, "dead", clock=Crank(T0 + 1000)), T0 + 5000)
    return target


async def test_what_ended_before_the_other_job_was_deleted_is_followed(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = await _recorded_and_not_followed(database, monkeypatch)
    await jobs.delete(database, "p", T0 + 2000)
    await deliver(database, target)
    assert target.came == ["p", "c"]


async def test_what_ended_before_a_change_of_on_is_followed_by_what_it_says_now(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = await _recorded_and_not_followed(database, monkeypatch)
    await chain(database, "c", "p", "any", at_ms=T0 + 2000)
    await deliver(database, target)
    assert target.came == ["p", "c"]


async def test_what_ends_because_its_job_cannot_be_read_is_followed(database: Database) -> None:
    target = Target()
    await put(database, "p", onFailure={"api": "http://127.0.0.1:1/told"})
    await chain(database, "c", "p", "failed")
    await executions.trigger(database, "p", T0)
    await database.api["jobs"].update_one({"_id": "p"}, {"$set": {"retry": "x"}})
    await deliver(database, target)
    written = await rows(database, "history") + await rows(database, "executions")
    assert {d["job_id"][:3] for d in written} == {"p", "c", "cb."}


async def test_a_node_that_dies_behind_the_creation_of_the_other_job_loses_no_link(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = Target()
    await put(database, "p")
    await chain(database, "c", "p")
    await jobs.delete(database, "p", T0 - 4000)
    await database.api["jobs"].delete_one({"_id": "p"})

    with monkeypatch.context() as patched:
        crash_after(patched, "jobs", "insert", 1)
        with contextlib.suppress(Crashed):
            await put(database, "p", at_ms=T0 - 3000)
    await put(database, "p", at_ms=T0 - 2000)
    await executions.trigger(database, "p", T0)
    await deliver(database, target)
    assert target.came == ["p", "c"]


async def test_only_so_many_jobs_run_after_one(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that runs after another job by now does not count."""
    monkeypatch.setattr(chain_links, "MOST_CHAINED", 2)
    for parent in ("p", "q"):
        await put(database, parent)
    await chain(database, "a", "p")
    await chain(database, "b", "p")
    path, message = await fault_of(database, "c", "p")
    assert (path, message[:24]) == ("after.jobId", "2 jobs run after 'p', an")
    await chain(database, "a", "q", at_ms=T0)
    await chain(database, "c", "p")
    assert await children(database, "p") == ["b", "c"]
    assert (await fault_of(database, "d", "p"))[0] == "after.jobId"


async def test_no_chain_is_longer_than_allowed_whichever_link_comes_last(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two chains that are joined count together. What is as long as allowed can be exported, and applied in any order."""
    monkeypatch.setattr(chains, "LONGEST", 4)
    for name in "abcdef":
        await put(database, name)
    for child, parent in itertools.pairwise("cba"):
        await chain(database, child, parent)
    for child, parent in itertools.pairwise("fed"):
        await chain(database, child, parent)
    path, message = await fault_of(database, "d", "c")
    assert (path, message) == ("after.jobId", "would put more than 4 jobs above one of the chain")
    assert await children(database, "c") == []
    await chain(database, "d", "b", at_ms=T0)
    assert (await fault_of(database, "g", "f"))[0] == "after.jobId"
    await chain(database, "g", "e")


async def test_every_branch_below_counts_however_many_jobs_are_asked_for_at_a_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three jobs that run after one, only the last leads on: with it the chain is too long, without it it is not."""
    monkeypatch.setattr(chains, "LONGEST", 4)
    monkeypatch.setattr(chain_links, "IDS_AT_ONCE", 1)
    for name in ("p", "q", "r"):
        await put(database, name)
    for child in ("x", "y", "z"):
        await chain(database, child, "r")
    await chain(database, "z2", "z")
    await chain(database, "z3", "z2")
    await chain(database, "q", "p")
    assert (await fault_of(database, "r", "q"))[1] == "would put more than 4 jobs above one of the chain"
    await jobs.delete(database, "z3", T0 - 1000)
    await chain(database, "r", "q")


async def test_two_changes_at_once_make_no_chain_too_long(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would be allowed by itself. One looks while the other one is only an intent."""
    monkeypatch.setattr(chains, "LONGEST", 2)
    monkeypatch.setattr(chains, "TRIES", 1)
    for name in "abcd":
        await put(database, name)
    await chain(database, "b", "a")
    await chain_links.intend(database, "d", "c", T0 - 5000, "other")
    assert (await fault_of(database, "c", "b"))[0] == "after.jobId"
    await chain_links.withdraw(database, "c", "other")
    await chain(database, "c", "b")


async def children(db: Database, parent: str) -> list[str]:
    """The jobs that are noted as chained to this one."""
    return [e["job"] for d in await rows(db, "jobs") if d["_id"] == parent for e in d.get("followed_by", ())]


async def test_a_job_that_comes_and_goes_is_noted_once(database: Database) -> None:
    target = Target()
    for parent in ("p", "q"):
        await put(database, parent)
    for n in range(4):
        await chain(database, "c", "p", at_ms=T0 - 4000 + 2 * n)
        await chain(database, "c", "q", at_ms=T0 - 3999 + 2 * n)
    await chain(database, "c", "p", at_ms=T0 - 100)
    assert (await children(database, "p"), await children(database, "q")) == (["c"], ["c"])
    await executions.trigger(database, "p", T0 + 5000)
    await deliver(database, target)
    assert target.came == ["p", "c"]


@pytest.mark.parametrize("order", ["ab", "ba"])
async def test_of_two_notes_that_replace_each_other_one_stays(database: Database, order: str) -> None:
    """And the note of a change that is still to be written."""
    await put(database, "p")
    for link in "abx":
        assert await chain_links.intend(database, "c", "p", T0, link)
    for link in order:
        await chain_links.confirm(database, "c", "p", link)
    (entries,) = [d["followed_by"] for d in await rows(database, "jobs")]
    assert [(e["id"], e.get("made")) for e in entries] == [(order[-1], True), ("x", None)]


async def test_an_intent_of_a_request_that_takes_long_is_as_old_as_it_is(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An import of many jobs may take minutes. Intents that are a minute old are passed over when a cycle is looked for."""
    await put(database, "p")
    read, real, passed = stored.get_many, chains.monotonic, 0.0

    async def slow(*args: Any) -> Any:
        nonlocal passed
        passed = 70.0
        return await read(*args)

    monkeypatch.setattr(chains, "monotonic", lambda: real() + passed)
    monkeypatch.setattr(stored, "get_many", slow)
    body = read_job({"api": "http://127.0.0.1:1/x", "after": {"jobId": "p"}}, CONTEXT)
    assert (await imports.import_chunk(database, [ImportLine(1, "c", body)], T0)).created == 1
    (entry,) = next(d["followed_by"] for d in await rows(database, "jobs") if d["_id"] == "p")
    assert T0 + 70_000 <= int(entry["at"]) < T0 + 130_000


async def test_an_import_puts_each_job_of_a_chain_once_in_whatever_order(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred jobs from the last to the first took a minute when each turn put what it could."""
    puts: list[str] = []
    real = jobs.put

    async def counted(db: Database, job_id: str, *args: Any, **links: Any) -> Any:
        puts.append(job_id)
        return await real(db, job_id, *args, **links)

    monkeypatch.setattr(imports, "put", counted)
    names = [f"j{n}" for n in range(8)]
    bodies = [{"jobId": a, "after": {"jobId": b}} for a, b in itertools.pairwise(names)]
    bodies += [{"jobId": names[-1], "schedule": "@yearly"}, {"jobId": "x", "after": {"jobId": "y"}}]
    bodies += [{"jobId": "y", "after": {"jobId": "x"}}]
    lines = [
        ImportLine(n, str(d.pop("jobId")), read_job({"api": "http://127.0.0.1:1/x", **d}, CONTEXT))
        for n, d in enumerate(bodies, 1)
    ]
    done = await imports.import_chunk(database, lines, T0)
    assert (done.created, sorted(str(line.job_id) for line, _ in done.refused)) == (8, ["x", "y"])
    assert [p for p in puts if p.startswith("j")] == names[-2::-1]


async def test_the_links_of_a_chain_that_is_imported_are_read_at_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one after the other for each of its jobs. What the lines say is not believed: a cycle with stored links is found."""
    real, reads = chain_links.parents, 0

    async def counted(*args: Any) -> Any:
        nonlocal reads
        reads += 1
        return await real(*args)

    monkeypatch.setattr(chain_links, "parents", counted)
    body = {"api": "https://h.example/"}
    await put(database, "s0")
    for n in range(1, 6):
        await chain(database, f"s{n}", f"s{n - 1}")
    lines = [
        ImportLine(n, f"i{n}", read_job({**body, "after": {"jobId": "s5" if n == 0 else f"i{n - 1}"}}, CONTEXT))
        for n in range(30)
    ]
    reads = 0
    assert (await imports.import_chunk(database, lines, T0)).created == 30
    assert reads == 30 * 6  # each reads those of the import and of s5 at once, and then those of s4 to s0
    cycle = [ImportLine(1, "s0", read_job({**body, "after": {"jobId": "i9"}}, CONTEXT))]
    cycle.append(ImportLine(2, "i9", read_job({**body, "schedule": "@hourly"}, CONTEXT)))
    done = await imports.import_chunk(database, cycle, T0)
    assert (done.updated, done.refused) == (2, ())
    closing = [ImportLine(1, "i9", read_job({**body, "after": {"jobId": "i29"}}, CONTEXT))]
    ((_, fault),) = (await imports.import_chunk(database, closing, T0)).refused
    assert "cycle" in fault.faults[0].message

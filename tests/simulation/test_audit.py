"""The audit log while documents are put and deleted, and nodes copy, freeze and die. See `auditing.py`."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from cluster.core.audit_entry import new_entry
from cluster.store import audit, audited, outbox
from tests.simulation import auditing
from tests.simulation.auditing import COLLECTION, NAMES, Auditing
from tests.simulation.explore import explore, first_to_show
from tests.simulation.model import Store

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster.store.mongo.client import Database

RUNS = 200


def test_no_entry_is_lost_or_invented(monkeypatch: pytest.MonkeyPatch) -> None:
    """After each write: what was done is in the log or carried by its document, and nothing else is; what was put stays."""
    auditing.install(monkeypatch)
    assert len(explore(Auditing, RUNS)) >= RUNS * 0.99


def _cleared_all(patch: pytest.MonkeyPatch) -> None:
    """Clearing takes every entry out, also those that were pushed since they were read."""

    async def clear(db: Any, _collection: str, seen: Any) -> None:
        def effect() -> None:
            d = db.documents.get(seen.name)
            if d is not None:
                db.documents[seen.name] = {k: v for k, v in d.items() if k not in ("outbox", "deleting")}

        await db.write(effect)

    patch.setattr(outbox, "clear", clear)


def _cleared_first(patch: pytest.MonkeyPatch) -> None:
    """Entries are cleared before they are copied."""

    async def flush(db: Any, collection: str, name: Any = None) -> int:
        for seen in await outbox.pending(db, collection, 10, name):
            if seen.deleting is None or not await outbox.remove(db, collection, seen):
                await outbox.clear(db, collection, seen)
            await audit.insert(db, [audited._finished(e) for e in seen.entries])
        return 0

    patch.setattr(audited, "flush", flush)


def _mark_stays(patch: pytest.MonkeyPatch) -> None:
    """A put leaves the mark of a deletion."""
    real = auditing.put

    async def put(db: Any, collection: str, name: str, *rest: Any) -> Any:
        mark = db.documents.get(name, {}).get("deleting")
        before = await real(db, collection, name, *rest)
        if mark is not None and name in db.documents:
            db.documents[name]["deleting"] = mark
        return before

    patch.setattr(outbox, "put", put)


def _removed_whatever_it_is(patch: pytest.MonkeyPatch) -> None:
    """A document whose deletion was read is removed, also if it was put anew since."""

    async def remove(db: Any, _collection: str, seen: Any) -> bool:
        return bool((await db.write(lambda: db.documents.pop(seen.name, None) is not None))[0])

    patch.setattr(outbox, "remove", remove)


BROKEN: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], str]] = {
    "clearing takes every entry": (_cleared_all, "there is no entry"),
    "cleared before it is copied": (_cleared_first, "there is no entry"),
    "a put leaves the mark of a deletion": (_mark_stays, "still carries"),
    "a deletion removes what was put since": (_removed_whatever_it_is, "put last|there is no entry"),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_is_found(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of README.md: with the rule broken, some seed has the finding that the rule prevents."""
    auditing.install(monkeypatch)
    broken, finding = BROKEN[rule]
    broken(monkeypatch)
    print(rule, "->", first_to_show(finding, Auditing, 2000))


@pytest.mark.parametrize("seed", range(3))
async def test_the_twins_do_what_mongodb_does(database: Database, seed: int) -> None:
    """The same writes in the same order leave the same documents, answers and entries."""
    random = Random(seed)
    model: Any = Store(lambda: 0)
    seen_there: list[Any] = []
    seen_here: list[Any] = []
    for number in range(60):
        name = random.choice(NAMES)
        entry = new_entry(f"queue:{name}", "put", number)
        fields = {"limit": number, "updated_at": number}
        kind = random.choice(("put", "delete", "read", "remove", "clear", "copy"))
        if kind == "put":
            there: Any = await outbox.put(database, COLLECTION, name, fields, entry)
            here: Any = await auditing.put(model, COLLECTION, name, fields, entry)
        elif kind == "delete":
            there = await outbox.mark_deleted(database, COLLECTION, name, entry)
            here = await auditing.mark_deleted(model, COLLECTION, name, entry)
        elif kind == "read":
            there = seen_there = sorted(await outbox.pending(database, COLLECTION, 10), key=lambda p: p.name)
            here = seen_here = await auditing.pending(model, COLLECTION, 10)
        elif not seen_there:
            continue
        elif kind == "remove":
            there = await outbox.remove(database, COLLECTION, seen_there[0])
            here = await auditing.remove(model, COLLECTION, seen_here[0])
        elif kind == "clear":
            there = here = None
            await outbox.clear(database, COLLECTION, seen_there[-1])
            await auditing.clear(model, COLLECTION, seen_here[-1])
        else:
            entries = [audited._finished(e) for p in seen_there for e in p.entries]
            there = here = None
            await audit.insert(database, entries)
            await auditing.insert(model, entries)
        assert there == here, (number, kind)
        stored = {d["_id"]: d for d in await database.api[COLLECTION].find().to_list()}
        assert stored == model.documents, (number, kind)
    log = {d["_id"]: d for d in await database.api["audit"].find().to_list()}
    assert log == auditing.truth(model).audit

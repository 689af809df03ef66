"""Documents that users put and delete, with their audit entries, while nodes copy, freeze and die.

`cluster.store.audited` as it is; the single writes of `cluster.store.outbox` and `cluster.store.audit` are twins in memory,
which `test_audit.py` compares with MongoDB. What was really applied is noted beside them, in order.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cluster.core.errors import StoreError
from cluster.store import audited
from cluster.store.audit import to_document
from cluster.store.audited import Subject
from cluster.store.outbox import Pending
from tests.simulation.model import turn
from tests.simulation.world import Broken, World

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest

    from cluster.core.audit_entry import AuditEntry
    from cluster.store.mongo.client import Document
    from tests.simulation.model import Store

NAMES = ("q0", "q1")
COLLECTION = "queues"


@dataclass
class Truth:
    """What was applied: by document its changes in order, `(entry or None, fields or None)`; and the audit log."""

    applied: dict[str, list[tuple[str | None, Document | None]]] = field(default_factory=dict)
    audit: dict[str, Document] = field(default_factory=dict)
    answered: set[str] = field(default_factory=set)
    """Entries of changes that were answered."""


TRUTH: dict[int, Truth] = {}
"""By store: the twins are functions."""


def truth(db: Store) -> Truth:
    return TRUTH.setdefault(id(db), Truth())


# -- twins -----------------------------------------------------------------------------------------------------------


async def put(
    db: Store, _collection: str, name: str, fields: Document, entry: AuditEntry, _secrets: Any = ()
) -> Document | None:
    def effect() -> Document | None:
        before = db.documents.get(name)
        there = before is not None and "deleting" not in before
        was = {f: before.get(f) for f in fields if f != "updated_at"} if before is not None and there else None
        noted = {**to_document(entry), "was": was, "now": {f: v for f, v in fields.items() if f != "updated_at"}}
        kept = {k: v for k, v in (before or {"_id": name}).items() if k != "deleting"}
        db.documents[name] = {**kept, **fields, "outbox": [*kept.get("outbox", []), noted]}
        truth(db).applied.setdefault(name, []).append((entry.id, fields))
        return before if there else None

    answer: Document | None = (await db.write(effect))[0]
    return answer


async def mark_deleted(db: Store, _collection: str, name: str, entry: AuditEntry, _secrets: Any = ()) -> bool:
    def effect() -> bool:
        d = db.documents.get(name)
        if d is None or "deleting" in d:
            return False
        was = {k: v for k, v in d.items() if k not in ("_id", "outbox", "updated_at")}
        noted = {**to_document(entry), "was": was, "now": None}
        db.documents[name] = {
            **d,
            "deleting": {"entry": entry.id, "of": d["updated_at"]},
            "outbox": [*d.get("outbox", []), noted],
        }
        truth(db).applied.setdefault(name, []).append((entry.id, None))
        return True

    return bool((await db.write(effect))[0])


async def pending(db: Store, _collection: str, limit: int, name: Any = None) -> list[Pending]:
    def effect() -> list[Pending]:
        found = [d for n, d in sorted(db.documents.items()) if d.get("outbox") and name in (None, n)]
        return [Pending(d["_id"], tuple(d["outbox"]), d.get("deleting", {}).get("entry")) for d in found[:limit]]

    found: list[Pending] = await db.read(effect)
    return found


async def remove(db: Store, _collection: str, seen: Pending) -> bool:
    def effect() -> bool:
        d = db.documents.get(seen.name)
        if d is None or d.get("deleting") != {"entry": seen.deleting, "of": d["updated_at"]}:
            return False
        del db.documents[seen.name]
        return True

    return bool((await db.write(effect))[0])


async def clear(db: Store, _collection: str, seen: Pending) -> None:
    def effect() -> None:
        d = db.documents.get(seen.name)
        if d is None or not d.get("outbox"):
            return
        copied = {e["_id"] for e in seen.entries}
        rest = [e for e in d["outbox"] if e["_id"] not in copied]
        overtaken = {"deleting"} if d.get("deleting", {}).get("entry") == seen.deleting else set()
        kept = {k: v for k, v in d.items() if k not in {"outbox", *overtaken}}
        db.documents[seen.name] = {**kept, "outbox": rest} if rest else kept

    await db.write(effect)


async def insert(db: Store, documents: Sequence[Document]) -> None:
    def effect(d: Document) -> None:
        truth(db).audit.setdefault(d["_id"], d)

    if documents:
        await db.write(*(lambda d=d: effect(d) for d in documents))


def install(patch: pytest.MonkeyPatch) -> None:
    """Put the twins in the place of the store's functions."""
    for twin in (put, mark_deleted, pending, remove, clear):
        patch.setattr(f"cluster.store.outbox.{twin.__name__}", twin)
    patch.setattr("cluster.store.audit.insert", insert)


# -- the scenario ----------------------------------------------------------------------------------------------------


class Auditing:
    """Three users, a node of the release before, and copiers. After each write no entry is lost and none is invented."""

    def __init__(self, seed: int, trouble: float = 0.08) -> None:
        self.world = World(seed, trouble)
        self._db: Any = self.world.store
        self._truth = truth(self.world.store)
        self._seen = -1

    def run(self) -> World:
        w = self.world
        try:
            for _ in range(3):
                w.spawn("user", self._use())
            w.spawn("older", self._older())
            for _ in range(2):
                w.spawn("copier", self._copy(40.0))
            w.run(40.0, self._check, self._again)
            w.trouble = 0.0
            while w.store.postponed:
                w.store.postponed.pop()()
            w.store.writes += 1
            self._check()
            w.spawn("copier", self._copy(w.now + 5))
            w.run(w.now + 6, self._check)
            self._complete()
        finally:
            TRUTH.pop(id(w.store), None)
        return w

    def _again(self, name: str) -> None:
        if name in ("user", "copier"):
            self.world.spawn(name, self._copy(40.0) if name == "copier" else self._use())

    async def _use(self) -> None:
        random = self.world.random
        for number in range(6):
            await turn(random.random() * random.choice((0.1, 3)))
            name = random.choice(NAMES)
            subject = Subject(COLLECTION, name, f"queue:{name}")
            now = self.world.clock().now_ms()
            with suppress(StoreError):
                if random.random() < 0.6:
                    await audited.put(self._db, subject, {"limit": number, "updated_at": (now, random.random())}, now)
                else:
                    await audited.delete(self._db, subject, now)

    async def _older(self) -> None:
        """A node of the release before: it replaces fields, and knows neither entries nor marks."""
        random = self.world.random
        for number in range(3):
            await turn(random.random() * 12)
            name = random.choice(NAMES)
            fields = {"limit": -number, "updated_at": (0, random.random())}

            def effect(name: str = name, fields: Document = fields) -> None:
                self._db.documents[name] = {**self._db.documents.get(name, {"_id": name}), **fields}
                self._truth.applied.setdefault(name, []).append((None, fields))

            with suppress(StoreError):
                await self._db.write(effect)

    async def _copy(self, until: float) -> None:
        while self.world.now < until:
            with suppress(StoreError):
                await audited.flush_all(self._db, (COLLECTION,))
            await turn(1.0)

    def _check(self) -> None:
        store = self.world.store
        if store.writes == self._seen:
            return
        self._seen = store.writes
        applied = {entry for changes in self._truth.applied.values() for entry, _ in changes if entry is not None}
        if invented := self._truth.audit.keys() - applied:
            raise Broken(f"{sorted(invented)} of the log were never done")
        carried = {e["_id"] for d in store.documents.values() for e in d.get("outbox", [])}
        if lost := applied - carried - self._truth.audit.keys():
            raise Broken(f"{sorted(lost)} were done, and there is no entry")
        for name, changes in self._truth.applied.items():
            self._as_last_changed(name, changes[-1][1])

    def _as_last_changed(self, name: str, fields: Document | None) -> None:
        d = self.world.store.documents.get(name)
        if fields is None:
            if d is not None and "deleting" not in d:
                raise Broken(f"{name} was deleted, and is there")
        elif d is None or d["limit"] != fields["limit"]:
            raise Broken(f"{name} was put last, and is not there")

    def _complete(self) -> None:
        for name, d in self.world.store.documents.items():
            if d.keys() & {"outbox", "deleting"}:
                raise Broken(f"{name} still carries what was copied")
        for name, changes in self._truth.applied.items():
            if changes[-1][1] is None and name in self.world.store.documents:
                raise Broken(f"{name} was deleted, and is still there")
        applied = {entry for changes in self._truth.applied.values() for entry, _ in changes if entry is not None}
        if applied != self._truth.audit.keys():
            raise Broken("not everything that was done is in the log")

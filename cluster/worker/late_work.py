"""Late work that was spread because its host was slow, or its limit granted nothing: brought forward when there is room.

A backlog is spread at a pace that suits a host that stays slow (`deferred_batches.spread_late`). A host may have been slow
for a moment only, or answer more requests at a time than that pace gives it. So a node that claims late work of a host or a
limit, and has room for more, brings forward what comes next. Any node does: the one that spread it may have died since.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.store import deferred_batches

if TYPE_CHECKING:
    from collections.abc import Collection

    from cluster.core.execution.model import Batch
    from cluster.worker.context import WorkerContext

NAMES_AT_ONCE = 16
"""So many hosts and as many limits are looked after in one turn: each that has something costs a request to the database."""
MAX_NAMES = 1024
BATCHES_OF_HOST = 256
BATCHES_OF_LIMIT = 32
"""A limit does not say how much it will grant. What is too much is spread again."""


class LateWork:
    """The hosts and limits of which this node has claimed late work lately: more of it may have been spread.

    `room`: how many unsent executions this node may hold for late work to be claimed at all.
    """

    def __init__(self, context: WorkerContext, room: int) -> None:
        self._context = context
        self._room = room
        # Dicts for their order: who was looked after stands at the end.
        self._hosts: dict[str, None] = {}
        self._limits: dict[str, None] = {}

    @property
    def watches(self) -> bool:
        """Whether more of any host or limit may have been spread."""
        return bool(self._hosts or self._limits)

    def note(self, batch: Batch) -> None:
        """This batch was claimed as late work."""
        for names, name in ((self._hosts, batch.host), (self._limits, batch.limit_key)):
            if name and len(names) < MAX_NAMES:
                names.setdefault(name)

    async def bring_forward(self, blocked: Collection[str], saturated: Collection[str]) -> int:
        """Once a second: of each host and limit that may be sent to, as much as there is room for. Returns how many batches.

        A name of which nothing is found is forgotten until late work of it is claimed again.
        """
        brought = 0
        slots = self._context.slots
        for host in await self._spread(self._hosts, "host", blocked):
            room = self._room - self._context.due_soon()
            if room > 0:
                # What it answers in a second makes room for as much, until the next turn.
                room = (room if slots.trusts(host) else slots.free_for(host)) + slots.per_second(host)
            brought += await self._of(self._hosts, "host", host, BATCHES_OF_HOST, room)
        for limit in await self._spread(self._limits, "gate", saturated):
            room = self._room - self._context.due_soon()
            brought += await self._of(self._limits, "gate", limit, BATCHES_OF_LIMIT, room)
        return brought

    async def _spread(self, names: dict[str, None], field: str, but: Collection[str]) -> list[str]:
        """The next names of which late work may be spread.

        Several are asked for together: each question reads past everything that is spread, of whatever name.
        """
        asked = [name for name in names if name not in but][:NAMES_AT_ONCE]
        if len(asked) <= 1 or self._context.due_soon() >= self._room:
            return asked
        for name in asked:
            del names[name]  # before the question: what is claimed meanwhile is noted again
        found: Collection[str] = asked  # if it cannot be answered, they are asked for again
        try:
            found = await deferred_batches.spread_names(self._context.db, field, asked)
        finally:
            names.update((name, None) for name in asked if name in found)
        return [name for name in asked if name in found]

    async def _of(self, names: dict[str, None], field: str, name: str, batches: int, room: int) -> int:
        if room <= 0:
            return 0
        del names[name]
        brought: int | None = None
        try:
            brought = await deferred_batches.bring_forward(self._context.db, field, name, batches, room)
        finally:
            if brought != 0:
                names.setdefault(name)
        return brought

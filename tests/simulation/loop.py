"""An event loop of asyncio in virtual time, for what the product writes with tasks, events and timers.

Every callback belongs to a node (a context variable that its tasks inherit). Callbacks of one node run in the order
in which they were scheduled, as in asyncio; which node goes next is the seed's choice, and between any two callbacks
a node may freeze or die. Callbacks that a dead node had scheduled never run.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from contextvars import Context, ContextVar
from itertools import count
from typing import TYPE_CHECKING, Any

from tests.simulation.world import Broken

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.world import World

NODE: ContextVar[str] = ContextVar("node", default="")


def _node(context: Context | None) -> str:
    return NODE.get() if context is None else context.get(NODE, "")


class VirtualLoop(asyncio.AbstractEventLoop):
    """`frozen` maps a node to the instant (s) at which it goes on; `dead` nodes never do."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._ready: dict[str, deque[asyncio.Handle]] = {}
        self._timers: list[tuple[float, int, str, asyncio.TimerHandle]] = []
        self._order = count()
        self._tasks: list[asyncio.Task[Any]] = []
        self.frozen: dict[str, float] = {}
        self.dead: set[str] = set()
        self.failure: str | None = None

    # -- what asyncio asks of a loop -----------------------------------------------------------------------------

    def time(self) -> float:
        return self._world.now

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Context | None = None) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, name=name, context=context)
        self._tasks.append(task)
        return task

    def call_soon(  # type: ignore[override]
        self, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.setdefault(_node(context), deque()).append(handle)
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._world.now + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._order), _node(context), handle))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It stays where it is and is passed over."""

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        exception = context.get("exception")
        if exception is not None:  # without one: a task of a dead node was destroyed
            self.failure = f"{context.get('message')}: {exception!r}"

    # -- running -------------------------------------------------------------------------------------------------

    def run(self, until: float, check: Callable[[str], None], between: Callable[[str], None]) -> None:
        """Until that time, or until nothing is left to do. `check` is asked after each callback, `between` may freeze
        and kill: both are given the node.
        """
        asyncio._set_running_loop(self)
        try:
            while self._turn_timers(until):
                node = self._choose()
                handle = self._ready[node].popleft()
                if not handle.cancelled():
                    handle._run()
                    between(node)
                    check(node)
                if self.failure is not None:
                    raise Broken(self.failure)
        finally:
            asyncio._set_running_loop(None)

    def _awake(self) -> list[str]:
        now = self._world.now
        return [n for n, q in self._ready.items() if q and n not in self.dead and self.frozen.get(n, 0.0) <= now]

    def _choose(self) -> str:
        awake = self._awake()
        return awake[int(self._world.random.random() * len(awake))]

    def _turn_timers(self, until: float) -> bool:
        """Whether something can run; time moves on if nothing can."""
        w = self._world
        while True:
            while self._timers and self._timers[0][0] <= w.now:
                _, _, node, handle = heapq.heappop(self._timers)
                if not handle.cancelled():
                    self._ready.setdefault(node, deque()).append(handle)
            if self._awake():
                return True
            nexts = [t for n, t in self.frozen.items() if t > w.now and n not in self.dead and self._ready.get(n)]
            if self._timers:
                nexts.append(self._timers[0][0])
            if not nexts or min(nexts) > until:
                w.now = max(w.now, until)
                return False
            w.now = min(nexts)

    def kill(self, node: str) -> None:
        """It runs no more. Its tasks are kept, for what they hold must not end by being collected."""
        self.dead.add(node)

    def close(self) -> None:
        """End every task, the dead nodes' too."""
        self.dead.clear()
        self.frozen.clear()
        for _ in range(20):
            left = [t for t in self._tasks if not t.done()]
            if not left:
                break
            for task in left:
                task.cancel()
            self.run(self._world.now, lambda _: None, lambda _: None)
        self._tasks.clear()
        self._ready.clear()
        self._timers.clear()

"""Work on large documents, off the event loop.

To read and check a document of 1 MiB takes some 100 ms of a processor, in which the event loop may have requests to send.
So it runs in one thread beside the loop: the interpreter changes between the two every few ms, and two large documents are
read one after the other, so that the loop always gets half of the time. No single call that such work makes into C may
take long, because it keeps the interpreter: see `cluster.core.documents.strict_json`. The work may parse a schedule, but not
ask one for its occurrences: parsed ones are shared, and not safe for two threads.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

if TYPE_CHECKING:
    from collections.abc import Callable

SMALL_BYTES = 16 * 1024
"""A document of at most this size is read on the loop: within a ms, and faster than in a thread."""
_THREAD = ThreadPoolExecutor(1, thread_name_prefix="documents")

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")


async def off_loop(size: int, work: Callable[[*Arguments], T], *arguments: *Arguments) -> T:
    """What `work` returns for a document of `size` bytes. Errors are passed on."""
    if size <= SMALL_BYTES:
        return work(*arguments)
    return await asyncio.get_running_loop().run_in_executor(_THREAD, work, *arguments)

"""An import that stands in the middle of its lines, with some of its jobs written."""

from __future__ import annotations

import json
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, Any

from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.support.processes import Nodes

AT_ONCE = 500
"""So many lines are written together: `api.resources.imports.CHUNK_LINES`."""


class HalfImport:
    """Sends all lines but the last one, and waits until the first `AT_ONCE` jobs are written."""

    def __init__(self, nodes: Nodes, jobs: Sequence[dict[str, Any]]) -> None:
        self._nodes = nodes
        self._jobs = jobs
        self._connection = HTTPConnection("127.0.0.1", nodes.port, timeout=30)
        self._connection.putrequest("POST", "/jobs/import")
        self._connection.putheader("Content-Type", "application/x-ndjson")
        self._connection.putheader("Transfer-Encoding", "chunked")
        self._connection.endheaders()
        self._send(jobs[:-1])
        ids = [j["jobId"] for j in jobs]
        wait_until(lambda: nodes.db["jobs"].count_documents({"_id": {"$in": ids}}) == AT_ONCE, 20, "half an import")

    def _send(self, jobs: Sequence[dict[str, Any]]) -> None:
        lines = b"".join(json.dumps(j).encode() + b"\n" for j in jobs)
        self._connection.send(b"%x\r\n%b\r\n" % (len(lines), lines))

    def end(self) -> bool:
        """Send the rest. False: its node has died meanwhile; then the whole of it is sent again, as its caller would."""
        try:
            self._send(self._jobs[-1:])
            self._connection.send(b"0\r\n\r\n")
            answer = json.loads(self._connection.getresponse().read())
            assert (answer["created"], answer["failed"]) == (len(self._jobs), 0), answer
        except (OSError, HTTPException):
            self._nodes.load(list(self._jobs))
            return False
        finally:
            self._connection.close()
        return True

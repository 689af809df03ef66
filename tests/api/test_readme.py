"""The commands of api/README.md, run as they stand there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from api.openapi.document import openapi_document
from cluster.core.audit_entry import KINDS
from tests.support import live

if TYPE_CHECKING:
    from collections.abc import Iterator

README = (Path(__file__).parents[2] / "api" / "README.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
CURL = re.compile(r"((?:printf[^#]*?\|\s*\n\s*)?curl .*?)\n# (\d{3})(?: (.*?))?(?=\n|$)", re.DOTALL)


@pytest.fixture
def fresh(mongodb_uri: str, db_name: str) -> Iterator[str]:
    with live.node(mongodb_uri, db_name) as url:
        yield url


def test_every_command_has_the_documented_result(fresh: str) -> None:
    """Each curl command gets the status and the text that are written below it."""
    commands = [found for block in BLOCKS for found in CURL.findall(block)]
    assert len(commands) == "\n".join(BLOCKS).count("curl -s")
    execution = retried = action = backfill = message = ""
    for command, status, text in commands:
        # The status is put behind the answer, which is otherwise as a reader sees it.
        script = command.replace("curl -s", "curl -w '\\n%{http_code}' -s", 1)
        done = subprocess.run(
            ["bash", "-c", script],
            env={
                "PATH": "/usr/bin:/bin",
                "HORAE": fresh,
                "EXECUTION": execution,
                "RETRY": retried,
                "ACTION": action,
                "BACKFILL": backfill,
                "MESSAGE": message,
            },
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        answer, _, got = done.stdout.rpartition("\n")
        assert got == status, f"{command}\n{answer}"
        for part in filter(None, re.split(r"\.\.\.", text.strip())):
            assert part.strip(", }") in answer, f"{command}\n{answer}"
        triggered = re.search(r'"executionId":"([^"]+)"', answer)
        again = re.search(r'"retryId":"([^"]+)"', answer)
        retried = again[1] if again else retried
        begun = re.search(r'"actionId":"([^"]+)"', answer)
        action = begun[1] if begun and status == "202" else action
        begun = re.search(r'"backfillId":"([^"]+)"', answer)
        backfill = begun[1] if begun and status == "202" else backfill
        accepted = re.search(r'"messageId":"([^"]+)"', answer)
        message = accepted[1] if accepted else message
        if status == "202" and triggered:
            execution = triggered[1]
    assert httpx.get(f"{fresh}/jobs").json()["nextCursor"] is None


def test_every_operation_has_a_command() -> None:
    """Each method and path of the document."""
    called = set()
    for command, *_ in (found for block in BLOCKS for found in CURL.findall(block)):
        address = re.search(r"\$HORAE(/[^\s\"?]*)", command)
        assert address is not None
        method = re.search(r"-X (\w+)", command)
        kind = method[1] if method else "POST" if " -d " in command or "--data" in command else "GET"
        path = re.sub(r"/jobs/(?!import|actions)[^/]+", "/jobs/{jobId}", address[1])
        path = re.sub(r"/jobs/actions/.+", "/jobs/actions/{actionId}", path)
        path = re.sub(r"/backfill/.+", "/backfill/{backfillId}", path)
        path = re.sub(r"/revisions/\d+", "/revisions/{revision}", path)
        path = re.sub(r"/executions/retry/.+", "/executions/retry/{retryId}", path)
        path = re.sub(r"/messages/(?!batch)[^/]+", "/messages/{messageId}", path)
        path = re.sub(r"/(queues|calendars|windows)/.+", r"/\1/{name}", path)
        path = re.sub(r"/channels/[^/]+", "/channels/{name}", path)
        path = re.sub(r"/keys/.+", "/keys/{name}", path)
        path = re.sub(r"/verifications/.+", "/verifications/{verificationId}", path)
        path = re.sub(r"/nodes/[^/]+", "/nodes/{nodeId}", path)
        called.add((kind.lower(), re.sub(r"/executions/(?!retry|failures)[^/]+", "/executions/{executionId}", path)))
    described = {(method, path) for path, methods in openapi_document()["paths"].items() for method in methods}
    assert described <= called, described - called


def test_every_kind_of_audited_object_is_listed() -> None:
    """`KIND:NAME`, in the order of the code."""
    (sentence,) = re.findall(r"^An object is (.*?)\. ", README, re.DOTALL | re.MULTILINE)
    assert tuple(re.findall(r"`(\w+):\w+`", sentence)) == KINDS

"""The description is true: a stranger's fuzzer finds nothing, every example does what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from api.openapi.document import openapi_document
from cluster.core.execution.view import STATES
from tests.support import live

if TYPE_CHECKING:
    from tests.support.api_client import Api

SECONDS = float(os.environ.get("FUZZ_SECONDS") or 6)
CONFIG = """
[output.sanitization]
enabled = false

[checks.positive_data_acceptance]
expected-statuses = ["2xx", 404, 409, 412, 422]  # no schema can say what a schedule is
[checks.negative_data_rejection]
expected-statuses = ["4xx"]
"""
OPERATIONS = [
    (path, method, operation)
    for path, methods in openapi_document()["paths"].items()
    for method, operation in methods.items()
]


HOOKS = """
import schemathesis

@schemathesis.serializer("application/x-ndjson")
def lines(ctx, value):
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")
"""
KEY = "fuzzer-key-0123456789"


@pytest.mark.takes(18)
@pytest.mark.timeout(SECONDS + 100)
def test_responses_conform_to_the_document(mongodb_uri: str, db_name: str, tmp_path: Path) -> None:
    """Schemathesis sends valid and invalid requests that it makes from the document."""
    with live.node(
        mongodb_uri, db_name, HORAE_API_KEYS=f"fuzzer:{KEY}:admin", HORAE_REQUESTS_PER_SECOND="0"
    ) as node_url:
        run_schemathesis(node_url, tmp_path)


def run_schemathesis(node_url: str, tmp_path: Path) -> None:
    (tmp_path / "hooks.py").write_text(HOOKS)
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        "--config-file",
        str(tmp_path / "schemathesis.toml"),
        "run",
        f"{node_url}/openapi.json",
        f"--max-time={SECONDS:.0f}",
        "--checks=all",
        # Whoever guesses keys gets 429: tests/api/test_auth.py. Why a deleted job did not run is what `explain` is asked
        # for, and switching the check off for that operation alone does not reach the stateful phase.
        # A stream without an end, and a request to any address, a few of them a minute: tests/api/test_events.py and
        # test_operator_routes.py.
        "--exclude-path=/events",
        "--exclude-path=/targets/test",
        "--exclude-path=/verifications",  # one at a time: 409, and a process each
        # It finds the one node's id by the links, and a drained node says 503 from then on, as it should: test_events.py.
        "--exclude-path=/nodes/{nodeId}/drain",
        # A key that is valid by its form is still unknown, and ten of them are too many: tests/api/test_sessions.py.
        "--exclude-path=/session",
        "--exclude-checks=ignored_auth,use_after_free",
        f"--header=Authorization: Bearer {KEY}",
        "--suppress-health-check=all",
        "--generation-database=none",
        "--seed=20261123",
    ]
    # The same seed makes the same requests only where the sets of strings have the same order. PYTHONHASHSEED=7 makes others.
    environment = {"PYTHONHASHSEED": "1", **os.environ, "NO_COLOR": "1", "COLUMNS": "160", "PYTHONPATH": "."}
    environment["SCHEMATHESIS_HOOKS"] = "hooks"
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=SECONDS + 80, check=False
    )
    assert done.returncode == 0, re.sub(r"\S{400,}", "...", done.stdout)[-12_000:] + done.stderr[-2000:]


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS, ids=[o["operationId"] for _, _, o in OPERATIONS])
async def test_every_example_succeeds(api: Api, path: str, method: str, operation: dict[str, Any]) -> None:
    """Each example of each operation gets a response of the document with a status below 300."""
    target = path.replace("{jobId}", "nightly-invoices").replace("{revision}", "1")
    if "{messageId}" in path:
        made = await api.call("POST", "/messages", {"api": "https://api.example.com/x", "delay": "1h"})
        target = target.replace("{messageId}", made.json["messageId"])
    if "{executionId}" in path:
        pytest.skip("needs an execution that has failed: tests/api/test_replay_one.py")
    needs_a_node = (path, method) == ("/verifications", "post") or "{nodeId}" in path
    if needs_a_node or path in ("/keys/{name}", "/targets/test", "/verifications/{verificationId}"):
        pytest.skip("needs a node, or a key: tests/api/test_operator_routes.py")
    if "{retryId}" in path:
        made = await api.call("POST", "/executions/retry", {"filter": {}})
        target = target.replace("{retryId}", made.json["retryId"])
    if "{actionId}" in path:
        started = await api.call("POST", "/jobs/actions", {"action": "pause", "filter": {"all": True}})
        target = target.replace("{actionId}", started.json["actionId"])
    if "{backfillId}" in path:
        await api.make(jobId="nightly-invoices")
        past = {"from": "2026-01-01T00:00:00Z", "until": "2026-01-02T00:00:00Z", "again": True}
        started = await api.call("POST", "/jobs/nightly-invoices/backfill", past)
        target = target.replace("{backfillId}", started.json["backfillId"])
    elif "{name}" in path:
        target = target.replace("{name}", "mail")
        await api.call("PUT", "/queues/mail", {"maxConcurrent": 1})
        await api.call("PUT", "/calendars/mail", {"weekdays": ["SUN"]})
        once = {"from": "2030-01-01T00:00:00Z", "until": "2030-01-01T01:00:00Z"}
        await api.call("PUT", "/windows/mail", {"mode": "hold", "queues": ["mail"], **once})
        await api.call("PUT", "/channels/mail", {"type": "webhook", "url": "http://127.0.0.1:9/"})
    if path == "/stats" or ("{jobId}" in path and "{backfillId}" not in path and method != "put"):
        await api.make(jobId="nightly-invoices")
    query = [
        f"{p['name']}={','.join(p['example']) if isinstance(p['example'], list) else p['example']}"
        for p in operation.get("parameters", [])
        if p["in"] == "query" and "example" in p
    ]
    examples: list[tuple[Any, str | None]] = [
        (e["value"], kind)
        for kind, content in operation.get("requestBody", {"content": {}})["content"].items()
        for e in content["examples"].values()
    ] or [(None, None)]
    for value, kind in examples:
        body = value.encode() if isinstance(value, str) else value
        headers = {} if kind is None else {"Content-Type": kind}
        answer = await api.call(
            method.upper(), "?".join([target, *(["&".join(query)] if query else [])]), body, **headers
        )
        assert str(answer.status_code) in operation["responses"], answer.text


def test_the_document_is_complete() -> None:
    """Valid OpenAPI 3.1, all states; every operation has a name, a summary and its errors."""
    document = openapi_document()
    assert document["openapi"] == "3.1.0"
    names = [o["operationId"] for _, _, o in OPERATIONS]
    assert len(names) == len(set(names)) == 83
    assert set(document["components"]["schemas"]["Execution"]["properties"]["state"]["enum"]) == STATES
    references = set(re.findall(r"#/components/(\w+)/(\w+)", str(document)))
    assert all(name in document["components"][kind] for kind, name in references)
    assert all(o["summary"] and "default" in o["responses"] for _, _, o in OPERATIONS)


def test_the_page_loads_nothing_from_other_servers(node_url: str) -> None:
    """/docs and its files come from this server, and a policy forbids anything else."""
    page = httpx.get(f"{node_url}/docs")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assets = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(assets) >= 1
    for asset in assets:
        assert "//" not in asset
        assert httpx.get(f"{node_url}/{asset}").status_code == 200

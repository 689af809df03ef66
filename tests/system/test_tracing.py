"""Traces of a live node: what a collector receives, and what targets are told."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from structlog.testing import capture_logs

from cluster.core.errors import ConfigurationError
from cluster.core.execution.model import Ending, Execution
from cluster.core.execution.trace import final_spans
from cluster.core.lifecycle import State
from config.settings import load_settings
from ops.server import tracing
from tests.support.processes import Nodes
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from opentelemetry.proto.trace.v1.trace_pb2 import Span


class World:
    """A collector (`/v1/traces`) and a target (everything else: 503 at first, then 200) on one port."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()
        self.told: defaultdict[str, list[str]] = defaultdict(list)
        world = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(world.collect(body) if self.path == "/v1/traces" else world.deliver(self.headers))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def collect(self, body: bytes) -> int:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.services |= {a.value.string_value for a in resource.resource.attributes if a.key == "service.name"}
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)
        return 200

    def deliver(self, headers: object) -> int:
        heard = self.told[headers["Horae-Execution-Id"]]  # type: ignore[index]
        heard.append(headers["traceparent"])  # type: ignore[index]
        return 503 if len(heard) == 1 else 200


@pytest.fixture
def world() -> Iterator[World]:
    w = World()
    yield w
    w.server.shutdown()
    w.server.server_close()


def run_one(nodes: Nodes, world: World) -> str:
    """One execution that fails, is tried again and succeeds; its id."""
    job = f"j{uuid.uuid4().hex[:8]}"
    spec = {"jobId": job, "schedule": "@every 300s", "api": f"{world.url}/x", "retry": {"initialDelaySeconds": 0.1}}
    nodes.load([spec])
    assert nodes.post(f"/jobs/{job}/trigger").status_code == 202
    nodes.load([{**spec, "jobId": f"{job}-2", "schedule": "* * * * * *"}])

    def done() -> str | None:
        found = nodes.db["history"].find_one({"job_id": f"{job}-2", "state": "succeeded"})
        return found["_id"] if found else None

    return str(wait_until(done, 20, "an execution that succeeded"))


@pytest.mark.takes(10)
def test_one_trace_from_materialise_to_record(tmp_path: Path, mongodb_uri: str, db_name: str, world: World) -> None:
    """The collector gets one tree per execution, and targets are told the span of their attempt, marked as sampled."""
    nodes = Nodes(tmp_path, mongodb_uri, db_name, 1, OTEL_EXPORTER_OTLP_ENDPOINT=world.url)
    try:
        execution = run_one(nodes, world)

        def of() -> list[Span] | None:
            [trace] = {h.split("-")[1] for h in world.told[execution]}
            found = [s for s in world.spans if s.trace_id.hex() == trace]
            return found if {"materialise", "record", "execution"} <= {s.name for s in found} else None

        spans = wait_until(of, 10, "the spans of the execution")
    finally:
        nodes.close()
    assert sorted(s.name for s in spans) == ["attempt", "attempt", "execution", "held", "materialise", "record"]
    [root] = [s for s in spans if not s.parent_span_id]
    assert root.name == "execution"
    assert {s.parent_span_id for s in spans if s is not root} == {root.span_id}
    attempts = sorted((s for s in spans if s.name == "attempt"), key=lambda s: s.start_time_unix_nano)
    assert [f"00-{s.trace_id.hex()}-{s.span_id.hex()}-01" for s in attempts] == world.told[execution]
    assert [s.status.code for s in attempts] == [2, 0]
    assert {"horae"} == world.services


async def test_a_collector_that_is_away_harms_nothing() -> None:
    """Spans are taken without waiting, lost with one line in the log, and the node's stop waits 2 s at most."""
    execution = Execution("job:1900000020000", "job", 1_900_000_020_000, 1_900_000_020_000, "v", "b", 3)
    spans = final_spans(Ending(execution, State.CANCELLED, 1_900_000_020_001), 0, 1_900_000_020_002)
    away = tracing.Tracing("http://127.0.0.1:9", 1.0, "n")
    with capture_logs() as lines:
        started = time.monotonic()
        for _ in range(500):
            away.take(spans)
        assert time.monotonic() - started < tracing.EXPORT_SECONDS
        started = time.monotonic()
        await away.close()
        assert time.monotonic() - started < tracing.CLOSE_SECONDS + 1
        await asyncio.to_thread(wait_until, lambda: lines, 10, "the loss is told")
    assert {line["event"] for line in lines} == {"traces_lost"}


def test_what_is_wrong_is_said_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint that is none, a ratio beyond 1, an extra that is not installed."""
    with pytest.raises(ConfigurationError, match="OTEL_EXPORTER_OTLP_ENDPOINT"):
        load_settings(env_file=None, otlp_endpoint="collector:4318")
    with pytest.raises(ConfigurationError, match="HORAE_TRACE_RATIO"):
        load_settings(env_file=None, trace_ratio=2)
    settings = load_settings(env_file=None, otlp_endpoint="http://127.0.0.1:4318")
    tracing.check_tracing(settings)
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(ConfigurationError, match=r"horae\[otel\]"):
        tracing.check_tracing(settings)
    assert tracing.start_tracing(load_settings(env_file=None), "n") is None


def test_the_ratio_keeps_whole_traces() -> None:
    """About that part of all traces, and the same ones on every node."""
    from cluster.core.execution.trace import trace_id

    some, same = tracing.Tracing("http://127.0.0.1:9", 0.25, "a"), tracing.Tracing("http://127.0.0.1:9", 0.25, "b")
    wanted = [some.wants(trace_id(f"job:{n:013d}")) for n in range(4000)]
    assert 0.2 < sum(wanted) / len(wanted) < 0.3
    assert wanted == [same.wants(trace_id(f"job:{n:013d}")) for n in range(4000)]
    for t in (some, same):
        t._processor.shutdown()  # type: ignore[no-untyped-call]

"""ops/EVENTS.md and the code name the same events, with the same fields; the log is bounded and keeps secrets."""

from __future__ import annotations

import ast
import io
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import structlog

from cluster.worker.failure_digest import MAX_HOSTS, OTHERS, FailureDigest
from config import logs

ROOT = Path(__file__).parents[2]
LEVELS = {"debug": "debug", "info": "info", "warning": "warning", "error": "error", "exception": "error"}
EVERYWHERE = {"exc_info", "node"}
"""Fields that the list does not repeat: a traceback, and the node, which every line has."""


def events_in_code() -> dict[str, tuple[str, set[str]]]:
    levels: dict[str, str] = {}
    fields: defaultdict[str, set[str]] = defaultdict(set)
    for package in ("api", "cluster", "config", "ops"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if not (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and isinstance(node.func.value, ast.Name)
                    and node.func.value.id == "log"
                    and node.func.attr in LEVELS
                ):
                    continue
                name = node.args[0]
                assert isinstance(name, ast.Constant), f"{path}:{node.lineno}: an event's name must be fixed"
                assert re.fullmatch(r"[a-z]+(_[a-z]+)+", str(name.value)), f"{path}:{node.lineno}: {name.value!r}"
                levels[str(name.value)] = LEVELS[node.func.attr]
                fields[str(name.value)] |= {str(k.arg) for k in node.keywords} - EVERYWHERE
    return {name: (level, fields[name]) for name, level in levels.items()}


def events_in_list() -> dict[str, tuple[str, set[str]]]:
    text = (ROOT / "ops" / "EVENTS.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([^|]*)\| (\S[^|]*)\|$", text, re.MULTILINE)
    assert [r[0] for r in rows] == sorted(r[0] for r in rows), "keep the list in order"
    assert len(rows) == text.count("\n| `"), "a row is not as the others"
    return {name: (level, {f.strip() for f in fields.split(",") if f.strip()}) for name, level, fields, _ in rows}


def test_ops_events_lists_every_event_of_the_code() -> None:
    """With level and fields, and no other events."""
    code, listed = events_in_code(), events_in_list()
    for name, (level, fields) in sorted(code.items()):
        row = f"| `{name}` | {level} | {', '.join(sorted(fields))} | what it means |"
        assert name in listed, f"ops/EVENTS.md lacks: {row}"
        assert listed[name] == (level, fields), f"ops/EVENTS.md should have: {row}"
    assert set(listed) - set(code) == set(), "ops/EVENTS.md names what no code logs"


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The log as JSON, through the processors that a node has."""
    out = io.StringIO()
    monkeypatch.setattr("sys.stderr", out)
    before = structlog.get_config()
    logs.configure_logging("json")
    structlog.configure(cache_logger_on_first_use=False)
    yield lambda: [json.loads(line) for line in out.getvalue().splitlines()]
    structlog.configure(**before)


def test_secrets_do_not_reach_the_log(lines: Any) -> None:
    """By name, within texts, and within nested values."""
    structlog.get_logger().warning(
        "some_event",
        signing_secret="whsec_c2VjcmV0",
        error="no answer from mongodb://ann:pa55@db:27017 with Bearer abc.def for https://u:pa55@host/x and "
        "hk_0123456789012345678901234567890123456789012",
        headers={"Authorization": "Basic cGE1NQ==", "list": [{"password": "pa55"}, "whsec_c2VjcmV0"]},
    )
    [line] = lines()
    text = json.dumps(line)
    for secret in ("pa55", "c2VjcmV0", "cGE1NQ", "abc.def", "0123456789"):
        assert secret not in text
    assert line["event"] == "some_event"
    assert "mongodb://***@db:27017" in line["error"]


def test_a_flood_of_one_event_is_limited_and_counted() -> None:
    """20 lines of one event per 10 s; other events are not affected; the next line has the number of lines left out."""
    now = 0.0
    bounded = logs.LineLimit(lambda: now)

    def passes(name: str) -> dict[str, Any] | None:
        try:
            return dict(bounded(None, "info", {"event": name}))
        except structlog.DropEvent:
            return None

    assert sum(passes("flood") is not None for _ in range(1000)) == logs.MAX_LINES
    assert passes("other") == {"event": "other"}
    now = logs.WINDOW_SECONDS
    assert passes("flood") == {"event": "flood", "suppressed": 1000 - logs.MAX_LINES}
    assert passes("flood") == {"event": "flood"}
    now = 3 * logs.WINDOW_SECONDS
    assert passes("flood") == {"event": "flood"}


def test_the_digest_counts_by_host_and_is_bounded() -> None:
    """The worst host first; of a URL only host and port are kept; beyond 200 hosts the rest is one."""
    digest = FailureDigest()
    for n in range(3):
        digest.add("https://user:pa55@broken.example:8443/x?token=1", "timeout", f"a:{n}")
    digest.add("https://other.example/y", "http_5xx", "b:1")
    first, second = digest.take()
    assert (first.host, first.attempts, first.results, first.execution) == (
        "broken.example:8443",
        3,
        {"timeout": 3},
        "a:2",
    )
    assert second.host == "other.example"
    assert digest.take() == []
    for n in range(MAX_HOSTS + 50):
        digest.add(f"https://h{n}.example/", "dns", "c:1")
    taken = digest.take()
    assert len(taken) == MAX_HOSTS + 1
    assert (taken[0].host, taken[0].attempts) == (OTHERS, 50)

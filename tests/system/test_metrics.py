"""`/metrics` of two workers on one port: right whoever is asked, and every rule and panel names what is there."""

from __future__ import annotations

import json
import re
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
import yaml
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from api.resources.metric_series import CLUSTER, WORKER, sample_names
from api.resources.metrics import MAX_HOSTS, _breaker_states, render_exposition
from cluster.store import breakers
from ops.server.shared_slots import SLOT_BYTES, SharedSlots
from tests.support import plain_http
from tests.support.processes import Nodes, Receiver, end
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric

    from cluster.store.mongo.client import Database

pytestmark = pytest.mark.takes(18)

ROOT = Path(__file__).parents[2]
GOOD, TWICE, BAD = 52, 8, 4
SUCCEEDED, ALL = GOOD + TWICE, GOOD + TWICE + BAD
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(scope="module")
def nodes(mongodb_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Two workers that have sent `GOOD` executions that succeed at once, `TWICE` at the second try, `BAD` that fail."""
    directory = tmp_path_factory.mktemp("metrics")
    receiver = Receiver(directory)
    made = Nodes(directory, mongodb_uri, f"test_{uuid.uuid4().hex[:12]}", 2)
    try:
        at = (made.now_ms() // 1000 + 5) * 1000
        for path, kind, count in (("ok", "good", GOOD), ("fail/1", "twice", TWICE), ("status/404", "bad", BAD)):
            made.load(
                [
                    {
                        "jobId": f"{kind}-{n}",
                        "schedule": f"@at {_rfc3339(at)}",
                        "api": f"{receiver.url}/{path}/{n}",
                        "retry": {"initialDelaySeconds": 0.2, "jitter": 0},
                    }
                    for n in range(count)
                ]
            )
        wait_until(lambda: made.db["history"].count_documents({}) == ALL, 40, "all executions are final")
        yield made
    finally:
        made.close()
        end(receiver.process)


def _rfc3339(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat().replace("+00:00", "Z")


def families(nodes: Nodes) -> list[Metric]:
    """One scrape over a connection of its own, so that the kernel picks the worker."""
    answer = plain_http.get(f"{nodes.url}/metrics", timeout=10)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain")
    return list(text_string_to_metric_families(answer.text))


def scrape(nodes: Nodes) -> Samples:
    return {(s.name, frozenset(s.labels.items())): s.value for f in families(nodes) for s in f.samples}


def total(samples: Samples, name: str, **labels: str) -> float:
    return sum(v for (n, have), v in samples.items() if n == name and frozenset(labels.items()) <= have)


def values(samples: Samples, name: str, label: str) -> set[str]:
    return {dict(have)[label] for (n, have) in samples if n == name and label in dict(have)}


def test_whoever_answers_speaks_for_all_workers(nodes: Nodes) -> None:
    """The sums are what history says, in every scrape, and no counter of any worker ever goes back."""
    wait_until(lambda: total(scrape(nodes), "horae_executions_total") == ALL, 10, "both workers have told their counts")
    before: Samples = {}
    for _ in range(12):
        now = scrape(nodes)
        assert values(now, "horae_executions_total", "worker") == {"0", "1"}
        assert total(now, "horae_executions_total", outcome="succeeded") == SUCCEEDED
        assert total(now, "horae_executions_total", outcome="failed") == BAD
        assert total(now, "horae_attempts_total", result="http_2xx") == SUCCEEDED
        assert total(now, "horae_attempts_total", result="http_5xx") == TWICE
        assert total(now, "horae_attempts_total", result="http_4xx") == BAD
        assert total(now, "horae_retries_total") == TWICE
        assert total(now, "horae_attempt_duration_seconds_count") == ALL + TWICE
        assert total(now, "horae_queue_seconds_count") == ALL + TWICE
        assert total(now, "horae_drift_seconds_count") == ALL
        assert total(now, "horae_duplicates_total") == 0
        assert total(now, "horae_leading") == 1
        for (name, labels), value in before.items():
            if name.endswith(("_total", "_bucket", "_count")):
                assert now[name, labels] >= value, (name, labels)
        before = now
    assert total(before, "horae_database_up") == 1
    assert total(before, "horae_oldest_due_age_seconds") == 0
    assert 10 < total(before, "horae_materialised_ahead_seconds") <= total(before, "horae_lookahead_seconds") == 15
    assert total(before, "horae_batches_total", event="leased") > 0
    assert total(before, "horae_materialised_total") + total(before, "horae_settled_jobs_total") >= ALL


def test_every_series_is_there(nodes: Nodes) -> None:
    """A live scrape has every series of the table and none beside it; only errors may have none to show."""
    live = {name for name, _ in scrape(nodes)}
    assert live - sample_names() == set()
    assert sample_names() - live <= {"horae_mongodb_errors_total", "horae_breaker_state"}


def test_rules_and_panels_name_what_is_there(nodes: Nodes) -> None:
    """Every series, label and label value in the alert rules and the dashboard exists in a live scrape."""
    rules = yaml.safe_load((ROOT / "config" / "alerts.yml").read_text())
    expressions = [r["expr"] for g in rules["groups"] for r in g["rules"]]
    board = json.loads((ROOT / "config" / "grafana" / "horae.json").read_text())
    expressions += [t["expr"] for p in board["panels"] for t in p.get("targets", ())]
    assert len(expressions) > 50
    found = families(nodes)
    samples = scrape(nodes)
    endings = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
    live = {f.name + ending for f in found for ending in endings[f.type]}
    for expression in expressions:
        used = set(re.findall(r"\bhorae_\w+", expression))
        assert used or "up{" in expression, expression
        assert used <= live, expression
        for name, selector in re.findall(r"\b(horae_\w+)\{([^}]*)\}", expression):
            for label, operator, wanted in re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"', selector):
                there = values(samples, name, label)
                assert there, f"{name} has no label {label}: {expression}"
                if operator == "=" or label == "operation":
                    assert set(wanted.split("|")) <= there, expression
                if operator == "=~" and label != "status":
                    assert all(any(re.fullmatch(w, t) for t in there) for w in wanted.split("|")), expression


def test_a_worker_that_is_killed_gives_its_place_to_the_next(nodes: Nodes) -> None:
    """Workers are told apart by number, so restarts add no series; the new node's id is in horae_node_info."""
    victim, pid = min(nodes.alive().items())
    nodes.kill(victim)

    def replaced() -> bool:
        try:
            now = scrape(nodes)
        except httpx.HTTPError:
            return False
        there = values(now, "horae_node_info", "node")
        return len(there) == 2 and victim not in there and total(now, "horae_ready") == 2

    wait_until(replaced, 20, f"another worker in the place of {pid}")
    assert values(scrape(nodes), "horae_executions_total", "worker") == {"0", "1"}


def test_the_board_never_shows_half_a_text() -> None:
    """A slot whose writer was killed in the middle reads as empty; a cleared one is gone; too long a text is refused."""
    board = SharedSlots(3)
    board.write(0, b"first")
    board.write(2, b"x" * (SLOT_BYTES - 16))
    assert [(slot, len(text)) for slot, age, text in board.read() if age < 5] == [(0, 5), (2, SLOT_BYTES - 16)]
    board._memory[16:18] = b"??"
    assert [slot for slot, _, _ in board.read()] == [2]
    board.clear(2)
    assert list(board.read()) == []
    with pytest.raises(ValueError, match="do not fit"):
        board.write(1, b"x" * SLOT_BYTES)


def test_without_a_database_a_scrape_says_so() -> None:
    """What the database would have told has no sample, and `horae_database_up` is 0: nothing is made up."""
    text = render_exposition(generate_latest, [], {"database_up": 0, "lookahead_ms": 15_000}).decode()
    assert "horae_database_up 0.0" in text
    assert "horae_lookahead_seconds 15.0" in text
    assert not re.search(r"^horae_(backlog|oldest|materialised_ahead)", text, re.MULTILINE)


async def test_breakers_are_shown_within_bounds(database: Database) -> None:
    """Of very many hosts those that opened first, each with its state, and how many there are in all."""
    opened = datetime(2026, 1, 1, tzinfo=UTC)
    common = {"until": opened, "opens": 1, "rev": 1, "why": "", "node": "n"}
    many = [
        {"_id": f"h{n}:443", "half_open": n == 0, "opened_at": opened + timedelta(seconds=n), **common}
        for n in range(10_000)
    ]
    await database.api["breakers"].insert_many(many[::-1])
    in_all, first = await breakers.earliest_opened(database, MAX_HOSTS)
    text = render_exposition(
        generate_latest, [], {"breakers_open": in_all, "breakers": _breaker_states(first)}
    ).decode()
    assert "horae_breakers_open 10000.0" in text
    assert text.count("horae_breaker_state{") == MAX_HOSTS
    assert 'horae_breaker_state{host="h0:443",state="half_open"} 1.0' in text
    assert 'horae_breaker_state{host="h49:443",state="open"} 1.0' in text
    assert [b.host for b in await breakers.of_hosts(database, ["h9999:443", "none"])] == ["h9999:443"]


def test_the_table_has_no_name_twice() -> None:
    """Each reading and each series stands in the table once."""
    keys = [s.readings_key for s in (*WORKER, *CLUSTER)]
    assert len(keys) == len(set(keys))
    assert len({s.name for s in (*WORKER, *CLUSTER)}) == len(keys)

"""`/metrics` of two workers on one port: right whoever is asked, and every rule and panel names what is there."""

from __future__ import annotations

import json
import re
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from api.metrics import exposition
from api.series import CLUSTER, WORKER, names
from ops.board import SLOT_BYTES, Board
from tests.support.processes import Nodes, Receiver, end
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric

ROOT = Path(__file__).parents[2]
GOOD, BAD = 60, 4
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(scope="module")
def nodes(mongodb_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Two workers that have sent `GOOD` executions that succeed, each tried twice, and `BAD` ones that fail."""
    directory = tmp_path_factory.mktemp("metrics")
    receiver = Receiver(directory)
    made = Nodes(directory, mongodb_uri, f"test_{uuid.uuid4().hex[:12]}", 2)
    try:
        for path, kind, count in (("fail/1", "good", GOOD), ("status/404", "bad", BAD)):
            at = (made.now_ms() // 1000 + 1) * 1000
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
        wait_until(lambda: made.db["history"].count_documents({}) == GOOD + BAD, 30, "all executions are final")
        yield made
    finally:
        made.close()
        end(receiver.process)


def _rfc3339(ms: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(ms / 1000, UTC).isoformat().replace("+00:00", "Z")


def families(nodes: Nodes) -> list[Metric]:
    """One scrape over a connection of its own, so that the kernel picks the worker."""
    answer = httpx.get(f"{nodes.url}/metrics", timeout=10)
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
    wait_until(
        lambda: total(scrape(nodes), "horae_executions_total") == GOOD + BAD, 10, "both workers have told their counts"
    )
    before: Samples = {}
    for _ in range(12):
        now = scrape(nodes)
        assert values(now, "horae_executions_total", "worker") == {"0", "1"}
        assert total(now, "horae_executions_total", outcome="succeeded") == GOOD
        assert total(now, "horae_executions_total", outcome="failed") == BAD
        assert total(now, "horae_attempts_total", result="http_2xx") == GOOD
        assert total(now, "horae_attempts_total", result="http_5xx") == GOOD
        assert total(now, "horae_attempts_total", result="http_4xx") == BAD
        assert total(now, "horae_retries_total") == GOOD
        assert total(now, "horae_attempt_duration_seconds_count") == 2 * GOOD + BAD
        assert total(now, "horae_queue_seconds_count") == 2 * GOOD + BAD
        assert total(now, "horae_drift_seconds_count") == GOOD + BAD
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
    assert total(before, "horae_materialised_total") + total(before, "horae_settled_jobs_total") >= GOOD + BAD


def test_every_series_is_there(nodes: Nodes) -> None:
    """A live scrape has every series of the table and none beside it; only errors may have none to show."""
    live = {name for name, _ in scrape(nodes)}
    assert live - names() == set()
    assert names() - live <= {"horae_mongodb_errors_total"}


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
    board = Board(3)
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
    from prometheus_client.exposition import generate_latest

    text = exposition(generate_latest, [], {"database_up": 0, "lookahead_ms": 15_000}).decode()
    assert "horae_database_up 0.0" in text
    assert "horae_lookahead_seconds 15.0" in text
    assert not re.search(r"^horae_(backlog|oldest|materialised_ahead)", text, re.MULTILINE)


def test_the_table_has_no_name_twice() -> None:
    """Each reading and each series stands in the table once."""
    keys = [s.key for s in (*WORKER, *CLUSTER)]
    assert len(keys) == len(set(keys))
    assert len({s.name for s in (*WORKER, *CLUSTER)}) == len(keys)

"""The sample jobs: what `make run` loads."""

from __future__ import annotations

import ipaddress
import runpy
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import orjson

from cluster.core.documents.job_json import DocumentLimits, read_job
from cluster.core.schedule.schedule import parse_schedule

SAMPLES = Path(__file__).parents[2] / "config" / "samples"
JOBS = [orjson.loads(line) for line in (SAMPLES / "jobs.ndjson").read_bytes().splitlines()]
NOON = 1_795_003_200_000


def test_there_are_200_sample_jobs() -> None:
    """Each with its own id and name, tags, a schedule with occurrences, and a target on this machine."""
    assert len(JOBS) == 200
    assert len({job["jobId"] for job in JOBS}) == len({job["name"] for job in JOBS}) == 200
    for job in JOBS:
        assert job["tags"], job
        assert job["type"] == "ATLEAST_ONCE"
        url = urlsplit(job["api"])
        assert url.scheme == "http"
        assert url.netloc in ("127.0.0.1:5001", "localhost:5001"), job
        assert url.path.split("/")[1] in ("ok", "fail", "slow", "status", "hang", "reset"), job
        assert parse_schedule(job["schedule"], job.get("timezone", "UTC"), NOON).next_after(NOON) is not None


def test_all_sample_jobs_are_valid() -> None:
    """As an import checks them, with loopback allowed, as in `make run`."""
    context = DocumentLimits((ipaddress.ip_network("127.0.0.0/8"),)).context
    for job in JOBS:
        read_job({k: v for k, v in job.items() if k != "jobId"}, context)


def test_sample_jobs_are_varied() -> None:
    """15 to 40 requests per second in total; every second, business hours, month ends, one-offs, failing and slow targets."""
    schedules = [parse_schedule(job["schedule"], job.get("timezone", "UTC"), NOON) for job in JOBS]
    assert 15 <= sum(len(s.between(NOON, NOON + 60_000, 60)) for s in schedules) / 60 <= 40
    kinds = Counter(s.kind for s in schedules)
    assert min(kinds["cron"], kinds["every"], kinds["at"]) >= 10
    assert len({s.timezone for s in schedules}) >= 8
    assert len({s.key for s in schedules}) >= 60
    moods = Counter(urlsplit(job["api"]).path.split("/")[1] for job in JOBS)
    assert all(moods[mood] for mood in ("ok", "fail", "slow", "status", "hang", "reset"))
    assert any("startAt" in job for job in JOBS)


def test_the_sample_file_is_the_output_of_its_script() -> None:
    """So that both are edited together."""
    assert runpy.run_path(str(SAMPLES / "make_jobs.py"))["jobs"] == JOBS

"""Searching and filtering the list of jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from cluster.store.mongo import schema
from tests.support.api_client import paths, walk

if TYPE_CHECKING:
    from tests.support.api_client import Api


async def some_jobs(api: Api) -> None:
    await api.make(jobId="a", name="Nightly (Invoices)", tags=["billing", "eu"], api="http://127.0.0.1:5001/v2/Pay-Out")
    await api.make(jobId="b", name="nightly sync", description="Copies Straße and ÀÉ data", tags=["eu"])
    await api.make(jobId="c-77x", name="other.*", tags=["us"], schedule="@hourly")
    await api.make(jobId="d", schedule="0 0 * * * *", timezone="Europe/Berlin", api="http://127.0.0.2/x?kind=report")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("NIGHTLY", "ba"),
        ("nigh", "ba"),
        ("ightly", ""),
        ("nightly+invoices", "a"),
        ("invoices+nigh", "a"),
        ("nightly+report", ""),
        ("(inv", "a"),
        ("billing", "a"),
        ("pay-out", "a"),
        ("V2/pay", "a"),
        ("77", "ZZ"),
        ("77x", "c"),
        ("c-77", "c"),
        ("strasse", "b"),
        ("STRASSE", "b"),
        ("%C3%A0%C3%A9", "b"),
        ("A%CC%80", "b"),
        ("other.*", "c"),
        (".*", ""),
        ("%5E", ""),
        ("n.ghtly", ""),
        ("%24ne", ""),
        ("report", "d"),
        ("kind=rep", "d"),
        ("127.0.0.2", "d"),
    ],
)
async def test_every_word_of_a_search_begins_a_word_of_the_job(api: Api, text: str, found: str) -> None:
    """In name, id, description, URL or tags, in any case; what is no letter or digit only separates words."""
    await some_jobs(api)
    expected = {"ZZ": ["c-77x"], "c": ["c-77x"]}.get(found, list(found))
    assert await walk(api, f"q={text}") == expected


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("tag=eu", ["b", "a"]),
        ("tag=eu&tag=billing", ["a"]),
        ("tag=eu&tag=us", []),
        ("anyTag=billing&anyTag=us", ["c-77x", "a"]),
        ("tag=eu&anyTag=billing&anyTag=us", ["a"]),
        ("host=127.0.0.2", ["d"]),
        ("host=127.0.0.2:80", ["d"]),
        ("host=127.0.0.2:81", []),
        ("host=127.0.0", []),
        ("host=127.0.0.1:5001", ["c-77x", "b", "a"]),
        ("schedule=@hourly", ["d", "c-77x"]),
        ("schedule=0+*+*+*+*", ["d", "c-77x"]),
        ("schedule=@daily", []),
        ("schedule=0+0+3+*+*+*", ["b", "a"]),
        ("q=nightly&tag=billing&host=127.0.0.1", ["a"]),
        ("q=nightly&state=paused", ["b"]),
        ("failing=true", []),
        ("failing=false&q=nightly", ["b", "a"]),
    ],
)
async def test_filters_narrow_the_list_together(api: Api, query: str, found: list[str]) -> None:
    """All tags, any tag, host with and without its port, a schedule however it is written."""
    await some_jobs(api)
    await api.call("POST", "/jobs/b/pause")
    assert await walk(api, query) == found


@pytest.mark.parametrize(
    ("name", "found_by", "not_by"),
    [
        (
            "\u0939\u093f\u0928\u094d\u0926\u0940 \u0930\u093f\u092a\u094b\u0930\u094d\u091f",
            "\u0939\u093f\u0928",
            "\u0939\u0940",
        ),
        ("\u0e17\u0e35\u0e48\u0e2d\u0e22\u0e39\u0e48", "\u0e17\u0e35\u0e48", "\u0e2d\u0e22\u0e39\u0e48"),
        ("\u0130stanbul", "\u0130STAN", "stanbul"),
        ("x\u0302y", "X\u0302Y", "y"),
        (
            "\u03a3\u03af\u03c3\u03c5\u03c6\u03bf\u03c2",
            "\u03c3\u038a\u03a3\u03a5\u03a6\u039f\u03a3",
            "\u03c5\u03c6\u03bf",
        ),
        ("\uff21\uff22\uff23 \ufb01le", "abc fi", "bc"),
        ("stra\u00dfe \U0001f600 \u2167", "STRASSE viii", "asse"),
    ],
    ids=["hindi", "thai", "dotted i", "mark", "greek", "wide", "sharp s"],
)
async def test_words_of_every_script_are_found_as_they_are_written(
    api: Api, name: str, found_by: str, not_by: str
) -> None:
    """A vowel sign or an accent is a part of its word, and separates nothing."""
    await api.make(jobId="q1", name=name)
    assert await walk(api, f"q={quote(name)}") == ["q1"]
    assert await walk(api, f"q={quote(found_by)}") == ["q1"]
    assert await walk(api, f"q={quote(not_by)}") == []


async def test_a_changed_or_deleted_job_is_found_by_what_it_is_now(api: Api) -> None:
    """The words of a job change with it, by the same write."""
    await some_jobs(api)
    await api.call("PATCH", "/jobs/a", {"name": "Weekly"})
    await api.call("DELETE", "/jobs/b")
    assert await walk(api, "q=nightly") == []
    assert await walk(api, "q=weekly") == ["a"]


async def test_an_index_answers_a_search(api: Api) -> None:
    """No search reads jobs that have none of its words, whatever it asks for besides."""
    await some_jobs(api)
    plan = await api.db.api.command(
        {
            "explain": {
                "find": "jobs",
                "filter": {"words": {"$elemMatch": {"$gte": "invoices", "$lt": "invoices\U0010ffff"}}},
                "hint": "by_word_and_age",
            },
            "verbosity": "executionStats",
        }
    )
    assert plan["executionStats"]["totalDocsExamined"] == 1
    names = {i["name"] for i in await (await api.db.api["jobs"].list_indexes()).to_list()}
    assert {"by_word_and_age", "by_word_and_name", "by_name", "by_last_run", "to_begin", "by_host", "failing"} <= names


async def test_until_the_migration_a_search_reads_names(api: Api) -> None:
    """Jobs of the release before have no words yet. A node notices the migration without a restart."""
    await some_jobs(api)
    await api.db.api["meta"].update_one({"_id": "schema"}, {"$set": {"version": 2}})
    await api.db.api["jobs"].update_many({}, {"$unset": {"words": ""}})
    assert await walk(api, "q=ightl") == ["b", "a"]
    assert await walk(api, "q=n.ghtly") == []
    await api.db.api["meta"].update_one({"_id": "schema"}, {"$set": {"version": schema.SCHEMA_VERSION}})
    assert await walk(api, "q=ightl") == []


async def test_all_faults_of_a_list_are_reported_together(api: Api) -> None:
    """Each names its parameter."""
    bad = "sort=age&failing=yes&schedule=nonsense&nextRunBefore=soon&tag=&anyTag=&host=&q=&limit=501&state=x&cursor="
    refused = await api.call("GET", f"/jobs?{bad}&more=1")
    assert refused.status_code == 422
    names = {"sort", "failing", "schedule", "nextRunBefore", "tag", "anyTag", "host", "q", "limit", "state", "more"}
    assert set(paths(refused)) == names | {"cursor"}

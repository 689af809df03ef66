"""`/`, `/docs` and their files: what they are allowed to do, how they are kept, and where they are under a path prefix."""

from __future__ import annotations

import gzip
import re
from typing import TYPE_CHECKING

import pytest

from api.dashboard import built_files
from api.http.context import ApiSettings
from tests.support.api_client import RULES, TARGET, Api, job, serve

if TYPE_CHECKING:
    from pathlib import Path

    from cluster.store.mongo.client import Database

MOST_SCRIPT_BYTES = 90 * 1024
built = pytest.mark.skipif(
    not (built_files.DIST / "index.html").exists(), reason="the page is not built: `make setup` builds it"
)


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_the_page_may_load_from_its_node_only(api: Api, path: str) -> None:
    """No inline scripts, no eval, no frames, no referrer."""
    page = await api.call("GET", path, Accept="text/html")
    assert page.status_code == 200
    assert page.headers["Content-Type"].startswith("text/html")
    policy = page.headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    for rule in ("default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"):
        assert rule in policy
    assert page.headers["Referrer-Policy"] == "no-referrer"


async def test_text_cannot_become_markup_on_the_page(api: Api) -> None:
    """The browser refuses it for the whole page, not only where a test looks."""
    policy = (await api.call("GET", "/")).headers["Content-Security-Policy"]
    assert "require-trusted-types-for 'script'; trusted-types 'none'" in policy


@built
async def test_files_are_named_by_their_content_and_kept_for_ever(api: Api) -> None:
    """Compressed at build time; who cannot read gzip gets them plain."""
    page = (await api.call("GET", "/")).text
    names = re.findall(r'(?:src|href)="\./assets/([^"]+)"', page)
    assert len(names) >= 3
    for name in names:
        assert re.fullmatch(r"[\w.-]+-[\w-]{8}\.(js|css|svg)", name), name
        plain = await api.call("GET", f"/assets/{name}")
        assert plain.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        small = await api.call("GET", f"/assets/{name}", Accept_Encoding="br, gzip")
        assert small.headers["Content-Type"] == plain.headers["Content-Type"]
        if len(plain.content) > 1024:
            assert small.headers["Content-Encoding"] == "gzip"
            assert small.headers["Vary"] == "Accept-Encoding"
            assert gzip.decompress(small.content) == plain.content
        refused = await api.call("GET", f"/assets/{name}", Accept_Encoding="gzip;q=0")
        assert "Content-Encoding" not in refused.headers


@built
def test_the_scripts_of_the_page_are_small() -> None:
    """At most 90 KB as gzip, all scripts that `/` can load together."""
    total = sum(
        len(built_files.asset(name).compressed or built_files.asset(name).content) for name in scripts_of("index.html")
    )
    assert total <= MOST_SCRIPT_BYTES


def scripts_of(page: str) -> set[str]:
    """The scripts that a page loads, and those that they import."""
    waiting = set(re.findall(r"assets/([\w.-]+\.js)", built_files.page(page).content.decode()))
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        found.add(name)
        waiting |= set(re.findall(r"[\w-]+-[\w-]{8}\.js", built_files.asset(name).content.decode())) - found
    return found & built_files.asset_names()


async def test_nothing_else_is_served_as_a_file(api: Api) -> None:
    for name in ("nope.js", "..%2findex.html", "%2e%2e", "index.html", "x/y"):
        assert (await api.call("GET", f"/assets/{name}")).status_code == 404, name


def test_a_checkout_without_built_files_says_how_to_build(tmp_path: Path) -> None:
    assert b"make setup" in built_files.page("index.html", tmp_path).content
    assert built_files.asset_names(tmp_path) == frozenset()


async def test_every_address_carries_the_path_prefix(database: Database) -> None:
    """`Location`, `Link`, OpenAPI and the page; paths without the prefix are served as well, for probes."""
    async for api in serve(database, ApiSettings(rules=RULES, path_prefix="/ops/horae")):
        made = await api.call("POST", "/ops/horae/jobs", job())
        assert made.headers["Location"] == f"/ops/horae/jobs/{made.json['jobId']}"
        assert (await api.call("GET", made.headers["Location"])).json["api"] == TARGET
        for _ in range(2):
            await api.call("POST", f"{made.headers['Location']}/trigger")
        assert (await api.call("GET", "/ops/horae/openapi.json")).json["servers"] == [{"url": "/ops/horae"}]
        assert (await api.call("GET", "/healthz")).status_code == 200
        bare = await api.call("GET", "/ops/horae")
        assert (bare.status_code, bare.headers["Location"]) == (308, "/ops/horae/")
        assert (bare.headers["X-Content-Type-Options"], bare.headers["Cache-Control"]) == ("nosniff", "no-store")
        page = await api.call("GET", "/ops/horae/")
        assert page.headers["Content-Type"].startswith("text/html")
        assert not re.search(r'(?:src|href)="/', page.text)
        assert (await api.call("GET", "/ops/horaejobs")).status_code == 404

"""Under an open page: nodes that are killed and drained, behind a proxy that asks them whether they are ready; and a database
that stands still and is killed.
"""

from __future__ import annotations

import os
import signal
import tempfile
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest

from ops.support.embedded_mongodb import EmbeddedMongod
from tests.support import browser, live, ready_proxy
from tests.support.mongo import needs_mongod
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.timeout(120), pytest.mark.takes(15)]
SILENT = "The page asks again until a node answers"
STANDS_STILL = "The database does not answer"
JOB = {"schedule": "@yearly", "api": "http://127.0.0.1:9/x", "name": "Kept", "retry": {"maxAttempts": 1}}


def ask(node: str, node_id: str, verb: str) -> None:
    """`drain` or `undrain` a node, and wait until it does."""
    httpx.post(f"{node}/nodes/{node_id}/{verb}").raise_for_status()
    ready = verb == "undrain"
    wait_until(lambda: (httpx.get(f"{node}/readyz").status_code == 200) is ready, 20, f"{node_id} to {verb}")


def test_a_node_that_is_killed_or_drained_takes_nothing_from_an_open_page(mongodb_uri: str, chromium: Any) -> None:
    """While no node answers the page says so, once, and keeps what was typed; a change that was not answered is not made
    twice; when another node is ready it goes on by itself. A drained node is a node that the proxy does not ask.
    """
    name = f"test_{uuid.uuid4().hex[:12]}"
    with live.node(mongodb_uri, name, HORAE_NODES="1") as spare:
        spare_id = httpx.get(f"{spare}/cluster").json()["nodes"][0]["nodeId"]
        httpx.put(f"{spare}/jobs/kept", json=JOB).raise_for_status()
        with (
            live.process(mongodb_uri, name, HORAE_NODES="1") as (node, pid),
            ready_proxy.proxy(node, spare) as address,
            browser.viewer(chromium, address) as viewer,
        ):
            page = viewer.page
            ask(spare, spare_id, "drain")
            viewer.open("#/jobs/kept/edit")
            page.get_by_label("Description").fill("typed for an hour")
            os.killpg(pid, signal.SIGKILL)
            page.get_by_role("button", name="Save").click()
            page.get_by_text(SILENT).wait_for()
            page.get_by_text("this may have been done, or not").wait_for()
            assert page.get_by_role("button", name="Live").count() == 0, "it says that there is no answer"
            ask(spare, spare_id, "undrain")
            page.get_by_text(SILENT).wait_for(state="detached")
            page.get_by_role("button", name="Live").wait_for()
            assert page.get_by_label("Description").input_value() == "typed for an hour"
            page.get_by_role("button", name="Save").click()
            viewer.wait("location.hash === '#/jobs/kept'")
            page.get_by_text("typed for an hour").first.wait_for()
            ask(spare, spare_id, "drain")
            page.get_by_role("button", name="Run now").click()
            page.get_by_role("dialog").get_by_role("button", name="Run now").click()
            page.get_by_role("dialog").get_by_text(SILENT).wait_for()
            ask(spare, spare_id, "undrain")
            page.get_by_text(SILENT).first.wait_for(state="detached")
            page.get_by_role("dialog").get_by_role("button", name="Run now").click()
            page.get_by_role("dialog").wait_for(state="detached")
            page.get_by_text("It will be sent").wait_for()
            viewer.forgive(502)
            assert [c for c in viewer.complaints if "Failed to load resource" not in c] == []


@pytest.mark.long
@needs_mongod
def test_a_database_that_stands_still_and_is_killed_takes_nothing_from_an_open_page(chromium: Any) -> None:
    """Each screen says so, once, and keeps what it showed; one that has nothing yet says why; the page asks seldom, and with
    the first answer of the database, which was killed and started again meanwhile, all of it is fresh.
    """
    with tempfile.TemporaryDirectory(prefix="horae-test-") as directory:
        embedded = EmbeddedMongod(Path(directory))
        state = embedded.acquire()
        again = EmbeddedMongod(Path(directory))
        try:
            with live.node(state.uri, "still") as node, browser.viewer(chromium, node) as viewer:
                page = viewer.page
                httpx.put(f"{node}/jobs/kept", json=JOB).raise_for_status()
                note = page.locator("[role=alert]", has_text=STANDS_STILL)
                viewer.open("#/jobs")
                page.get_by_role("link", name="Kept").wait_for()
                asked: list[str] = []
                os.kill(state.pid, signal.SIGSTOP)
                try:
                    note.wait_for()
                    assert page.get_by_role("link", name="Kept").is_visible()
                    page.on("request", lambda r: asked.append(r.url))
                    for address in ("#/", "#/failed", "#/jobs/kept", "#/cluster", "#/queues"):
                        page.evaluate("a => { location.hash = a }", address)
                        page.locator("main [role=alert]", has_text="did not").first.wait_for()
                        assert note.count() == 1, address
                        assert page.locator("main h1").inner_text() != "…", address
                    assert len(asked) <= 60, asked
                finally:
                    os.kill(state.pid, signal.SIGKILL)
                again.acquire()
                note.wait_for(state="detached", timeout=60_000)
                page.evaluate("location.hash = '#/jobs'")
                page.get_by_role("link", name="Kept").wait_for()
                assert page.locator("main [role=alert]").count() == 0
                assert [c for c in viewer.complaints if "Failed to load resource" not in c] == []
        finally:
            embedded.release()
            again.release()

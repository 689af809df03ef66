"""Keys in a real browser: signing in, what each scope sees, and the screens that only an admin has."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.support import browser, browser_world
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.browser import Viewer
    from tests.support.browser_world import World

pytestmark = [pytest.mark.timeout(300), pytest.mark.takes(25)]
READER, WRITER, BOSS = "reader-key-0123456789", "writer-key-0123456789", "admin-key-0123456789"
KEYS = f"reader:{READER}:read,writer:{WRITER}:write,boss:{BOSS}:admin"
CHANGING = ".danger-quiet, .danger, [type=file], .row-actions button"
"""What only those who may change something have, besides the main button of a screen."""


@pytest.fixture(scope="module")
def guarded(mongodb_uri: str) -> Iterator[World]:
    """A node with keys, and one job."""
    browser.require()
    with browser_world.world(mongodb_uri, f"test_{uuid.uuid4().hex[:12]}", HORAE_API_KEYS=KEYS) as world:
        job = {"schedule": "@hourly", "api": f"{world.target}/ok/x"}
        httpx.put(f"{world.url}/jobs/one", json=job, headers={"Authorization": f"Bearer {WRITER}"}).raise_for_status()
        yield world


def sign_in(viewer: Viewer, key: str) -> None:
    viewer.page.get_by_label("API key").fill(key)
    viewer.page.get_by_role("button", name="Sign in").click()


def test_a_key_signs_in_and_decides_what_can_be_done(guarded: World, chromium: Any) -> None:
    """A wrong key is told; with `read` no screen has a button that changes something; signing out ends it."""
    with browser.viewer(chromium, guarded.url) as viewer:
        viewer.page.goto(f"{guarded.url}/#/jobs/one")
        sign_in(viewer, "no-such-key-0123456789")
        viewer.page.get_by_text("This key is not known").wait_for()
        sign_in(viewer, READER)
        viewer.page.get_by_text("Read only").wait_for()
        viewer.page.get_by_role("heading", name="one", exact=True).wait_for()
        viewer.settled()
        for name in ("Run now", "Pause", "Delete", "Edit", "Backfill"):
            assert viewer.page.get_by_role("button", name=name).count() == 0
        listed = viewer.page.eval_on_selector_all("#navigation a", "links => links.map(a => a.getAttribute('href'))")
        assert not {"#/audit", "#/keys", "#/proof"} & set(listed)
        for address in listed:
            viewer.open(address)
            assert viewer.page.locator("main").locator(f"{CHANGING}, button.primary, a.primary").count() == 0, address
        refused = viewer.page.evaluate("fetch('jobs/one/trigger', {method: 'POST'}).then(r => r.status)")
        assert refused == 403
        assert READER not in viewer.page.evaluate("document.cookie + JSON.stringify({...localStorage})")
        viewer.page.get_by_role("button", name="Sign out").click()
        sign_in(viewer, WRITER)
        viewer.page.get_by_role("button", name="Sign out").wait_for()
        viewer.open("#/jobs/one")
        viewer.confirm("Run now")
        viewer.page.get_by_text("It will be sent").wait_for()


def test_an_admin_makes_and_revokes_keys_and_reads_who_did_what(guarded: World, chromium: Any) -> None:
    """A key is shown once; revoking it is an entry of the audit log, which says that it came from the page."""
    with browser.viewer(chromium, guarded.url) as viewer:
        page = viewer.page
        page.goto(f"{guarded.url}/#/keys")
        sign_in(viewer, BOSS)
        page.get_by_role("button", name="New key").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Name", exact=True).fill("ci")
        dialog.get_by_label("Scope").select_option("write")
        dialog.get_by_label("Valid for").fill("30d")
        dialog.get_by_role("button", name="Create").click()
        dialog.get_by_text("the only time that the key is shown").wait_for()
        key = dialog.locator("pre").inner_text()
        header = {"Authorization": f"Bearer {key}"}
        wait_until(
            lambda: httpx.get(f"{guarded.url}/jobs", headers=header).status_code == 200, 10, "the key to be known"
        )
        dialog.get_by_role("button", name="Close").last.click()
        page.get_by_role("row", name="ci").wait_for()
        assert key not in page.inner_text("main")
        viewer.confirm("Revoke")
        page.get_by_text("revoked").wait_for()
        viewer.open("#/audit")
        page.get_by_role("link", name="key:ci").first.click()
        viewer.wait("location.hash.includes('object=')")
        page.get_by_text("job:one").first.wait_for(
            state="detached"
        )  # the entries of all objects, until these are there
        viewer.settled()
        assert page.get_by_role("row").filter(has_text="page").count() >= 2
        assert "key:ci" in viewer.text()
        assert "job:one" not in viewer.text()
        assert viewer.serious_findings() == []

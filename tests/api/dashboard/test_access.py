"""Keys in a real browser: signing in, what each scope sees, and the screens that only an admin has."""

from __future__ import annotations

import uuid
from dataclasses import replace
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
PREFIX = "/ops/horae"
CHANGING = ".danger-quiet, .danger, [type=file], .row-actions button"
"""What only those who may change something have, besides the main button of a screen."""


@pytest.fixture(scope="module")
def guarded(mongodb_uri: str) -> Iterator[World]:
    """A node with keys behind a proxy that keeps its prefix, with one of everything that a screen can list."""
    browser.require()
    name = f"test_{uuid.uuid4().hex[:12]}"
    with browser_world.world(mongodb_uri, name, HORAE_API_KEYS=KEYS, HORAE_PATH_PREFIX=PREFIX) as world:
        made = replace(world, url=f"{world.url}{PREFIX}")
        job = {"schedule": "@hourly", "api": f"{made.target}/ok/x"}
        with httpx.Client(base_url=made.url, headers={"Authorization": f"Bearer {WRITER}"}) as client:
            for path, body in (
                ("/jobs/one", job),
                ("/queues/mail", {"maxPerSecond": 5}),
                ("/calendars/days", {"dates": ["2030-12-24"]}),
                ("/windows/night", {"mode": "hold", "tags": ["x"], "schedule": "0 0 2 * * SUN", "durationSeconds": 60}),
                ("/channels/ops", {"type": "webhook", "url": f"{made.target}/ok/alerts"}),
            ):
                client.put(path, json=body).raise_for_status()
            later = {"api": f"{made.target}/ok/x", "delay": "1h"}
            client.post("/messages", json=later).raise_for_status()
        yield made


def sign_in(viewer: Viewer, key: str) -> None:
    viewer.page.get_by_label("API key").fill(key)
    viewer.page.get_by_role("button", name="Sign in").click()


def asked_without_prefix(viewer: Viewer) -> list[str]:
    """Will have what the page asks for outside its prefix."""
    outside: list[str] = []
    viewer.page.on("request", lambda r: outside.append(r.url) if f"{PREFIX}/" not in r.url else None)
    return outside


def test_a_key_signs_in_and_decides_what_can_be_done(guarded: World, chromium: Any) -> None:
    """Under a prefix: a wrong key is told; with `read` no screen has a button that changes something, and the server refuses
    what such a button would do; signing out ends it; curl carries the prefix and the key.
    """
    with browser.viewer(chromium, guarded.url) as viewer:
        outside = asked_without_prefix(viewer)
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
        jobs = [*listed, "#/jobs/one", "#/jobs/one/edit", "#/new", "#/jobs?tag=x", "#/failed?hours=1"]
        for address in jobs:
            viewer.open(address)
            assert viewer.page.locator("main").locator(f"{CHANGING}, button.primary, a.primary").count() == 0, address
        for method, path in (
            ("POST", "jobs/one/trigger"), ("DELETE", "jobs/one"), ("PUT", "queues/mail"), ("DELETE", "windows/night"),
            ("POST", "jobs/actions"), ("POST", "executions/retry"), ("POST", "verifications"), ("POST", "channels/ops/test"),
            ("POST", "messages"), ("POST", "jobs/import"), ("POST", "targets/test"), ("GET", "audit"), ("GET", "keys"),
        ):  # fmt: skip
            refused = viewer.page.evaluate("([m, p]) => fetch(p, {method: m}).then(r => r.status)", [method, path])
            assert refused == 403, (method, path)
        assert READER not in viewer.page.evaluate("document.cookie + JSON.stringify({...localStorage})")
        viewer.page.get_by_role("button", name="Sign out").click()
        sign_in(viewer, WRITER)
        viewer.page.get_by_role("button", name="Sign out").wait_for()
        viewer.open("#/jobs/one")
        command = viewer.confirm("Run now")
        assert f"{guarded.url}/jobs/one/trigger" in command
        assert "$HORAE_API_KEY" in command
        viewer.page.get_by_text("It will be sent").wait_for()
        assert outside == []


def test_a_session_that_ends_while_the_page_is_open_comes_back_with_a_key(guarded: World, chromium: Any) -> None:
    """The key is revoked: what was shown goes, what was typed stays, nothing is asked meanwhile, and a key goes on with it."""
    boss = {"Authorization": f"Bearer {BOSS}"}
    made = httpx.post(f"{guarded.url}/keys", json={"name": "short", "scope": "write"}, headers=boss).raise_for_status()
    short = {"Authorization": f"Bearer {made.json()['key']}"}

    def answers(status: int) -> bool:
        return httpx.get(f"{guarded.url}/jobs", headers=short).status_code == status

    wait_until(lambda: answers(200), 10, "the key to be known")
    with browser.viewer(chromium, guarded.url) as viewer:
        page = viewer.page
        page.goto(f"{guarded.url}/#/jobs/one/edit")
        sign_in(viewer, made.json()["key"])
        page.get_by_label("Description").fill("typed for an hour")
        httpx.delete(f"{guarded.url}/keys/short", headers=boss).raise_for_status()
        wait_until(lambda: answers(401), 10, "the key to be gone")
        page.get_by_role("button", name="Save").click()
        page.get_by_text("Your session has ended").wait_for()
        assert not page.get_by_label("Description").is_visible()
        asked: list[str] = []
        page.on("request", lambda r: asked.append(r.url))
        page.keyboard.press("Escape")
        page.clock.install()
        page.clock.run_for(120_000)
        assert asked == []
        page.clock.resume()
        sign_in(viewer, WRITER)
        page.get_by_text("Your session has ended").wait_for(state="detached")
        assert page.get_by_label("Description").input_value() == "typed for an hour"
        page.get_by_role("button", name="Save").click()
        viewer.wait("location.hash === '#/jobs/one'")
        page.get_by_text("typed for an hour").first.wait_for()


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
        page.get_by_role("row", name="ci").get_by_text("revoked").wait_for()
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

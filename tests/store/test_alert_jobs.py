"""`alert_jobs`: what each kind of channel is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.store import alert_jobs, channels, engine_jobs
from cluster.store.channels import Channel

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database


def test_markup_of_slack_is_escaped_for_slack_only() -> None:
    """A name or response that contains `<!channel>` notifies no one; other channels get it as it is."""
    content = {"text": "Job <!channel> & co is failing"}
    slack = Channel("chat", "slack", "http://chat.example/secret-path")
    assert alert_jobs.body_of(slack, content) == {"text": "Job &lt;!channel&gt; &amp; co is failing"}
    assert alert_jobs.body_of(Channel("ops", "webhook", "http://ops.example/alerts"), content) == content


async def test_all_mails_share_one_limit(database: Database) -> None:
    """Whichever channel, test or incident they come from; other channels have none."""
    stored = [Channel(n, "email", None, (f"{n}@example.com",)) for n in ("a", "b")]
    stored.append(Channel("hook", "webhook", "http://ops.example/alerts"))
    for channel in stored:
        await channels.put(database, channel)
    for number, channel in enumerate(stored):
        assert await alert_jobs.insert(database, f"alert{number}", channel, {"text": "x"}, 1_700_000_000_000)
    jobs = (await engine_jobs.by_id(database, {"alert0", "alert1", "alert2"})).jobs
    assert {jobs[f"alert{n}"].limit_key for n in (0, 1)} == {alert_jobs.MAIL_LIMIT_KEY}
    assert {jobs[f"alert{n}"].limits.per_second for n in (0, 1)} == {alert_jobs.MAILS_PER_SECOND}
    assert jobs["alert2"].limit_key is None

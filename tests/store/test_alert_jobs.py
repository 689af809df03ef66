"""`alert_jobs`: what each kind of channel is sent."""

from __future__ import annotations

from cluster.store import alert_jobs
from cluster.store.channels import Channel


def test_markup_of_slack_is_escaped_for_slack_only() -> None:
    """A name or response that contains `<!channel>` notifies no one; other channels get it as it is."""
    content = {"text": "Job <!channel> & co is failing"}
    slack = Channel("chat", "slack", "http://chat.example/secret-path")
    assert alert_jobs.body_of(slack, content) == {"text": "Job &lt;!channel&gt; &amp; co is failing"}
    assert alert_jobs.body_of(Channel("ops", "webhook", "http://ops.example/alerts"), content) == content

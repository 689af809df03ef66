"""Alerts end to end: real nodes, a real webhook, a real mail server, and a leader that is killed in between."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest
from standardwebhooks import Webhook

from tests.support import plain_http
from tests.support.alert_receivers import SmtpServer, WebhookReceiver
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.processes import Nodes

pytestmark = pytest.mark.timeout(120)
SECRET = "whsec_" + "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"


@pytest.mark.takes(18)
def test_a_failing_job_alerts_once_on_each_channel_and_once_when_it_recovers(
    cluster: Callable[..., Nodes],
) -> None:
    """The leader is killed in between. The webhook is signed; a channel that was down gets its alert later; the job itself is not delayed."""
    with WebhookReceiver(status={"job": 503, "chat": 500}) as webhooks, SmtpServer() as smtp:
        nodes = cluster(
            2,
            HORAE_SMTP_HOST="127.0.0.1",
            HORAE_SMTP_PORT=str(smtp.port),
            HORAE_SMTP_SECURITY="plain",
            HORAE_SMTP_FROM="horae@example.com",
            HORAE_SECRET_KEY="AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        )
        for name, channel in (
            ("hook", {"type": "webhook", "url": f"{webhooks.url}/hook", "signingSecret": SECRET}),
            ("chat", {"type": "slack", "url": f"{webhooks.url}/chat"}),
            ("mail", {"type": "email", "to": ["ops@example.com"]}),
        ):
            assert plain_http.put(f"{nodes.url}/channels/{name}", json=channel).status_code == 201
        rules = {"channels": ["hook", "chat", "mail"], "onDead": True}
        job = {"schedule": "* * * * * *", "api": f"{webhooks.url}/job", "retry": {"maxAttempts": 1}, "alerts": rules}
        assert plain_http.put(f"{nodes.url}/jobs/bad", json=job).status_code == 201
        alerts = {"_id": {"$regex": "^alert"}}
        wait_until(lambda: webhooks.at("/chat"), 30, "the alert to the chat")
        # What a node that is killed has sent and not recorded would be sent twice.
        wait_until(lambda: recorded(nodes) == 2, 30, "the alerts to the webhook and by mail")
        leader = nodes.leader()
        assert leader is not None
        nodes.kill(leader)
        wait_until(lambda: nodes.leader() not in (None, leader), 30, "another leader")
        webhooks.status["chat"] = 200
        sent = len(webhooks.at("/job"))
        wait_until(lambda: len(webhooks.at("/job")) > sent + 3, 20, "the job to fail on")
        webhooks.status["job"] = 200
        wait_until(lambda: len(webhooks.at("/hook")) == 2 and len(smtp.messages) == 2, 30, "the word that it is well")
        wait_until(lambda: recorded(nodes) == 6, 60, "all alerts")
        assert nodes.db["executions"].count_documents(alerts) == 0
        said = [orjson.loads(c.body) for c in webhooks.at("/hook")]
        assert [s["type"] for s in said] == ["failing.began", "failing.over"]
        assert said[0]["since"] == said[1]["since"]
        for c in webhooks.at("/hook"):
            Webhook(SECRET).verify(c.body, c.headers)
        assert [message["Subject"].split()[0] for message in smtp.messages] == ["Job", "Resolved:"]
        spoken = {c.headers["idempotency-key"]: orjson.loads(c.body)["text"] for c in webhooks.at("/chat")}
        assert [t.split()[0] for t in spoken.values()] == ["Job", "Resolved:"]
        assert listed(nodes, "closed") == [("bad", "failing")]
        assert listed(nodes, "open") == []
        late = nodes.db["history"].count_documents({"job_id": "bad", "drift_ms": {"$gt": 11_000}})
        assert late == 0, "nothing but the lease of the killed node may delay the job"


def recorded(nodes: Nodes) -> int:
    """How many alerts history has as delivered."""
    return nodes.db["history"].count_documents({"_id": {"$regex": "^alert"}, "state": "succeeded"})


def listed(nodes: Nodes, state: str) -> list[tuple[Any, Any]]:
    items = plain_http.get(f"{nodes.url}/alerts?state={state}").json()["items"]
    return [(i["jobId"], i["kind"]) for i in items]

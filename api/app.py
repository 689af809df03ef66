"""The Falcon application: all routes and the middleware."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from falcon.asgi import App

from api.http import problems
from api.http.auth import ApiKeyAuth
from api.http.context import ApiSettings, Services
from api.http.requests import ContentNegotiation
from api.http.responses import SafetyHeaders
from api.openapi.routes import DocsAsset, OpenApiDocument
from api.resources.alerts import Alerts, Channel, Channels, ChannelTest, DefaultRules
from api.resources.cluster import Cluster
from api.resources.executions import Execution, Executions, JobExecutions, ReplayExecution
from api.resources.explain import Explain
from api.resources.health import Healthz, Readyz
from api.resources.imports import Import
from api.resources.jobs import Job, Jobs, Pause, Resume, Trigger
from api.resources.messages import Message, MessageBatch, Messages
from api.resources.metrics import Metrics
from api.resources.preview import Preview
from api.resources.queues import Queue, Queues
from api.resources.replays import ReplayMany, ReplayStatus
from api.resources.stats import Stats
from cluster.core.documents.job_json import DocumentLimits
from cluster.store.mongo.deadlines import within
from cluster.usecases.message_intake import MessageIntake

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from api.http.context import WorkerReadings
    from api.http.request_metrics import RequestMetrics
    from cluster.node import Node
    from config.settings import Settings


REQUEST_SECONDS = 5.0
LONG_BODIES = ("/jobs/import", "/messages/batch")


def create_app(
    node: Node,
    settings: Settings,
    request_metrics: RequestMetrics,
    worker_readings: Callable[[], Sequence[WorkerReadings]],
) -> App[Any, Any]:
    """The application of one node. `worker_readings` gives the metrics of all workers behind its port."""
    limits = DocumentLimits(
        settings.allowed_networks,
        settings.retention_days,
        bool(settings.secret_keys),
        bool(settings.smtp_host),
        settings.allowed_mail_domains,
    )
    api_settings = ApiSettings(
        keys=settings.api_keys,
        rules=limits,
        requests_per_second=settings.requests_per_second,
        metrics_open=settings.metrics_open,
        lookahead_seconds=settings.lookahead_seconds,
        trusted_proxies=settings.trusted_proxies,
        metrics_port=settings.metrics_port,
    )
    return build_app(
        Services(
            db=node.db,
            clock=node.clock,
            settings=api_settings,
            is_ready=lambda: node.ready,
            request_metrics=request_metrics,
            worker_readings=worker_readings,
            unready_reason=lambda: node.unready_reason,
            wake_claims=node.worker.wake_claims,
        )
    )


class _TimeLimitedApp(App):  # type: ignore[type-arg] # Falcon's own class for requests and responses
    """Answers every request within `REQUEST_SECONDS`, even if the database hangs. Long bodies have this time per chunk."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # type: ignore[override] # ASGI, not WSGI
        if scope["type"] != "http" or scope["path"] in LONG_BODIES:
            await super().__call__(scope, receive, send)
            return
        with within(REQUEST_SECONDS):
            if scope["method"] == "HEAD":  # as GET, without the content (RFC 9110)
                await super().__call__({**scope, "method": "GET"}, receive, _without_content(send))
            else:
                await super().__call__(scope, receive, send)


def _without_content(send: Any) -> Any:
    async def headers_only(message: Any) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return headers_only


def build_app(services: Services) -> App[Any, Any]:
    """The application that uses these services."""
    app: App[Any, Any] = _TimeLimitedApp(
        middleware=[services.request_metrics, SafetyHeaders(), ContentNegotiation(), ApiKeyAuth(services)]
    )
    problems.install_error_handlers(app)
    app.req_options.strip_url_path_trailing_slash = True
    app.add_route("/jobs", Jobs(services))
    app.add_route("/jobs/import", Import(services))
    app.add_route("/jobs/{job_id}", Job(services))
    app.add_route("/jobs/{job_id}/pause", Pause(services))
    app.add_route("/jobs/{job_id}/resume", Resume(services))
    app.add_route("/jobs/{job_id}/trigger", Trigger(services))
    app.add_route("/jobs/{job_id}/executions", JobExecutions(services))
    app.add_route("/jobs/{job_id}/explain", Explain(services))
    app.add_route("/executions", Executions(services))
    app.add_route("/executions/retry", ReplayMany(services))
    app.add_route("/executions/retry/{retry_id}", ReplayStatus(services))
    app.add_route("/executions/{execution_id}", Execution(services))
    app.add_route("/executions/{execution_id}/retry", ReplayExecution(services))
    intake = MessageIntake(services.db, services.clock, services.settings.lookahead_seconds, services.wake_claims)
    app.add_route("/messages", Messages(services, intake))
    app.add_route("/messages/batch", MessageBatch(services, intake))
    app.add_route("/messages/{message_id}", Message(services, intake))
    app.add_route("/alerts", Alerts(services))
    app.add_route("/alerts/default", DefaultRules(services))
    app.add_route("/channels", Channels(services))
    app.add_route("/channels/{name}", Channel(services))
    app.add_route("/channels/{name}/test", ChannelTest(services))
    app.add_route("/queues", Queues(services))
    app.add_route("/queues/{name}", Queue(services))
    app.add_route("/schedules/preview", Preview(services))
    app.add_route("/cluster", Cluster(services))
    app.add_route("/stats", Stats(services))
    app.add_route("/healthz", Healthz())
    app.add_route("/readyz", Readyz(services))
    app.add_route("/metrics", Metrics(services))
    app.add_route("/openapi.json", OpenApiDocument())
    app.add_route("/docs", DocsAsset("page.html"))
    app.add_route("/docs/page.css", DocsAsset("page.css"))
    app.add_route("/docs/page.js", DocsAsset("page.js"))
    return app

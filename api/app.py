"""The Falcon application: all routes and the middleware."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from falcon.asgi import App

from api.dashboard.routes import DOCS_POLICY, PAGE_POLICY, Asset, Page
from api.http import problems
from api.http.actors import Actors
from api.http.auth import ApiKeyAuth
from api.http.context import ApiSettings, Services
from api.http.path_prefix import PrefixedAddresses, redirect_to_page, without_prefix
from api.http.requests import ContentNegotiation
from api.http.responses import SAFETY_HEADERS, SafetyHeaders
from api.openapi.routes import OpenApiDocument
from api.resources.actions import JobAction, JobActions
from api.resources.alerts import Alerts, Channel, Channels, ChannelTest, DefaultRules
from api.resources.audit import Audit
from api.resources.backfill import Backfill, Backfills
from api.resources.calendars import Calendar, Calendars
from api.resources.cluster import Cluster
from api.resources.cluster_work import ClusterDatabase, ClusterWork
from api.resources.events import Events
from api.resources.executions import Execution, Executions, JobExecutions, ReplayExecution
from api.resources.explain import Explain, ExplainMessage
from api.resources.failures import Failures
from api.resources.health import Healthz, Readyz
from api.resources.herd import Crowd, Herd
from api.resources.imports import Import
from api.resources.jobs import Job, Jobs, Pause, Resume, Trigger
from api.resources.keys import Drain, Key, Keys
from api.resources.message_list import ListedMessages
from api.resources.messages import Message, MessageBatch
from api.resources.metrics import Metrics
from api.resources.preview import Preview
from api.resources.queues import Queue, Queues
from api.resources.replays import ReplayMany, ReplayStatus
from api.resources.revisions import Revert, RevisionOfJob, Revisions
from api.resources.session import Session
from api.resources.stats import Stats
from api.resources.targets import TargetTest
from api.resources.timeline import Timeline
from api.resources.verifications import VerificationRun, Verifications
from api.resources.windows import Window, Windows
from cluster.core.documents.job_json import DocumentLimits
from cluster.live_events import LiveEvents
from cluster.store.mongo.deadlines import within
from cluster.usecases.message_intake import MessageIntake

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from api.http.context import WorkerReadings
    from api.http.request_metrics import RequestMetrics
    from cluster.node import Node
    from cluster.usecases.verifications import Verifications as VerificationRuns
    from config.settings import Settings


REQUEST_SECONDS = 5.0
UNTIMED_PATHS = frozenset({"/jobs/import", "/messages/batch", "/events"})
"""Their requests last as long as their callers need them."""


def document_limits(settings: Settings) -> DocumentLimits:
    """What these settings allow in jobs."""
    return DocumentLimits(
        settings.allowed_networks,
        settings.retention_days,
        bool(settings.secret_keys),
        bool(settings.smtp_host),
        settings.allowed_mail_domains,
    )


def create_app(
    node: Node,
    settings: Settings,
    request_metrics: RequestMetrics,
    worker_readings: Callable[[], Sequence[WorkerReadings]],
    verifications: VerificationRuns | None = None,
) -> App[Any, Any]:
    """The application of one node. `worker_readings` gives the metrics of all workers behind its port."""
    api_settings = ApiSettings(
        keys=settings.api_keys,
        rules=document_limits(settings),
        requests_per_second=settings.requests_per_second,
        metrics_open=settings.metrics_open,
        lookahead_seconds=settings.lookahead_seconds,
        trusted_proxies=settings.trusted_proxies,
        metrics_port=settings.metrics_port,
        dashboard=settings.dashboard,
        path_prefix=settings.path_prefix,
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
            live_events=node.live_events,
            sender=node.sender,
            verifications=verifications,
        )
    )


class _TimeLimitedApp(App):  # type: ignore[type-arg] # Falcon's own class for requests and responses
    """Answers every request within `REQUEST_SECONDS`, even if the database hangs. Long bodies have this time per chunk,
    and live events have no end.
    """

    def __init__(self, path_prefix: str, middleware: list[Any]) -> None:
        super().__init__(middleware=middleware)
        self._path_prefix = path_prefix

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # type: ignore[override] # ASGI, not WSGI
        if scope["type"] == "http" and self._path_prefix:
            if scope["path"] == self._path_prefix and scope["method"] in ("GET", "HEAD"):
                await redirect_to_page(self._path_prefix, send, SAFETY_HEADERS)
                return
            scope = without_prefix(scope, self._path_prefix)
        if scope["type"] != "http" or scope["path"].rstrip("/") in UNTIMED_PATHS:
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


RESOURCES: dict[str, Callable[[Services], object]] = {
    "/jobs": Jobs,
    "/jobs/import": Import,
    "/jobs/actions": JobActions,
    "/jobs/actions/{action_id}": JobAction,
    "/jobs/{job_id}": Job,
    "/jobs/{job_id}/pause": Pause,
    "/jobs/{job_id}/resume": Resume,
    "/jobs/{job_id}/trigger": Trigger,
    "/jobs/{job_id}/backfill": Backfills,
    "/jobs/{job_id}/backfill/{backfill_id}": Backfill,
    "/jobs/{job_id}/executions": JobExecutions,
    "/jobs/{job_id}/explain": Explain,
    "/messages/{message_id}/explain": ExplainMessage,
    "/jobs/{job_id}/revisions": Revisions,
    "/jobs/{job_id}/revisions/{revision}": RevisionOfJob,
    "/jobs/{job_id}/revisions/{revision}/revert": Revert,
    "/audit": Audit,
    "/executions": Executions,
    "/executions/failures": Failures,
    "/executions/retry": ReplayMany,
    "/executions/retry/{retry_id}": ReplayStatus,
    "/executions/{execution_id}": Execution,
    "/executions/{execution_id}/retry": ReplayExecution,
    "/alerts": Alerts,
    "/alerts/default": DefaultRules,
    "/channels": Channels,
    "/channels/{name}": Channel,
    "/channels/{name}/test": ChannelTest,
    "/queues": Queues,
    "/queues/{name}": Queue,
    "/calendars": Calendars,
    "/calendars/{name}": Calendar,
    "/windows": Windows,
    "/windows/{name}": Window,
    "/schedules/preview": Preview,
    "/schedules/crowd": Crowd,
    "/herd": Herd,
    "/targets/test": TargetTest,
    "/keys": Keys,
    "/keys/{name}": Key,
    "/verifications": Verifications,
    "/verifications/{verification_id}": VerificationRun,
    "/cluster": Cluster,
    "/cluster/work": ClusterWork,
    "/cluster/database": ClusterDatabase,
    "/stats": Stats,
    "/timeline": Timeline,
    "/readyz": Readyz,
    "/metrics": Metrics,
}
"""The resources that need the services alone, by their paths."""


def build_app(services: Services) -> App[Any, Any]:
    """The application that uses these services."""
    auth = ApiKeyAuth(services)
    prefix = services.settings.path_prefix
    middleware = [
        services.request_metrics,
        SafetyHeaders(),
        PrefixedAddresses(prefix),
        ContentNegotiation(),
        auth,
        Actors(services),
    ]
    app: App[Any, Any] = _TimeLimitedApp(prefix, middleware)
    live_events = services.live_events or LiveEvents(services.db, services.clock, services.settings.viewers)
    problems.install_error_handlers(app)
    app.req_options.strip_url_path_trailing_slash = True
    for path, resource in RESOURCES.items():
        app.add_route(path, resource(services))
    app.add_route("/nodes/{node_id}/drain", Drain(services), suffix="drain")
    app.add_route("/nodes/{node_id}/undrain", Drain(services), suffix="undrain")
    app.add_route("/events", Events(services, live_events, auth.process_request))
    intake = MessageIntake(services.db, services.clock, services.settings.lookahead_seconds)
    app.add_route("/messages", ListedMessages(services, intake))
    app.add_route("/messages/batch", MessageBatch(services, intake))
    app.add_route("/messages/{message_id}", Message(services, intake))
    app.add_route("/healthz", Healthz())
    app.add_route("/openapi.json", OpenApiDocument(prefix))
    app.add_route("/docs", Page("docs.html", DOCS_POLICY))
    app.add_route("/assets/{name}", Asset())
    if services.settings.dashboard != "off":
        app.add_route("/", Page("index.html", PAGE_POLICY))
        app.add_route("/session", Session(services, auth))
    return app

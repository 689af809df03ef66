"""The Falcon application: routes and middleware, put together from the doors it is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from falcon.asgi import App

from api import problems
from api.auth import Auth
from api.cluster import Cluster
from api.executions import Execution, JobExecutions
from api.health import Healthz, Readyz
from api.imports import Import
from api.jobs import Job, Jobs, Pause, Resume, Trigger
from api.preview import Preview
from api.services import ApiSettings, Services
from cluster.core.jobtext import Rules

if TYPE_CHECKING:
    from cluster.node import Node
    from config.settings import Settings


def create_app(node: Node, settings: Settings) -> App[Any, Any]:
    """The application of one node."""
    rules = Rules(settings.allowed_networks, settings.retention_days)
    return build(Services(node.db, node.clock, ApiSettings(settings.api_keys, rules), lambda: node.ready))


def build(services: Services) -> App[Any, Any]:
    """The application behind these doors."""
    app: App[Any, Any] = App(middleware=[Auth(services.settings)])
    problems.install(app)
    app.req_options.strip_url_path_trailing_slash = True
    app.add_route("/jobs", Jobs(services))
    app.add_route("/jobs/import", Import(services))
    app.add_route("/jobs/{job_id}", Job(services))
    app.add_route("/jobs/{job_id}/pause", Pause(services))
    app.add_route("/jobs/{job_id}/resume", Resume(services))
    app.add_route("/jobs/{job_id}/trigger", Trigger(services))
    app.add_route("/jobs/{job_id}/executions", JobExecutions(services))
    app.add_route("/executions/{execution_id}", Execution(services))
    app.add_route("/schedules/preview", Preview(services))
    app.add_route("/cluster", Cluster(services))
    app.add_route("/healthz", Healthz())
    app.add_route("/readyz", Readyz(services))
    return app

"""Alerts, channels, queues and the cluster in `/openapi.json`. A test executes every example."""

from __future__ import annotations

from typing import Any

from api.openapi.operation_parts import (
    Operation,
    cursor_parameter,
    limit_parameter,
    query_parameter,
    request_body,
    responses,
    schema_ref,
    state_parameter,
)


def cluster_operations() -> dict[str, Any]:
    """Every operation that is not under `/jobs` or `/executions`, by path and method."""
    return {**_alerts(), **_channels(), **_queues(), **_cluster()}


def _alerts() -> dict[str, Any]:
    rules = {"channels": [], "onDead": False}
    one = responses({200: ("The rules.", "DefaultAlerts")})
    return {
        "/alerts": {
            "get": {
                "operationId": "listIncidents",
                "summary": "List incidents, latest first",
                "parameters": [
                    state_parameter(["open", "closed"], "open"),
                    query_parameter(
                        "jobId", {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}, "Only incidents of this job."
                    ),
                    limit_parameter(50),
                    cursor_parameter(),
                ],
                "responses": responses({200: ("A page of incidents.", "IncidentPage")}),
            }
        },
        "/alerts/default": {
            "get": {
                "operationId": "getDefaultAlerts",
                "summary": "Get the default alert rules: those of all jobs without rules of their own",
                "responses": one,
            },
            "put": {
                "operationId": "putDefaultAlerts",
                "summary": "Replace the default alert rules; they take effect within a few seconds",
                "requestBody": request_body(["application/json"], schema_ref("AlertSpec"), {"no alerts": rules}),
                "responses": one,
            },
            "delete": {
                "operationId": "deleteDefaultAlerts",
                "summary": "Delete the default alert rules",
                "responses": responses({204: ("The default rules were deleted.", None)}),
            },
        },
    }


def _channels() -> dict[str, Any]:
    name_in_path = {
        "name": "name",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"},
        "example": "ops",
    }
    one = responses({200: ("The channel.", "ChannelView")})
    put = responses({200: ("Replaced.", "ChannelView"), 201: ("Created.", "ChannelView")}, {201: ["Location"]})
    webhook = {"type": "webhook", "url": "https://api.example.com/alerts"}
    return {
        "/channels": {
            "get": {
                "operationId": "listChannels",
                "summary": "List the channels that alerts can be sent to",
                "responses": responses({200: ("The channels.", "ChannelList")}),
            }
        },
        "/channels/{name}": {
            "put": {
                "operationId": "putChannel",
                "summary": "Create or replace a channel",
                "parameters": [name_in_path],
                "requestBody": request_body(["application/json"], schema_ref("ChannelSpec"), {"a webhook": webhook}),
                "responses": put,
            },
            "get": {
                "operationId": "getChannel",
                "summary": "Get a channel",
                "parameters": [name_in_path],
                "responses": one,
            },
            "delete": {
                "operationId": "deleteChannel",
                "summary": "Delete a channel that no alert rule uses",
                "parameters": [name_in_path],
                "responses": responses({204: ("The channel was deleted.", None)}),
            },
        },
        "/channels/{name}/test": {
            "post": {
                "operationId": "testChannel",
                "summary": "Send a test alert to a channel",
                "parameters": [name_in_path],
                "responses": responses({202: ("The test alert will be sent.", "Triggered")}),
            }
        },
    }


def _queues() -> dict[str, Any]:
    name_in_path = {
        "name": "name",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}$"},
        "example": "mail",
    }
    one = responses({200: ("The queue.", "QueueView")})
    put = responses({200: ("Replaced.", "QueueView"), 201: ("Created.", "QueueView")}, {201: ["Location"]})
    return {
        "/queues": {
            "get": {
                "operationId": "listQueues",
                "summary": "List the queues: limits that jobs share",
                "responses": responses({200: ("The queues.", "QueueList")}),
            }
        },
        "/queues/{name}": {
            "put": {
                "operationId": "putQueue",
                "summary": "Create a queue or replace its limits",
                "parameters": [name_in_path],
                "requestBody": request_body(
                    ["application/json"], schema_ref("QueueSpec"), {"both": {"maxPerSecond": 20, "maxConcurrent": 5}}
                ),
                "responses": put,
            },
            "get": {
                "operationId": "getQueue",
                "summary": "Get a queue",
                "parameters": [name_in_path],
                "responses": one,
            },
            "delete": {
                "operationId": "deleteQueue",
                "summary": "Delete a queue; the jobs that name it are no longer limited",
                "parameters": [name_in_path],
                "responses": responses({204: ("The queue was deleted.", None)}),
            },
        },
    }


def _metrics() -> Operation:
    text = {"schema": {"type": "string"}}
    by_status = responses({200: ("The metrics. config/alerts.yml and config/grafana use them.", None)})
    by_status["200"]["content"] = {"text/plain": text, "application/openmetrics-text": text}
    return {
        "operationId": "getMetrics",
        "summary": "Get the metrics of the cluster and of all workers behind this port, for Prometheus",
        "description": "Needs a key with scope read, unless HORAE_METRICS_OPEN is true. On a port of its own "
        "(HORAE_METRICS_PORT) it needs none.",
        "responses": by_status,
    }


def _cluster() -> dict[str, Any]:
    preview = {"schedule": "0 30 2 * * *", "timezone": "Europe/Berlin", "count": 3, "after": "2027-03-27T00:00:00Z"}

    def get(name: str, text: str, answer: str, model: str, *, free: bool = True) -> Operation:
        operation: Operation = {"operationId": name, "summary": text, "responses": responses({200: (answer, model)})}
        return {"get": {**operation, "security": []} if free else operation}

    return {
        "/schedules/preview": {
            "post": {
                "operationId": "previewSchedule",
                "summary": "Preview when a schedule runs",
                "requestBody": request_body(
                    ["application/json"],
                    schema_ref("PreviewSpec"),
                    {"across a change to daylight saving time": preview},
                ),
                "responses": responses({200: ("The next occurrences, a description and warnings.", "Previewed")}),
            }
        },
        "/cluster": get(
            "getCluster",
            "Get the state of the cluster: leader, nodes, backlog, circuit breakers",
            "The state.",
            "ClusterView",
            free=False,
        ),
        "/metrics": {"get": _metrics()},
        "/healthz": get("isAlive", "Check whether this process responds", "It responds.", "Status"),
        "/readyz": get("isReady", "Check whether this node can serve requests", "It can.", "Status"),
    }

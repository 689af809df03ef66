"""The operations for the description: methods, parameters, examples. Every example is executed by a test."""

from __future__ import annotations

from typing import Any

from cluster.core.execution.view import STATES

Operation = dict[str, Any]
NEW_JOB = {"schedule": "31 10-15 1 * * MON-FRI", "api": "https://api.example.com/webhook", "type": "ATLEAST_ONCE"}
FULL_JOB = {
    "jobId": "nightly-invoices",
    "name": "Nightly invoices",
    "tags": ["billing"],
    "schedule": "0 30 2 * * *",
    "timezone": "Europe/Berlin",
    "api": "https://api.example.com/invoices",
    "headers": {"X-Tenant": "shop-01"},
    "body": {"kind": "invoice"},
    "timeoutSeconds": 10,
    "retry": {"maxAttempts": 8, "initialDelaySeconds": 2},
    "catchUp": "latest",
    "overlap": "skip",
}
PLAIN_JOB = {k: v for k, v in FULL_JOB.items() if k != "jobId"}
LINES = (
    '{"jobId":"a","schedule":"@hourly","api":"https://api.example.com/a"}\n'
    '{"jobId":"b","schedule":"@every 90s","api":"https://api.example.com/b"}\n'
)
JOB_STATES = ["active", "paused", "completed"]
CURSOR = {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,400}$"}
TIME = {"type": "string", "format": "date-time"}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _query(name: str, schema: dict[str, Any], text: str, example: Any = None) -> Operation:
    found = {"name": name, "in": "query", "schema": schema, "description": text}
    return found if example is None else {**found, "example": example}


def _states(known: list[str], example: str) -> Operation:
    schema = {"type": "array", "items": {"type": "string", "enum": known}, "minItems": 1}
    found = _query("state", schema, "Only in these states; several separated by commas.", [example])
    return {**found, "style": "form", "explode": False}


def _limit(default: int) -> Operation:
    return _query("limit", {"type": "integer", "minimum": 1, "maximum": 500, "default": default}, "How many at most.")


def _cursor() -> Operation:
    return _query("cursor", CURSOR, "`nextCursor` of the page before.")


def _header(name: str, schema: dict[str, Any], text: str) -> Operation:
    return {"name": name, "in": "header", "schema": schema, "description": text}


def _if_match() -> Operation:
    return _header(
        "If-Match",
        {"type": "string", "pattern": '^("[0-9]{1,15}"|\\*)$'},
        "Only if the job still has this ETag: else 412.",
    )


def _once() -> Operation:
    return _header(
        "Idempotency-Key",
        {"type": "string", "pattern": "^[!-~]([ -~]{0,253}[!-~])?$"},
        "The same request again within 24 h is answered as the first was and done once. Another payload: 422.",
    )


def _path(name: str, example: str) -> Operation:
    pattern = (
        "^(alert\\.)?[A-Za-z0-9_-]{1,64}(:[0-9]{13})(:missed)?$"
        if name == "executionId"
        else "^(?!import$)[A-Za-z0-9_-]{1,64}$"
    )
    return {
        "name": name,
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": pattern},
        "example": example,
    }


def _body(kinds: list[str], schema: dict[str, Any], examples: dict[str, Any]) -> Operation:
    shown = {name: {"value": value} for name, value in examples.items()}
    return {"required": True, "content": {kind: {"schema": schema, "examples": shown} for kind in kinds}}


def _answers(answers: dict[int, tuple[str, str | None]], headers: dict[int, list[str]] | None = None) -> Operation:
    found: Operation = {}
    for status, (text, model) in answers.items():
        found[str(status)] = {"description": text}
        if model is not None:
            schema = {"type": "array", "items": _ref("Execution")} if model == "[Execution]" else _ref(model)
            found[str(status)]["content"] = {"application/json": {"schema": schema}}
        if headers and status in headers:
            found[str(status)]["headers"] = {h: {"schema": {"type": "string"}} for h in headers[status]}
    too_long = {"description": "The address is too long.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    return {**found, "414": too_long, "default": {"$ref": "#/components/responses/Problem"}}


def operations() -> dict[str, Any]:
    """All of them, by path and method."""
    return {**_jobs(), **_job(), **_executions(), **_alerts(), **_channels(), **_queues(), **_rest()}


def _jobs() -> dict[str, Any]:
    return {
        "/jobs": {
            "post": {
                "operationId": "createJob",
                "summary": "Create a job",
                "parameters": [_once()],
                "requestBody": _body(
                    ["application/json"], _ref("NewJob"), {"smallest": NEW_JOB, "with an id and policies": FULL_JOB}
                ),
                "responses": _answers({201: ("It exists now.", "Created")}, {201: ["Location", "ETag"]}),
            },
            "get": {
                "operationId": "listJobs",
                "summary": "A page of jobs, the newest first",
                "parameters": [
                    _states(JOB_STATES, "active"),
                    _query(
                        "tag", {"type": "string", "minLength": 1, "maxLength": 64}, "Only with this tag.", "billing"
                    ),
                    _query(
                        "q", {"type": "string", "minLength": 1, "maxLength": 200}, "Only with this in the name.", "inv"
                    ),
                    _limit(50),
                    _cursor(),
                ],
                "responses": _answers({200: ("The page.", "JobPage")}),
            },
        },
        "/jobs/import": {
            "post": {
                "operationId": "importJobs",
                "summary": "Create or replace one job a line; good lines land, bad ones are told",
                "requestBody": _body(
                    ["application/x-ndjson"], {"description": "Lines of NewJob."}, {"two jobs": LINES}
                ),
                "responses": _answers({200: ("What became of the lines.", "Imported")}),
            }
        },
    }


def _job() -> dict[str, Any]:
    named = _path("jobId", "nightly-invoices")

    def post(name: str, text: str, answers: Operation, more: list[Operation]) -> Operation:
        return {"post": {"operationId": name, "summary": text, "parameters": [named, *more], "responses": answers}}

    full = _answers({200: ("The job as it is now.", "Job")}, {200: ["ETag"]})
    put = _answers({200: ("Replaced.", "Job"), 201: ("Created.", "Job")}, {200: ["ETag"], 201: ["ETag", "Location"]})
    fresh = _header("If-None-Match", {"type": "string", "enum": ["*"]}, "Only if there is no such job yet: else 412.")
    owed = _answers({202: ("It is owed.", "Triggered")}, {202: ["Location"]})
    return {
        "/jobs/{jobId}": {
            "get": {"operationId": "getJob", "summary": "A job in full", "parameters": [named], "responses": full},
            "put": {
                "operationId": "putJob",
                "summary": "Create or replace a job under this id",
                "parameters": [named, _if_match(), fresh],
                "requestBody": _body(["application/json"], _ref("JobSpec"), {"a job": PLAIN_JOB}),
                "responses": put,
            },
            "patch": {
                "operationId": "patchJob",
                "summary": "Change some fields",
                "parameters": [named, _if_match()],
                "requestBody": _body(
                    ["application/merge-patch+json"],
                    _ref("JobPatch"),
                    {"another time": {"schedule": "0 0 4 * * *"}, "fewer attempts": {"retry": {"maxAttempts": 3}}},
                ),
                "responses": full,
            },
            "delete": {
                "operationId": "deleteJob",
                "summary": "Delete a job; what is not yet sent is cancelled",
                "parameters": [named, _if_match()],
                "responses": _answers({204: ("It is gone.", None)}),
            },
        },
        "/jobs/{jobId}/pause": post("pauseJob", "Owe nothing from now on", full, [_if_match()]),
        "/jobs/{jobId}/resume": post("resumeJob", "Owe again from now on", full, [_if_match()]),
        "/jobs/{jobId}/trigger": post("triggerJob", "Run it once, now", owed, [_once()]),
        "/jobs/{jobId}/executions": {
            "get": {
                "operationId": "listExecutionsOfJob",
                "summary": "What became of its occurrences, the latest first",
                "parameters": [
                    named,
                    _limit(5),
                    _query("before", TIME, "Only due before this time, or before this execution's id."),
                    _states(sorted(STATES), "succeeded"),
                ],
                "responses": _answers({200: ("Executions.", "[Execution]")}, {200: ["Link"]}),
            }
        },
        "/jobs/{jobId}/explain": {
            "get": {
                "operationId": "explainJob",
                "summary": "Why it did or did not run then; without a time, its last run and its next",
                "parameters": [named, _query("at", TIME, "The second that is asked about.", "2026-12-01T10:00:00Z")],
                "responses": _answers({200: ("Sentences with times.", "Explanations")}),
            }
        },
    }


def _executions() -> dict[str, Any]:
    named = _path("executionId", "nightly-invoices:1795651200000")
    return {
        "/executions": {
            "get": {
                "operationId": "listExecutions",
                "summary": "Executions of all jobs: what is owed, then what is final, the latest first",
                "parameters": [
                    _states(sorted(STATES), "failed"),
                    _query("since", TIME, "Only ended (or, not ended yet, due) since then.", "2026-11-01T00:00:00Z"),
                    _query("until", TIME, "Only ended (or due) before then.", "2036-12-01T00:00:00Z"),
                    _limit(50),
                    _cursor(),
                ],
                "responses": _answers({200: ("The page.", "ExecutionPage")}),
            }
        },
        "/executions/retry": {
            "post": {
                "operationId": "retryExecutions",
                "summary": "Send many failed or dead ones again, behind what is due; or only count them",
                "requestBody": _body(
                    ["application/json"],
                    _ref("RetrySpecMany"),
                    {
                        "count first": {"filter": {"state": ["dead"], "error": "timeout"}, "dryRun": True},
                        "of one job": {"filter": {"jobId": "nightly-invoices"}, "maxPerSecond": 20},
                    },
                ),
                "responses": _answers(
                    {200: ("So many fit (`dryRun`).", "Counted"), 202: ("They will be sent.", "Retried")},
                    {202: ["Location"]},
                ),
            }
        },
        "/executions/retry/{retryId}": {
            "get": {
                "operationId": "getRetry",
                "summary": "How far sending many again is",
                "parameters": [
                    {
                        "name": "retryId",
                        "in": "path",
                        "required": True,
                        "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
                        "example": "4f9c3ef0a3e94f2bb0f8d9a8f2a1c7de",
                    }
                ],
                "responses": _answers({200: ("So far.", "Retried")}),
            }
        },
        "/executions/{executionId}": {
            "get": {
                "operationId": "getExecution",
                "summary": "One, with every attempt",
                "parameters": [named],
                "responses": _answers({200: ("The execution.", "ExecutionInFull")}),
            }
        },
        "/executions/{executionId}/retry": {
            "post": {
                "operationId": "retryExecution",
                "summary": "Send a failed or dead one again",
                "parameters": [named],
                "responses": _answers({202: ("It is owed again.", "Triggered")}, {202: ["Location"]}),
            }
        },
    }


def _metrics() -> Operation:
    text = {"schema": {"type": "string"}}
    answers = _answers({200: ("Series by name; config/alerts.yml and config/grafana use them.", None)})
    answers["200"]["content"] = {"text/plain": text, "application/openmetrics-text": text}
    return {
        "operationId": "getMetrics",
        "summary": "The numbers of every worker behind this port and of the cluster, for Prometheus",
        "description": "Needs a key with scope read unless HORAE_METRICS_OPEN is true.",
        "responses": answers,
    }


def _alerts() -> dict[str, Any]:
    rules = {"channels": [], "onDead": False}
    shown = _answers({200: ("The rules.", "DefaultAlerts")})
    return {
        "/alerts": {
            "get": {
                "operationId": "listIncidents",
                "summary": "What is wrong with which job, the latest first",
                "parameters": [
                    _states(["open", "closed"], "open"),
                    _query("jobId", {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}, "Only of this job."),
                    _limit(50),
                    _cursor(),
                ],
                "responses": _answers({200: ("The page.", "IncidentPage")}),
            }
        },
        "/alerts/default": {
            "get": {
                "operationId": "getDefaultAlerts",
                "summary": "The alert rules of all jobs without rules of their own",
                "responses": shown,
            },
            "put": {
                "operationId": "putDefaultAlerts",
                "summary": "Replace them; in force within a few seconds",
                "requestBody": _body(["application/json"], _ref("AlertSpec"), {"nobody is told": rules}),
                "responses": shown,
            },
            "delete": {
                "operationId": "deleteDefaultAlerts",
                "summary": "No rules but those of each job",
                "responses": _answers({204: ("They are gone.", None)}),
            },
        },
    }


def _channels() -> dict[str, Any]:
    named = {
        "name": "name",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"},
        "example": "ops",
    }
    shown = _answers({200: ("The channel.", "ChannelView")})
    put = _answers({200: ("Replaced.", "ChannelView"), 201: ("Made.", "ChannelView")}, {201: ["Location"]})
    webhook = {"type": "webhook", "url": "https://api.example.com/alerts"}
    return {
        "/channels": {
            "get": {
                "operationId": "listChannels",
                "summary": "Every channel that alerts may go to",
                "responses": _answers({200: ("The channels.", "ChannelList")}),
            }
        },
        "/channels/{name}": {
            "put": {
                "operationId": "putChannel",
                "summary": "Make or replace a channel",
                "parameters": [named],
                "requestBody": _body(["application/json"], _ref("ChannelSpec"), {"a webhook": webhook}),
                "responses": put,
            },
            "get": {"operationId": "getChannel", "summary": "One channel", "parameters": [named], "responses": shown},
            "delete": {
                "operationId": "deleteChannel",
                "summary": "Remove a channel that no rules name",
                "parameters": [named],
                "responses": _answers({204: ("It is gone.", None)}),
            },
        },
        "/channels/{name}/test": {
            "post": {
                "operationId": "testChannel",
                "summary": "Send the channel an alert that says it is a test",
                "parameters": [named],
                "responses": _answers({202: ("It is owed.", "Triggered")}),
            }
        },
    }


def _queues() -> dict[str, Any]:
    named = {
        "name": "name",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}$"},
        "example": "mail",
    }
    shown = _answers({200: ("The queue.", "QueueView")})
    put = _answers({200: ("Replaced.", "QueueView"), 201: ("Made.", "QueueView")}, {201: ["Location"]})
    return {
        "/queues": {
            "get": {
                "operationId": "listQueues",
                "summary": "Every queue: limits that jobs share",
                "responses": _answers({200: ("The queues.", "QueueList")}),
            }
        },
        "/queues/{name}": {
            "put": {
                "operationId": "putQueue",
                "summary": "Make a queue or replace its limits",
                "parameters": [named],
                "requestBody": _body(
                    ["application/json"], _ref("QueueSpec"), {"both": {"maxPerSecond": 20, "maxConcurrent": 5}}
                ),
                "responses": put,
            },
            "get": {"operationId": "getQueue", "summary": "One queue", "parameters": [named], "responses": shown},
            "delete": {
                "operationId": "deleteQueue",
                "summary": "End its limits; jobs that name it are free then",
                "parameters": [named],
                "responses": _answers({204: ("It is gone.", None)}),
            },
        },
    }


def _rest() -> dict[str, Any]:
    asked = {"schedule": "0 30 2 * * *", "timezone": "Europe/Berlin", "count": 3, "after": "2027-03-27T00:00:00Z"}

    def get(name: str, text: str, model: str, *, free: bool = True) -> Operation:
        found: Operation = {"operationId": name, "summary": text, "responses": _answers({200: ("Yes.", model)})}
        return {"get": {**found, "security": []} if free else found}

    return {
        "/schedules/preview": {
            "post": {
                "operationId": "previewSchedule",
                "summary": "When a schedule would run",
                "requestBody": _body(["application/json"], _ref("PreviewSpec"), {"across a change of clocks": asked}),
                "responses": _answers({200: ("Instants and words.", "Previewed")}),
            }
        },
        "/cluster": get("getCluster", "Who leads, who works, what waits", "ClusterView", free=False),
        "/metrics": {"get": _metrics()},
        "/healthz": get("isAlive", "Whether this process answers", "Status"),
        "/readyz": get("isReady", "Whether this node should get requests", "Status"),
    }

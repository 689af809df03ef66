"""What is said of a field that an object does not have: the one that is meant, among those that the object has."""

from __future__ import annotations

import difflib
import re

from cluster.core.documents.base import fields_of
from cluster.core.documents.job import JobSpec

READ_ONLY = frozenset(
    {"jobId", "stateReason", "revision", "createdAt", "updatedAt", "activeFrom", "nextRuns", "lastExecution"}
)
_NAMES_ELSEWHERE = {
    "the field of the target's URL is api": (
        "url",
        "uri",
        "endpoint",
        "target",
        "webhook",
        "webhookurl",
        *("endpointurl", "targeturl", "httptarget", "link", "address", "hook"),
    ),
    "the field of the target's URL is api; onSuccess and onFailure tell another URL how a run ended": (
        *("callback", "callbackurl", "failurecallback", "successcallback", "oncomplete", "onerror"),
    ),
    "the field of the cron expression is schedule": (
        "cron",
        "crontab",
        "cronexpression",
        "expression",
        "rrule",
        "when",
        "scheduleexpression",
    ),
    'the field is schedule, such as "@every 90s"': (
        "every",
        "interval",
        "intervalseconds",
        "rate",
        "frequency",
        "period",
    ),
    'the field is schedule, such as "@at 2031-01-01T00:00:00Z"': ("at", "runat", "once", "date", "time", "delay"),
    "the field of the request's body is body": ("payload", "data", "json", "content", "message", "requestbody"),
    'the field is state: "active" or "paused"': (
        "enabled",
        "disabled",
        "active",
        "paused",
        "suspend",
        "suspended",
        *("status", "isactive", "isenabled", "ispaused", "isdisabled"),
    ),
    "Horae sends requests and runs no commands; the field of the target's URL is api": (
        "command",
        "cmd",
        "script",
        "task",
    ),
    'the field is overlap, such as "skip"': (
        *("concurrencypolicy", "allowconcurrent", "concurrency", "singleton", "maxinstances", "disallowconcurrent"),
    ),
    "the field is tags": ("labels", "label", "group", "category"),
    'the field is auth, such as {"type": "bearer", "token": "..."}': (
        "token",
        "bearer",
        "username",
        "user",
        "password",
        *("apikey", "authorization", "authtoken", "bearertoken", "accesstoken", "credentials"),
    ),
    'the field is headers, such as {"Content-Type": "text/plain"}': ("contenttype", "header", "httpheaders"),
    'the field is headers, such as {"User-Agent": "me/1"}': ("useragent",),
    "the query is a part of the URL in api": ("query", "querystring", "queryparams", "queryparameters", "params"),
    "every request is a POST, so remove it": ("method", "httpmethod", "requestmethod", "verb"),
    "the field of the time zone is timezone": ("tz", "zone", "crontz", "scheduleexpressiontimezone"),
    "the field is timeoutSeconds": ("timeout", "timeoutms", "deadline", "attemptdeadline", "requesttimeout"),
    "the fields are catchUp and catchUpWindowSeconds": (
        *(
            "startingdeadlineseconds",
            "misfirepolicy",
            "misfiregracetime",
            "misfireinstruction",
            "coalesce",
            "catchupwindow",
        ),
    ),
    "the field is spreadSeconds": ("jitter", "jitterseconds", "flexibletimewindow", "splay", "randomizeddelaysec"),
    "the field is startAt": ("notbefore", "startdate", "starttime", "validfrom"),
    "the field is endAt": ("notafter", "enddate", "endtime", "expires", "expiresat", "expiry", "validuntil"),
    "the field is name": ("title", "displayname"),
    "the field is alerts": ("notify", "notifications", "onfailurenotify"),
    'the field is retry, such as {"maxAttempts": 5}': (
        "retries",
        "retrycount",
        "maxretries",
        "attempts",
        "maxattempts",
        "backoff",
        *("backofflimit", "retrypolicy", "retryconfig", "retrystrategy"),
    ),
    "the field is jobId": ("id", "key", "uuid", "jobname", "jobid"),
}
_HINTS = {name: hint for hint, names in _NAMES_ELSEWHERE.items() for name in names}
"""What fields of other schedulers are called here, by their name in lower case."""
_OF_JOBS = frozenset(fields_of(JobSpec.__name__))


def unknown_field(loc: list[str], model: str, *, suggest: bool) -> str:
    """The fault of an unknown field, by its path. `model`: the class of the document (`ValidationError.title`).

    `suggest`: whether to look for a similar name, which costs more than all the rest of a fault.
    """
    *path, name = loc
    known = fields_of(model, *(part for part in path if not part.isdecimal()))
    if not path and name in READ_ONLY:
        return "is set by Horae; remove it"
    if not path and name == "name" and "api" not in known:
        return "is unknown; remove it (the name of an object is in its path)"
    hint = _HINTS.get(_plain(name))
    if hint is not None and _applies(hint, known):
        return f"is unknown; {hint}"
    close = _close_names(name, known) if suggest else []
    return f"is unknown; did you mean {close[0]}?" if close else "is unknown; remove it"


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def _applies(hint: str, known: tuple[str, ...]) -> bool:
    """Whether the document has the fields that the hint names: hints are written for jobs."""
    named = [word for word in re.findall(r"\w+", hint) if word in _OF_JOBS]
    return all(word in known for word in named or ("api",))


def _close_names(name: str, known: tuple[str, ...]) -> list[str]:
    """The field that the name is like: the same one in another spelling, or else a misspelled one."""
    plain = _plain(name)
    return [f for f in known if f.lower() == plain] or difflib.get_close_matches(name, known, 1)

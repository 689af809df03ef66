"""`/session` in `/openapi.json`: an API key changed into a cookie, for browsers."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from api.openapi.operation_parts import request_body, responses
from api.openapi.schemas import View


class SessionView(View):
    """Who the caller is, and what it may do."""

    key_name: str | None = Field(description="The name of the API key; null: this node has no keys.")
    scope: Literal["read", "write", "admin"] = Field(description="What the caller may do.")
    dashboard: Literal["read", "full"] = Field(description="`read`: the page changes nothing (`HORAE_DASHBOARD`).")
    by_cookie: bool = Field(description="Whether the caller is known by the cookie of a session.")
    version: str = Field(description="The version of this node.")


def session_operations() -> dict[str, Any]:
    """The three operations."""
    key = {
        "type": "object",
        "additionalProperties": False,
        "required": ["key"],
        "properties": {"key": {"type": "string", "minLength": 1, "maxLength": 1000, "writeOnly": True}},
    }
    unknown = ("There is no such API key.", "Problem")
    return {
        "/session": {
            "get": {
                "operationId": "getSession",
                "summary": "Get who the caller is and what it may do",
                "responses": responses({200: ("The caller.", "SessionView")}),
            },
            "post": {
                "operationId": "beginSession",
                "summary": "Change an API key into a cookie, for a browser",
                "description": "The cookie `__Host-horae-{port}` lasts 12 hours at most, and no longer than the key. For a "
                "method that changes something it counts only with `Sec-Fetch-Site: same-origin` or an equal `Origin`.",
                "security": [],
                "requestBody": request_body(
                    ["application/json"], key, {"a key": {"key": "k-of-32-characters-0123456789"}}
                ),
                "responses": responses({204: ("The cookie is set.", None), 401: unknown}, {204: ["Set-Cookie"]}),
            },
            "delete": {
                "operationId": "endSession",
                "summary": "End the session of the cookie",
                "responses": responses({204: ("The session has ended.", None)}),
            },
        }
    }

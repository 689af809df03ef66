"""Falcon's router for the applications of many tests, which differ in their resources alone.

Falcon checks all methods of all resources and compiles all paths for each application: 20 ms, more than most tests of the API
take by themselves. Here the paths are compiled once in a process, and the methods of a resource are looked up (by Falcon's own
router) at the first request for it.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from falcon.routing import CompiledRouter


class _AnyResource:
    async def on_get(self, *_: Any, **__: Any) -> None: ...


@cache
def _compiled(templates: tuple[str, ...]) -> CompiledRouter:
    router = CompiledRouter()
    for template in templates:
        router.add_route(template, _AnyResource(), _asgi=True)
    return router


class SharedPaths(CompiledRouter):
    """In place of `falcon.routing.DefaultRouter`."""

    def __init__(self) -> None:
        super().__init__()
        self._given: dict[str, tuple[object, dict[str, Any]]] = {}
        self._single: dict[str, CompiledRouter] = {}

    def add_route(self, uri_template: str, resource: object, **kwargs: Any) -> None:
        self._given[uri_template] = resource, kwargs

    def find(self, uri: str, req: Any = None) -> Any:
        found = _compiled(tuple(self._given)).find(uri, req)
        if found is None:
            return None
        template = found[3]
        assert template is not None
        if template not in self._single:
            resource, kwargs = self._given[template]
            single = self._single[template] = CompiledRouter()
            single.add_route(template, resource, **kwargs)
        return self._single[template].find(uri, req)

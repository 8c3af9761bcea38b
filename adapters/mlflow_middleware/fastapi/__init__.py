"""For FastAPI and Starlette apps.

::

    from mlflow_middleware.fastapi import TraceMiddleware, feedback_router

    app.add_middleware(TraceMiddleware)  # options as keywords: session_id_header="X-Chat-ID"

    app.include_router(feedback_router())  # users' feedback: see mlflow_middleware.fastapi.feedback

Add it last: middleware added later runs further out, and what is outside sees neither the trace nor its identity.
The answer to an exception that no handler took is made outside of all added middleware; it carries our headers only
when the whole app is wrapped: ``app = TraceMiddleware(app)``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from starlette.routing import Host, Mount

from mlflow_middleware import asgi
from mlflow_middleware.fastapi.feedback import feedback_route, feedback_router
from mlflow_middleware.request_trace import annotate, carry, continue_trace, job_trace, outbound_headers
from mlflow_middleware.settings import Settings, SettingsError

__all__ = [
    "TraceMiddleware",
    "annotate",
    "carry",
    "continue_trace",
    "feedback_route",
    "feedback_router",
    "job_trace",
    "outbound_headers",
]


class TraceMiddleware(asgi.TraceMiddleware):
    """`mlflow_middleware.asgi.TraceMiddleware`, which knows the templates of FastAPI's and Starlette's routes.

    Starlette builds its middleware as late as the server starts the app's lifespan, and a server takes an exception
    there for an app without lifespan, and goes on. So a wrong option fails the start-up in the protocol's own words.
    """

    _problem: SettingsError | None = None

    def set_up(self, settings: Settings | None, options: Mapping[str, object]) -> None:
        """Keep what is wrong with the options for the lifespan."""
        try:
            super().set_up(settings, options)
        except SettingsError as error:
            self._problem = error

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection."""
        if self._problem is None:
            await super().__call__(scope, receive, send)
        elif scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.failed", "message": str(self._problem)})
        else:
            raise self._problem

    def route(self, scope: Mapping[str, Any]) -> str | None:
        """The template of the route taken, e.g. ``/chats/{chat_id}``; that of the mount where only that is known."""
        route = _selected(scope)
        template = getattr(route, "path_format", None) or getattr(route, "path", None)
        if isinstance(template, str) and not isinstance(route, Mount):
            return f"{_mounted_at(scope)}{template}"
        return _mounted_at(scope) or "/" if "app_root_path" in scope else None


def _selected(scope: Mapping[str, Any]) -> Any:
    """The route that the router took, with the prefixes of the routers that it was included by."""
    included = scope.get("fastapi")
    context = included.get("effective_route_context") if isinstance(included, dict) else None
    if context is not None:
        route = getattr(context, "starlette_route", None) or context
        if not isinstance(route, Mount):
            return route
    if "route" in scope:
        return scope["route"]
    return _of_endpoint(scope)


def _of_endpoint(scope: Mapping[str, Any]) -> Any:
    """The route by its endpoint, which is all that older Starlette tells; of several with the same, by its path too."""
    endpoint = scope.get("endpoint")
    routes = [
        each
        for each in _flat(getattr(scope.get("router"), "routes", ()))
        if endpoint and getattr(each, "endpoint", None) is endpoint
    ]
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    return next((each for each in routes if each.path_regex.match(path)), routes[0] if routes else None)


def _flat(routes: Iterable[Any]) -> Iterator[Any]:
    for route in routes:
        yield route
        yield from _flat(getattr(route, "routes", None) or ())


def _mounted_at(scope: Mapping[str, Any]) -> str:
    """The template of the mounts on the way; the server's own prefix is no part of it."""
    root_path = scope.get("root_path", "")
    path = root_path[len(scope.get("app_root_path", root_path)) :]
    template = _mounts(getattr(scope.get("router"), "routes", ()), path)
    if template is not None:
        return template
    names = {str(value): f"{{{name}}}" for name, value in scope.get("path_params", {}).items()}
    return "/".join(names.get(segment, segment) for segment in path.split("/"))


def _mounts(routes: Iterable[Any], path: str) -> str | None:
    """The joined templates of the mounts that lead to a path; None where they are hidden from us."""
    if not path:
        return ""
    for route in routes:
        prefix, rest = "", path
        if isinstance(route, Mount) and (match := route.path_regex.match(f"{path}/")):
            prefix, rest = route.path_format.removesuffix("/{path}"), f"/{match['path']}".rstrip("/")
        elif not isinstance(route, Host):
            continue
        inner = _mounts(route.routes or (), rest)
        if inner is not None:
            return prefix + inner
    return None

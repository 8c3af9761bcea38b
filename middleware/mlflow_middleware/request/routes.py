"""The matched route, if the framework leaves it in the ASGI scope or the WSGI environ.

No framework is imported: keys and attributes are looked up by the names that Starlette (and frameworks built on it),
Litestar, Lilya, Werkzeug and Bottle use.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mlflow_middleware.identity import clean_text

if TYPE_CHECKING:
    from mlflow_middleware.request.lifecycle import RequestTrace

MAX_ROUTE = 250
"""Maximum number of characters of a route that the app sets."""


def learn(trace: RequestTrace, route: str | None) -> None:
    """Record the framework's route, unless the app has set one."""
    if route and not trace.record.is_route_explicit:
        trace.exchange.route = route


def set_explicitly(trace: RequestTrace, route: object) -> None:
    """Record the route that the app sets, sanitized and bounded."""
    if not isinstance(route, str):
        raise TypeError(f"route must be text, not {type(route).__name__}")
    if route.strip():
        trace.exchange.route = clean_text(f"/{route.strip().removeprefix('/')}", MAX_ROUTE)
        trace.record.is_route_explicit = trace.record.is_changed = True


def below(trace: RequestTrace, script_name: str) -> str:
    """Return the path that an app is mounted at, without the prefix of the server.

    Args:
        trace: The request's trace, which an enclosing app may have opened.
        script_name: The app's ``SCRIPT_NAME`` or ``root_path``.
    """
    around = trace.exchange.request
    if isinstance(around, dict) and "type" in around:  # an ASGI scope
        script_name = script_name.removeprefix(_served_at(around))
    return script_name.rstrip("/")


def none_took(request: Any) -> bool:
    """Return whether the framework's router found no route; false if unknown.

    Args:
        request: The ASGI scope, the WSGI environ or Django's request.
    """
    if not isinstance(request, Mapping):
        return getattr(request, "resolver_match", request) is None
    if "type" in request:
        return "router" in request and "path_template" not in request and _only_routers_took(request)
    error = getattr(request.get("werkzeug.request"), "routing_exception", None)
    return getattr(error, "code", None) == 404


def _only_routers_took(scope: Mapping[str, Any]) -> bool:
    """Return whether a request reached only routers, the outermost or a mounted one, but no route."""
    endpoint, route = scope.get("endpoint"), scope.get("route")
    is_router = hasattr(endpoint, "routes") if endpoint else bool(getattr(route, "routes", ()))  # Lilya has no endpoint
    return (endpoint is None and route is None) or (is_router and _inside(scope, _selected(scope)) is None)


# --- WSGI ---


def of_environ(environ: Mapping[str, Any], trace: RequestTrace) -> str | None:
    """Return the rule that matched a request of Werkzeug or Bottle, with the app's mount path before it."""
    asked, route = environ.get("werkzeug.request"), environ.get("bottle.route")
    if asked is None and route is None:
        return None
    rule = getattr(getattr(asked, "url_rule", None) or route, "rule", None)
    if not isinstance(rule, str):
        return None
    mounted_at: str = environ.get("SCRIPT_NAME", "").encode("latin-1", "replace").decode("utf-8", "replace")
    return below(trace, mounted_at) + rule


# --- ASGI ---


def of_scope(scope: Mapping[str, Any]) -> str | None:
    """Return the template of the matched route, e.g. ``/chats/{chat_id}``, or of its mount if no more is known."""
    if "router" not in scope and "path_template" not in scope:
        return None
    route = _selected(scope)
    if route is not None and not _is_mount(route):
        template = getattr(route, "path_format", None) or getattr(route, "path", None)
        return f"{_mounted_at(scope)}{template}" if isinstance(template, str) else None
    if isinstance(template := scope.get("path_template"), str):  # Litestar
        return f"{_mounted_at(scope)}{template}"
    if route is None and "app_root_path" not in scope:
        return None
    return _inside(scope, route) or _mounted_at(scope) or None


def below_mounts(scope: Mapping[str, Any], inner: str) -> str:
    """Return an inner app's route with the path of the mounts around it replaced by their templates."""
    path = _mounted_path(scope)
    return f"{_mounted_at(scope)}{inner[len(path) :]}" if path and inner.startswith(f"{path}/") else inner


def _selected(scope: Mapping[str, Any]) -> Any:
    """Return the route that the router matched, including the prefixes of included routers."""
    included = scope.get("fastapi")
    context = included.get("effective_route_context") if isinstance(included, dict) else None
    if context is not None:
        route = getattr(context, "starlette_route", None) or context
        if not _is_mount(route):
            return route
    if "route" in scope:
        return scope["route"]
    return _of_endpoint(scope) if "endpoint" in scope else None


def _of_endpoint(scope: Mapping[str, Any]) -> Any:
    """Find the route by its endpoint, as older Starlette leaves no more; if several share it, also by the path."""
    endpoint = scope["endpoint"]
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


def _is_mount(route: object) -> bool:
    """Return whether a route leads to another app: Starlette's ``Mount``, Lilya's ``Include``."""
    return hasattr(route, "routes") and str(getattr(route, "path_format", "")).endswith(_REST)


_REST = "/{path}"
"""The end of a mount's template."""


def _served_at(scope: Mapping[str, Any]) -> str:
    """Return the prefix of the server, which is not part of any route."""
    prefix: str = scope.get("app_root_path", scope.get("root_path", ""))
    return prefix


def _mounted_path(scope: Mapping[str, Any]) -> str:
    """Return the joined path of the mounts around the route."""
    path: str = scope.get("root_path", "")[len(_served_at(scope)) :]
    return path


def _mounted_at(scope: Mapping[str, Any]) -> str:
    """Return the joined template of the mounts around the route."""
    path = _mounted_path(scope)
    template = _mounts(getattr(scope.get("router"), "routes", ()), path)
    if template is not None:
        return template
    names = {str(value): f"{{{name}}}" for name, value in scope.get("path_params", {}).items()}
    return "/".join(names.get(segment, segment) for segment in path.split("/"))


def _mounts(routes: Iterable[Any], path: str) -> str | None:
    """Return the joined templates of the mounts that lead to a path; None if they cannot be found."""
    if not path:
        return ""
    for route in routes:
        if way := _way(route, f"{path}/"):
            prefix, rest = way
            inner = _mounts(route.routes or (), rest.rstrip("/"))
            if inner is not None:
                return prefix + inner
    return None


def _way(route: Any, path: str) -> tuple[str, str] | None:
    """Return the template of a mount that matches a path, and the rest of the path; a host matches all paths."""
    if hasattr(route, "host_regex"):
        return "", path
    match = route.path_regex.match(path) if _is_mount(route) else None
    return (route.path_format.removesuffix(_REST), f"/{match['path']}") if match else None


def _inside(scope: Mapping[str, Any], mount: Any) -> str | None:
    """Find the route below a mount whose app records it only in its own copy of the scope."""
    path, method = scope["path"].removeprefix(_served_at(scope)), scope.get("method", "")
    stack = getattr(scope.get("app"), "middleware_stack", None)
    if isinstance(stack, list):  # Connexion
        routers = [each.router for each in stack if hasattr(each, "router")]
        return next(filter(None, (_match(each.routes, path, method) for each in routers)), None)
    if "app_root_path" not in scope:  # Lilya
        return _match([mount], path, method)
    route = _match(getattr(mount, "routes", None) or (), path.removeprefix(_mounted_path(scope)), method)
    return route and _mounted_at(scope) + route


def _match(routes: Iterable[Any], path: str, method: str) -> str | None:
    """Return the template of the first route that matches a request."""
    for route in routes:
        methods = getattr(route, "methods", ())
        if way := _way(route, path):
            prefix, rest = way
            if inner := _match(route.routes or (), rest, method):
                return prefix + inner
        elif (methods is None or method in methods) and hasattr(route, "path_regex") and route.path_regex.match(path):
            return str(route.path_format)
    return None

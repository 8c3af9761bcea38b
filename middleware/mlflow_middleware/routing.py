"""Path parameters of a request, from its framework or from its route's template."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

_PARAMETER = re.compile(r"\{(\w+)(?::(\w+))?\}|<(?:(\w+)(?:\([^>]*\))?:)?(\w+)>")
"""``{name}``, ``{name:path}``, ``<name>``, ``<converter:name>``."""

MAX_TEMPLATE = 1024
"""Longest template that is compiled, in characters."""

MAX_PATH = 2048
"""Longest path that is matched with a template, in characters; for longer ones only the framework knows them."""

MAX_PATHS = 2
"""Maximum number of parameters that may contain slashes: each multiplies the matching time by the path's length."""


def path_params(request: Any, route: str | None, path: str) -> Mapping[str, Any]:
    """Return the parameters of a request's path; empty if unknown.

    Args:
        request: The ASGI scope, the WSGI environ or Django's request.
        route: The route's template, if known.
        path: The path as the client sent it.
    """
    if isinstance(request, Mapping):
        known = request.get("path_params") or _of_environ(request)
    else:
        known = getattr(getattr(request, "resolver_match", None), "kwargs", None)
    if isinstance(known, Mapping) and known:
        return known
    pattern = compiled(route) if route and len(route) <= MAX_TEMPLATE and len(path) <= MAX_PATH else None
    match = pattern.fullmatch(path) if pattern else None
    return match.groupdict() if match else {}


def _of_environ(environ: Mapping[str, Any]) -> Any:
    """Return the parameters that Werkzeug, Bottle or Pyramid left in the environ, or ``wsgiorg.routing_args``.

    See https://wsgi.readthedocs.io/en/latest/specifications/routing_args.html.
    """
    if (request := environ.get("werkzeug.request")) is not None:
        return getattr(request, "view_args", None)
    known = environ.get("route.url_args") or environ.get("bfg.routes.matchdict")
    return known or environ.get("wsgiorg.routing_args", ((), {}))[1]


@functools.lru_cache(maxsize=256)
def compiled(route: str) -> re.Pattern[str] | None:
    """Return the pattern of the paths that a route's template matches; None if it is not a usable template."""
    pattern, end, paths = "", 0, 0
    for match in _PARAMETER.finditer(route):
        name, kind = match[1] or match[4], match[2] or match[3]
        between = route[end : match.start()]
        paths += kind == "path"
        pattern += re.escape(between) + f"(?P<{name}>{'.+' if kind == 'path' else _part(between, is_first=end == 0)})"
        end = match.end()
    if paths > MAX_PATHS:
        return None
    try:
        return re.compile(pattern + re.escape(route[end:]))
    except re.error:  # a duplicate name, or an invalid one
        return None


def is_template(text: str) -> bool:
    """Return whether a path has parameters."""
    return _PARAMETER.search(text) is not None


def _part(before: str, *, is_first: bool) -> str:
    """Return the pattern of a parameter that follows some text.

    A later parameter in a segment cannot contain the first character of the text before it, as if the first were
    greedy. So a segment can be divided in only one way; backtracking over all of them could take minutes.
    """
    if is_first or "/" in before:
        return "[^/]+"
    return f"[^/{re.escape(before[0])}]+" if before else "[^/]"

"""Which requests are not traced: the options ``exclude`` and ``include``."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

DEFAULT = (
    "preflight",
    "head",
    "docs",
    "unrouted",
    "/health",
    "/healthz",
    "/livez",
    "/readyz",
    "/metrics",
    "/favicon.ico",
)
"""The entries that ``default`` stands for."""

EXCLUDED = "excluded"
"""The reason if a path glob excludes a request; for a named kind, the reason is its name."""

_OF_METHOD = re.compile(r"((?i:JOB)|[A-Za-z-]+(?= +[/*?\[])) +(\S.*)", re.DOTALL)  # a job has a name instead of a path
_PATH = re.compile(r"[/*?\[]")

_SCHEMAS = (
    "/swagger.yaml",
    "*/openapi.json",
    "*/openapi.yaml",
    "*/swagger.json",
    "/apispec*.json",
    "*/docs/oauth2-redirect",
    "*/swagger-ui/*",
    "/swaggerui/*",
    "/flasgger_static/*",
    "/static/drf-yasg/*",
)
"""Paths used only by API documentation, in FastAPI and the extensions of Flask and Django."""

_PAGES = (
    "*/docs",
    "*/redoc",
    "*/rapidoc",
    "*/swagger",
    "*/swagger-ui",
    "*/apidocs",
    "/openapi",
    "/openapi/*",
    "/schema",
)
"""Paths of its pages, with or without a trailing slash. They are excluded only if the response is HTML, since an app
may serve its own documents there."""

NO_HEADERS: Mapping[str, str] = MappingProxyType({})


_NOTHING = re.compile("(?!)")


def compiled_globs(globs: Iterable[str]) -> re.Pattern[str] | None:
    """Compile path globs into one pattern; None if there are none."""
    patterns = "|".join(map(fnmatch.translate, globs))
    return re.compile(patterns) if patterns else None


_is_schema = re.compile("|".join(map(fnmatch.translate, _SCHEMAS))).fullmatch
_is_page = re.compile("|".join(fnmatch.translate(glob + end) for glob in _PAGES for end in ("", "/"))).fullmatch


def split_method(entry: str) -> tuple[str, str]:
    """Split an entry such as ``POST /search*`` into its upper-case method and the rest; no method means all."""
    match = _OF_METHOD.fullmatch(entry)
    return (match[1].upper(), match[2]) if match else ("", entry)


def is_path(entry: str) -> bool:
    """Return whether an entry is a path or a glob, optionally with a method."""
    return bool(_PATH.match(entry) or _OF_METHOD.fullmatch(entry))


def _is_preflight(headers: Mapping[str, str]) -> bool:
    """Return whether a request is a CORS preflight (https://fetch.spec.whatwg.org/#cors-preflight-request)."""
    return "origin" in headers and "access-control-request-method" in headers


_BY_HEADERS: dict[str, tuple[str, Callable[[Mapping[str, str]], bool]]] = {
    "preflight": ("OPTIONS", _is_preflight),
    "head": ("HEAD", lambda headers: True),
}
"""Named kinds of requests that are recognized on arrival: method, and test of the headers."""

NAMES = (*_BY_HEADERS, "docs", "unrouted")
"""All named kinds of requests."""


def check(entries: tuple[str, ...]) -> tuple[str, ...]:
    """Return the entries, each a path glob, a method and a path glob, or a name.

    Raises:
        ValueError: An entry is none of these.
    """
    for entry in entries:
        if entry != "default" and entry not in NAMES and not is_path(entry):
            names = " or ".join(map(repr, ("default", *NAMES)))
            raise ValueError(
                f"{entry!r} must be a path such as /health or /docs*, one with a method such as OPTIONS *, or {names}"
            )
    return entries


class _Globs:
    """Path globs, for all methods or one."""

    def __init__(self, entries: Iterable[str]) -> None:
        by_method: dict[str, list[str]] = {}
        for method, glob in map(split_method, entries):
            by_method.setdefault(method, []).append(glob)
        self.of_all = compiled_globs(by_method.pop("", ()))
        self.of_method = {method: compiled_globs(globs) for method, globs in by_method.items()}

    def match(self, path: str, method: str) -> bool:
        patterns = (self.of_all, self.of_method.get(method))
        return any(pattern is not None and pattern.fullmatch(path) for pattern in patterns)


class Exclusions:
    """The rules that decide which requests are not traced, and why.

    Args:
        exclude: The entries of the option ``exclude``.
        include: The entries of the option ``include``, which override it.
    """

    def __init__(self, exclude: Iterable[str], include: Iterable[str]) -> None:
        excluded, included = _all(exclude), _all(include)
        self._names = {name for name in NAMES if name in excluded and name not in included}
        self._named = {_BY_HEADERS[name][0]: name for name in _BY_HEADERS if name in self._names}
        self._own = _Globs(filter(is_path, excluded))
        self._kept = _Globs(filter(is_path, included))
        self._match_any = (self._own.of_all or _NOTHING).fullmatch
        self._of_docs = ("GET", "HEAD") if "docs" in self._names else ()
        self._methods = {*self._own.of_method, *self._named}
        self.has_unrouted, self.has_docs = "unrouted" in self._names, "docs" in self._names

    def reason(self, path: str, method: str, headers: Mapping[str, str]) -> str:
        """Return why a request is not traced, as far as known on arrival; empty if it is traced."""
        if self._match_any(path) or method in self._methods or (method in self._of_docs and _is_schema(path)):
            return self._reason(path, method, headers)
        return ""

    def _reason(self, path: str, method: str, headers: Mapping[str, str]) -> str:
        if self._kept.match(path, method):
            return ""
        if self._own.match(path, method):
            return EXCLUDED
        if method in self._of_docs and _is_schema(path):
            return "docs"
        name = self._named.get(method, "")
        return name if name and _BY_HEADERS[name][1](headers) else ""

    def is_unrouted(self, path: str, method: str) -> bool:
        """Return whether to exclude a request if no route matched it."""
        return self.has_unrouted and not self._kept.match(path, method)

    def is_page(self, path: str, method: str) -> bool:
        """Return whether to exclude a request if its response is HTML, as a page of the API's documentation."""
        return self.has_docs and method == "GET" and bool(_is_page(path)) and not self._kept.match(path, method)


def _all(entries: Iterable[str]) -> list[str]:
    return [part for entry in entries for part in (DEFAULT if entry == "default" else (entry,))]

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
"""What ``default`` stands for."""

EXCLUDED = "excluded"
"""Why a request is not traced that an entry without a name excludes; otherwise that is the name."""

_OF_METHOD = re.compile(r"((?i:JOB)|[A-Za-z-]+(?= +[/*?\[])) +(\S.*)", re.DOTALL)  # a job has a name, no path
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
"""Paths that nothing but the documentation of an API has, in FastAPI and the extensions of Flask and Django."""

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
"""Paths that its pages have, with or without a slash at their end; where the answer is HTML: an app's own documents may
be there, too."""

NO_HEADERS: Mapping[str, str] = MappingProxyType({})


_NOTHING = re.compile("(?!)")


def compiled_globs(globs: Iterable[str]) -> re.Pattern[str] | None:
    """Compile path globs into one pattern; None if there are none."""
    patterns = "|".join(map(fnmatch.translate, globs))
    return re.compile(patterns) if patterns else None


_is_schema = re.compile("|".join(map(fnmatch.translate, _SCHEMAS))).fullmatch
_is_page = re.compile("|".join(fnmatch.translate(glob + end) for glob in _PAGES for end in ("", "/"))).fullmatch


def split_method(entry: str) -> tuple[str, str]:
    """Split ``POST /search*``: its method, in capitals, and the rest; no method stands for all of them."""
    match = _OF_METHOD.fullmatch(entry)
    return (match[1].upper(), match[2]) if match else ("", entry)


def is_path(entry: str) -> bool:
    """Whether an entry is a path or a glob, maybe with a method."""
    return bool(_PATH.match(entry) or _OF_METHOD.fullmatch(entry))


def _is_preflight(headers: Mapping[str, str]) -> bool:
    """https://fetch.spec.whatwg.org/#cors-preflight-request"""
    return "origin" in headers and "access-control-request-method" in headers


_BY_HEADERS: dict[str, tuple[str, Callable[[Mapping[str, str]], bool]]] = {
    "preflight": ("OPTIONS", _is_preflight),
    "head": ("HEAD", lambda headers: True),
}
"""Names for requests that are known when they arrive: their method, and what else decides."""

NAMES = (*_BY_HEADERS, "docs", "unrouted")
"""Kinds of requests that have a name."""


def check(entries: tuple[str, ...]) -> tuple[str, ...]:
    """Return the entries, each a path glob, a method and a path glob, or a name.

    Raises:
        ValueError: One is none of these, and would exclude nothing.
    """
    for entry in entries:
        if entry != "default" and entry not in NAMES and not is_path(entry):
            names = " or ".join(map(repr, ("default", *NAMES)))
            raise ValueError(
                f"{entry!r} is neither a path as /health or /docs*, nor one with a method as OPTIONS *, nor {names}"
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
    """What is not traced, and why.

    Args:
        exclude: What is left out.
        include: What is traced all the same.
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
        """Why a request is not traced, as far as that is known when it arrives; empty if it is."""
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
        """Whether a request is not traced if no route took it."""
        return self.has_unrouted and not self._kept.match(path, method)

    def is_page(self, path: str, method: str) -> bool:
        """Whether a request is not traced if its answer is HTML: a page of the API's documentation."""
        return self.has_docs and method == "GET" and bool(_is_page(path)) and not self._kept.match(path, method)


def _all(entries: Iterable[str]) -> list[str]:
    return [part for entry in entries for part in (DEFAULT if entry == "default" else (entry,))]

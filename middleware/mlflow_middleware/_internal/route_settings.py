"""The settings of single requests: those of the app, with the options that ``routes`` sets for a route or path."""

from __future__ import annotations

import fnmatch
import functools
import re
from typing import TYPE_CHECKING, NamedTuple

from pydantic import BaseModel

from mlflow_middleware import routing
from mlflow_middleware._internal.exclusion import split_method

if TYPE_CHECKING:
    from mlflow_middleware.settings import Settings

MAX_KNOWN = 256
"""Longest path and route, in characters together, whose settings are cached."""


class _Rule(NamedTuple):
    """One entry of ``routes``.

    Attributes:
        method: The method that it applies to; empty for all.
        text: The route's template or the path glob; a template may end in ``*``.
        pattern: The pattern of the paths that it applies to.
        is_template: Whether it is a plain template, which is compared with the route once that is known.
        options: The options that it sets.
    """

    method: str
    text: str
    pattern: re.Pattern[str] | None
    is_template: bool
    options: BaseModel

    @classmethod
    def of(cls, entry: str, options: BaseModel) -> _Rule:
        method, text = split_method(entry)
        if not routing.is_template(text):
            return cls(method, text, re.compile(fnmatch.translate(text)), False, options)
        pattern = routing.compiled(text.removesuffix("*"))
        if pattern and text.endswith("*"):  # paths below a template, which is not a single route
            return cls(method, text, re.compile(f"{pattern.pattern}(?s:.*)"), False, options)
        return cls(method, text, pattern, True, options)

    def applies(self, method: str, path: str, route: str | None) -> bool:
        if self.method and self.method != method:
            return False
        if route is not None and (self.is_template or self.text == route):
            return self.text == route
        if len(path) > routing.MAX_PATH and routing.is_template(self.text):
            return False
        return self.pattern is not None and self.pattern.fullmatch(path) is not None


def experiments_of(settings: Settings) -> list[str]:
    """Return the experiments that the option ``experiment`` specifies, for the app and for its routes."""
    found = [settings.experiment, *(getattr(options, "experiment", None) for options in settings.routes.values())]
    return list(dict.fromkeys(str(each) for each in found if each))


class RouteSettings:
    """Lookup of the settings of each request.

    Args:
        settings: The settings of the app.

    Attributes:
        settings: The settings of the app.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._rules = [_Rule.of(entry, options) for entry, options in settings.routes.items()]
        self._combined: dict[tuple[int, ...], Settings] = {(): settings}
        self._known = functools.lru_cache(maxsize=1024)(self._found)

    def of(self, method: str, path: str, route: str | None = None) -> Settings:
        """Return the settings of a request.

        Args:
            method: The request's method.
            path: The request's path.
            route: The template of the matched route, if known yet; until then the path decides.
        """
        is_short = len(path) + len(route or "") <= MAX_KNOWN
        return (self._known if is_short else self._found)(method, path, route)

    def _found(self, method: str, path: str, route: str | None) -> Settings:
        which = tuple(place for place, rule in enumerate(self._rules) if rule.applies(method, path, route))
        if which not in self._combined:
            combined = self.settings.with_options(self._rules[place].options for place in which)
            combined.__dict__["of_routes"] = self
            self._combined[which] = combined
        return self._combined[which]

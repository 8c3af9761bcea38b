"""The settings of single requests: those of the app, with what ``routes`` says of their route or path."""

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
"""Characters of a path and a route that are remembered."""


class _Rule(NamedTuple):
    """One entry of ``routes``.

    Attributes:
        method: What it is for; empty for all.
        text: The route's template or the path glob; a template may end as one.
        pattern: The paths that it is for.
        is_template: Whether it is a template alone, which a known route decides.
        options: What it sets.
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
        if pattern and text.endswith("*"):  # what is below a template: no route's own
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


class RouteSettings:
    """Knows the settings of each request.

    Args:
        settings: Those of the app.

    Attributes:
        settings: Those of the app.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._rules = [_Rule.of(entry, options) for entry, options in settings.routes.items()]
        self._combined: dict[tuple[int, ...], Settings] = {(): settings}
        self._known = functools.lru_cache(maxsize=1024)(self._found)

    def of(self, method: str, path: str, route: str | None = None) -> Settings:
        """Return the settings of a request.

        Args:
            method: Its method.
            path: Its path.
            route: The template of the route that took it, once that is known; until then the path decides.
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

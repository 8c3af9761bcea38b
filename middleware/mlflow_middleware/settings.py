"""All options of the middleware, with types, defaults and meanings.

An option is taken from the first of these sources that sets it: keywords, the framework's own settings, the environment
(``MLFLOW_MIDDLEWARE_<OPTION>``), the default. In the environment a list is written ``a,b`` and a mapping
``key=value,key=value``; both may also be JSON. An unknown option or an ill-typed value raises
``SettingsError``, which names the option, the value given and the values allowed.
"""

from __future__ import annotations

import functools
import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from pydantic import BaseModel, SecretStr, ValidationError, model_validator

from mlflow_middleware._internal.exclusion import NO_HEADERS, Exclusions
from mlflow_middleware._internal.keeping import Keeping, KeepingOfPaths
from mlflow_middleware._internal.networks import Networks
from mlflow_middleware._internal.option_fields import Options
from mlflow_middleware._internal.option_problems import ENV_PREFIX, ill_typed, shortened, unknown_options
from mlflow_middleware._internal.platforms import deployment_tags
from mlflow_middleware._internal.route_settings import RouteSettings
from mlflow_middleware.capture import Redactor
from mlflow_middleware.identity import clean_text
from mlflow_middleware.identity_sources import Sources, sources_of, sources_of_jobs

__all__ = ["ENV_PREFIX", "MAX_TAG_VALUE", "Settings", "SettingsError"]

MAX_TAG_VALUE = 4096
"""Longest value of a trace tag that an MLflow server stores, in characters."""


class SettingsError(ValueError):
    """Unknown options, or values that an option does not accept.

    Attributes:
        problems: One sentence for each wrong option.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("mlflow-middleware is misconfigured: " + "; ".join(problems))
        self.problems = problems


class EveryTrace(NamedTuple):
    """Attributes that are identical in every trace of an app.

    Attributes:
        span_type: The type of the root span.
        tags: Names and values of the fixed tags and of those of the deployment.
    """

    span_type: str
    tags: tuple[tuple[str, str], ...]


_STRICT: dict[str, object] = {
    "capture_request_body": False,
    "capture_response_body": False,
    "capture_headers": (),
    "client_address": "none",
    "capture_user_agent": False,
}
"""The options that `privacy="strict"` sets."""

_BEFORE = "_before_it_was_strict"
"""The key of the original values of these options, since a route may be less strict."""


@functools.cache
def _process_key() -> str:
    """Return a key for pseudonyms if none is set; it is stable within a process and the workers that it forks."""
    return secrets.token_hex(32)


def _be_strict(settings: Settings) -> None:
    settings.__dict__[_BEFORE] = {name: getattr(settings, name) for name in _STRICT}
    settings.__dict__.update(_STRICT)
    if settings.user_id_hmac_key is None:
        settings.__dict__["user_id_hmac_key"] = SecretStr(_process_key())


class Settings(Options):
    """All options, built from their sources, and values derived from them."""

    @model_validator(mode="after")
    def _echo_the_request_id_where_it_is_read(self) -> Settings:
        if "response_headers" not in self.model_fields_set:
            self.response_headers["request_id"] = self.request_id_header
        return self

    @model_validator(mode="after")
    def _is_strict(self) -> Settings:
        if self.privacy == "strict":
            _be_strict(self)
        return self

    @classmethod
    def load(cls, framework: Mapping[str, object] | None = None, /, **keywords: object) -> Settings:
        """Build the settings from all their sources.

        Args:
            framework: The framework's own settings; option names are case-insensitive.
            keywords: Options given in code; they override all other sources.

        Raises:
            SettingsError: Options are unknown or ill-typed; it names all of them.
        """
        if not isinstance(framework or {}, Mapping):
            raise SettingsError([f"the framework's settings must be a dict of options, not {shortened(framework)}"])
        given = {str(key).lower(): value for key, value in (framework or {}).items()} | keywords
        problems = list(unknown_options(given, cls.model_fields))
        known = {name: value for name, value in given.items() if name in cls.model_fields}
        try:
            settings = cls(**known)  # type: ignore[arg-type]
        except ValidationError as error:
            problems += [ill_typed(dict(detail), known) for detail in error.errors(include_url=False)]
            raise SettingsError(problems) from None
        except ValueError as error:
            raise SettingsError([*problems, str(error)]) from None
        if problems:
            raise SettingsError(problems)
        return settings

    def laid_over(self, below: Settings, names: Iterable[str]) -> Settings:
        """Return settings with these options of this object, and all others from ``below``."""
        own = set(names)  # not a copy of either, which would keep cached properties of the wrong options
        values = {name: getattr(self if name in own else below, name) for name in type(self).model_fields}
        return type(self).model_construct(below.model_fields_set | own, **values)

    @functools.cached_property
    def trace_tags(self) -> dict[str, str]:
        """The fixed tags and those of the deployment, from the current environment variables."""
        found = deployment_tags(self.detect_deployment)
        tags = {tag: os.environ.get(name) or found.get(tag) for tag, name in self.deployment_tags.items()} | self.tags
        return {tag: text for tag, value in tags.items() if (text := clean_text(value, MAX_TAG_VALUE))}

    @functools.cached_property
    def of_every_trace(self) -> EveryTrace:
        """The attributes that the options give to every trace."""
        return EveryTrace(self.span_type, tuple(self.trace_tags.items()))

    @functools.cached_property
    def trusted_networks(self) -> Networks | None:
        """The networks of `trusted_proxies`; None if no proxy is trusted."""
        return Networks(self.trusted_proxies) if self.trusted_proxies else None

    @functools.cached_property
    def identity_headers(self) -> tuple[str, str, str]:
        """The lower-case names of the headers with the request, session and user id."""
        return self.request_id_header.lower(), self.session_id_header.lower(), self.user_id_header.lower()

    @functools.cached_property
    def identity_sources(self) -> Sources | None:
        """The sources of the ids; None if only the three headers are read."""
        lists = self.request_id_from, self.session_id_from, self.user_id_from
        return sources_of(lists, self.identity_preset, self.identity_headers, trusts_baggage=self.trust_incoming_trace)

    @functools.cached_property
    def user_names(self) -> Mapping[str, Mapping[str, str]]:
        """The headers and query parameters with the user id, each with the delimiter after a prefix of its values."""
        return _user_names(self)

    @functools.cached_property
    def identifies_late(self) -> bool:
        """Whether ids may become known only while a request is served."""
        return self.identify is not None or (self.identity_sources is not None and self.identity_sources.are_late)

    @functools.cached_property
    def asks_the_framework(self) -> bool:
        """Whether the app's own code may run when a request is identified."""
        return self.identify is not None or (self.identity_sources is not None and self.identity_sources.has("scope"))

    @functools.cached_property
    def looks_into_bodies(self) -> bool:
        """Whether a request's body may be read to identify the request, captured or not."""
        return self.identify is not None or (self.identity_sources is not None and self.identity_sources.has("body"))

    @functools.cached_property
    def reported_request_id_headers(self) -> tuple[str, ...]:
        """The lower-case names of the response headers that may carry a request id."""
        names = (self.response_headers.get("request_id"), self.request_id_header)
        return tuple(dict.fromkeys(name.lower() for name in names if name))

    @functools.cached_property
    def raw_request_id_headers(self) -> frozenset[bytes]:
        """The names in `reported_request_id_headers` as bytes, for ASGI."""
        return frozenset(name.encode("latin-1") for name in self.reported_request_id_headers)

    @functools.cached_property
    def trace_token_keys(self) -> tuple[bytes, ...]:
        """The secrets of `trace_token_secret` as bytes."""
        return tuple(secret.get_secret_value().encode() for secret in self.trace_token_secret or ())

    @functools.cached_property
    def for_jobs(self) -> Settings:
        """The app's settings for jobs, which have no login and no incoming trace."""
        return _for_jobs(self.of_routes.settings if self.routes else self)  # not those of the route that asks for a job

    @functools.cached_property
    def redactor(self) -> Redactor:
        """The redactor that `redact` and `redact_values` configure."""
        return Redactor(self.redact, self.redact_values)

    @functools.cached_property
    def sampling_key(self) -> bytes:
        """The key of the hash that decides which traces are sampled."""
        key = self.sample_key or (self.user_id_hmac_key if "user_id_hmac_key" in self.model_fields_set else None)
        names = ("MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID")
        experiment = next(filter(None, map(os.environ.get, names)), "")
        return (key.get_secret_value() if key else experiment).encode("utf-8", "surrogateescape")

    @functools.cached_property
    def hmac_key(self) -> bytes | None:
        """The key `user_id_hmac_key` as bytes."""
        return self.user_id_hmac_key.get_secret_value().encode() if self.user_id_hmac_key else None

    @functools.cached_property
    def feedback_keys(self) -> tuple[bytes, ...]:
        """The secrets of `feedback_secret` as bytes."""
        return tuple(secret.get_secret_value().encode() for secret in self.feedback_secret or ())

    @functools.cached_property
    def gives_tokens(self) -> bool:
        """Whether responses carry a signed token, for feedback or to continue the trace."""
        return bool(self.feedback_secret or self.trace_token_secret)

    def excludes(self, path: str, method: str = "GET", headers: Mapping[str, str] = NO_HEADERS) -> bool:
        """Return whether a request with this path, method and headers is not traced."""
        return bool(self.reason_to_exclude(path, method, headers))

    @functools.cached_property
    def reason_to_exclude(self) -> Callable[[str, str, Mapping[str, str]], str]:
        """A function that returns, by path, method and headers, why a request is not traced; empty if it is."""
        return self.exclusions.reason

    @functools.cached_property
    def exclusions(self) -> Exclusions:
        """The exclusions that `exclude` and `include` configure."""
        return Exclusions(self.exclude, self.include)

    @functools.cached_property
    def keeps_all(self) -> bool:
        """Whether every trace is kept, on every route, unless `exclude` or the app leaves it out."""
        return self.sample_ratio >= 1.0 and self.keep == "all" and not self.routes

    @functools.cached_property
    def of_routes(self) -> RouteSettings:
        """The settings of the requests that `routes` configures."""
        return RouteSettings(self)

    def with_options(self, given: Iterable[BaseModel]) -> Settings:
        """Return these settings with a route's options applied in order: later ones win, tags are merged."""
        values = {name: getattr(self, name) for name in type(self).model_fields} | self.__dict__.get(_BEFORE, {})
        names = set(self.model_fields_set)
        for each in given:
            own = {name: getattr(each, name) for name in each.model_fields_set}
            values |= own | {"tags": {**values["tags"], **own.get("tags", {})}}
            names |= own.keys()
        settings = type(self).model_construct(names, **values)
        if settings.privacy == "strict":
            _be_strict(settings)
        return settings

    @functools.cached_property
    def keeping(self) -> Callable[[str], Keeping]:
        """A function that returns, by path, the limits on what is read and stored of a request."""
        return KeepingOfPaths(self).of


def _user_names(settings: Settings) -> Mapping[str, Mapping[str, str]]:
    sources = settings.identity_sources.user_id if settings.identity_sources else ()
    known = {place: {each.name: each.after for each in sources if each.place == place} for place in ("header", "query")}
    known["header"].setdefault(settings.user_id_header.lower(), "")
    return known


def _for_jobs(app: Settings) -> Settings:
    jobs = app.laid_over(app, ())  # not a copy, which would keep cached properties
    jobs.__dict__.update(identify=None, trust_incoming_trace=False, error_when=(), identity_preset=None)
    jobs.__dict__.update(sources_of_jobs(app.identity_headers, app.identity_sources))
    jobs.__dict__[_BEFORE] = app.__dict__.get(_BEFORE, {})
    return jobs

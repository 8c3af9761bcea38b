"""The types of the options: accepted values, and their notation in the environment."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, SkipValidation, StringConstraints

from mlflow_middleware._internal import exclusion
from mlflow_middleware._internal.networks import Networks
from mlflow_middleware._internal.platforms import PLATFORMS
from mlflow_middleware._internal.route_options import route_options
from mlflow_middleware.capture.error_rules import READY, Rule, of_function, of_path
from mlflow_middleware.capture.secret_keys import words_of
from mlflow_middleware.exchange import Exchange
from mlflow_middleware.identity import Identity
from mlflow_middleware.identity_sources import Source

_TRUE, _FALSE = {"true", "1", "yes", "on"}, {"false", "0", "no", "off"}
_STATUS_RANGE = re.compile(r"\s*([0-9]{3})\s*(?:-\s*([0-9]{3})\s*)?")


def _split(value: object) -> object:
    """Parse a list as written in the environment: JSON, or parts between commas."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return _json(value, "must be a list, written a,b or as JSON")
    return [part.strip() for part in value.split(",") if part.strip()]


def _split_mapping(value: object) -> object:
    """Parse a mapping as written in the environment: JSON, or ``key=value`` parts between commas."""
    if not isinstance(value, str):
        return value
    allowed = "must be a mapping, written key=value,key=value or as JSON"
    if value.lstrip().startswith("{"):
        return _json(value, allowed)
    pairs = [part.partition("=") for part in value.split(",") if part.strip()]
    if not all(separator for _, separator, _ in pairs):
        raise ValueError(allowed)
    return {key.strip(): text.strip() for key, _, text in pairs}


def _json(text: str, allowed: str) -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"{allowed} ({error})") from None


def _routes(value: object) -> object:
    """Parse `routes` as written in the environment: JSON."""
    return _json(value, "must be JSON") if isinstance(value, str) else value


def _statuses(value: object) -> object:
    """Expand numbers and ``"500-599"`` ranges to status codes."""
    parts = _split(value)
    if isinstance(parts, int) or not isinstance(parts, Iterable):
        parts = [parts]
    codes: set[int] = set()
    for part in parts:
        match = _STATUS_RANGE.fullmatch(str(part))
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 100 <= first <= last <= 599:
            raise ValueError("must be status codes from 100 to 599, or ranges such as 500-599")
        codes.update(range(first, last + 1))
    return codes


def _import(value: object) -> object:
    """Import a callable from its dotted path: ``"shop.tracing.identify"`` or ``"shop.tracing:identify"``."""
    if not isinstance(value, str):
        return value
    module, _, name = value.replace(":", ".").rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{value!r} cannot be imported: {error}") from error


def _error_rules(value: object) -> object:
    """Build rules from names, paths into the response, callables or their dotted paths; a single one needs no list."""
    values = [value] if callable(value) or isinstance(value, Rule) else _split(value)
    return tuple(map(_error_rule, values)) if isinstance(values, Iterable) else values


def _error_rule(given: object) -> Rule:
    if isinstance(given, Rule):
        return given
    if isinstance(given, str):
        if given in READY:
            return READY[given]
        if re.fullmatch(r"body(\.[^.\s]+)+", given):
            return of_path(given)
        if not re.search("[.:]", given):
            raise ValueError(
                f"{given!r} must be one of {', '.join(READY)}, a path such as body.errors, or a callable's dotted path"
            )
    function = _import(given)
    if not callable(function):
        raise ValueError("must be callables, their dotted paths, paths such as body.errors, or " + ", ".join(READY))
    return of_function(
        _is_plain(function), given if isinstance(given, str) else getattr(given, "__name__", "error_when")
    )


def _is_plain(function: Callable[[Exchange], Any]) -> Callable[[Exchange], Any]:
    if inspect.iscoroutinefunction(function):
        raise ValueError(f"{getattr(function, '__name__', '')!r} is async; it must be a plain function")
    return function


def _not_empty(values: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    if not values:
        raise ValueError("must have at least one secret")
    return values


def _are_sources(texts: tuple[str, ...]) -> tuple[str, ...]:
    if not texts:
        raise ValueError("must have at least one source, such as header.X-ID")
    for text in texts:
        Source.parse(text)
    return texts


def _compile(patterns: tuple[str, ...]) -> tuple[str, ...]:
    for pattern in patterns:
        try:
            is_empty = re.compile(pattern).match("") is not None
        except re.error as error:
            raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
        if is_empty:
            raise ValueError(f"{pattern!r} matches empty text, so everything would be replaced")
    return patterns


def _have_words(keys: tuple[str, ...]) -> tuple[str, ...]:
    for key in keys:
        if not words_of(key):
            raise ValueError(
                f"{key!r} has no ASCII letter or digit, which keys are compared by; use redact_values or mask"
            )
    return keys


def _are_networks(values: tuple[str, ...]) -> tuple[str, ...]:
    Networks(values)
    return values


def _platforms(value: object) -> object:
    """Expand true and false, also as text from the environment, to all platforms and none."""
    if not isinstance(value, (bool, str, list, tuple, set, frozenset)):
        raise ValueError(f"must be true, false, or any of {', '.join(PLATFORMS)}")
    text = str(value).strip().lower()
    if text in _TRUE:
        return tuple(PLATFORMS)
    return () if text in _FALSE else _split(value)


def _are_platforms(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if name not in PLATFORMS:
            raise ValueError(f"must be true, false, or any of {', '.join(PLATFORMS)}")
    return names


HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")]
Names = Annotated[tuple[str, ...], BeforeValidator(_split)]
Platforms = Annotated[tuple[str, ...], BeforeValidator(_platforms), AfterValidator(_are_platforms)]
Proxies = Annotated[tuple[str, ...], BeforeValidator(_split), AfterValidator(_are_networks)]
Exclusions = Annotated[tuple[str, ...], BeforeValidator(_split), AfterValidator(exclusion.check)]
RedactedKeys = Annotated[tuple[str, ...], BeforeValidator(_split), AfterValidator(_have_words)]
Patterns = Annotated[tuple[str, ...], BeforeValidator(_split), AfterValidator(_compile)]
HeaderNames = Annotated[tuple[HeaderName, ...], BeforeValidator(_split)]
TextMapping = Annotated[dict[str, str], BeforeValidator(_split_mapping)]
Routes = Annotated[dict[str, Any], BeforeValidator(_routes), AfterValidator(route_options)]
ResponseHeaders = Annotated[
    dict[Literal["request_id", "session_id", "user_id", "trace_id"], HeaderName],
    BeforeValidator(_split_mapping),
]
Statuses = Annotated[frozenset[int], BeforeValidator(_statuses)]
Secret = Annotated[SecretStr, Field(min_length=16)]
Secrets = Annotated[tuple[Secret, ...], BeforeValidator(_split), AfterValidator(_not_empty)]
SourceNames = Annotated[tuple[str, ...], BeforeValidator(_split), AfterValidator(_are_sources)]
PresetName = Literal["databricks-apps", "open-webui", "librechat", "cloudflare-access", "azure-easy-auth", "iap"]
Identify = Annotated[Callable[[Exchange], Identity | None], BeforeValidator(_import), AfterValidator(_is_plain)]
ErrorRules = Annotated[tuple[SkipValidation[Rule], ...], BeforeValidator(_error_rules)]
Mask = Annotated[Callable[[Exchange], Any], BeforeValidator(_import), AfterValidator(_is_plain)]

"""Validation of the option ``routes``: the options of single routes, checked like those of the whole app."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from mlflow_middleware import routing
from mlflow_middleware._internal import exclusion
from mlflow_middleware._internal.option_problems import ill_typed, shortened, unknown_option

PER_ROUTE = (
    "request_id_from",
    "session_id_from",
    "user_id_from",
    "identify",
    "tags",
    "response_headers",
    "keep",
    "experiment",
    "content",
    "capture_request_body",
    "capture_response_body",
    "max_body_bytes",
    "mask",
    "capture_headers",
    "redact",
    "redact_values",
    "client_address",
    "capture_user_agent",
    "privacy",
    "span_type",
    "error_statuses",
    "error_when",
    "sample_ratio",
    "keep_errors",
    "keep_slower_than",
    "trust_incoming_trace",
)
"""Options that can be set per route."""


@functools.cache
def _model() -> type[BaseModel]:
    from mlflow_middleware._internal.option_fields import Options  # here: its fields use the types of this module

    fields: dict[str, Any] = {
        name: (Options.model_fields[name].annotation, Options.model_fields[name]) for name in PER_ROUTE
    }
    return create_model("RouteOptions", __config__=ConfigDict(extra="forbid", frozen=True), **fields)


def route_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Check the options of each route.

    Raises:
        ValueError: A route is neither a path nor a template, or one of its options is unknown or ill-typed.
    """
    return {route: _checked(route, options) for route, options in given.items()}


def _checked(route: str, given: Any) -> BaseModel:
    if not exclusion.is_path(route):
        raise ValueError(
            f"{route!r} must be a path or a template such as /chats/{{id}} or /search*, optionally with a method"
        )
    if routing.is_template(route) and "*" in route[:-1]:
        raise ValueError(f"{route!r} has parameters, so that '*' is allowed at its end only")
    if isinstance(given, _model()):
        return given
    if not isinstance(given, Mapping):
        raise ValueError(f"{route!r} must have a mapping of options, not {shortened(given)}")
    options = {str(name).lower(): value for name, value in given.items()}  # Django writes them in capitals
    problems = [_not_for_routes(name) for name in options if name not in PER_ROUTE]
    known = {name: value for name, value in options.items() if name in PER_ROUTE}
    try:
        checked = _model()(**known)
    except ValidationError as error:
        problems += [ill_typed(dict(detail), known) for detail in error.errors(include_url=False)]
    if problems:
        raise ValueError(f"{route!r}: {'; '.join(problems)}")
    return checked


def _not_for_routes(name: str) -> str:
    from mlflow_middleware._internal.option_fields import Options

    if name in Options.model_fields:
        return f"option {name!r} applies to the whole app and cannot be set for a route"
    return unknown_option(name, PER_ROUTE)

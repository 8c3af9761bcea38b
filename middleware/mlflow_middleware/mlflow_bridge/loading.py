"""The guarded loading of the bridge: the app starts and responds with any installed MLflow."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from typing import cast

from mlflow_middleware._internal import supported
from mlflow_middleware.mlflow_bridge import no_client, nothing
from mlflow_middleware.mlflow_bridge.interface import Client, Tracing


class Level(Enum):
    """The usable extent of MLflow."""

    EVERYTHING = "everything"
    PUBLIC = "MLflow's public functions and its own exporter"
    NOTHING = "nothing"


@dataclass(frozen=True)
class Found:
    """The state of the installed MLflow.

    Attributes:
        level: The extent of its use.
        package: ``mlflow-tracing``, ``mlflow`` or ``mlflow-skinny``; empty if none is installed.
        version: Its version.
        why: The incompatibility; empty at the level `Level.EVERYTHING`.
    """

    level: Level
    package: str
    version: str
    why: str

    @property
    def summary(self) -> str:
        """The line for the log; empty if everything is used."""
        name = f"{self.package} {self.version}" if self.package else "no MLflow"
        cure = f"Install a newer mlflow-middleware, or pip install '{supported.requirement(self.package)}'."
        if self.level is Level.EVERYTHING:
            if not supported.is_too_old(self.version):
                return ""
            return (
                f"{name} is older than MLflow {supported.in_words()}, which this mlflow-middleware supports: traces "
                f"may be incomplete or missing. pip install '{supported.requirement(self.package)}'."
            )
        unfit = f"{name} does not fit this mlflow-middleware, which supports MLflow {supported.in_words()} ({self.why})"
        if self.level is Level.NOTHING:
            return f"{unfit}: requests are not traced at all. {cure}"
        return (
            f"{unfit}: requests are traced with MLflow's public functions, and its own exporter stays in place. Not "
            "available: delivery by mlflow-middleware (queue, spool, retries, counts, exits in time), keep_errors, "
            "keep_slower_than, trust_incoming_trace, captured_traces, and silence in requests that are not traced. "
            f"{cure}"
        )


def load() -> tuple[Tracing, Client, Found]:
    """Choose the highest level that the installed MLflow supports. Never raise."""
    client, no_client_why = _client()
    problem = no_client_why or _problem_of(_everything)
    if not problem:
        return _module("everything"), client, Found(Level.EVERYTHING, *installed(), "")
    worse = _problem_of(_public)
    if not worse:
        return _module("public"), client, Found(Level.PUBLIC, *installed(), problem)
    why = problem if problem == worse else f"{problem}; {worse}"
    return nothing, client, Found(Level.NOTHING, *installed(), why)


def _module(name: str) -> Tracing:
    return cast(Tracing, importlib.import_module(f"{__package__}.{name}"))


def _client() -> tuple[Client, str]:
    try:
        return cast(Client, importlib.import_module(f"{__package__}.tracking_client")), ""
    except (Exception, SystemExit) as error:
        return no_client, _in_a_line(error)


def _problem_of(attempt: Callable[[], str]) -> str:
    try:
        with warnings.catch_warnings():  # if warnings are errors, those of full MLflow's modules are no misfit
            warnings.simplefilter("ignore")
            return attempt()
    except (Exception, SystemExit) as error:  # a module that exits the process on import must not end the app
        return _in_a_line(error)


def _everything() -> str:
    from mlflow_middleware.mlflow_bridge import names

    has_spans = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() != "true"  # otherwise there is no span
    if has_spans and (missing := names.missing()):
        return f"missing: {', '.join(missing)}"
    from mlflow_middleware.mlflow_bridge import everything, trial  # noqa: F401

    if has_spans:
        trial.run()
    return ""


def _public() -> str:
    import mlflow

    from mlflow_middleware.mlflow_bridge import public

    missing = [f"mlflow.{name}" for name in public.NEEDED if not hasattr(mlflow, name)]
    return f"missing: {', '.join(missing)}" if missing else ""


def installed() -> tuple[str, str]:
    """Return the installed MLflow package and its version; empty if there is none."""
    for package in ("mlflow", "mlflow-tracing", "mlflow-skinny"):
        with contextlib.suppress(PackageNotFoundError):
            return package, version(package)
    return "", ""


def _in_a_line(error: BaseException) -> str:
    text = re.sub(r" \(\S*\)$", "", str(error))  # the location of a module that lacks a name
    return " ".join(f"{type(error).__name__}: {text}".split())[:300]

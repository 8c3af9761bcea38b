"""Middleware, feedback and metrics for Flask apps.

::

    from mlflow_middleware.flask import MLflowMiddleware, feedback_blueprint

    MLflowMiddleware(app)  # or MLflowMiddleware().init_app(app) in an application factory
    app.register_blueprint(feedback_blueprint())  # users' feedback: see mlflow_middleware.flask.feedback

Options are keywords, or ``app.config["MLFLOW_MIDDLEWARE"] = {"SESSION_ID_HEADER": "X-Chat-ID"}``. ``flask
mlflow-check`` checks whether traces can reach their server, and reports the problem if they cannot.
"""

from __future__ import annotations

from typing import Any

import click
from flask import Flask, got_request_exception, request, request_started

from mlflow_middleware.commands import check
from mlflow_middleware.flask.feedback import feedback_blueprint
from mlflow_middleware.flask.metrics import metrics_blueprint
from mlflow_middleware.request import http_errors, routes
from mlflow_middleware.request.wsgi_socket import is_websocket
from mlflow_middleware.request_trace import (
    RequestTrace,
    annotate,
    carry,
    continue_trace,
    current,
    drop_trace,
    job_trace,
    keep_trace,
    outbound_headers,
)
from mlflow_middleware.settings import Settings
from mlflow_middleware.wsgi import TraceMiddleware

__all__ = [
    "MLflowMiddleware",
    "annotate",
    "carry",
    "continue_trace",
    "drop_trace",
    "feedback_blueprint",
    "job_trace",
    "keep_trace",
    "metrics_blueprint",
    "outbound_headers",
]

CONFIG_KEY = "MLFLOW_MIDDLEWARE"
EXTENSION_KEY = "mlflow_middleware"


class MLflowMiddleware:
    """Flask extension that wraps ``app.wsgi_app``.

    Args:
        app: The app; None to call `init_app` later.
        options: Options of ``Settings``, as keywords; they override ``app.config``.

    Raises:
        SettingsError: An option is unknown or ill-typed.
    """

    def __init__(self, app: Flask | None = None, **options: object) -> None:
        self._options = options
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Trace an app. A second call for the same app does nothing.

        Raises:
            SettingsError: An option is unknown or ill-typed.
        """
        if EXTENSION_KEY in app.extensions:
            return
        settings = Settings.load(app.config.get(CONFIG_KEY), **self._options)
        app.extensions[EXTENSION_KEY] = self
        app.wsgi_app = _TraceMiddleware(app.wsgi_app, settings=settings)  # type: ignore[method-assign]
        app.cli.add_command(_check_command(settings))
        request_started.connect(_routed, app)
        got_request_exception.connect(_failed, app)


class _TraceMiddleware(TraceMiddleware):
    def socket_opened(self, trace: RequestTrace) -> None:
        """Do nothing: Flask identifies the caller later, see `_routed`."""


def _check_command(settings: Settings) -> click.Command:
    """Return the command ``flask mlflow-check``."""

    @click.command("mlflow-check")
    @click.option("--json", "as_json", is_flag=True, help="Print the steps as JSON.")
    def command(as_json: bool) -> None:
        """Say whether traces can reach their MLflow server, and what is wrong if they cannot."""
        raise SystemExit(check.run(lambda: settings, as_json=as_json))

    return command


def _routed(sender: Flask, **_: Any) -> None:
    trace = current()
    asked = request._get_current_object()  # type: ignore[attr-defined] # resolve the proxy once
    if trace is not None and asked.url_rule is not None:
        routes.learn(trace, routes.below(trace, asked.script_root) + asked.url_rule.rule)
    if trace is not None and is_websocket(asked.environ):
        trace.identify()


def _failed(sender: Flask, exception: Exception, **_: Any) -> None:
    trace = current()
    if trace is not None:  # an extension may answer it with any status; Flask-RESTX sends this signal for a 404, too
        http_errors.hold(trace, exception)

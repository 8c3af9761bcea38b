"""Support for Flask in ``mlflow-middleware run``."""

from __future__ import annotations

import threading

from flask import Flask

from mlflow_middleware._internal.guard import guarded
from mlflow_middleware.auto import own
from mlflow_middleware.flask import EXTENSION_KEY, MLflowMiddleware

SEEN = "mlflow_middleware.auto"
_lock = threading.Lock()


def called(app: Flask) -> None:
    """Trace an app, from the start of its server on, or else from its first request."""
    if SEEN not in app.extensions:
        _trace(app)


@guarded
def _trace(app: Flask) -> None:
    with _lock:
        if SEEN in app.extensions:
            return
        app.extensions[SEEN] = True
        if EXTENSION_KEY in app.extensions:
            own.left_alone()
        elif not own.found():
            with own.adding():
                MLflowMiddleware(app)

"""An app with our middleware and an option of its own, inside another middleware that wraps it."""

from __future__ import annotations

from mlflow_middleware.fastapi import TraceMiddleware
from tests.apps.unchanged.fastapi_app import app as inner
from tests.apps.unchanged.plain import Around

inner.add_middleware(TraceMiddleware, session_id_header="X-Own")
app = Around(inner)

"""A FastAPI app inside another middleware that wraps it."""

from __future__ import annotations

from tests.apps.unchanged.fastapi_app import app as inner
from tests.apps.unchanged.plain import Around

app = Around(inner)

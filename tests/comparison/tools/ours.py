"""mlflow-middleware."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import mlflow
from fastapi import FastAPI

from mlflow_middleware import delivery
from mlflow_middleware.fastapi import TraceMiddleware, feedback_router
from mlflow_middleware.request_trace import annotate, carry, job_trace, outbound_headers
from tests.comparison import tools


class Compared(tools.Tool):
    def set_up(self, app: FastAPI) -> None:
        options: dict[str, Any] = {}
        if self.has_options:
            options = {
                "session_id_from": ["body.context.conversation_id", "header.X-Session-ID"],
                "capture_headers": ["x-plain"],
                "trust_incoming_trace": True,
                "keep": "genai",
            }
        app.add_middleware(TraceMiddleware, **options)
        app.include_router(feedback_router())

    def span(self, name: str) -> AbstractContextManager[Any]:
        opened: AbstractContextManager[Any] = mlflow.start_span(name)
        return opened

    def identified(self, session: str, user: str, request_id: str) -> AbstractContextManager[Any]:
        if self.mode == "route":
            annotate(session_id=session, user_id=user)
        return nullcontext()

    def carried(self, function: Callable[[], Any]) -> Callable[[], Any]:
        return carry(function) if self.mode == "route" else function

    def carrier(self) -> dict[str, str]:
        return outbound_headers() if self.mode == "route" else {}

    def job(self, carrier: dict[str, str]) -> AbstractContextManager[Any]:
        return job_trace(carrier, name="job") if self.mode == "route" else self.span("job")

    def flush(self) -> None:
        delivery.flush()

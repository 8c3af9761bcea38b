"""MLflow's own tracing: its decorator on each route. It has nothing for FastAPI itself."""

from __future__ import annotations

import contextvars
import functools
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import mlflow
from fastapi import FastAPI

from tests.comparison import tools


class Compared(tools.Tool):
    def set_up(self, app: FastAPI) -> None:
        mlflow.set_experiment(os.environ["COMPARE_EXPERIMENT"])
        if self.mode == "route":
            mlflow.tracing.configure(span_processors=[_hide])

    def span(self, name: str) -> AbstractContextManager[Any]:
        opened: AbstractContextManager[Any] = mlflow.start_span(name)
        return opened

    def decorated(self, function: tools.Function, name: str) -> tools.Function:
        if self.mode != "route":
            return function
        traced: tools.Function = mlflow.trace(function, name=name)
        return traced

    def streamed(self, function: tools.Function) -> tools.Function:
        if self.mode != "route":
            return function
        traced: tools.Function = mlflow.trace(function, output_reducer="".join)
        return traced

    def report_answer(self, words: str) -> None:
        if self.mode == "route" and (span := mlflow.get_current_active_span()):
            span.set_outputs(words)

    def noted(self, **values: object) -> None:
        if self.mode == "route" and (span := mlflow.get_current_active_span()):
            span.set_attributes(values)

    def identified(self, session: str, user: str, request_id: str) -> AbstractContextManager[Any]:
        if self.mode == "route":
            mlflow.update_current_trace(session_id=session, user=user, client_request_id=request_id)
        return nullcontext()

    def answered(self, answer: dict[str, Any]) -> None:
        if self.mode == "route" and (span := mlflow.get_current_active_span()):
            usage = answer["usage"]
            counts = {
                "input_tokens": usage["prompt_tokens"],
                "output_tokens": usage["completion_tokens"],
                "total_tokens": usage["total_tokens"],
            }
            span.set_attributes({"mlflow.chat.tokenUsage": counts, "mlflow.llm.model": answer["model"]})

    def trace_headers(self) -> dict[str, str]:
        span = mlflow.get_current_active_span() if self.mode == "route" else None
        return {"X-Trace": span.trace_id} if span else {}

    def called(self, headers: Mapping[str, str]) -> AbstractContextManager[Any]:
        if self.mode != "route":
            return nullcontext()
        joined: AbstractContextManager[Any] = mlflow.tracing.set_tracing_context_from_http_request_headers(
            {"traceparent": headers.get("traceparent", "")}
        )
        return joined

    def carried(self, function: Callable[[], Any]) -> Callable[[], Any]:
        return functools.partial(contextvars.copy_context().run, function) if self.mode == "route" else function

    def carrier(self) -> dict[str, str]:
        headers: dict[str, str] = (
            mlflow.tracing.get_tracing_context_headers_for_http_request() if self.mode == "route" else {}
        )
        return headers

    def job(self, carrier: dict[str, str]) -> AbstractContextManager[Any]:
        return _joined(carrier) if carrier else self.span("job")

    def feedback(self, trace_id: str) -> None:
        if self.mode == "route":
            mlflow.log_feedback(trace_id=trace_id, name="vote", value=True)

    def flush(self) -> None:
        mlflow.flush_trace_async_logging()


def _hide(span: Any) -> None:
    span.set_inputs(tools.hidden(span.inputs))


@contextmanager
def _joined(carrier: dict[str, str]) -> Iterator[None]:
    with mlflow.tracing.set_tracing_context_from_http_request_headers(carrier), mlflow.start_span("job"):
        yield

"""Datadog: ``ddtrace-run``; with options also its LLM Observability, which has a decorator for each route."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from ddtrace import tracer
from ddtrace.llmobs import LLMObs
from ddtrace.llmobs.decorators import workflow
from ddtrace.propagation.http import HTTPPropagator
from fastapi import FastAPI

from tests.comparison import tools


class Compared(tools.Tool):
    def set_up(self, app: FastAPI) -> None:
        if self.mode == "route":
            LLMObs.register_processor(_hide)

    def span(self, name: str) -> AbstractContextManager[Any]:
        opened: AbstractContextManager[Any] = tracer.trace(name)
        return opened

    def decorated(self, function: tools.Function, name: str) -> tools.Function:
        if self.mode != "route":
            return function
        traced: tools.Function = workflow(function)
        return functools.wraps(function)(traced)  # type: ignore[return-value]

    def streamed(self, function: tools.Function) -> tools.Function:
        if self.mode != "route":
            return function
        traced: tools.Function = workflow(function)
        return traced

    def report_answer(self, words: str) -> None:
        if self.mode == "route":
            LLMObs.annotate(output_data=words)

    def identified(self, session: str, user: str, request_id: str) -> AbstractContextManager[Any]:
        if self.mode == "route" and (root := tracer.current_root_span()):
            root.set_tags({"session.id": session, "usr.id": user, "request_id": request_id})
        return nullcontext()

    def answered(self, answer: dict[str, Any]) -> None:
        if self.mode == "route":
            usage = answer["usage"]
            metrics = {"input_tokens": usage["prompt_tokens"], "output_tokens": usage["completion_tokens"]}
            LLMObs.annotate(metadata={"model_name": answer["model"]}, metrics=metrics)

    def trace_headers(self) -> dict[str, str]:
        span = tracer.current_span() if self.mode == "route" else None
        return {"X-Trace": f"{span.trace_id:032x}"} if span else {}

    def carrier(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        span = tracer.current_span() if self.mode == "route" else None
        if span:
            HTTPPropagator.inject(span.context, headers)
        return headers

    def job(self, carrier: dict[str, str]) -> AbstractContextManager[Any]:
        return _joined(carrier) if carrier else self.span("job")

    def feedback(self, trace_id: str) -> None:
        if self.mode == "route":
            who = {"id": "jane"}
            LLMObs.submit_feedback("vote", "boolean", True, submitter=who, trace_id=trace_id)

    def flush(self) -> None:
        tracer.flush()


def _hide(span: Any) -> Any:
    for each in span.input:
        each["content"] = re.sub(r'("password": )"[^"]*"', r'\1"hidden"', each["content"])
    return span


@contextmanager
def _joined(carrier: dict[str, str]) -> Iterator[None]:
    tracer.context_provider.activate(HTTPPropagator.extract(carrier))
    with tracer.trace("job"):
        yield

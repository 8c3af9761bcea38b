"""LangSmith: ``TracingMiddleware``, which continues a caller's trace, and ``@traceable`` on each route."""

from __future__ import annotations

import contextvars
import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import langsmith
from fastapi import FastAPI
from langsmith.middleware import TracingMiddleware
from langsmith.run_helpers import get_current_run_tree, tracing_context
from langsmith.run_trees import get_cached_client

from tests.comparison import tools


class Compared(tools.Tool):
    def set_up(self, app: FastAPI) -> None:
        app.add_middleware(TracingMiddleware)
        if self.mode == "route":
            langsmith.configure(client=langsmith.Client(anonymizer=tools.hidden))

    def span(self, name: str) -> AbstractContextManager[Any]:
        opened: AbstractContextManager[Any] = langsmith.trace(name)
        return opened

    def decorated(self, function: tools.Function, name: str) -> tools.Function:
        if self.mode != "route":
            return function
        traced: tools.Function = langsmith.traceable(function, name=name, run_type="llm")
        return traced

    def streamed(self, function: tools.Function) -> tools.Function:
        if self.mode != "route":
            return function
        traced: tools.Function = langsmith.traceable(function, run_type="llm", reduce_fn="".join)
        return traced

    def noted(self, **values: object) -> None:
        if self.mode == "route" and (run := get_current_run_tree()):
            run.metadata.update(values)

    def identified(self, session: str, user: str, request_id: str) -> AbstractContextManager[Any]:
        if self.mode == "route" and (run := get_current_run_tree()):
            run.metadata.update(session_id=session, user_id=user, request_id=request_id)
        return nullcontext()

    def answered(self, answer: dict[str, Any]) -> None:
        if self.mode == "route" and (run := get_current_run_tree()):
            usage = answer["usage"]
            run.metadata.update(
                ls_model_name=answer["model"],
                usage_metadata={
                    "input_tokens": usage["prompt_tokens"],
                    "output_tokens": usage["completion_tokens"],
                    "total_tokens": usage["total_tokens"],
                },
            )

    def trace_headers(self) -> dict[str, str]:
        run = get_current_run_tree() if self.mode == "route" else None
        return {"X-Trace": str(run.trace_id)} if run else {}

    def carried(self, function: Callable[[], Any]) -> Callable[[], Any]:
        return functools.partial(contextvars.copy_context().run, function) if self.mode == "route" else function

    def carrier(self) -> dict[str, str]:
        run = get_current_run_tree() if self.mode == "route" else None
        return {key: str(value) for key, value in run.to_headers().items()} if run else {}

    def job(self, carrier: dict[str, str]) -> AbstractContextManager[Any]:
        return _joined(carrier) if carrier else self.span("job")

    def feedback(self, trace_id: str) -> None:
        if self.mode == "route":
            get_cached_client().create_feedback(run_id=trace_id, trace_id=trace_id, key="vote", score=1)

    def flush(self) -> None:
        get_cached_client().flush()


@contextmanager
def _joined(carrier: dict[str, str]) -> Iterator[None]:
    with tracing_context(parent=carrier), langsmith.trace("job"):
        yield

"""Langfuse: its client reads its settings from the environment; its decorator is on each route."""

from __future__ import annotations

import contextvars
import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from fastapi import FastAPI
from langfuse import Langfuse, get_client, observe, propagate_attributes

from tests.comparison import tools


class Compared(tools.Tool):
    def set_up(self, app: FastAPI) -> None:
        if self.mode == "options":  # all spans, also those of FastAPI's own instrumentation
            Langfuse(should_export_span=lambda span: True)
        elif self.mode == "route":
            Langfuse(mask=lambda *, data, **_: tools.hidden(data))
        else:
            get_client()

    def span(self, name: str) -> AbstractContextManager[Any]:
        opened: AbstractContextManager[Any] = get_client().start_as_current_observation(name=name, as_type="span")
        return opened

    def decorated(self, function: tools.Function, name: str) -> tools.Function:
        if self.mode != "route":
            return function
        traced: tools.Function = observe(function, name=name, as_type="generation")
        return traced

    def streamed(self, function: tools.Function) -> tools.Function:
        return self.decorated(function, "words")

    def report_answer(self, words: str) -> None:
        if self.mode == "route":
            get_client().update_current_generation(output=words)

    def noted(self, **values: object) -> None:
        if self.mode == "route":
            get_client().update_current_generation(metadata=values)

    def identified(self, session: str, user: str, request_id: str) -> AbstractContextManager[Any]:
        if self.mode != "route":
            return nullcontext()
        named = {"request_id": request_id}
        propagated: AbstractContextManager[Any] = propagate_attributes(session_id=session, user_id=user, metadata=named)
        return propagated

    def answered(self, answer: dict[str, Any]) -> None:
        if self.mode == "route":
            usage = answer["usage"]
            details = {"input": usage["prompt_tokens"], "output": usage["completion_tokens"]}
            get_client().update_current_generation(model=answer["model"], usage_details=details)

    def trace_headers(self) -> dict[str, str]:
        return {"X-Trace": str(get_client().get_current_trace_id())} if self.mode == "route" else {}

    def carried(self, function: Callable[[], Any]) -> Callable[[], Any]:
        return functools.partial(contextvars.copy_context().run, function) if self.mode == "route" else function

    def carrier(self) -> dict[str, str]:
        client = get_client()
        if self.mode != "route":
            return {}
        return {
            "trace_id": str(client.get_current_trace_id()),
            "parent_span_id": str(client.get_current_observation_id()),
        }

    def job(self, carrier: dict[str, str]) -> AbstractContextManager[Any]:
        return _joined(carrier) if carrier else self.span("job")

    def feedback(self, trace_id: str) -> None:
        if self.mode == "route":
            get_client().create_score(trace_id=trace_id, name="vote", value=1)

    def flush(self) -> None:
        get_client().flush()


@contextmanager
def _joined(carrier: dict[str, str]) -> Iterator[None]:
    with get_client().start_as_current_observation(name="job", as_type="span", trace_context=carrier):
        yield

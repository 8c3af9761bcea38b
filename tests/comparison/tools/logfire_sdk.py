"""Logfire: ``configure`` and ``instrument_fastapi``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import logfire
from fastapi import FastAPI
from logfire.experimental.annotations import record_feedback
from logfire.propagate import attach_context, get_context
from opentelemetry.trace import get_current_span

from tests.comparison import tools

WORDLESS = os.environ.get("COMPARE_WORDLESS")
"""Set if contents are not to be stored."""


class Compared(tools.Tool):
    def set_up(self, app: FastAPI) -> None:
        options: dict[str, Any] = {}
        if os.environ.get("COMPARE_SAMPLED"):
            options["sampling"] = logfire.SamplingOptions.level_or_duration()
        logfire.configure(console=False, **options)
        instrumented: dict[str, Any] = {}
        if self.has_options:
            instrumented = {"capture_headers": True, "excluded_urls": "health"}
        if WORDLESS:
            instrumented["request_attributes_mapper"] = lambda request, attributes: None
        logfire.instrument_fastapi(app, **instrumented)

    def span(self, name: str) -> AbstractContextManager[Any]:
        opened: AbstractContextManager[Any] = logfire.span(name)
        return opened

    def identified(self, session: str, user: str, request_id: str) -> AbstractContextManager[Any]:
        if self.mode == "route":
            # Not a name with "session" in it: Logfire takes that for a secret.
            named = {"conversation.id": session, "user.id": user, "request_id": request_id}
            get_current_span().set_attributes(named)
            carried: AbstractContextManager[Any] = logfire.set_baggage(**named)
            return carried
        return nullcontext()

    def answered(self, answer: dict[str, Any]) -> None:
        if self.mode == "route":
            usage = answer["usage"]
            values = {
                "gen_ai.request.model": answer["model"],
                "gen_ai.usage.input_tokens": usage["prompt_tokens"],
                "gen_ai.usage.output_tokens": usage["completion_tokens"],
            }
            if not WORDLESS:
                values["gen_ai.output"] = answer["choices"][0]["message"]["content"]
            get_current_span().set_attributes(values)

    def report_answer(self, words: str) -> None:
        if self.mode == "route":
            get_current_span().set_attribute("gen_ai.output", words)

    def trace_headers(self) -> dict[str, str]:
        return {"X-Trace": str(get_context().get("traceparent"))} if self.mode == "route" else {}

    def carrier(self) -> dict[str, str]:
        carried = get_context() if self.mode == "route" else {}
        return {key: str(value) for key, value in carried.items()}

    def job(self, carrier: dict[str, str]) -> AbstractContextManager[Any]:
        return _joined(carrier) if carrier else self.span("job")

    def feedback(self, trace_id: str) -> None:
        if self.mode == "route":
            record_feedback(trace_id, "vote", True)

    def flush(self) -> None:
        logfire.force_flush()


@contextmanager
def _joined(carrier: dict[str, str]) -> Iterator[None]:
    with attach_context(carrier), logfire.span("job"):
        yield

"""Connections without their own trace, such as WebSockets, and the storage of texts in spans without a request."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from functools import partial

import mlflow
from mlflow.entities import LiveSpan
from mlflow.tracing.context import _USER_TRACE_CONTEXT

from mlflow_middleware.mlflow_bridge.interface import Undo
from mlflow_middleware.trace import keys

inside: ContextVar[TracesInside | None] = ContextVar("mlflow_middleware_traces_inside", default=None)
"""The values for each trace that begins here."""

keeps_words: ContextVar[bool] = ContextVar("mlflow_middleware_keeps_words", default=True)
"""Whether texts of spans that begin here are stored, if no request of their trace decides."""

WORDLESS = "_mlflow_middleware_wordless"
"""The mark of a live span whose texts are not stored."""


def mark(span: LiveSpan) -> None:
    """Mark a new span if its texts are not stored."""
    if not keeps_words.get():
        vars(span)[WORDLESS] = True


class TracesInside:
    """The initial values of each trace that the app opens while this is attached; named as in ``TraceInfo``."""

    def __init__(self) -> None:
        self.tags: dict[str, str] = {}
        self.trace_metadata: dict[str, str] = {}
        self.client_request_id: str | None = None
        self.keeps_words = True

    def attach(self) -> Undo:
        """Apply the values to traces opened from here; return a function that undoes it in the same context."""
        around = mlflow.tracing.context(metadata=self.trace_metadata, tags=self.tags)
        around.__enter__()
        merged = _USER_TRACE_CONTEXT.get()
        self.tags, self.trace_metadata = merged.tags, merged.metadata  # read when a trace begins: updates count
        token, words = inside.set(self), keeps_words.set(self.keeps_words)

        ends = partial(inside.reset, token), partial(keeps_words.reset, words), partial(around.__exit__, *[None] * 3)

        def undo() -> None:
            for end in ends:
                try:
                    end()
                except ValueError as error:  # a connection that ends in another task's context
                    if "different Context" not in str(error):
                        raise

        return undo

    def annotate(
        self, tags: Mapping[str, str], metadata: Mapping[str, str], client_request_id: str | None = None
    ) -> None:
        """See `interface.TracesInside`."""
        self.tags.update(tags)
        self.trace_metadata.update(metadata)
        if client_request_id is not None and len(client_request_id) <= keys.MAX_CLIENT_REQUEST_ID:
            self.client_request_id = client_request_id

"""The current request and span while a request's code runs."""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import TYPE_CHECKING

from mlflow_middleware import mlflow_bridge

if TYPE_CHECKING:
    from mlflow_middleware.request.lifecycle import RequestTrace

current_request: ContextVar[RequestTrace | None] = ContextVar("mlflow_middleware_request_trace", default=None)


class Activation:
    """Activation of a request and its span for one step at a time, such as each chunk of a WSGI response."""

    _left: mlflow_bridge.Left | None = None
    _entered: tuple[mlflow_bridge.Entered, Token[RequestTrace | None]] | None = None

    def enter(self, trace: RequestTrace, target: mlflow_bridge.RootSpan | mlflow_bridge.TracesInside | None) -> None:
        """Make a request and its root span current; in later steps, the span that was current last."""
        if self._left is not None:
            entered = mlflow_bridge.resume(self._left)
        else:
            entered = target.attach() if target else mlflow_bridge.silence()  # not sampled, so neither are inner spans
        self._entered = (entered, current_request.set(trace))

    def leave(self, *, is_last: bool) -> None:
        """Undo `enter`. In another task's context, where a connection may end, there is nothing to reset."""
        if self._entered is not None:
            entered, token = self._entered
            self._entered = None
            try:
                current_request.reset(token)
            except ValueError as error:
                if "different Context" not in str(error):
                    raise
            left = mlflow_bridge.leave(entered)
            if not is_last:
                self._left = left

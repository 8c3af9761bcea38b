"""The differences between the tools: a few lines to set each up, and its own functions."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from fastapi import FastAPI  # the page is also written where no tool is installed

Function = TypeVar("Function", bound=Callable[..., Any])

MODULES = {
    "ours": "ours",
    "mlflow": "mlflow_by_hand",
    "langfuse": "langfuse_sdk",
    "logfire": "logfire_sdk",
    "langsmith": "langsmith_sdk",
    "datadog": "datadog",
}
MODES = ("plain", "options", "route")
"""Set up as documented for FastAPI; the same with options; the same with code of the tool in the routes."""


class Tool:
    """A tool as an app uses it; missing features do nothing.

    Attributes:
        mode: One of ``MODES``.
    """

    def __init__(self, mode: str) -> None:
        self.mode = mode

    @property
    def has_options(self) -> bool:
        return self.mode != "plain"

    def set_up(self, app: FastAPI) -> None:
        """Set the tool up as documented for a FastAPI app."""

    def span(self, name: str) -> AbstractContextManager[Any]:
        """Open a child span through the tool, as every app does."""
        return nullcontext()

    def decorated(self, function: Function, name: str) -> Function:
        """Trace a route's function, in mode ``route`` only."""
        return function

    def streamed(self, function: Function) -> Function:
        """Trace a generator that yields an answer's words, in mode ``route`` only."""
        return function

    def report_answer(self, words: str) -> None:
        """Report the streamed answer, in mode ``route`` only, for tools that do not collect it."""

    def noted(self, **values: object) -> None:
        """Store further values, in mode ``route`` only, for tools that have no option for them."""

    def identified(self, session: str, user: str, request_id: str) -> AbstractContextManager[Any]:
        """Report whose request it is, in mode ``route`` only."""
        return nullcontext()

    def answered(self, answer: dict[str, Any]) -> None:
        """Report the answer, its model and its tokens, in mode ``route`` only."""

    def trace_headers(self) -> dict[str, str]:
        """Name the trace in the answer, in mode ``route`` only."""
        return {}

    def called(self, headers: Mapping[str, str]) -> AbstractContextManager[Any]:
        """Continue a caller's trace, in mode ``route`` only, for tools that do not by themselves."""
        return nullcontext()

    def carried(self, function: Callable[[], Any]) -> Callable[[], Any]:
        """Return the function for a thread pool: wrapped by the tool in mode ``route``, else the function itself."""
        return function

    def carrier(self) -> dict[str, str]:
        """Return the carrier for a job's message, in mode ``route`` only."""
        return {}

    def job(self, carrier: dict[str, str]) -> AbstractContextManager[Any]:
        """Open the trace of a job with that carrier."""
        return self.span("job")

    def feedback(self, trace_id: str) -> None:
        """Store a user's vote, in mode ``route`` only."""

    def flush(self) -> None:
        """Send pending data."""


def hidden(content: Any) -> Any:
    """Remove passwords, for the tools that accept a mask."""
    if isinstance(content, dict):
        return {key: "hidden" if key == "password" else hidden(each) for key, each in content.items()}
    return [hidden(each) for each in content] if isinstance(content, (list, tuple)) else content


def chosen() -> Tool:
    """Return the tool that ``COMPARE_TOOL`` and ``COMPARE_MODE`` name."""
    module = importlib.import_module(f"{__name__}.{MODULES[os.environ['COMPARE_TOOL']]}")
    tool: Tool = module.Compared(os.environ["COMPARE_MODE"])
    return tool

"""What differs between the tools: a few lines to set each up, and its own functions."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from fastapi import FastAPI  # the page is made where there is none

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
    """A tool, as an app uses it; what it does not have, does nothing.

    Attributes:
        mode: One of ``MODES``.
    """

    def __init__(self, mode: str) -> None:
        self.mode = mode

    @property
    def has_options(self) -> bool:
        return self.mode != "plain"

    def set_up(self, app: FastAPI) -> None:
        """Do what the documentation says for a FastAPI app."""

    def span(self, name: str) -> AbstractContextManager[Any]:
        """Open a child span, which every app with a tool does by that tool."""
        return nullcontext()

    def decorated(self, function: Function, name: str) -> Function:
        """Trace a route's function, in mode ``route`` only."""
        return function

    def streamed(self, function: Function) -> Function:
        """Trace a generator that yields an answer's words, in mode ``route`` only."""
        return function

    def told(self, words: str) -> None:
        """Say what was streamed, in mode ``route`` only, for tools that do not collect it."""

    def noted(self, **values: object) -> None:
        """Store what else is to be known, in mode ``route`` only, for tools that have no option for it."""

    def identified(self, session: str, user: str, request_id: str) -> AbstractContextManager[Any]:
        """Say whose request it is, in mode ``route`` only."""
        return nullcontext()

    def answered(self, answer: dict[str, Any]) -> None:
        """Say what was answered, with which model and how many tokens, in mode ``route`` only."""

    def trace_headers(self) -> dict[str, str]:
        """Name the trace in the answer, in mode ``route`` only."""
        return {}

    def called(self, headers: Mapping[str, str]) -> AbstractContextManager[Any]:
        """Go on with a caller's trace, in mode ``route`` only, for tools that do not by themselves."""
        return nullcontext()

    def carried(self, function: Callable[[], Any]) -> Callable[[], Any]:
        """What a thread pool is to run: by the tool's own way in mode ``route``, else the function itself."""
        return function

    def carrier(self) -> dict[str, str]:
        """What a message to a job carries, in mode ``route`` only."""
        return {}

    def job(self, carrier: dict[str, str]) -> AbstractContextManager[Any]:
        """The trace of a job, which has that carrier."""
        return self.span("job")

    def feedback(self, trace_id: str) -> None:
        """Store a user's vote, in mode ``route`` only."""

    def flush(self) -> None:
        """Send what waits."""


def hidden(said: Any) -> Any:
    """A mask of one's own, for the tools that take one: without passwords."""
    if isinstance(said, dict):
        return {key: "hidden" if key == "password" else hidden(each) for key, each in said.items()}
    return [hidden(each) for each in said] if isinstance(said, (list, tuple)) else said


def chosen() -> Tool:
    """The tool that ``COMPARE_TOOL`` and ``COMPARE_MODE`` name."""
    module = importlib.import_module(f"{__name__}.{MODULES[os.environ['COMPARE_TOOL']]}")
    tool: Tool = module.Compared(os.environ["COMPARE_MODE"])
    return tool

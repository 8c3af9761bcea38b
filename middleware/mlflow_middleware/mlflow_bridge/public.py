"""Tracing by MLflow's public functions and its own exporter, where the rest of MLflow is not as it is known here.

A request still has its root span, its bodies and its identity. Delivery is MLflow's: no queue, spool or counts of ours.
A trace that has begun is kept, and excluded requests do not silence the spans that the app opens itself.
"""

from __future__ import annotations

import contextlib
import contextvars
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar, Token
from typing import Any, NamedTuple

import mlflow

from mlflow_middleware.mlflow_bridge import keys, nothing
from mlflow_middleware.mlflow_bridge.common import Common
from mlflow_middleware.mlflow_bridge.root_span import (
    Contents,
    Describe,
    Description,
    Entered,
    Left,
    RootSpan,
    SpanIds,
    Written,
)

NEEDED = (
    "flush_trace_async_logging",
    "get_current_active_span",
    "set_experiment",
    "start_span",
    "update_current_trace",
)
"""The functions of ``mlflow`` that are used here."""

START_UP = 2.0
"""Seconds that the start of an app waits at most until the server has told the experiment; requests never wait."""

RETRY = 30.0
"""Seconds between two attempts to find the experiment."""

can_discard = False

rebuild = nothing.rebuild
silence = nothing.silence

logger = logging.getLogger("mlflow_middleware")

_start_lock = threading.Lock()
_experiment_thread: threading.Thread | None = None


def start(accepts: Callable[[str], bool], put: Callable[[Any], None], queue: object) -> None:
    """See `Tracing`. MLflow's exporter stays in place."""
    global _experiment_thread  # noqa: PLW0603 - one for each process
    chosen = {"MLFLOW_EXPERIMENT_NAME": "experiment_name", "MLFLOW_EXPERIMENT_ID": "experiment_id"}
    given = {argument: os.environ[name] for name, argument in chosen.items() if os.environ.get(name)}
    with _start_lock:
        if _experiment_thread is not None or not given:
            return
        known = threading.Event()
        _experiment_thread = threading.Thread(target=_set_experiment, args=(given, known), daemon=True)
        _experiment_thread.start()
    known.wait(START_UP)


def _set_experiment(given: Mapping[str, str], known: threading.Event) -> None:
    """The slim package fails on MLflow's two variables whenever a span is started, and not on this call."""
    argument, value = next(iter(given.items()))
    is_logged = False
    while True:
        try:
            mlflow.set_experiment(**{argument: value})
        except Exception as error:
            if not is_logged:
                logger.warning("no request is traced until the experiment %r is found: %s", value, error)
            is_logged = True
            known.wait(RETRY)
        else:
            known.set()
            return


def flush(timeout: float) -> bool:
    """See `Tracing`."""
    done = threading.Event()

    def wait() -> None:
        mlflow.flush_trace_async_logging()  # which has no time limit
        done.set()

    threading.Thread(target=wait, daemon=True).start()
    return done.wait(timeout)


def open_root_span(
    name: str, describe: Describe, *, remote: SpanIds | None = None, adopt_remote: bool = False
) -> RootSpan | None:
    """See `Tracing`. A caller's span is neither parent nor link."""
    root = PublicRoot(name, describe)
    return root if root.is_recording else None


def in_common(name: str, attributes: Mapping[str, object], tags: Mapping[str, str]) -> Common:
    """See `Tracing`."""
    return Common(name, attributes, tags)


class _Value(NamedTuple):
    """A context variable, and what it is to be."""

    variable: ContextVar[Any]
    value: Any


class PublicRoot:
    """A `RootSpan` by ``mlflow.start_span``, in a context of its own, of which `attach` makes the span current."""

    def __init__(self, name: str, describe: Describe) -> None:
        self._describe: Describe | None = describe
        self._began = time.time_ns()
        self._failed = False
        self._tags: dict[str, str] = {}
        self._metadata: dict[str, str] = {}
        self._client_request_id: str | None = None
        before = contextvars.copy_context()
        self._context = contextvars.copy_context()
        self._manager: Any = mlflow.start_span(name=name, span_type=keys.CHAIN)
        self._span: Any = self._context.run(self._manager.__enter__)
        self._values = [
            _Value(variable, value)
            for variable, value in self._context.items()
            if variable not in before or before[variable] is not value
        ]
        self.trace_id: str = str(self._span.trace_id)

    @property
    def is_recording(self) -> bool:
        """Whether MLflow traces it; its span that does nothing has no trace id of MLflow's kind."""
        return self.trace_id.startswith("tr-")

    def attach(self) -> Entered:
        return resume(self._values)

    def set_attributes(self, attributes: Mapping[str, object]) -> None:
        self._span.set_attributes(dict(attributes))

    def add(self, said: Description) -> None:
        common = said.common
        name = said.name or (common.name if common else None)
        named = {keys.NAME: name} if name else {}
        self._tags = {**named, **(common.tags if common else {}), **said.tags, **self._tags}
        self._metadata = {**said.metadata, **self._metadata}
        self._client_request_id = self._client_request_id or said.client_request_id
        self.set_attributes({**(common.attributes if common else {}), **said.attributes})
        if said.error is not None:
            self._set_error()
        if said.unread is not None and (contents := said.unread.read()):
            self._add_contents(contents)

    def fail(self, error: BaseException) -> None:
        self._set_error()
        self.set_attributes({"error.type": type(error).__qualname__})
        known = isinstance(error, Exception)  # MLflow takes no other BaseException
        self._span.record_exception(error if known else f"{type(error).__name__}: {error}")

    def update_trace(
        self,
        tags: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
        client_request_id: str | None = None,
    ) -> None:
        self._tags.update(tags or {})
        self._metadata.update(metadata or {})
        self._client_request_id = client_request_id or self._client_request_id

    def metadata(self, key: str) -> str | None:
        return self._metadata.get(key)

    @property
    def failed(self) -> bool:
        return self._failed

    def seconds(self, end_time_ns: int | None = None) -> float:
        return ((end_time_ns or time.time_ns()) - self._began) / 1e9

    def discard(self) -> bool:
        return False

    def end(self, end_time_ns: int | None = None, held: int = 0) -> None:
        self._context.run(self._finish)

    def hold(self) -> bool:
        return False

    def release(self) -> None:
        pass

    def _finish(self) -> None:
        try:
            describe, self._describe = self._describe, None
            if describe and (said := describe(self._metadata)):
                self.add(said)
            mlflow.update_current_trace(
                tags=self._tags, metadata=self._metadata, client_request_id=self._client_request_id
            )
        finally:
            self._manager.__exit__(None, None, None)

    def _set_error(self) -> None:
        self._failed = True
        self._span.set_status("ERROR")

    def _add_contents(self, contents: Contents) -> None:
        if contents.inputs:
            self._span.set_inputs(json.loads(contents.inputs.text))
        if contents.outputs:
            self._span.set_outputs(json.loads(contents.outputs.text))
        usage = {keys.USAGE: dict(contents.usage)} if contents.usage else {}
        self.set_attributes({**contents.attributes, **usage})
        previews = {"request_preview": contents.inputs, "response_preview": contents.outputs}
        mlflow.update_current_trace(**{name: _preview(written) for name, written in previews.items() if written})


def _preview(written: Written) -> str:
    return written.preview[: keys.MAX_PREVIEW]


class TracesInside:
    """See `Tracing`: by ``mlflow.tracing.context`` (3.11), where MLflow has it."""

    def __init__(self) -> None:
        self._tags: dict[str, str] = {}
        self._metadata: dict[str, str] = {}

    def attach(self) -> Entered:
        """See `root_span.TracesInside`."""
        around = mlflow.tracing.context(metadata=self._metadata, tags=self._tags)
        before, inside = contextvars.copy_context(), contextvars.copy_context()
        inside.run(around.__enter__)
        return resume([_Value(key, value) for key, value in inside.items() if before.get(key) is not value])

    def update_trace(
        self,
        tags: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
        client_request_id: str | None = None,
    ) -> None:
        """See `root_span.TracesInside`; counts until it is attached."""
        self._tags.update(tags or {})
        self._metadata.update(metadata or {})


def resume(left: Left) -> Entered:
    """See `Tracing`: a token of each variable."""
    return [(each.variable, each.variable.set(each.value)) for each in left]


def leave(entered: Entered) -> Left:
    """See `Tracing`."""
    tokens: list[tuple[ContextVar[Any], Token[Any]]] = entered if isinstance(entered, list) else []  # else: silenced
    left = [_Value(variable, variable.get()) for variable, _ in tokens]
    for variable, token in reversed(tokens):
        with contextlib.suppress(ValueError):  # an async generator that ends in another task's context
            variable.reset(token)
    return left


def current_span() -> SpanIds | None:
    """See `Tracing`."""
    span = mlflow.get_current_active_span()
    if span is None or not span.trace_id.startswith("tr-"):
        return None
    return SpanIds(int(span.trace_id.removeprefix("tr-"), 16), int(span.span_id, 16))

"""Tracing with MLflow's public functions and its own exporter, used if MLflow's private parts are incompatible.

A request still has its root span, its bodies and its identity. MLflow delivers them, without our queue and spool. A
trace that has begun is kept, and excluded requests do not suppress spans that the app opens itself.
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
from mlflow.entities import SpanEvent

from mlflow_middleware.capture import Redactor
from mlflow_middleware.identity import clean_text
from mlflow_middleware.mlflow_bridge import nothing
from mlflow_middleware.mlflow_bridge.interface import Entered, Left, RootSpan
from mlflow_middleware.trace import keys
from mlflow_middleware.trace.client import redacted_exceptions
from mlflow_middleware.trace.contents import contents_of
from mlflow_middleware.trace.description import describe, first_name
from mlflow_middleware.trace.record import Contents, RecordedException, SpanIds, TraceRecord, Written

NEEDED = (
    "flush_trace_async_logging",
    "get_current_active_span",
    "set_experiment",
    "start_span",
    "update_current_trace",
)
"""The required functions of ``mlflow``."""

START_UP = 2.0
"""Maximum number of seconds that an app's start waits for the experiment; requests never wait."""

MAX_LINE = 500
"""Maximum length of MLflow's messages in a log line, in characters."""

RETRY = 30.0
"""Seconds between two attempts to find the experiment."""

can_discard = False

continue_trace = nothing.continue_trace
rebuild = nothing.rebuild
silence = nothing.silence

logger = logging.getLogger("mlflow_middleware")

_known: threading.Event | None = None
"""Set when the environment's experiment has been found; None if the environment specifies none."""

_open: set[PublicRoot] = set()
"""The open roots; this keeps the root of an unclosed response from being ended by garbage collection."""


def start(accepts: Callable[[str], bool], put: Callable[[Any], None], queue: object) -> None:
    """See `Tracing`. MLflow's exporter stays in place."""
    with contextlib.suppress(Exception):  # any version of OpenTelemetry
        from mlflow_middleware.mlflow_bridge.ids import take_ids_of_the_system

        take_ids_of_the_system()
    if _known is None and any(map(os.environ.get, _NAMED_BY)):
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_look_for_experiment)
        _look_for_experiment().wait(START_UP)


_NAMED_BY = {"MLFLOW_EXPERIMENT_NAME": "experiment_name", "MLFLOW_EXPERIMENT_ID": "experiment_id"}
"""The variables for the experiment -> the corresponding arguments of ``mlflow.set_experiment``."""


def _look_for_experiment() -> threading.Event:
    """Find the experiment in a thread. Without it, each span of MLflow would fail in the slim package, and wait for the
    server in the full one."""
    global _known  # noqa: PLW0603 - one for each process
    _known = known = threading.Event()
    threading.Thread(target=_set_experiment, args=(known,), daemon=True).start()
    return known


def _set_experiment(known: threading.Event) -> None:
    argument, value = next((each, os.environ[name]) for name, each in _NAMED_BY.items() if os.environ.get(name))
    is_logged = False
    while True:
        try:
            mlflow.set_experiment(**{argument: value})
        except Exception as error:
            if not is_logged:
                why = clean_text(Redactor(("default",)).text(str(error)), MAX_LINE)  # it may contain the tracking URI
                logger.warning("no request is traced until the experiment can be used: %r: %s", value, why)
            is_logged = True
            known.wait(RETRY)
        else:
            known.set()
            return


def flush(timeout: float) -> bool:
    """See `Tracing`."""
    done = threading.Event()

    def wait() -> None:
        mlflow.flush_trace_async_logging()  # without a time limit
        done.set()

    try:
        threading.Thread(target=wait, daemon=True).start()
    except RuntimeError:  # the interpreter is exiting, and MLflow flushes by itself
        return False
    return done.wait(timeout)


def open_root_span(
    record: TraceRecord, *, remote: SpanIds | None = None, adopt_remote: bool = False
) -> RootSpan | None:
    """See `Tracing`. A caller's span is neither parent nor link. No request waits for the experiment."""
    if _known is not None and not _known.is_set():
        return None
    root = PublicRoot(record)
    return root if root.is_recording else None


class _Value(NamedTuple):
    """A context variable and the value to set."""

    variable: ContextVar[Any]
    value: Any


class PublicRoot:
    """A `RootSpan` with ``mlflow.start_span`` in an empty context; `attach` makes the span current."""

    def __init__(self, record: TraceRecord) -> None:
        self._record = record
        self._given: set[tuple[str, str]] = set()
        self._given_request_id: str | None = None
        self._context = contextvars.Context()
        name = first_name(record.exchange)
        self._manager: Any = mlflow.start_span(name=name, span_type=record.settings.span_type)
        self._span: Any = self._context.run(self._manager.__enter__)
        self._values = [_Value(variable, value) for variable, value in self._context.items()]
        self.is_recording = not str(self._span.trace_id).startswith("MLFLOW_NO_OP")
        if self.is_recording:
            _open.add(self)
            ids = SpanIds(int(str(self._span.trace_id).removeprefix("tr-"), 16), int(self._span.span_id, 16))
            record.begin(ids, time.time_ns())
            self._give()

    def attach(self) -> Entered:
        return resume(self._values)

    def annotate(
        self, tags: Mapping[str, str], metadata: Mapping[str, str], client_request_id: str | None = None
    ) -> None:
        self._given |= {*tags.items(), *metadata.items()}
        self._given_request_id = client_request_id or self._given_request_id
        self._update_trace(tags, metadata, client_request_id)

    def metadata(self, key: str) -> str | None:
        return None  # not available from MLflow's public functions

    @property
    def failed(self) -> bool:
        return self._record.failed

    @property
    def has_spans_inside(self) -> bool:
        return True  # unknown, and a trace that has begun is kept anyway

    def discard(self) -> bool:
        return False

    def end(self, end_time: int | None = None) -> None:
        if self._record.end_time is None:
            self._record.end_time = end_time or time.time_ns()
            self._give()
            for exception in redacted_exceptions(self._record):
                self._add_exception(exception)
            self._add_contents(contents_of(self._record))
            _open.discard(self)
            self._context.run(self._manager.__exit__, None, None, None)

    def hold(self) -> bool:
        return False

    def release(self) -> None:
        pass

    def _give(self) -> None:
        """Set the new values; values set before stay, since the app may have changed them."""
        description = describe(self._record)
        tags, metadata = description.all_tags().items(), description.metadata.items()
        request_id, given = description.client_request_id, self._given_request_id
        new_id = None if request_id == given else request_id
        self._update_trace(dict(tags - self._given), dict(metadata - self._given), new_id)
        self._given, self._given_request_id = {*tags, *metadata}, request_id
        self._span.set_attributes(description.all_attributes())
        if description.error is not None:
            self._span.set_status("ERROR")

    def _update_trace(
        self, tags: Mapping[str, str], metadata: Mapping[str, str], client_request_id: str | None = None
    ) -> None:
        given = {"tags": tags, "metadata": metadata, "client_request_id": client_request_id}
        self._context.run(mlflow.update_current_trace, **{name: value for name, value in given.items() if value})

    def _add_exception(self, exception: RecordedException) -> None:
        self._span.add_event(SpanEvent("exception", exception.time, dict(exception.attributes)))

    def _add_contents(self, contents: Contents) -> None:
        if contents.inputs:
            self._span.set_inputs(json.loads(contents.inputs.text))
        if contents.outputs:
            self._span.set_outputs(json.loads(contents.outputs.text))
        usage = {keys.USAGE: dict(contents.usage)} if contents.usage else {}
        self._span.set_attributes({**contents.attributes, **usage})
        previews = {"request_preview": contents.inputs, "response_preview": contents.outputs}
        given = {name: _preview(written) for name, written in previews.items() if written}
        self._context.run(mlflow.update_current_trace, **given)


def _preview(written: Written) -> str:
    return written.preview[: keys.MAX_PREVIEW]


class TracesInside:
    """See `Tracing`: with ``mlflow.tracing.context`` (3.11), if MLflow has it."""

    keeps_words = True

    def __init__(self) -> None:
        self._tags: dict[str, str] = {}
        self._metadata: dict[str, str] = {}

    def attach(self) -> Entered:
        """See `interface.TracesInside`."""
        around = mlflow.tracing.context(metadata=self._metadata, tags=self._tags)
        before, inside = contextvars.copy_context(), contextvars.copy_context()
        inside.run(around.__enter__)
        values = [_Value(key, value) for key, value in inside.items() if before.get(key) is not value]
        inside.run(around.__exit__, None, None, None)
        return resume(values)

    def annotate(
        self, tags: Mapping[str, str], metadata: Mapping[str, str], client_request_id: str | None = None
    ) -> None:
        """See `interface.TracesInside`; effective only before it is attached."""
        self._tags.update(tags)
        self._metadata.update(metadata)


def resume(left: Left) -> Entered:
    """See `Tracing`: return a token for each variable."""
    return [(each.variable, each.variable.set(each.value)) for each in left]


def leave(entered: Entered) -> Left:
    """See `Tracing`."""
    tokens: list[tuple[ContextVar[Any], Token[Any]]] = entered if isinstance(entered, list) else []  # else silenced
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

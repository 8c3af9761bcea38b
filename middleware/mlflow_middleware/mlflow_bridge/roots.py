"""The root span of a request, and the trace's own data.

As long as nobody but the middleware speaks of a request's trace, it is plain data (`PlainRoot`), and encoded as such.
MLflow's and OpenTelemetry's objects for it (`MlflowRoot`) cost 110 us, and 25 objects that the garbage collector looks
after until the trace is sent. So they are made when they are needed: for a child span, for MLflow's own functions, for
an exception, for the app's own span processors.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

import mlflow
from mlflow.entities import LiveSpan
from mlflow.entities.trace_info import TraceInfo
from mlflow.entities.trace_location import TraceLocation
from mlflow.entities.trace_state import TraceState
from mlflow.tracing.config import get_config
from mlflow.tracing.context import _USER_TRACE_CONTEXT
from mlflow.tracing.fluent import _set_last_active_trace_id
from mlflow.tracing.trace_manager import InMemoryTraceManager
from mlflow.tracing.utils import aggregate_usage_from_spans
from mlflow.tracing.utils.processor import apply_span_processors
from mlflow.tracing.utils.truncation import _get_max_length
from opentelemetry.context import Context
from opentelemetry.sdk.trace import Span
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import Span as OTelSpan
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from mlflow_middleware.mlflow_bridge import context, encoding, keys
from mlflow_middleware.mlflow_bridge.common import Common
from mlflow_middleware.mlflow_bridge.root_span import (
    Contents,
    Describe,
    Description,
    Entered,
    Undo,
    Unread,
    Written,
    update,
)

if TYPE_CHECKING:
    from mlflow_middleware.mlflow_bridge.exporter import FinishedRequest

MAX_IN_FLIGHT = 100_000
"""Traces in flight in one process; past that the oldest are given up, so that roots that never end do not pile up."""

_OK = Status(StatusCode.OK)

_DEFAULT_LOG_LEVEL: dict[str, object] = {keys.LOG_LEVEL: 10} if hasattr(LiveSpan, "set_log_level") else {}
"""What MLflow gives to spans of type CHAIN: DEBUG, where it knows levels (3.13; tracing/utils/default_log_level.py)."""

_HELD = "_mlflow_middleware_held"
"""A root of ours has this attribute while the request goes on after its answer."""

_EXPORTER = "_mlflow_middleware_exporter"
"""A root of ours has its exporter here."""

_UNREAD = "_mlflow_middleware_unread"
"""A root of ours has this attribute when our own delivery will read it."""


# --- as plain data ---------------------------------------------------------------------------------------------


class Source(NamedTuple):
    """What makes the spans of requests.

    Attributes:
        provider: The tracer provider that this is of.
        tracer: Its tracer for us.
        processor: Ours, where a root may be plain data: no other processor wants to see it, and no limit is set on its
            attributes.
        lock: MLflow's, which is held over a fork.
        ids: What gives new ids.
    """

    provider: object
    tracer: Any
    processor: Any
    lock: threading.RLock
    ids: IdGenerator


_sampling: Any = importlib.import_module("mlflow.tracing.sampling") if find_spec("mlflow.tracing.sampling") else None
_RATIO_HERE: ContextVar[float | None] | None = getattr(_sampling, "_SAMPLING_RATIO_OVERRIDE", None)
"""Where MLflow keeps the ratio of ``@mlflow.trace(sampling_ratio_override=...)``, where it knows that."""


in_flight: dict[int, PlainRoot] = {}
"""The requests whose roots are plain data, by OpenTelemetry's trace id, until nothing more can come."""

_MAX_PLAIN_ATTRIBUTES = 100
"""More than that are left to OpenTelemetry, which takes 128."""

_NO_CONTEXT = Context()
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


_OF_A_ROOT: dict[str, object] = {keys.SPAN_TYPE: keys.CHAIN, **_DEFAULT_LOG_LEVEL}
_ROOT = Common("", _OF_A_ROOT, {})


def in_common(name: str, attributes: Mapping[str, object], tags: Mapping[str, str]) -> Common:
    """What the requests of a route have in common: see `Common`."""
    return Common(name, {**_OF_A_ROOT, **attributes}, tags)


class PlainRoot:
    """A `RootSpan` that is plain data until somebody asks for more; the names of `TraceInfo` where they mean the same.

    What it holds is described when it is asked for first, mostly by the sender: out of the request's way, and never for
    a trace that is not kept.

    Attributes:
        name: The span's name.
        context: Its ids.
        start_time: Nanoseconds since the epoch.
        end_time: The same; None while it runs.
        error: What the error status says; None for no error.
        attributes: Values that JSON can hold.
        experiment_id: Where the trace goes; None for the one that the environment names.
        has_surroundings: Whether tags and metadata were set at the start: an active run, `mlflow.tracing.context`.
        finished: What waits for delivery, once it has ended.
    """

    __slots__ = (
        "_children",
        "_common",
        "_contents",
        "_describe",
        "_held",
        "_is_changed",
        "_is_discarded",
        "_is_held",
        "_made",
        "_source",
        "_unread",
        "attributes",
        "client_request_id",
        "context",
        "end_time",
        "error",
        "experiment_id",
        "finished",
        "has_surroundings",
        "name",
        "start_time",
        "tags",
        "trace_id",
        "trace_metadata",
    )

    def __init__(self, source: Source, name: str, describe: Describe, trace_id: int) -> None:
        self._source = source
        self._describe: Describe | None = describe
        self._common = _ROOT
        self._made: MlflowRoot | None = None
        self._children: TraceOfRequest | None = None
        self._unread: Unread | None = None
        self._contents: Contents | None = None
        self._held = 0
        self._is_held = False
        self._is_changed = False
        self._is_discarded = False
        self.name = name
        self.context = SpanContext(trace_id, source.ids.generate_span_id(), False, _SAMPLED)
        self.trace_id = f"tr-{trace_id:032x}"
        self.start_time = time.time_ns()
        self.end_time: int | None = None
        self.error: str | None = None
        self.finished: FinishedRequest | None = None
        self.attributes: dict[str, object] = {}
        self.client_request_id: str | None = None
        self.experiment_id: str | None
        self.tags: dict[str, str]
        self.trace_metadata: dict[str, str]
        self.has_surroundings: bool
        source.processor.begin(self)
        in_flight[trace_id] = self
        if len(in_flight) > MAX_IN_FLIGHT:
            in_flight.pop(next(iter(in_flight)), None)

    @classmethod
    def open(cls, source: Source, name: str, describe: Describe) -> PlainRoot | None:
        """Start one; None where the trace is not sampled."""
        trace_id = source.ids.generate_trace_id()
        sampled = source.tracer.sampler.should_sample(_NO_CONTEXT, trace_id, name, SpanKind.INTERNAL, None, ())
        if not sampled.decision.is_recording():
            return None
        return cls(source, name, describe, trace_id)

    def _described(self) -> None:
        """Have it described, if that has not happened yet; to be called under the lock."""
        describe, self._describe = self._describe, None
        if describe is None:
            return
        try:
            self._source.processor.describe(self)
            self.attributes = {keys.REQUEST_ID: self.trace_id}
            if said := describe(self.trace_metadata):
                self._take(said)
            if not self._common.name:
                self.tags.setdefault(keys.NAME, self.name)
        except BaseException:
            self._describe = describe  # else the next one to ask would take it for described
            raise

    def _take(self, said: Description) -> None:
        if said.common is not None:
            self._common = said.common
            self.name = said.common.name
            if self.has_surroundings:  # what is in it is newer
                for key in (keys.NAME, *said.common.tags):
                    self.tags.pop(key, None)
        if said.name is not None:
            self.name = self.tags[keys.NAME] = said.name
        self.attributes.update(said.attributes)
        update(self, said.tags, said.metadata, said.client_request_id)
        self.error = self.error or said.error
        self._unread = said.unread or self._unread

    # --- a root span ---

    def attach(self) -> Entered:
        return context.attach(_CurrentSpan(self))

    def set_attributes(self, attributes: Mapping[str, object]) -> None:
        with self._source.lock:
            self._described()
            if self._made is None and len(self.attributes) + len(attributes) <= _MAX_PLAIN_ATTRIBUTES:
                self.attributes.update(attributes)
                return
        self.made().set_attributes(attributes)

    def add(self, said: Description) -> None:
        with self._source.lock:
            self._described()
            if self._made is None and len(self.attributes) + len(said.attributes) <= _MAX_PLAIN_ATTRIBUTES:
                self._take(said)
                self._is_changed = True
                return
        self.made().add(said)

    def fail(self, error: BaseException) -> None:
        if self._made or self.end_time is None or self._is_held:
            self.made().fail(error)

    def update_trace(
        self,
        tags: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
        client_request_id: str | None = None,
    ) -> None:
        with self._source.lock:
            self._described()
            if self._made is None:
                update(self, tags, metadata, client_request_id)
                self._is_changed = True
                return
        self._made.update_trace(tags, metadata, client_request_id)

    def metadata(self, key: str) -> str | None:
        with self._source.lock:
            self._described()
        return self.trace_metadata.get(key)  # made or not: the trace info has the same dictionary

    @property
    def failed(self) -> bool:
        return self._made.failed if self._made else self.error is not None

    def seconds(self, end_time_ns: int | None = None) -> float:
        return ((end_time_ns or time.time_ns()) - self.start_time) / 1e9

    def discard(self) -> bool:
        with self._source.lock:
            if self._made is None:
                self._forget()
                self._is_discarded = True
                self._describe = self._describe and _nothing_more  # the other one has this root: a circle
                return True
        return self._made.discard()

    def end(self, end_time_ns: int | None = None, held: int = 0) -> None:
        with self._source.lock:
            if get_config().span_processors or (self._children and self._children.need_objects()):
                self.made()
            if self._made is None:
                self.end_time = end_time_ns or time.time_ns()
                self._held = held
                if not self._is_held:
                    self._forget()
                if not self._is_discarded:
                    self.finished = self._source.processor.finished(self)
            made = self._made
        if made:
            made.end(end_time_ns)
        elif self.finished:
            _set_last_active_trace_id(self.trace_id)
            self._source.processor.put(self.finished)

    def hold(self) -> bool:
        with self._source.lock:
            if self._made is None:
                self._is_held = True
                return True
        return self._made.hold()

    def release(self) -> None:
        supplement = None
        with self._source.lock:
            if self._made is None:
                self._forget()
                if self._is_held and self._is_changed and self.finished and self.finished.is_read:
                    supplement = self._source.processor.finished(self, supplement=True)
                    supplement.captured_by = self.finished.captured_by
                    self.finished = supplement
                elif self.finished and self.finished.is_read:
                    self.finished = self._contents = None
                self._is_held = False
            made = self._made
        if made:
            made.release()
        elif supplement:
            self._source.processor.put(supplement)

    # --- its children ---

    def take_child(self) -> None:
        """Register the trace with MLflow, so that a child span finds it; to be called under the lock."""
        if self._made is None and self.end_time is None and self._children is None:
            manager = InMemoryTraceManager.get_instance()
            self._children = manager._traces[self.trace_id] = TraceOfRequest(self)
            manager._otel_id_to_mlflow_trace_id[self.context.trace_id] = self.trace_id
        elif self.end_time is not None:  # a span that may outlive the request
            self.made()

    @property
    def children(self) -> list[LiveSpan]:
        """Its child spans, all of which have ended, unless MLflow's objects have been made for it."""
        return self._children.spans if self._children else []

    def _forget(self) -> None:
        """Nobody finds it any more: nothing more will come."""
        in_flight.pop(self.context.trace_id, None)
        if self._children:
            discard(self.trace_id, self.context.trace_id)

    # --- for the sender ---

    @property
    def is_open(self) -> bool:
        """Whether more may come."""
        return self._is_held

    @property
    def size(self) -> int:
        """Bytes, about, that it holds."""
        if self._describe is not None:
            return _SIZE + self._held
        texts = [*self.attributes.values(), *self.tags.values(), *self.trace_metadata.values()]
        size = sum([len(text) for text in texts if type(text) is str])
        return _SIZE + size + (self._unread.size if self._unread else 0)

    def forget_contents(self) -> None:
        """Do without what is still to be read."""
        with self._source.lock:
            self._described()
            if self._made:
                self._made.forget_contents()
            self._unread = None

    def describe(self) -> None:
        """Have it described, as far as that has not happened yet."""
        with self._source.lock:
            self._described()

    def read_contents(self) -> None:
        """Read its bodies, as far as that has not happened yet; MLflow's objects for it have their own."""
        unread = self._unread
        if unread is not None and self._made is None:
            self._contents = unread.read()
            self._unread = None

    def is_read(self) -> bool:
        """Take it as it is from here: whether that can be done, or MLflow's objects for it have been made."""
        with self._source.lock:
            if self._made is not None:
                return False
            self._described()
            self._is_changed = False
            return True

    def encoded(self, experiment_id: str) -> tuple[bytes, bytes]:
        """Its span as an OTLP request, and its info as the body of ``POST /api/3.0/mlflow/traces``."""
        self.read_contents()
        contents = self._contents or _NOTHING
        with self._source.lock:  # the app may go on
            common, attributes, tags, metadata = self._state()
        attributes.update(contents.attributes)
        texts = {}
        children = self.children
        usage = usage_of(children) or contents.usage
        if usage is contents.usage and usage:
            texts[keys.USAGE] = json.dumps(usage)
        if contents.inputs:
            texts[keys.INPUTS] = contents.inputs.text
        if contents.outputs:
            texts[keys.OUTPUTS] = contents.outputs.text
        metadata.update(self._source.processor.summary(texts, usage))
        plain = encoding.Plain(
            self.trace_id,
            self.name,
            self.context,
            self.start_time,
            self.end_time or self.start_time,
            self.error,
            common,
            attributes,
            texts,
            tags,
            metadata,
            self.client_request_id,
            request_preview=_preview(contents.inputs),
            response_preview=_preview(contents.outputs),
        )
        return encoding.encoded(plain, self._source.tracer.resource, experiment_id, children)

    def encoded_as(self, finished: FinishedRequest) -> None:
        """That was its last reading, unless more may come: hold nothing, and not what holds this."""
        with self._source.lock:
            if finished is self.finished and not self._is_held:
                self.finished = self._contents = None

    def _state(self) -> tuple[Common, dict[str, object], dict[str, str], dict[str, str]]:
        """What it holds now: in common, attributes, tags and metadata."""
        common, attributes, tags = self._common, self.attributes.copy(), self.tags.copy()
        is_apart = common.tags.keys().isdisjoint(tags) and common.attributes.keys().isdisjoint(attributes)
        if not is_apart or keys.NAME in tags:
            attributes, tags = {**common.attributes, **attributes}, self._all_tags()
            common = _ROOT
        return common, attributes, tags, self.trace_metadata.copy()

    def _all_tags(self) -> dict[str, str]:
        return {keys.NAME: self.name, **self._common.tags, **self.tags}

    def info(self, experiment_id: str | None) -> TraceInfo:
        """Its trace info, in progress."""
        return TraceInfo(
            trace_id=self.trace_id,
            trace_location=TraceLocation.from_experiment_id(experiment_id),
            request_time=self.start_time // 1_000_000,
            execution_duration=None,
            state=TraceState.IN_PROGRESS,
            trace_metadata=self.trace_metadata,
            tags=self.tags,
            client_request_id=self.client_request_id,
        )

    # --- as MLflow's objects ---

    def made(self) -> MlflowRoot:
        """MLflow's objects for it; made when they are asked for first."""
        with self._source.lock:
            if self._made is None:
                self._made = self._make()
            return self._made

    def _make(self) -> MlflowRoot:
        self._described()
        self.attributes = {**self._common.attributes, **self.attributes}
        self.tags = self._all_tags()
        self._common = _ROOT
        children = self.children
        if self._children:
            discard(self.trace_id, self.context.trace_id)
        _making.root = self
        ratio = _RATIO_HERE.set(1.0) if _RATIO_HERE else None  # whoever asks may have one of its own: this is sampled
        try:
            span = self._source.tracer.start_span(self.name, context=Context(), start_time=self.start_time)
        finally:
            _making.root = None
            if _RATIO_HERE and ratio:
                _RATIO_HERE.reset(ratio)
        manager = InMemoryTraceManager.get_instance()
        trace = manager._traces[self.trace_id]
        live = trace.span_dict[f"{self.context.span_id:016x}"]
        trace.span_dict.update({child.span_id: child for child in children})
        made = MlflowRoot(live, trace, is_shared=False)
        encoding.set_attributes(span, self.attributes)
        vars(live)[_UNREAD] = self._unread
        if self._contents:
            give(trace, live, self._contents)
        if self.error is not None:
            made.set_error(self.error)
        if self._is_held:
            made.hold()
        if self.end_time is not None:
            made.end_quietly(self.end_time)
        if self.finished:  # it waits for delivery, or may come once more
            self.finished.made(trace)
        if self._is_discarded or (self.end_time is not None and not self._is_held):
            made.discard()  # nothing more will come of it
        elif self.finished:
            vars(live)[_EXPORTER].goes_on(self.context.trace_id, self.finished)
        in_flight.pop(self.context.trace_id, None)
        return made


class TraceOfRequest:
    """What MLflow finds as the trace of a request whose root is plain data, while it has child spans.

    MLflow asks it for nothing but the child that has just begun. For all else the root is made: see `_Spans`.
    """

    def __init__(self, root: PlainRoot) -> None:
        self._root = root
        self.span_dict = _Spans(root)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # it is being copied
            raise AttributeError(name)
        return getattr(self._root.made().trace, name)

    @property
    def spans(self) -> list[LiveSpan]:
        """The children."""
        return list(dict.values(self.span_dict))

    def need_objects(self) -> bool:
        """Whether the end of a child has to find the root, or MLflow has to sum up what a child has cost."""
        return any(
            child.end_time_ns is None or keys.COST in encoding.attributes_of(child._span) for child in self.spans
        )


class _Spans(dict[str, LiveSpan]):
    """The children of a root that is plain data, by their ids; whoever looks for another span gets those of MLflow."""

    def __init__(self, root: PlainRoot) -> None:
        super().__init__()
        self._root = root

    def _all(self) -> dict[str, LiveSpan]:
        found: dict[str, LiveSpan] = self._root.made().trace.span_dict
        return found

    def get(self, key: str, default: Any = None) -> Any:
        found = super().get(key)
        return self._all().get(key, default) if found is None else found

    def __missing__(self, key: str) -> LiveSpan:
        return self._all()[key]

    def __contains__(self, key: object) -> bool:
        return key in self._all()

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def keys(self) -> Any:
        return self._all().keys()

    def values(self) -> Any:
        return self._all().values()

    def items(self) -> Any:
        return self._all().items()


def usage_of(children: list[LiveSpan]) -> Mapping[str, int] | None:
    """The tokens that the child spans of a root have used together."""
    if not any(keys.USAGE in encoding.attributes_of(child._span) for child in children):
        return None
    found: Mapping[str, int] | None = aggregate_usage_from_spans(children)
    return found


def discard(trace_id: str, otel_id: int) -> None:
    """Have MLflow forget a trace."""
    manager = InMemoryTraceManager.get_instance()
    with manager._lock:
        manager._traces.pop(trace_id, None)
        manager._otel_id_to_mlflow_trace_id.pop(otel_id, None)


_SIZE = 2500
"""Bytes, about, of a request's trace without its bodies, path and headers."""


def _nothing_more(metadata: Mapping[str, str]) -> None:
    """Say nothing of a trace that is not kept."""


_NOTHING = Contents(None, None, None, {})


def _preview(written: Written | None) -> str | None:
    return _shortened(written.preview) if written else None


class _Making(threading.local):
    """The root of which the objects are being made in this thread."""

    root: PlainRoot | None = None


_making = _Making()


def being_made() -> PlainRoot | None:
    """The root whose span begins right now, where it is one that has begun before."""
    return _making.root


class Ids(IdGenerator):
    """Gives a root that is being made the ids that it has already; anything else gets new ones.

    Args:
        around: What gives new ids.
    """

    def __init__(self, around: IdGenerator) -> None:
        self.around = around

    def generate_trace_id(self) -> int:
        """See ``IdGenerator``."""
        root = _making.root
        return root.context.trace_id if root else self.around.generate_trace_id()

    def generate_span_id(self) -> int:
        """See ``IdGenerator``."""
        root = _making.root
        return root.context.span_id if root else self.around.generate_span_id()

    def is_trace_id_random(self) -> bool:
        """See ``IdGenerator``."""
        return bool(getattr(self.around, "is_trace_id_random", bool)())


def made_of(trace_id: object) -> bool:
    """Make the objects of a request that is plain data so far, given MLflow's or OpenTelemetry's trace id.

    Returns:
        Whether there is such a request.
    """
    try:
        otel_id = int(trace_id[3:], 16) if isinstance(trace_id, str) else trace_id
    except ValueError:
        return False
    root = in_flight.get(otel_id) if isinstance(otel_id, int) else None
    if root is not None:
        root.made()
    return root is not None


def _asked(name: str) -> Any:
    """A method of a span that has to be made for it."""

    def ask(self: _CurrentSpan, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.root.made().otel, name)(*args, **kwargs)

    return ask


class _CurrentSpan(OTelSpan):
    """What is current in a request whose root is plain data; whoever asks for more than its ids has it made."""

    def __init__(self, root: PlainRoot) -> None:
        self.root = root
        self.context = root.context

    def get_span_context(self) -> SpanContext:
        """See ``Span``."""
        return self.context

    def is_recording(self) -> bool:
        """See ``Span``."""
        made = self.root._made
        return made.otel.is_recording() if made else self.root.end_time is None

    end = _asked("end")
    set_attributes = _asked("set_attributes")
    set_attribute = _asked("set_attribute")
    add_event = _asked("add_event")
    add_link = _asked("add_link")
    update_name = _asked("update_name")
    set_status = _asked("set_status")
    record_exception = _asked("record_exception")

    def __getattr__(self, name: str) -> Any:
        if name in ("root", "context"):  # it is being copied
            raise AttributeError(name)
        return getattr(self.root.made().otel, name)


# --- as MLflow's objects ---------------------------------------------------------------------------------------


class MlflowRoot:
    """A `RootSpan` that is MLflow's and OpenTelemetry's objects.

    Attributes:
        otel: The span.
        trace: MLflow's trace in flight.
    """

    __slots__ = ("_is_ours", "_is_shared", "_span", "otel", "trace", "trace_id")

    def __init__(self, span: LiveSpan, trace: Any, is_shared: bool) -> None:
        self._is_ours = _UNREAD in vars(span)
        self._is_shared = is_shared
        self._span = span
        self.trace = trace
        self.otel: Span = span._span
        self.trace_id: str = trace.info.trace_id

    def attach(self) -> Entered:
        return context.attach(self.otel)

    def set_attributes(self, attributes: Mapping[str, object]) -> None:
        encoding.set_attributes(self.otel, attributes)

    def add(self, said: Description) -> None:
        if common := said.common:
            self.set_attributes(common.attributes)
            self.update_trace(common.tags)
        name = said.name or (common and common.name)
        if name and name != self.otel.name:  # else the trace may have it from another request's root
            self.otel.update_name(name)
            self.trace.info.tags[keys.NAME] = name
        self.set_attributes(said.attributes)
        self.update_trace(said.tags, said.metadata, said.client_request_id)
        if said.error is not None:
            self.set_error(said.error)
        if said.unread is not None:
            vars(self._span)[_UNREAD] = said.unread

    def forget_contents(self) -> None:
        """Do without what is still to be read."""
        forget_contents(self.trace)

    def fail(self, error: BaseException) -> None:
        if self.otel.end_time and _HELD not in vars(self._span):
            return
        with _reopened(self.otel) as had_ended:
            self.set_attributes({"error.type": type(error).__qualname__})
            self.set_error(type(error).__qualname__)
            known = isinstance(error, Exception)  # MLflow takes no other BaseException
            self._span.record_exception(error if known else f"{type(error).__name__}: {error}")
        if had_ended:  # its status is OK by now, which is final for the SDK
            self.otel._status = Status(StatusCode.ERROR, type(error).__qualname__)
            self.trace.info.state = TraceState.ERROR

    def set_error(self, description: str) -> None:
        """Set the error status, unless an exception already did."""
        if self.otel.status.status_code is not StatusCode.ERROR:
            self.otel.set_status(Status(StatusCode.ERROR, description))

    def update_trace(
        self,
        tags: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
        client_request_id: str | None = None,
    ) -> None:
        update(self.trace.info, tags, metadata, client_request_id)

    def metadata(self, key: str) -> str | None:
        value: str | None = self.trace.info.trace_metadata.get(key)
        return value

    @property
    def failed(self) -> bool:
        return self.otel.status.status_code is StatusCode.ERROR

    def seconds(self, end_time_ns: int | None = None) -> float:
        return ((end_time_ns or time.time_ns()) - (self.otel.start_time or 0)) / 1e9

    def discard(self) -> bool:
        if self._is_shared:
            return False
        discard(self.trace_id, self.otel.get_span_context().trace_id)
        return True

    def end(self, end_time_ns: int | None = None, held: int = 0) -> None:
        # As ``LiveSpan.end`` does it, without what concerns other types of spans: the cost of a model's call, and hints
        # to agents, whose imports fail each time in the slim package (60 us on a slow core).
        self._complete()
        processors = get_config().span_processors
        if processors or not self._is_ours:
            read_contents(self.trace, self._span)
        if processors:
            apply_span_processors(self._span)
        self.otel.end(end_time=end_time_ns)

    def end_quietly(self, end_time_ns: int) -> None:
        """End the span of which nobody needs to be told."""
        self._complete()
        span: Any = self.otel
        span._end_time, span._attributes._immutable = end_time_ns, True

    def _complete(self) -> None:
        if self.otel.status.status_code is not StatusCode.ERROR:
            self.otel.set_status(_OK)
        if keys.LOG_LEVEL not in encoding.attributes_of(self.otel):
            encoding.set_attributes(self.otel, _DEFAULT_LOG_LEVEL)

    def hold(self) -> bool:
        if self._is_ours:
            vars(self._span)[_HELD] = True
        return self._is_ours

    def release(self) -> None:
        exporter = vars(self._span).get(_EXPORTER)
        if vars(self._span).pop(_HELD, False) and exporter:
            exporter.export((self.otel,))


@contextlib.contextmanager
def _reopened(span: Any) -> Iterator[bool]:
    """Have the SDK take more for a span, also when it has ended; says whether it has."""
    attributes, ended = span._attributes, span._end_time
    if ended:
        span._end_time, attributes._immutable = None, False
    try:
        yield bool(ended)
    finally:
        if ended:
            span._end_time, attributes._immutable = ended, True


def adopt(span: LiveSpan, exporter: object) -> None:
    """Make a root one of ours: our own delivery reads it."""
    vars(span).update({_UNREAD: None, _EXPORTER: exporter})


def is_open(span: LiveSpan) -> bool:
    """Whether more may come for a span."""
    return span.end_time_ns is None or _HELD in vars(span)


def unread_of(span: LiveSpan) -> int:
    """Bytes that wait to be read for a span."""
    unread: Unread | None = vars(span).get(_UNREAD)
    return unread.size if unread else 0


def forget_contents(trace: Any) -> None:
    """Do without what is still to be read for a trace."""
    for span in list(trace.span_dict.values()):
        if vars(span).get(_UNREAD):
            vars(span)[_UNREAD] = None


def read_contents(trace: Any, span: LiveSpan) -> list[Written]:
    """Give a root the inputs and outputs that were to be read later; what the app has set itself stays.

    Returns:
        What it was given.
    """
    unread: Unread | None = vars(span).get(_UNREAD)
    if unread is None:
        return []
    vars(span)[_UNREAD] = None
    contents = unread.read()
    return give(trace, span, contents) if contents else []


def give(trace: Any, span: LiveSpan, contents: Contents) -> list[Written]:
    """Give a root what was read; what the app has set itself stays.

    Returns:
        What it was given.
    """
    known, info = encoding.attributes_of(span._span), trace.info
    found = ((keys.INPUTS, contents.inputs), (keys.OUTPUTS, contents.outputs))
    new = {key: value for key, value in found if value is not None and key not in known}
    encoding.set_texts(span._span, {key: value.text for key, value in new.items()})
    rest = dict(contents.attributes)
    spans = list(trace.span_dict.values())
    if contents.usage and not any(keys.USAGE in encoding.attributes_of(each._span) for each in spans):
        rest[keys.USAGE] = contents.usage
    if rest:
        encoding.set_attributes(span._span, rest)
    if info.request_preview is None and (inputs := new.get(keys.INPUTS)):
        info.request_preview = _shortened(inputs.preview)
    if info.response_preview is None and (outputs := new.get(keys.OUTPUTS)):
        info.response_preview = _shortened(outputs.preview)
    return list(new.values())


def _shortened(preview: str) -> str:
    """As MLflow shortens its own (mlflow/tracing/utils/truncation.py)."""
    preview = preview.replace("\0", "\ufffd")  # PostgreSQL stores no such text
    if len(preview) <= keys.MAX_PREVIEW:  # the smaller of two limits: no look-up, 3 us
        return preview
    longest = _get_max_length()
    return preview if len(preview) <= longest else preview[: longest - 3] + "..."


# --- a connection that has no trace of its own -----------------------------------------------------------------


inside: ContextVar[TracesInside | None] = ContextVar("mlflow_middleware_traces_inside", default=None)
"""What each trace that begins here holds."""


class TracesInside:
    """What each trace holds from its start that the app opens where this is attached; named as in ``TraceInfo``."""

    def __init__(self) -> None:
        self.tags: dict[str, str] = {}
        self.trace_metadata: dict[str, str] = {}
        self.client_request_id: str | None = None

    def attach(self) -> Undo:
        """Give it to the traces opened from here; returns what undoes that, in the same context."""
        around = mlflow.tracing.context(metadata=self.trace_metadata, tags=self.tags)
        around.__enter__()
        merged = _USER_TRACE_CONTEXT.get()
        self.tags, self.trace_metadata = merged.tags, merged.metadata  # read when a trace begins: later updates count
        token = inside.set(self)

        def undo() -> None:
            inside.reset(token)
            around.__exit__(None, None, None)

        return undo

    def update_trace(
        self,
        tags: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
        client_request_id: str | None = None,
    ) -> None:
        """As `RootSpan.update_trace`, for the traces that begin from now on."""
        update(self, tags, metadata, client_request_id)

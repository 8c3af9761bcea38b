"""A request's root span as plain data.

As long as nobody but the middleware speaks of a request's trace, it is plain data, and encoded as such. MLflow's and
OpenTelemetry's objects for it cost 110 us, and 25 objects that the garbage collector looks after until the trace is
sent. So they are made when they are needed (`PlainRoot.made`): for MLflow's own functions, for an exception, for the
app's own span processors, for a child span that outlives the request.
"""

from __future__ import annotations

import importlib
import json
import threading
import time
from collections.abc import Mapping
from contextvars import ContextVar
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

from mlflow.entities import LiveSpan
from mlflow.entities.trace_info import TraceInfo
from mlflow.entities.trace_location import TraceLocation
from mlflow.entities.trace_state import TraceState
from mlflow.tracing.config import get_config
from mlflow.tracing.fluent import _set_last_active_trace_id
from mlflow.tracing.trace_manager import InMemoryTraceManager
from opentelemetry.context import Context
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags

from mlflow_middleware.mlflow_bridge import context, encoding, keys, span_attributes
from mlflow_middleware.mlflow_bridge.children import TraceOfRequest, usage_of
from mlflow_middleware.mlflow_bridge.common import Common
from mlflow_middleware.mlflow_bridge.current_span import CurrentSpan
from mlflow_middleware.mlflow_bridge.ids import making
from mlflow_middleware.mlflow_bridge.mlflow_root import (
    DEFAULT_LOG_LEVEL,
    EXPORTER,
    UNREAD,
    MlflowRoot,
    discard,
    give,
    preview_of,
)
from mlflow_middleware.mlflow_bridge.root_span import Contents, Describe, Description, Entered, Unread, update

if TYPE_CHECKING:
    from mlflow_middleware.mlflow_bridge.exporter import FinishedRequest

MAX_IN_FLIGHT = 100_000
"""Traces in flight in one process; past that the oldest are given up, so that roots that never end do not pile up."""


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


_OF_A_ROOT: dict[str, object] = {keys.SPAN_TYPE: keys.CHAIN, **DEFAULT_LOG_LEVEL}
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
        return context.attach(CurrentSpan(self))

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
    def is_recording(self) -> bool:
        """Whether its span takes more."""
        return self._made.otel.is_recording() if self._made else self.end_time is None

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
            request_preview=contents.inputs and preview_of(contents.inputs),
            response_preview=contents.outputs and preview_of(contents.outputs),
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
        making.root = self
        ratio = _RATIO_HERE.set(1.0) if _RATIO_HERE else None  # whoever asks may have one of its own: this is sampled
        try:
            span = self._source.tracer.start_span(self.name, context=Context(), start_time=self.start_time)
        finally:
            making.root = None
            if _RATIO_HERE and ratio:
                _RATIO_HERE.reset(ratio)
        manager = InMemoryTraceManager.get_instance()
        trace = manager._traces[self.trace_id]
        live = trace.span_dict[f"{self.context.span_id:016x}"]
        trace.span_dict.update({child.span_id: child for child in children})
        made = MlflowRoot(live, trace, is_shared=False)
        span_attributes.set_attributes(span, self.attributes)
        vars(live)[UNREAD] = self._unread
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
            vars(live)[EXPORTER].goes_on(self.context.trace_id, self.finished)
        in_flight.pop(self.context.trace_id, None)
        return made


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


_SIZE = 2500
"""Bytes, about, of a request's trace without its bodies, path and headers."""


def _nothing_more(metadata: Mapping[str, str]) -> None:
    """Say nothing of a trace that is not kept."""


_NOTHING = Contents(None, None, None, {})

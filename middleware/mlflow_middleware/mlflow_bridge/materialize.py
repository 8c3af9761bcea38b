"""The materialization of a request: MLflow's and OpenTelemetry's objects for it, and the app's changes to them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from mlflow.entities import LiveSpan
from mlflow.entities.trace_location import TraceLocation
from mlflow.entities.trace_state import TraceState
from mlflow.tracing.trace_manager import InMemoryTraceManager
from mlflow.tracing.utils.processor import apply_span_processors
from mlflow.tracing.utils.truncation import set_request_response_preview
from opentelemetry.context import Context
from opentelemetry.sdk.trace import Event, Span
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from mlflow_middleware.capture.spans import redacted, redacted_text
from mlflow_middleware.exchange import Job
from mlflow_middleware.mlflow_bridge import readable, registry, span_attributes
from mlflow_middleware.mlflow_bridge.ids import materializing
from mlflow_middleware.trace import keys
from mlflow_middleware.trace.description import Description, storable
from mlflow_middleware.trace.record import RecordedException, SpanIds, TraceRecord

if TYPE_CHECKING:
    from mlflow_middleware.mlflow_bridge.root import Root

_HAS_LEVELS = hasattr(LiveSpan, "set_log_level")

ROOT_ATTRIBUTES: dict[str, object] = {keys.LOG_LEVEL: keys.INFO} if _HAS_LEVELS else {}
"""The attributes of each root if MLflow supports levels (3.13). MLflow's default for a span of type CHAIN is DEBUG
(tracing/utils/default_log_level.py), which its UI's filter hides."""

FAILED_ROOT_ATTRIBUTES: dict[str, object] = {keys.LOG_LEVEL: keys.ERROR} if _HAS_LEVELS else {}
"""The attributes of a root with an exception: the level that MLflow gives to spans that record one."""


def attributes_of_root(description: Description) -> dict[str, object]:
    """Return the attributes that do not depend on the request."""
    return FAILED_ROOT_ATTRIBUTES if description.exceptions else ROOT_ATTRIBUTES


ROOT = "_mlflow_middleware_root"
"""The attribute of a live span for the request's root that it represents."""


def root_of(span: LiveSpan) -> Root | None:
    """Return the request whose root a span is, if any."""
    root: Root | None = vars(span).get(ROOT)
    return root


def mark_as_root(span: LiveSpan, root: Root) -> None:
    """Mark a span as a request's root."""
    vars(span)[ROOT] = root


def link_to(caller: SpanIds) -> Link:
    """Return a link to a caller's span."""
    return Link(remote_context(caller))


def parent_of(record: TraceRecord) -> SpanContext | None:
    """Return the caller's span if it is the root's parent."""
    return None if record.parent_id is None else remote_context(SpanIds(record.ids.trace_id, record.parent_id))


def remote_context(caller: SpanIds) -> SpanContext:
    return SpanContext(*caller, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))


def kind_of(record: TraceRecord) -> SpanKind:
    """Return the kind of a root, as in OpenTelemetry."""
    return SpanKind.CONSUMER if isinstance(record.exchange, Job) else SpanKind.SERVER


def started(tracer: Any, name: str, parent: SpanContext | None, record: TraceRecord, start_time: int | None) -> Any:
    """Start the OpenTelemetry span of a root."""
    caller = record.caller
    around = set_span_in_context(NonRecordingSpan(parent), Context()) if parent else Context()
    links = [link_to(caller)] if caller else []
    return tracer.start_span(name, context=around, kind=kind_of(record), links=links, start_time=start_time)


def materialized(root: Root, description: Description) -> Objects:
    """Create MLflow's objects for a root that has already begun; call this under MLflow's lock."""
    record, children = root.record, root.spans
    registry.unregister(record.trace_id, record.ids.trace_id)
    with materializing(root), _sampled():
        span = started(root.source.tracer, description.name, parent_of(record), record, record.start_time)
        trace = InMemoryTraceManager.get_instance()._traces[record.trace_id]
        live = trace.span_dict[f"{span.get_span_context().span_id:016x}"]
        trace.span_dict.update({child.span_id: child for child in children})
        mark_as_root(live, root)
        objects = Objects(live, trace)
        objects.give(description)
        if record.end_time is not None:
            objects.end(record.end_time)
    return objects


_sampling: Any = importlib.import_module("mlflow.tracing.sampling") if find_spec("mlflow.tracing.sampling") else None
_RATIO_HERE: ContextVar[float | None] | None = getattr(_sampling, "_SAMPLING_RATIO_OVERRIDE", None)
"""The variable with the ratio of ``@mlflow.trace(sampling_ratio_override=...)``, if MLflow supports it."""


@contextmanager
def _sampled() -> Iterator[None]:
    """Sample all spans that begin inside, even if the calling code has a sampling ratio of its own."""
    ratio = _RATIO_HERE.set(1.0) if _RATIO_HERE else None
    try:
        yield
    finally:
        if _RATIO_HERE and ratio:
            _RATIO_HERE.reset(ratio)


class Objects:
    """MLflow's objects for a request.

    They are filled from the record, so that the app sees its values; later differences come from the app.

    Args:
        live: The span of the root.
        trace: MLflow's trace in flight.
        is_shared: Whether another request of this process has begun the trace.

    Attributes:
        is_leading: Whether the trace is the request's, although another span has begun it.
    """

    def __init__(self, live: LiveSpan, trace: Any, *, is_shared: bool = False) -> None:
        self.live = live
        self.trace = trace
        self.is_shared = is_shared
        self.is_leading = False
        self.otel: Span = live._span
        self._name = self.otel.name
        self._attributes = dict(span_attributes.attributes_of(self.otel))
        self._tags, self._metadata = dict(trace.info.tags), dict(trace.info.trace_metadata)
        self._exceptions: tuple[RecordedException, ...] = ()
        self._status: Status | None = None
        self._client_request_id: str | None = trace.info.client_request_id

    # --- filled from the record ---

    def give(self, description: Description) -> None:
        """Fill the objects from a description, except values that the app has set."""
        info, otel = self.trace.info, self.otel
        texts = span_attributes.to_texts({**attributes_of_root(description), **description.all_attributes()})
        self._give({**texts, **description.texts}, self._attributes, span_attributes.attributes_of(otel), self._set)
        tags = description.all_tags()
        if self.is_shared:
            del tags[keys.NAME]  # its first root gives the name
        self._give(tags, self._tags, info.tags, info.tags.update)
        self._give(description.metadata, self._metadata, info.trace_metadata, info.trace_metadata.update)
        if description.name != otel.name:
            otel.update_name(description.name)
        self._name = description.name
        if description.client_request_id and not info.client_request_id:
            self._client_request_id = info.client_request_id = description.client_request_id
        for each in description.exceptions[len(self._exceptions) :]:
            otel.add_event("exception", each.attributes, each.time)
        self._exceptions = description.exceptions
        if description.error is not None and otel.status.status_code is StatusCode.UNSET:
            otel.set_status(Status(StatusCode.ERROR, description.error))
            self._status = otel.status

    def _set(self, texts: Mapping[str, str]) -> None:
        span_attributes.set_texts(self.otel, texts)

    @staticmethod
    def _give(
        new: Mapping[str, Any], given: dict[str, Any], now: Mapping[str, Any], update: Callable[[dict[str, Any]], None]
    ) -> None:
        by_app = _changed(now, given)
        filled = {key: value for key, value in new.items() if key not in by_app}
        update(filled)
        given.update(filled)

    def annotate(self, tags: Mapping[str, str], metadata: Mapping[str, str], client_request_id: str | None) -> None:
        """Set values that are newer than those set with MLflow's functions."""
        if client_request_id and len(client_request_id) <= keys.MAX_CLIENT_REQUEST_ID:
            self._client_request_id = self.trace.info.client_request_id = client_request_id
        for given, known, new in (
            (self.trace.info.tags, self._tags, tags),
            (self.trace.info.trace_metadata, self._metadata, metadata),
        ):
            given.update(new)
            known.update(new)

    def replace(self, description: Description) -> None:
        """Replace the app's values by those to be stored, for MLflow's own exporter."""
        info, texts = self.trace.info, _changed(span_attributes.attributes_of(self.otel), self._attributes)
        info.tags.update({key: description.tags[key] for key in _changed(info.tags, self._tags)})
        info.trace_metadata.update({key: description.metadata[key] for key in self.metadata()})
        if request_id := description.tags.get(keys.CLIENT_REQUEST_ID):
            info.tags[keys.CLIENT_REQUEST_ID] = request_id
        self._set({key: description.texts.get(key, "null") for key in texts})

    def go_to(self, experiment: str | None) -> None:
        """Make MLflow's own exporter send the trace to an experiment, which it accepts by id only."""
        if experiment and experiment.isdecimal():
            self.trace.info.trace_location = TraceLocation.from_experiment_id(experiment)

    def _give_previews(self, description: Description) -> None:
        """Set the previews for MLflow's own exporter, which creates its own for replaced inputs and outputs."""
        info, own = self.trace.info, _changed(span_attributes.attributes_of(self.otel), self._attributes)
        if keys.INPUTS not in own:
            info.request_preview = info.request_preview or description.request_preview
        if keys.OUTPUTS not in own:
            info.response_preview = info.response_preview or description.response_preview

    def end(self, end_time: int, description: Description | None = None, processors: Iterable[object] = ()) -> None:
        """End the span, visibly for all observers.

        This does the work of ``LiveSpan.end``, without its parts for other types of spans: the cost of a model's call,
        and hints to agents, whose imports always fail in the slim package.

        Args:
            end_time: Nanoseconds since the epoch.
            description: The description of the request, for observers that do not read its record.
            processors: The app's processors, which may change the span.
        """
        if description:
            self.give(description)
        if self.otel.status.status_code is StatusCode.UNSET:
            self.otel.set_status(Status(StatusCode.OK))
            self._status = self.otel.status
        if processors:
            apply_span_processors(self.live)
        if description:
            self._give_previews(description)
        self.otel.end(end_time=end_time)

    # --- set by the app ---

    @property
    def failed(self) -> bool:
        """Whether the span's status is an error."""
        return self.otel.status.status_code is StatusCode.ERROR

    @property
    def _has_set_status(self) -> bool:
        """Whether the app has set the span's status itself."""
        status = self.otel.status
        return status.status_code is not StatusCode.UNSET and status is not self._status

    def has_failed(self, otherwise: bool) -> bool:
        """Return whether the trace is an error; a state that the app has set takes precedence.

        Args:
            otherwise: Whether the request has failed.
        """
        state = self.trace.info.state
        return otherwise or self.failed if state == TraceState.IN_PROGRESS else bool(state == TraceState.ERROR)

    def metadata(self) -> dict[str, str]:
        """Return the trace's metadata that the app has set."""
        return _changed(self.trace.info.trace_metadata, self._metadata)

    @property
    def events(self) -> list[Event]:
        """The span's events, except those for recorded exceptions."""
        given = {each.time for each in self._exceptions}
        return [event for event in self.otel.events if event.timestamp not in given]

    @property
    def dropped(self) -> set[str]:
        """The filled attributes that the span has lost, because the app limits their number."""
        return self._attributes.keys() - span_attributes.attributes_of(self.otel).keys()

    def merge_into(self, description: Description, record: TraceRecord) -> None:
        """Merge the app's values, which take precedence, into a description."""
        info, status = self.trace.info, self.otel.status
        texts = dict(redacted(_changed(span_attributes.attributes_of(self.otel), self._attributes)))
        if user := texts.get("user.id"):
            safe = storable(record, {keys.USER: span_attributes.decoded(user)})
            names = ("user.id", "user.hash") if record.settings.hmac_key else ("user.id",)
            texts.update(span_attributes.to_texts(dict.fromkeys(names, safe[keys.USER])))
        description.tags.update(storable(record, _changed(info.tags, self._tags)))
        if self.otel.name != self._name and "http.route" not in description.common.attributes:
            description.name = description.tags[keys.NAME] = self.otel.name.replace("\0", "\ufffd")
        self._merge_request_id(description)
        if self._has_set_status:
            description.error = (redacted_text(status.description) or "") if self.failed else None
        if info.state != TraceState.IN_PROGRESS:
            description.state = info.state.value
            if not self._has_set_status:  # the span follows the trace
                description.error = None if info.state == TraceState.OK else description.error or ""
        previewed = SimpleNamespace(request_preview=info.request_preview, response_preview=info.response_preview)
        read = SimpleNamespace(request=texts.get(keys.INPUTS), response=texts.get(keys.OUTPUTS))
        set_request_response_preview(previewed, read)
        if previewed.request_preview or keys.INPUTS in texts:
            description.request_preview = readable.preview(redacted_text(previewed.request_preview))
        if previewed.response_preview or keys.OUTPUTS in texts:
            description.response_preview = readable.preview(redacted_text(previewed.response_preview))
        description.texts.update({key: readable.readable(key, text) for key, text in texts.items()})

    def _merge_request_id(self, description: Description) -> None:
        """Use the app's request id for column and tag; one that is too long for the column is only in the tag."""
        request_id = self.trace.info.client_request_id
        is_by_app = request_id != self._client_request_id
        if request_id and len(request_id) <= keys.MAX_CLIENT_REQUEST_ID:
            description.client_request_id = request_id
        elif is_by_app:
            description.client_request_id = None
        if request_id and is_by_app and keys.CLIENT_REQUEST_ID not in _changed(self.trace.info.tags, self._tags):
            description.tags[keys.CLIENT_REQUEST_ID] = request_id


def _changed(now: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in list(now.items()) if key not in before or before[key] != value}

"""Trace infos and spans that we encode equal those that MLflow's own code encodes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import mlflow
import pytest
from google.protobuf.json_format import ParseDict
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.entities import LiveSpan, SpanEvent, Trace, TraceData
from mlflow.entities.trace_info import TraceInfo
from mlflow.entities.trace_location import TraceLocation
from mlflow.entities.trace_state import TraceState
from mlflow.protos.service_pb2 import StartTraceV3
from mlflow.tracing.utils import add_size_stats_to_trace_metadata
from mlflow.utils.proto_json_utils import message_to_json
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from mlflow_middleware.exchange import Exchange
from mlflow_middleware.mlflow_bridge import otlp, trace_info
from mlflow_middleware.settings import Settings
from mlflow_middleware.testing import captured_traces
from mlflow_middleware.trace.common import Common
from mlflow_middleware.trace.description import Description
from mlflow_middleware.trace.record import SpanIds, TraceRecord
from tests.unit.encoded import Sent, attributes_of, sent_traces

SIZES = {"mlflow.trace.sizeStats", "mlflow.trace.sizeBytes"}
LENGTHS = st.sampled_from([0, 1, 100, 199, 200, 201, 249, 250, 251, 4095, 4096, 4097, 9000])
"""Around the limits of keys and values."""

LETTERS = st.sampled_from(["a", "é", '"', "\\", "\0", "\U0001f642"])
TEXT = st.text(max_size=30) | st.builds(str.__mul__, LETTERS, LENGTHS)
ANY_TEXT = TEXT | st.text(st.characters(exclude_categories=()), max_size=30)
"""Half a surrogate pair, too."""


def readable(value: Any) -> Any:
    """Return text that protobuf and PostgreSQL can store: half a surrogate pair becomes a question mark, NUL U+FFFD."""
    if isinstance(value, dict):
        return {readable(key): readable(inner) for key, inner in value.items()}
    return value.encode("utf-8", "replace").decode().replace("\0", "\ufffd") if type(value) is str else value


@dataclass(frozen=True)
class Fields:
    """The content of a trace info, named as in ``TraceInfo``."""

    trace_id: str
    client_request_id: str | None
    experiment_id: str
    request_preview: str | None
    response_preview: str | None
    request_time: int
    execution_duration: int
    state: TraceState
    tags: dict[str, str]
    trace_metadata: dict[str, str]

    def info(self, *, is_readable: bool = False) -> TraceInfo:
        """Return MLflow's own object; on demand, without values that protobuf refuses."""
        found = {**vars(self)}
        location = TraceLocation.from_experiment_id(found.pop("experiment_id"))
        values = {key: readable(value) for key, value in found.items()} if is_readable else found
        return TraceInfo(trace_location=location, **values)


FIELDS = st.builds(
    Fields,
    trace_id=st.from_regex(r"tr-[0-9a-f]{32}", fullmatch=True),
    client_request_id=st.none() | ANY_TEXT,
    experiment_id=st.sampled_from(["0", "123456789012345678"]),
    request_preview=st.none() | ANY_TEXT,
    response_preview=st.none() | ANY_TEXT,
    request_time=st.integers(0, 4_102_444_800_000),
    execution_duration=st.integers(0, 10**10),
    state=st.sampled_from([TraceState.OK, TraceState.ERROR]),
    tags=st.dictionaries(ANY_TEXT, ANY_TEXT, max_size=4),
    trace_metadata=st.dictionaries(ANY_TEXT, ANY_TEXT, min_size=1, max_size=4),  # each trace has some
)


@pytest.fixture(scope="module")
def span() -> LiveSpan:
    """Return a span of MLflow's own."""
    with captured_traces():
        span = mlflow.start_span_no_context("s", inputs={"q": "é"})
        span.end()
    return span


def is_whole(fields: Fields) -> bool:
    """Return whether protobuf accepts it unchanged."""
    return bool(readable(vars(fields)) == vars(fields))


def by_mlflow(info: TraceInfo, spans: list[LiveSpan]) -> StartTraceV3:
    """Return MLflow's own encoding of a trace info."""
    trace = Trace(info, TraceData([span.to_immutable_span() for span in spans]))
    add_size_stats_to_trace_metadata(trace)
    text = message_to_json(StartTraceV3(trace=Trace(info, TraceData([])).to_proto()))
    return ParseDict(json.loads(text), StartTraceV3())


def parsed(info: bytes) -> StartTraceV3:
    """Return the info as its receiver reads it."""
    return ParseDict(json.loads(info), StartTraceV3())


def without_sizes(message: StartTraceV3) -> StartTraceV3:
    """Return the same without the sizes."""
    for key in SIZES:
        message.trace.trace_info.trace_metadata.pop(key)
    return message


@settings(deadline=None, max_examples=150)
@given(fields=FIELDS)
def test_an_info(span: LiveSpan, fields: Fields) -> None:
    """Each field, truncated as in MLflow."""
    ours = parsed(trace_info.of_trace(fields.info(), [span]))

    assert without_sizes(ours) == without_sizes(by_mlflow(fields.info(is_readable=True), [span]))


@settings(deadline=None, max_examples=50)
@given(fields=FIELDS.filter(is_whole), count=st.integers(1, 4))
def test_the_sizes_of_a_trace(span: LiveSpan, fields: Fields, count: int) -> None:
    """To the byte, with any number of spans."""
    ours = parsed(trace_info.of_trace(fields.info(), [span] * count)).trace.trace_info.trace_metadata
    mlflows = by_mlflow(fields.info(), [span] * count).trace.trace_info.trace_metadata

    assert {key: json.loads(ours[key]) for key in SIZES} == {key: json.loads(mlflows[key]) for key in SIZES}


SETTINGS = Settings()


@settings(deadline=None, max_examples=150)
@given(FIELDS, ANY_TEXT)
def test_the_info_of_a_request(fields: Fields, name: str) -> None:
    """Its fields equal MLflow's."""
    begin = fields.request_time * 1_000_000
    record = TraceRecord(Exchange("GET", "/", {}), SETTINGS)
    record.begin(SpanIds(1, 1), begin)
    record.trace_id = fields.trace_id
    record.end_time = begin + fields.execution_duration * 1_000_000
    description = Description(
        name,
        Common(name, {}, {"plan": "pro"}),
        {},
        {},
        fields.tags,
        {},
        fields.client_request_id,
        None if fields.state == TraceState.OK else "why",
        fields.request_preview,
        fields.response_preview,
    )
    info = trace_info.of_request(record, description, fields.trace_metadata, fields.experiment_id, [1])
    expected = fields.info(is_readable=True)
    expected.tags = readable({**({"mlflow.traceName": name} if name else {}), "plan": "pro", **fields.tags})

    assert without_sizes(parsed(info)) == without_sizes(by_mlflow(expected, []))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


def explicit(span: Span) -> bytes:
    """Give each attribute of a span a value, if only an empty one, as we, not MLflow, write None; and remove NUL from
    its name, which we replace."""

    def fill(pairs: Iterable[KeyValue]) -> None:
        for each in pairs:
            each.value.SetInParent()
            inside(each.value)

    def inside(value: AnyValue) -> None:
        fill(value.kvlist_value.values)
        for each in value.array_value.values:
            inside(each)

    fill(span.attributes)
    span.name = readable(span.name)
    return span.SerializeToString()


@settings(deadline=None, max_examples=60)
@given(
    st.text(min_size=1, max_size=30),
    st.dictionaries(st.text(min_size=1, max_size=20), VALUES, max_size=4),
    VALUES,
    st.sampled_from(["OK", "ERROR", "UNSET"]),
)
def test_a_span_of_the_app(name: str, attributes: dict[str, Any], inputs: Any, status: str) -> None:
    """Like MLflow encodes it, with any values of the app's."""
    with captured_traces():
        root = mlflow.start_span_no_context(name, inputs=inputs)
        child = mlflow.start_span_no_context(name, parent_span=root, attributes=attributes)
        child.set_outputs(inputs)
        child.set_status(status)
        child.end()
        root.end()
    read = ExportTraceServiceRequest.FromString(otlp.spans_to_otlp([root, child]))
    (scope_spans,) = read.resource_spans[0].scope_spans

    assert [explicit(each) for each in scope_spans.spans] == [
        explicit(each.to_immutable_span().to_otel_proto()) for each in (root, child)
    ]


def sent(value: Any) -> Any:
    """Return an attribute of the app's as its receiver reads it."""
    with captured_traces():
        span = mlflow.start_span_no_context("s", attributes={"odd": value, "plain": 1})
        span.end()
    attributes = attributes_of(Sent(otlp.spans_to_otlp([span]), b"").root)
    assert attributes["plain"] == 1
    return attributes["odd"]


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (2**63 - 1, 2**63 - 1),
        (2**63, str(2**63)),
        (-(2**70), str(-(2**70))),
        ("\ud800", "?"),
        (["\ud800", {"k": 2**64}], ["?", {"k": str(2**64)}]),
        ({"\ud800": 1}, {"?": 1}),
    ],
    ids=["largest", "larger", "smaller", "surrogate", "inside", "key"],
)
def test_a_span_with_values_that_protobuf_refuses(value: Any, read: Any) -> None:
    """It arrives all the same: a large integer as text, half a surrogate pair as a question mark."""
    assert sent(value) == read


def nested(depth: int, around: Callable[[Any], Any]) -> Any:
    """Nest lists or objects."""
    found: Any = "deep"
    for _ in range(depth):
        found = around(found)
    return found


AROUND = pytest.mark.parametrize(
    "around", [lambda inner: [inner], lambda inner: {"k": inner}], ids=["lists", "objects"]
)


@pytest.mark.parametrize("depth", [1, 25, 26, 27, 30])
@AROUND
def test_a_span_with_nested_values(depth: int, around: Callable[[Any], Any]) -> None:
    """Parsers fail at 100 nested messages: deeper values are sent as JSON text, and read back unchanged."""
    assert sent(nested(depth, around)) == nested(depth, around)


@pytest.mark.parametrize("depth", [31, 33, 40, 100, 500])
@AROUND
def test_a_span_with_values_nested_too_deeply(depth: int, around: Callable[[Any], Any]) -> None:
    """A server fails at each search that finds one: the inner part is sent as JSON text, and nothing is lost."""
    found = sent(nested(depth, around))

    for _ in range(24):
        (found,) = found.values() if isinstance(found, dict) else found
    assert json.loads(found) == nested(depth - 24, around)


@pytest.mark.parametrize("begin", [-5, 2**63, 2**64])
def test_times_that_no_server_can_store_cost_no_trace(begin: int) -> None:
    """Times of spans and of events, which the app sets."""
    with sent_traces() as sent, mlflow.start_span("root") as root:
        span = mlflow.start_span_no_context("odd", parent_span=root, start_time_ns=begin)
        span.add_event(SpanEvent("odd", timestamp=begin))
        span.end(end_time_ns=begin + 10)

    odd = next(each for each in sent[0].spans if each.name == "odd")
    for time in (odd.start_time_unix_nano, odd.end_time_unix_nano, odd.events[0].time_unix_nano):
        assert abs(time - begin) <= 15 or time == 2**63 - 1

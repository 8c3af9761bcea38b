"""Our OTLP encoding is, byte for byte, that of the protobuf library."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from mlflow_middleware.trace import wire

LENGTHS = [0, 1, 60, 99, 100, 110, 117, 118, 119, 120, 121, 126, 127, 128, 129, 200, 16_383, 16_384, 40_000]
"""Characters around the sizes that take another byte, or another way to encode them."""

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=30)
"""Half a surrogate pair, too."""

LONG_TEXT = st.builds(str.__mul__, st.sampled_from("aé\U0001f642"), st.sampled_from(LENGTHS[:-3]))
TEXT = ANY_TEXT | LONG_TEXT
NAMES = TEXT.filter(bool)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.binary(max_size=300) | TEXT
WIDE = st.sampled_from([number for bits in (7, 14, 63, 64, 70) for number in (2**bits - 1, 2**bits, -(2**bits), -1)])
VALUES = st.recursive(
    SCALARS | WIDE,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(NAMES | st.integers() | st.none(), inner, max_size=4)
    ),
    max_leaves=8,
)
ATTRIBUTES = st.lists(st.tuples(NAMES, VALUES), max_size=4)
IDS = st.integers(1, 2**64 - 1)
TIMES = st.integers(1, 2**64 - 1)
SPANS = st.tuples(
    st.tuples(st.integers(1, 2**128 - 1), IDS),
    st.none() | IDS,
    NAMES,
    st.tuples(TIMES, TIMES),
    st.tuples(st.sampled_from([0, 1, 2]), TEXT),
    ATTRIBUTES,
)
"""Ids, parent, name, times, status and attributes."""


def readable(text: str) -> str:
    """Return text that protobuf can hold: half a surrogate pair becomes a question mark."""
    return text.encode("utf-8", "replace").decode()


def any_value(value: Any) -> AnyValue:
    """Return MLflow's value as protobuf's own object; an integer outside 64 bits is text."""
    found = AnyValue()
    if isinstance(value, dict):
        found.kvlist_value.SetInParent()
        found.kvlist_value.values.extend(key_value(str(key), inner) for key, inner in value.items())
    elif isinstance(value, list | tuple):
        found.array_value.SetInParent()
        found.array_value.values.extend(map(any_value, value))
    elif isinstance(value, bool):
        found.bool_value = value
    elif isinstance(value, float):
        found.double_value = value
    elif isinstance(value, bytes):
        found.bytes_value = value
    elif isinstance(value, int) and -(2**63) <= value < 2**63:
        found.int_value = value
    elif value is not None:
        found.string_value = readable(str(value))
    return found


def key_value(key: str, value: Any) -> KeyValue:
    """Return a key with its value; a value of None is present, and empty."""
    found = KeyValue(key=readable(key))
    found.value.CopyFrom(any_value(value))
    found.value.SetInParent()
    return found


def message_of(span: Any) -> Span:
    """Return one of `SPANS` as protobuf's own object."""
    (trace_id, span_id), parent, name, (begin, end), (code, message), attributes = span
    return Span(
        trace_id=trace_id.to_bytes(16, "big"),
        span_id=span_id.to_bytes(8, "big"),
        parent_span_id=parent.to_bytes(8, "big") if parent is not None else b"",
        name=readable(name),
        start_time_unix_nano=begin,
        end_time_unix_nano=end,
        attributes=[key_value(key, value) for key, value in attributes],
        status=Status(code=code, message=readable(message)),
    )


def request_of(resource: Resource, spans: list[Any]) -> ExportTraceServiceRequest:
    """Return some of `SPANS` in a request, as protobuf's own object."""
    scope_spans = ScopeSpans(spans=map(message_of, spans))
    return ExportTraceServiceRequest(resource_spans=[ResourceSpans(resource=resource, scope_spans=[scope_spans])])


def written(span: Any) -> bytes:
    """Return our encoding of one of `SPANS`."""
    ids, parent, name, times, status, attributes = span
    rest = b"".join([wire.attribute(key, value) for key, value in attributes])
    return wire.span(ids, parent, name, times, status, rest)


RESOURCES = ATTRIBUTES.map(lambda pairs: Resource(attributes=[key_value(key, value) for key, value in pairs]))
few, many = (settings(deadline=None, max_examples=number) for number in (30, 200))


@many
@given(SPANS)
def test_a_span(span: Any) -> None:
    """All of its fields and attributes, with any values."""
    assert written(span) == message_of(span).SerializeToString()


@few
@given(RESOURCES, st.lists(SPANS, max_size=3))
def test_a_request(resource: Resource, spans: list[Any]) -> None:
    """With any number of spans."""
    ours = wire.request(resource.SerializeToString(), [written(span) for span in spans])

    assert ours == request_of(resource, spans).SerializeToString()


@few
@given(RESOURCES, st.lists(st.lists(SPANS, max_size=2), min_size=2, max_size=3))
def test_requests_joined_end_to_end_are_one(resource: Resource, parts: list[list[Any]]) -> None:
    """Their receiver reads the spans of all, in order."""
    joined = b"".join(wire.request(resource.SerializeToString(), [written(span) for span in spans]) for spans in parts)
    read = ExportTraceServiceRequest.FromString(joined)
    got = [span for each in read.resource_spans for scope in each.scope_spans for span in scope.spans]

    assert [each.resource.SerializeToString() for each in read.resource_spans] == [
        resource.SerializeToString() for _ in parts
    ]
    assert [span.SerializeToString() for span in got] == [
        message_of(span).SerializeToString() for spans in parts for span in spans
    ]


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("key_length", [1, 20, 100, 118, 127, 128, 300])
def test_text_of_each_length(key_length: int, length: int) -> None:
    """Sizes of one byte, two and three, in all places."""
    key, value = "k" * key_length, "v" * length
    expected = Span(attributes=[key_value(key, value)]).SerializeToString()

    assert wire.attribute(key, value) == expected
    assert wire.attribute(key, [value]) == Span(attributes=[key_value(key, [value])]).SerializeToString()


@pytest.mark.parametrize("equal", [(1, True, 1.0), (0, False, 0.0, -0.0), ("", b"")])
def test_values_that_are_equal_keep_their_types(equal: tuple[Any, ...]) -> None:
    """One after the other, and each inside a list."""
    for value in equal:
        for each in (value, [value], {"k": value}):
            assert wire.attribute("k", each) == Span(attributes=[key_value("k", each)]).SerializeToString()


def test_empty_values() -> None:
    """Names, keys, and times of zero, which the library would leave out, are read as the same."""
    nothing: Any = ((1, 1), None, "", (0, 0), (0, ""), [("", ""), ("", None), ("k", {"": [{}]}), ("k", [])])

    assert Span.FromString(written(nothing)) == message_of(nothing)

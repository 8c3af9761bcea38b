"""The parts that are cut from a trace that is too large for a server."""

from __future__ import annotations

import json

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from mlflow_middleware.delivery.cutting import CUT, SMALL, cut, cut_info


def request(**attributes: int) -> bytes:
    """Return a span with attributes of this many characters."""
    built = ExportTraceServiceRequest()
    span = built.resource_spans.add().scope_spans.add().spans.add(name="span")
    for key, size in attributes.items():
        span.attributes.add(key=key.replace("_", ".", 1)).value.string_value = "x" * size
    return bytes(built.SerializeToString())


def attributes_of(otlp: bytes) -> dict[str, str]:
    """Return the first characters of the remaining values."""
    span = ExportTraceServiceRequest.FromString(otlp).resource_spans[0].scope_spans[0].spans[0]
    return {attribute.key: attribute.value.string_value[:6] for attribute in span.attributes}


def test_the_largest_inputs_and_outputs_are_cut_first() -> None:
    """As few as necessary, and before larger attributes."""
    smaller = cut(request(mlflow_spanInputs=60_000, mlflow_spanOutputs=2_000, my_attribute=70_000))

    assert smaller
    found = attributes_of(smaller)
    assert found["mlflow.spanInputs"] == found["mlflow.spanOutputs"] == found["my.attribute"] == "… [cut"
    assert found[CUT][:6] == "mlflow"

    smaller = cut(request(mlflow_spanInputs=60_000, mlflow_spanOutputs=20_000, my_attribute=30_000))
    assert smaller
    assert [value for value in attributes_of(smaller).values() if value == "xxxxxx"] == ["xxxxxx"] * 2


def test_it_ends_when_nothing_is_left_to_cut() -> None:
    """Small values stay."""
    otlp: bytes | None = request(mlflow_spanInputs=60_000, my_attribute=SMALL // 2)
    assert otlp
    rounds = 0
    while (smaller := cut(otlp)) is not None:
        assert len(smaller) < len(otlp)
        otlp = smaller
        rounds += 1

    assert rounds == 1
    assert attributes_of(otlp)["my.attribute"] == "xxxxxx"


def test_the_largest_texts_of_an_info_are_cut() -> None:
    """As few as necessary; small texts stay, and are all that is left in the end."""
    ours = {"trace_id": "tr-1", "request_preview": "p" * 900, "tags": {"a": "t" * 4000, "b": "t" * 100}}
    info = json.dumps({"trace": {"trace_info": ours}}).encode()
    smaller = cut_info(info)

    assert smaller
    found = json.loads(smaller)["trace"]["trace_info"]
    assert found == {**ours, "tags": {"a": "… [cut: 4000 characters]", "b": "t" * 100}}
    smallest = cut_info(smaller)
    assert smallest
    assert json.loads(smallest)["trace"]["trace_info"]["request_preview"] == "… [cut: 900 characters]"
    assert cut_info(smallest) is None

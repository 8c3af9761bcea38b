"""The requests to a collector, by HTTP and by gRPC, and the handling of its answers."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import mlflow
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from mlflow_middleware import delivery
from mlflow_middleware.delivery.collector import Copy
from mlflow_middleware.delivery.encoded import EncodedTrace
from mlflow_middleware.delivery.otlp_collector import OtlpCollector
from mlflow_middleware.delivery.otlp_grpc import METHOD, post_by_grpc, target_of
from mlflow_middleware.delivery.otlp_variables import Collector, collector
from mlflow_middleware.delivery.replies import RetryableError
from mlflow_middleware.exchange import Exchange
from mlflow_middleware.mlflow_bridge.pending import PendingTrace
from mlflow_middleware.request.lifecycle import RequestTrace
from mlflow_middleware.settings import Settings
from tests.collector import CollectorStandIn, collecting
from tests.unit.encoded import Sent, sent_traces


@pytest.fixture
def server() -> Iterator[CollectorStandIn]:
    with collecting() as running:
        yield running


def named(server: CollectorStandIn, **known: Any) -> Collector:
    return Collector("OTEL_EXPORTER_OTLP_ENDPOINT", f"{server.uri}/v1/traces", **known)


def encoded(sent: Sent, *, supplement: bool = False) -> EncodedTrace:
    return EncodedTrace(sent.trace_info["trace_id"], "", sent.otlp, sent.info, (), supplement=supplement)


def test_no_span_is_sent_twice(server: CollectorStandIn) -> None:
    """A collector keeps everything: if a trace is sent again, it gets only the new spans."""
    with sent_traces(at_once=True) as sent:
        trace = RequestTrace.open(Exchange("GET", "/", {}), Settings.load())
        trace.activate()
        late = mlflow.start_span_no_context("late", parent_span=mlflow.get_current_active_span())
        trace.deactivate()
        trace.finish()
        late.end()
    first, second = sent
    sink = OtlpCollector(named(server))
    server.answers = [503]
    with pytest.raises(Exception, match="503"):
        sink.send_spans("", [encoded(first)])
    sink.send_spans("", [encoded(first)])
    sink.send_spans("", [encoded(second, supplement=True)])
    sink.send_spans("", [encoded(second, supplement=True)])

    assert [span.name for span in server.spans] == ["GET", "late"]


def test_the_collector_gets_a_copy() -> None:
    """Without the parts that a collector does not accept."""
    finished: list[PendingTrace] = []
    with delivery.capturing(finished.append), mlflow.start_span("whole"):
        pass
    pending = finished[0]
    copies: list[Copy] = []
    pending.copy_to = lambda trace, encoding: copies.append(Copy(trace.trace_id, encoding, trace.supplement))
    whole = EncodedTrace.encode(pending)
    copy = EncodedTrace.encode(cast(Any, copies[0]))

    assert (copy.trace_id, copy.otlp, copy.info) == (whole.trace_id, whole.otlp, whole.info)
    assert not copy.attachments
    assert not copy.prompts


def test_the_credentials_of_an_address_are_used(server: CollectorStandIn) -> None:
    """As with OpenTelemetry's own exporter."""
    address = server.uri.replace("://", "://team:key@")
    OtlpCollector(Collector("OTEL_EXPORTER_OTLP_ENDPOINT", f"{address}/v1/traces")).send_spans("", [])

    assert server.asked[0].headers["authorization"] == "Basic dGVhbTprZXk="


@pytest.mark.parametrize("bad", ["a:b=1", "x y=1", "x=%E6%97%A5", "=1", "none", "n=a%0Ab"])
def test_a_header_that_cannot_be_sent_is_left_out(
    server: CollectorStandIn, monkeypatch: pytest.MonkeyPatch, bad: str
) -> None:
    """The spans are sent all the same."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.uri)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"api-key=k,{bad}")
    OtlpCollector(collector()).send_spans("", [])

    names = {"host", "user-agent", "accept-encoding", "accept", "connection", "content-type", "content-length"}
    assert server.asked[0].headers.keys() - names == {"api-key"}


def partly(count: int, message: str) -> bytes:
    answer = ExportTraceServiceResponse()
    answer.partial_success.rejected_spans = count
    answer.partial_success.error_message = message
    return answer.SerializeToString()


def test_a_collectors_reason_for_rejected_spans_is_logged_once(
    server: CollectorStandIn, caplog: pytest.LogCaptureFixture
) -> None:
    """Not with each batch, whose number of spans differs."""
    sink = OtlpCollector(named(server))
    with caplog.at_level(logging.WARNING):
        for count in (3, 4, 5):
            server.body = partly(count, "too old")
            sink.send_spans("", [])
        server.body = partly(1, "too large")
        sink.send_spans("", [])

    at = f"at {server.uri}/v1/traces"
    assert [each.message for each in caplog.records] == [
        f"spans rejected by the OTLP collector: 3 {at}: too old",
        f"spans rejected by the OTLP collector: 1 {at}: too large",
    ]


@pytest.mark.parametrize(
    ("address", "is_insecure", "target"),
    [
        ("http://c:4317", False, ("c:4317", False)),
        ("https://c:4317/", True, ("c:4317", True)),
        ("https://user:hunter2@c:4317?key=hunter2", False, ("c:4317", True)),
        ("c:4317", False, ("c:4317", True)),
        ("c:4317", True, ("c:4317", False)),
        ("unix:///run/otel.sock", True, ("unix:///run/otel.sock", False)),
    ],
)
def test_grpc_targets(address: str, is_insecure: bool, target: tuple[str, bool]) -> None:
    """Without a scheme, the specification requires TLS: headers mostly contain a key."""
    assert target_of(Collector("", address, "grpc", is_insecure=is_insecure)) == target


def test_an_error_of_grpc_has_no_password() -> None:
    """The log line has the address."""
    pytest.importorskip("grpc")
    address = "http://user:hunter2@localhost:1/?key=hunter2"
    post = post_by_grpc(Collector("OTEL_EXPORTER_OTLP_ENDPOINT", address, "grpc", timeout=10.0))

    with pytest.raises(RetryableError) as failed:
        post(b"")

    assert "localhost:1" in str(failed.value)
    assert "hunter2" not in str(failed.value)


@pytest.mark.parametrize("wrong", [{"verify": "/missing.pem"}, {"headers": (("x-bin", "text"),)}])
def test_an_invalid_value_for_grpc_names_its_variable(wrong: dict[str, Any]) -> None:
    """The traces wait until it is corrected."""
    pytest.importorskip("grpc")
    post = post_by_grpc(Collector("OTEL_EXPORTER_OTLP_ENDPOINT", "https://localhost:1", "grpc", timeout=10.0, **wrong))

    with pytest.raises(RetryableError, match=r"OTEL_EXPORTER_OTLP_ENDPOINT: .* cannot be used"):
        post(b"")


def test_spans_go_by_grpc(caplog: pytest.LogCaptureFixture) -> None:
    """With the headers; and rejections are logged, as by HTTP."""
    grpc: Any = pytest.importorskip("grpc")
    asked: list[tuple[bytes, dict[str, str]]] = []

    def export(body: bytes, context: Any) -> bytes:
        asked.append((body, dict(context.invocation_metadata())))
        return partly(3, "too old")

    service, _, method = METHOD[1:].partition("/")
    handler = grpc.unary_unary_rpc_method_handler(export)
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {method: handler})])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with sent_traces() as sent, mlflow.start_span("whole"):
            pass
        address = Collector("", f"http://127.0.0.1:{port}", "grpc", (("api-key", "k"),), compression="gzip")
        OtlpCollector(address).send_spans("", [encoded(sent[0])])
    finally:
        server.stop(None)

    (body, headers), *_ = asked
    assert [span.name for span in Sent(body, b"").spans] == ["whole"]
    assert headers["api-key"] == "k"
    assert f"spans rejected by the OTLP collector: 3 at {address.url}: too old" in caplog.text

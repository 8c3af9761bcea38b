"""Answers that are errors despite status 200: by named rules, by a path, and by the app's own function."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

import pytest
from mlflow.entities import Trace
from werkzeug.test import EnvironBuilder, run_wsgi_app

from mlflow_middleware import delivery
from mlflow_middleware._internal import guard
from mlflow_middleware.asgi import TraceMiddleware
from mlflow_middleware.exchange import Exchange
from mlflow_middleware.settings import Settings, SettingsError
from mlflow_middleware.testing import captured_traces
from mlflow_middleware.wsgi import TraceMiddleware as WSGIMiddleware
from tests.messages import body, http, start
from tests.unit.serving import root_of
from tests.unit.test_asgi import ask, saying

JSON, EVENTS = "application/json", "text/event-stream"
GRPC, GRPC_TEXT = "application/grpc-web+proto", "application/grpc-web-text+proto"


def frames(*trailers: str, message: bytes = b"\x08\x01") -> bytes:
    """Return a gRPC-web answer: a message, and the trailers."""
    sent_headers = "".join(f"{each}\r\n" for each in trailers).encode()
    return (
        b"\0"
        + len(message).to_bytes(4, "big")
        + message
        + b"\x80"
        + len(sent_headers).to_bytes(4, "big")
        + sent_headers
    )


def events(*data: object, name: str = "") -> bytes:
    """Return a stream of server-sent events."""
    return "".join((f"event: {name}\n" if name else "") + f"data: {json.dumps(each)}\n\n" for each in data).encode()


def rpc(**said: object) -> dict[str, object]:
    """Return a JSON-RPC answer."""
    return {"jsonrpc": "2.0", "id": 1, **said}


FAILED_TOOL = rpc(result={"content": [{"type": "text", "text": "no such city"}], "isError": True})
UNKNOWN_METHOD = rpc(error={"code": -32601, "message": "Method not found"})
GRAPHQL = {"data": None, "errors": [{"message": "no such field", "extensions": {"code": "BAD_FIELD"}}]}

FAILING: list[tuple[Any, str, Any, str, str]] = [
    ("graphql", JSON, GRAPHQL, "BAD_FIELD", "no such field"),
    ("graphql", "application/graphql-response+json", {"errors": [{"message": "m"}]}, "graphql", "m"),
    ("graphql", JSON, [{"data": {}}, {"errors": [{"message": "in a batch"}]}], "graphql", "in a batch"),
    ("graphql", EVENTS, events({"data": {}}, {"errors": [{"message": "m"}]}, name="next"), "graphql", "m"),
    ("graphql", JSON, {"errors": [{"message": "password: hunter2"}]}, "graphql", "password: [redacted]"),
    ("mcp", JSON, FAILED_TOOL, "tool_error", "no such city"),
    ("mcp", JSON, UNKNOWN_METHOD, "-32601", "Method not found"),
    ("mcp", JSON, [rpc(result={}), FAILED_TOOL], "tool_error", "no such city"),
    ("mcp", EVENTS, events(rpc(method="notifications/progress"), FAILED_TOOL), "tool_error", "no such city"),
    ("mcp", EVENTS, events(FAILED_TOOL, name="message"), "tool_error", "no such city"),
    ("grpc-web", GRPC, frames("grpc-status: 14", "grpc-message: try%20later"), "UNAVAILABLE", "try later"),
    ("grpc-web", GRPC, frames("grpc-status:5"), "NOT_FOUND", "gRPC status NOT_FOUND"),
    ("grpc-web", GRPC_TEXT, base64.b64encode(frames("grpc-status: 2", message=b"")), "UNKNOWN", "gRPC status UNKNOWN"),
    (
        "grpc-web",
        GRPC_TEXT,
        base64.b64encode(frames()[:7]) + base64.b64encode(frames("grpc-status: 13", message=b"")),
        "INTERNAL",
        "gRPC status INTERNAL",
    ),
    ("body.error", JSON, {"error": {"message": "no credit"}}, "body.error", "no credit"),
    ("body.result.0.failed", JSON, {"result": [{"failed": True}]}, "body.result.0.failed", "body.result.0.failed"),
    ("body.errors.0", JSON, {"errors": ["no credit"]}, "body.errors.0", "no credit"),
    ("body.0.error", JSON, [{"error": "no credit"}], "body.0.error", "no credit"),
    ("body.größe</x>", JSON, {"größe</x>": "too large"}, "body.größe</x>", "too large"),
    (["graphql", "mcp"], JSON, FAILED_TOOL, "tool_error", "no such city"),
    (lambda exchange: exchange.outputs["ok"] is False and "not ok", JSON, {"ok": False}, "error_when", "not ok"),
    (lambda exchange: exchange.response_headers["x-own"] == "1", JSON, {}, "error_when", "<lambda>"),
    ("tests.unit.capture.test_error_when.is_teapot", JSON, {}, "error_when", "short and stout"),
]
LONG = 300_000
LONG_TOOL = {"content": [{"type": "text", "text": "x y " * LONG}], "isError": True}
LATE: list[tuple[str, str, Any, str, str]] = [
    ("grpc-web", GRPC, frames("grpc-status: 5", message=b"x" * LONG), "NOT_FOUND", "gRPC status NOT_FOUND"),
    ("grpc-web", GRPC, frames("grpc-status: 5", message=b"x" * 65_525), "NOT_FOUND", "gRPC status NOT_FOUND"),
    (
        "grpc-web",
        GRPC_TEXT,
        base64.b64encode(frames(message=b"x" * LONG)[:-5]) + base64.b64encode(frames("grpc-status: 5")[7:]),
        "NOT_FOUND",
        "gRPC status NOT_FOUND",
    ),
    ("graphql", JSON, {"data": {"a": ["x"] * LONG}, "errors": GRAPHQL["errors"]}, "BAD_FIELD", "no such field"),
    ("graphql", JSON, {"data": "x " * 32_755, "errors": GRAPHQL["errors"]}, "BAD_FIELD", "no such field"),
    ("mcp", JSON, rpc(result=LONG_TOOL), "tool_error", "the tool's result is an error"),
    ("mcp", JSON, {"result": LONG_TOOL, "jsonrpc": "2.0", "id": 1}, "tool_error", "the tool's result is an error"),
    ("body.a.error", JSON, {"a": {"b": ["x"] * LONG, "error": "no credit"}, "c": {}}, "body.a.error", "no credit"),
]
LATE_AND_FINE: list[tuple[str, str, Any]] = [
    ("grpc-web", GRPC, frames("grpc-status: 0", message=b"\x80\0\0\0\x0egrpc-status:5\n" * 20_000)),
    ("graphql", JSON, {"data": {"a": ["x"] * LONG, "errors": [{"message": "its own"}]}}),
    ("graphql", JSON, {"data": {"a": ["x"] * LONG, "b": '"errors": ["quoted"]'}, "errors": []}),
    ("mcp", JSON, {"result": {"content": ["x"] * LONG, "isError": True}}),
    ("body.a.error", JSON, {"a": {"b": ["x"] * LONG}, "error": "another"}),
]
FINE: list[tuple[Any, str, Any]] = [
    ((), JSON, GRAPHQL),
    ("graphql", JSON, {"data": {"errors": []}, "errors": []}),
    ("graphql", JSON, {"errors": {"name": "required"}}),
    ("mcp", JSON, {"error": {"code": 1}}),
    ("mcp", JSON, rpc(result={"isError": False})),
    ("mcp", JSON, rpc(error=None)),
    ("grpc-web", GRPC, frames("grpc-status: 0")),
    ("grpc-web", GRPC, frames()[:9]),
    ("grpc-web", GRPC_TEXT, b"\xff=A=="),
    ("grpc-web", JSON, {"grpc-status": 5}),
    ("body.error", JSON, {"error": False}),
    ("body.error", "text/plain", b"error"),
    (lambda exchange: None, JSON, GRAPHQL),
]


def is_teapot(exchange: Exchange) -> str:
    """A rule in a module."""
    return "short and stout"


def content_of(value: object) -> bytes:
    """Return a body in its encoded form."""
    return value if isinstance(value, bytes) else json.dumps(value).encode()


async def answered(kind: str, value: object, *headers: tuple[bytes, bytes], **options: Any) -> None:
    """Return the trace of one request, answered with this body and status 200."""
    sent_headers = [(b"content-type", kind.encode()), (b"X-Own", b"1"), *headers]
    await ask(TraceMiddleware(saying(start(200, *sent_headers), body(content_of(value))), **options), http())


def outcome(trace: Trace) -> tuple[str, object, object]:
    """Return state, ``error.type`` and description."""
    root = root_of(trace)
    return trace.info.state, root.attributes.get("error.type"), root.status.description or None


@pytest.mark.parametrize(("rule", "kind", "value", "error", "message"), FAILING)
async def test_an_error_under_200(
    traces: list[Trace], rule: object, kind: str, value: object, error: str, message: str
) -> None:
    """The trace has the error's type and message."""
    await answered(kind, value, error_when=rule)

    assert outcome(traces[0]) == ("ERROR", error, message)


@pytest.mark.parametrize(("rule", "kind", "value", "error", "message"), LATE)
async def test_an_error_at_the_end_of_a_long_answer(
    traces: list[Trace], rule: str, kind: str, value: object, error: str, message: str
) -> None:
    """More than the limit precedes it."""
    for ratio in (1, 0):
        await answered(kind, value, error_when=rule, sample_ratio=ratio)

    assert [outcome(trace) for trace in traces] == [("ERROR", error, message)] * 2


@pytest.mark.parametrize(("rule", "kind", "value"), LATE_AND_FINE)
async def test_a_long_answer_without_an_error_at_its_end(
    traces: list[Trace], rule: str, kind: str, value: object
) -> None:
    """The text there is nested deeper, or only quoted."""
    await answered(kind, value, error_when=rule)

    assert outcome(traces[0]) == ("OK", None, None)


@pytest.mark.parametrize(("rule", "kind", "value"), FINE)
async def test_an_answer_without_an_error(traces: list[Trace], rule: object, kind: str, value: object) -> None:
    """It only resembles one, or no rule covers it."""
    await answered(kind, value, error_when=rule)

    assert outcome(traces[0]) == ("OK", None, None)


@pytest.mark.parametrize(("rule", "kind", "value"), [each[:3] for each in FAILING[:-4]])
@pytest.mark.parametrize("encoding", ["", "gzip"])
async def test_an_error_is_kept_with_any_ratio(
    traces: list[Trace], rule: object, kind: str, value: object, encoding: str
) -> None:
    """Its answer is searched before it is dropped, compressed or not."""
    if encoding and "grpc" in kind:
        return
    content = gzip.compress(content_of(value)) if encoding else content_of(value)
    headers = [(b"content-encoding", b"gzip")] if encoding else []
    await answered(kind, content, *headers, error_when=rule, sample_ratio=0)
    await answered(JSON, {"data": {}}, error_when=rule, sample_ratio=0)
    await answered(kind, content, *headers, error_when=rule, sample_ratio=0, keep_errors=False)

    assert [trace.info.state for trace in traces] == ["ERROR"]


async def test_status_and_message_in_headers_and_trailers(traces: list[Trace]) -> None:
    """Also if no body is captured, or there is none."""
    sent_headers = (b"grpc-status", b"16"), (b"Grpc-Message", b"who%20are%20you")
    options: dict[str, Any] = {"error_when": "grpc-web", "capture_response_body": False}
    await answered(GRPC, b"", *sent_headers, **options)
    trailers: Any = {"type": "http.response.trailers", "headers": iter(sent_headers), "more_trailers": False}
    first: Any = {**start(200, (b"content-type", GRPC.encode())), "trailers": True}
    sent = await ask(TraceMiddleware(saying(first, body(b"\0\0\0\0\0"), trailers), **options), http())

    assert list(sent[-1]["headers"]) == list(sent_headers)
    assert [outcome(trace) for trace in traces] == [("ERROR", "UNAUTHENTICATED", "who are you")] * 2


@pytest.mark.parametrize("options", [{"capture_response_body": False}, {"metadata_only": ["*"]}])
async def test_without_a_captured_body_headers_decide(traces: list[Trace], options: dict[str, Any]) -> None:
    """Rules see only captured content."""
    await answered(JSON, GRAPHQL, error_when="graphql", **options)
    await answered(GRPC, frames("grpc-status: 5"), error_when="grpc-web", **options)

    assert [outcome(trace) for trace in traces] == [("OK", None, None)] * 2


async def test_a_mask_does_not_hide_the_body_from_a_rule(traces: list[Trace]) -> None:
    """Rules run first; the reason is redacted like everything else."""

    def mask(exchange: Exchange) -> None:
        exchange.outputs = "masked"

    await answered(JSON, GRAPHQL, error_when="graphql", mask=mask)

    assert (outcome(traces[0])[0], root_of(traces[0]).outputs) == ("ERROR", "masked")


async def test_a_rule_that_raises_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """It counts as no error, and the later rules run."""

    def broken(exchange: Exchange) -> bool:
        raise KeyError("choices")

    before = guard.failures.total()
    with captured_traces() as traces:
        for _ in range(2):
            await answered(JSON, GRAPHQL, error_when=[broken])
        await answered(JSON, GRAPHQL, error_when=[broken, "graphql"])

    assert [trace.info.state for trace in traces] == ["OK", "OK", "ERROR"]
    assert traces[0].data.spans[0].outputs == GRAPHQL
    assert guard.failures.total() == before + 3
    assert caplog.text.count("tracing failed in 'error_when (broken)'") == 1


def test_on_wsgi(traces: list[Trace]) -> None:
    """With its headers."""

    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", JSON), ("X-Own", "1")])
        return [json.dumps(GRAPHQL).encode()]

    def by_header(exchange: Exchange) -> bool:
        return exchange.response_headers["x-own"] == "1"

    for rule in ("graphql", by_header):
        run_wsgi_app(WSGIMiddleware(app, error_when=rule), EnvironBuilder("/").get_environ(), buffered=True)

    assert [outcome(trace)[1] for trace in traces] == ["BAD_FIELD", "error_when"]


def test_the_option_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names, paths and dotted paths between commas, or as JSON."""
    for value in (
        "graphql, body.errors,tests.unit.capture.test_error_when:is_teapot",
        '["graphql", "body.errors", "mcp"]',
    ):
        monkeypatch.setenv("MLFLOW_MIDDLEWARE_ERROR_WHEN", value)
        assert [rule.written for rule in Settings.load().error_when][:2] == ["graphql", "body.errors"]


@pytest.mark.parametrize(
    ("value", "allowed"),
    [
        ("graphq", "graphql, mcp, grpc-web"),
        ("body.", "'body.' cannot be imported"),
        ("tests.nothing", "'tests.nothing' cannot be imported"),
        ("tests.unit.capture.test_error_when.JSON", "callables"),
        ([5], "callables"),
        (5, "tuple"),
        (ask, "async"),
    ],
)
def test_an_invalid_rule_is_reported(value: object, allowed: str) -> None:
    """At start-up, with the allowed values."""
    with pytest.raises(SettingsError, match="error_when") as raised:
        Settings.load(error_when=value)

    assert allowed in str(raised.value)


async def test_dropped_requests_count_as_sampled_out() -> None:
    """As without the option."""
    before = delivery.stats()
    with captured_traces() as traces:
        await answered(JSON, {"data": {}}, error_when="graphql", sample_ratio=0)

    assert traces == []
    assert delivery.stats().sampled_out == before.sampled_out + 1

"""Bodies become inputs and outputs: sent to each test app, read back from the server."""

from __future__ import annotations

import base64
import gzip
import json
import random
import socket
from typing import Any

import pytest
from mlflow.entities import Span

from tests.attachments import attachments
from tests.conftest import AppRunner, RunningApp
from tests.servers import eventually

JSON = "application/json"
CHAT = {"model": "gpt-5", "messages": [{"role": "user", "content": "Tea or coffee? 茶"}]}
BOUNDARY = "x-boundary"
FORM = (
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="question"\r\n\r\nwhy?\r\n'
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n'
    f"Content-Type: text/plain\r\n\r\n{'x' * 1000}\r\n--{BOUNDARY}--\r\n"
).encode()


def root_of(app: RunningApp, request_id: str) -> Span:
    """The stored root span of a request."""
    return next(span for span in app.traces.one(request_id).data.spans if span.parent_id is None)


def echoed(app: RunningApp, request_id: str, body: bytes, kind: str, path: str = "/echo", **headers: str) -> Span:
    """Return the stored root span of a request whose body is echoed."""
    answer = app.post(path, body, content_type=kind, x_request_id=request_id, **headers)
    assert answer.content == body
    return root_of(app, request_id)


def test_json_in_and_out(app: RunningApp, request_id: str) -> None:
    """It is parsed, so that MLflow shows a chat, and the preview is the user's message."""
    root = echoed(app, request_id, json.dumps(CHAT).encode(), JSON)

    assert root.inputs == CHAT
    assert root.outputs == CHAT
    assert root.attributes["http.request.body.size"] == len(json.dumps(CHAT).encode())
    assert app.traces.one(request_id).info.request_preview == "Tea or coffee? 茶"


@pytest.mark.once
def test_query_parameters_are_inputs(app: RunningApp, request_id: str) -> None:
    """Alone, and beside a body; repeated ones are a list, secret ones are replaced."""
    app.get("/log?q=tea&q=cake&api_key=s3cret", x_request_id=f"{request_id}-1")
    root = root_of(app, f"{request_id}-1")
    assert root.inputs == {"q": ["tea", "cake"], "api_key": "[redacted]"}

    root = echoed(app, f"{request_id}-2", json.dumps(CHAT).encode(), JSON, path="/echo?stream=no")
    assert root.inputs == {**CHAT, "query": {"stream": "no"}}


@pytest.mark.once
@pytest.mark.parametrize(
    ("kind", "body", "expected"),
    [
        ("application/x-www-form-urlencoded", b"q=a+b&password=hunter2", {"q": "a b", "password": "[redacted]"}),
        (
            f"multipart/form-data; boundary={BOUNDARY}",
            FORM,
            {"question": "why?", "file": {"filename": "a.txt", "content_type": "text/plain", "size": 1000}},
        ),
        ("text/plain; charset=utf-8", "Grüße".encode(), "Grüße"),
        ("application/octet-stream", b"\x00\x01\x02", {"content_type": "application/octet-stream", "bytes": 3}),
        (JSON, b'{"a": {"b": [{"token": "t0p-s3cret"}]}}', {"a": {"b": [{"token": "[redacted]"}]}}),
    ],
    ids=["form", "multipart", "text", "bytes", "secret"],
)
def test_bodies_by_their_type(app: RunningApp, request_id: str, kind: str, body: bytes, expected: Any) -> None:
    """Fields, text, or type and size; without secrets."""
    assert echoed(app, request_id, body, kind).inputs == expected


def test_a_long_upload_has_its_true_size_and_the_fields_after_it(app: RunningApp, request_id: str) -> None:
    """A file of 300 kB, of which nothing is kept; the app receives it unchanged."""
    question, file = FORM.split(b"--" + BOUNDARY.encode())[1:3]
    parts = (question, file.replace(b"x" * 1000, b"\r\n" * 150_000), question.replace(b"question", b"after"), b"--\r\n")
    body = b"".join(b"--" + BOUNDARY.encode() + part for part in parts)
    root = echoed(app, request_id, body, f"multipart/form-data; boundary={BOUNDARY}")

    upload = {"filename": "a.txt", "content_type": "text/plain", "size": 300_000}
    assert root.inputs == {"question": "why?", "file": upload, "after": "why?"}
    assert "http.request.body.cut" not in root.attributes


@pytest.mark.once
def test_a_compressed_body_is_read(app: RunningApp, request_id: str) -> None:
    """The app receives the bytes unchanged."""
    body = gzip.compress(json.dumps(CHAT).encode())
    root = echoed(app, request_id, body, JSON, content_encoding="gzip")

    assert root.inputs == CHAT


def test_a_large_body_is_kept_in_part(app: RunningApp, request_id: str) -> None:
    """The app receives it whole; the trace has its start, marked as truncated."""
    chat = {"messages": [{"role": "user", "content": "x" * 100_000}]}
    root = echoed(app, request_id, json.dumps(chat).encode(), JSON)

    (message,) = root.inputs["messages"]
    assert 60_000 < len(message["content"]) < 70_000
    assert root.attributes["http.request.body.cut"] is True
    assert root.attributes["http.request.body.size"] == len(json.dumps(chat))


IMAGE = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20
LARGE = b"\x89PNG\r\n\x1a\n" + random.Random(1).randbytes(220_000)


def with_image(content: bytes) -> dict[str, Any]:
    """Return a chat with an image in OpenAI's format."""
    url = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": url}}]
    return {"messages": [{"role": "user", "content": parts}, {"role": "user", "content": "And that?"}]}


def test_an_image_in_a_chat_is_an_attachment(app: RunningApp, request_id: str) -> None:
    """As MLflow does it for the app's own spans; in questions and in answers."""
    chat = with_image(IMAGE)
    root = echoed(app, request_id, json.dumps(chat).encode(), JSON)

    trace = app.traces.one(request_id)
    for value in (root.inputs, root.outputs):
        text, image = value["messages"][0]["content"]
        assert text == chat["messages"][0]["content"][0]
        reference = image["image_url"]["url"]
        assert reference.startswith("mlflow-attachment://")
        assert f"?content_type=image%2Fpng&trace_id={trace.info.trace_id}" in reference
    assert attachments(trace) == [IMAGE] * 2
    assert trace.info.request_preview == "And that?"


def test_the_text_of_a_chat_with_a_large_image_is_kept(app: RunningApp, request_id: str) -> None:
    """The image is larger than the limit of a body: its size replaces it."""
    body = json.dumps(with_image(LARGE)).encode()
    root = echoed(app, request_id, body, JSON)

    for value in (root.inputs, root.outputs):
        first, second = value["messages"]
        assert first["content"][0] == {"type": "text", "text": "What is this?"}
        size = len(base64.b64encode(LARGE))
        note = f"[{size} characters of base64 left out]"
        assert first["content"][1]["image_url"]["url"] == f"data:image/png;base64,{note}"
        assert second == {"role": "user", "content": "And that?"}
    assert root.attributes["http.request.body.size"] == len(body)
    assert root.attributes["http.request.body.cut"] is True


@pytest.mark.once
@pytest.mark.parametrize("name", ["django-wsgi", "django-asgi"])
def test_a_file_that_the_server_sends_has_its_size(run_app: AppRunner, request_id: str, name: str) -> None:
    """Its content is passed on unread."""
    app = run_app(name)
    assert app.get("/file", x_request_id=request_id).content == b"abc"

    root = root_of(app, request_id)
    assert root.outputs == {"content_type": "text/plain", "bytes": 3}
    assert root.attributes["http.response.body.size"] == 3


@pytest.mark.once
def test_a_body_that_the_app_does_not_read_is_not_captured(app: RunningApp, request_id: str) -> None:
    """Nor is it read for the trace."""
    app.post("/unread", b'{"never": "read"}', content_type=JSON, x_request_id=request_id)

    root = root_of(app, request_id)
    assert root.inputs is None
    assert root.outputs == {}


@pytest.mark.once
def test_headers_that_are_an_iterator_reach_the_client(run_app: AppRunner) -> None:
    """ASGI allows any iterable."""
    answer = run_app("asgi").post("/unread", b"{}")

    assert (answer.headers["X-Own"], answer.headers["Content-Type"]) == ("kept", JSON)
    assert "X-MLflow-Trace-ID" in answer.headers


@pytest.mark.once
@pytest.mark.parametrize("kind", ["object", "array"])
def test_a_deeply_nested_body_is_stored(run_app: AppRunner, request_id: str, kind: str) -> None:
    """A server rejects deeply nested values in OTLP; the innermost levels become JSON text."""
    opening, closing = ('{"a":', "}") if kind == "object" else ("[", "]")
    body = (opening * 90 + '"deep"' + closing * 90).encode()
    root = echoed(run_app("asgi"), request_id, body, JSON)

    assert "deep" in json.dumps(root.inputs)
    value = root.inputs
    for _ in range(20):
        value = value["a"] if kind == "object" else value[0]
    assert isinstance(value, dict | list)


@pytest.mark.once
def test_no_preview_holds_a_null_character(run_app: AppRunner, request_id: str) -> None:
    """PostgreSQL would reject it, and the trace with it."""
    app = run_app("asgi")
    chat = {"messages": [{"role": "user", "content": "Tea\0?"}]}
    root = echoed(app, request_id, json.dumps(chat).encode(), JSON)

    assert root.inputs == chat
    assert app.traces.one(request_id).info.request_preview == "Tea\ufffd?"


@pytest.mark.once
def test_an_attribute_length_limit_of_opentelemetry_holds(run_app: AppRunner, request_id: str) -> None:
    """The bodies are truncated to that length."""
    app = run_app("asgi", OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT="100")
    root = echoed(app, request_id, json.dumps({"note": "x" * 300}).encode(), JSON)

    assert str(root.inputs).startswith('{"note": "xxx')
    assert len(str(root.inputs)) == 100


def test_an_event_stream_becomes_one_message(app: RunningApp, request_id: str) -> None:
    """It has the statistics of a stream."""
    app.get("/events", x_request_id=request_id)

    trace = app.traces.one(request_id)
    root = next(span for span in trace.data.spans if span.parent_id is None)
    (choice,) = root.outputs["choices"]
    assert choice["message"] == {"role": "assistant", "content": "Tea and cake"}
    assert trace.info.response_preview == "Tea and cake"
    assert root.attributes["http.response.chunks"] == 4
    assert 0 < root.attributes["http.response.time_to_first_byte"] <= root.attributes["http.response.time_to_last_byte"]


STREAMS = [
    ("fastapi", "/ticks"),
    ("flask", "/ticks"),
    ("wsgi", "/ticks"),
    ("django-wsgi", "/ticks"),
    ("django-asgi", "/async/ticks"),
]


@pytest.mark.once
@pytest.mark.parametrize(("name", "path"), STREAMS, ids=[name for name, _ in STREAMS])
def test_a_client_that_disconnects_is_no_error(run_app: AppRunner, request_id: str, name: str, path: str) -> None:
    """The chunks that it was sent are kept."""
    app = run_app(name)
    host, _, port = app.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nX-Request-ID: {request_id}\r\n\r\n".encode())
        received = b""
        while received.count(b"tick") < 3:
            received += client.recv(4096)

    trace = app.traces.one(request_id)
    root = next(span for span in trace.data.spans if span.parent_id is None)
    assert root.attributes["http.client_disconnected"] is True
    assert str(trace.info.state) == "OK"
    assert root.outputs[:3] == ["tick"] * 3
    assert len(root.outputs) < 1000


OFF: list[tuple[str, dict[str, Any], Any, Any]] = [
    ("neither", {"capture_request_body": False, "capture_response_body": False}, None, None),
    ("request", {"capture_response_body": False}, CHAT, None),
    ("path", {"metadata_only": ["/ec*"]}, None, None),
]


@pytest.mark.once
@pytest.mark.parametrize(("options", "inputs", "outputs"), [each[1:] for each in OFF], ids=[each[0] for each in OFF])
@pytest.mark.parametrize("name", ["asgi", "wsgi", "django-wsgi"])
def test_capturing_can_be_switched_off(
    run_app: AppRunner, request_id: str, name: str, options: dict[str, Any], inputs: Any, outputs: Any
) -> None:
    """Each option by itself, or for some paths."""
    root = echoed(run_app(name, options), request_id, json.dumps(CHAT).encode(), JSON)

    assert (root.inputs, root.outputs) == (inputs, outputs)


@pytest.mark.once
@pytest.mark.parametrize("name", ["asgi", "wsgi", "flask", "django-wsgi", "django-asgi"])
def test_an_error_under_200(run_app: AppRunner, request_id: str, name: str) -> None:
    """By the body and by headers."""
    app = run_app(name, {"error_when": ["graphql", "tests.apps.behaviour.is_csv"]})
    roots = [
        echoed(app, f"{request_id}-1", b'{"errors": [{"message": "no such field"}]}', JSON),
        echoed(app, f"{request_id}-2", b"a,b", "text/csv"),
        echoed(app, f"{request_id}-3", b"{}", JSON),
    ]

    assert [root.status.description for root in roots] == ["no such field", "a table", ""]
    assert app.traces.one(f"{request_id}-1").info.state == "ERROR"
    assert app.traces.one(f"{request_id}-3").info.state == "OK"


@pytest.mark.once
@pytest.mark.parametrize("name", ["asgi", "wsgi"])
def test_mask_replaces_content_that_no_rule_knows(run_app: AppRunner, request_id: str, name: str) -> None:
    """It receives the exchange, and its result is stored."""
    app = run_app(name, {"mask": "tests.apps.behaviour.mask"})
    root = echoed(app, request_id, b'{"note": "call 555-0100"}', JSON)

    assert root.inputs == {"note": "call [number]"}
    assert root.outputs == "masked"


@pytest.mark.once
def test_a_mask_that_fails_lets_nothing_through(run_app: AppRunner, request_id: str) -> None:
    """The trace is stored without inputs and outputs."""
    app = run_app("asgi", {"mask": "tests.apps.behaviour.failing_mask"})
    root = echoed(app, request_id, b'{"note": "call 555-0100"}', JSON)

    assert (root.inputs, root.outputs) == (None, None)
    assert "tracing failed in '_contents'" in app.process.output()


@pytest.mark.once
def test_mlflows_own_exporter_gets_the_bodies_too(run_app: AppRunner, request_id: str) -> None:
    """With ``delivery="mlflow"``."""
    app = run_app("asgi", {"delivery": "mlflow"})
    eventually(
        lambda: "X-MLflow-Trace-ID" in app.get("/log").headers, "the experiment, before which MLflow has no traces"
    )
    root = echoed(app, request_id, json.dumps(CHAT).encode(), JSON)

    assert (root.inputs, root.outputs) == (CHAT, CHAT)

"""The app's annotations through MLflow, and changes by its span processors, combined with the middleware's values."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from contextvars import Context, ContextVar
from typing import Any

import mlflow
import pytest
from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, ASGISendEvent, Scope
from mlflow.entities import LiveSpan, SpanStatus

from mlflow_middleware import delivery
from mlflow_middleware._internal import guard
from mlflow_middleware.asgi import TraceMiddleware
from mlflow_middleware.delivery.encoded import EncodedTrace
from mlflow_middleware.mlflow_bridge import registry
from mlflow_middleware.mlflow_bridge.exporter import Exporter
from mlflow_middleware.mlflow_bridge.pending import PendingTrace
from mlflow_middleware.mlflow_bridge.root import Root
from mlflow_middleware.request_trace import annotate, current, outbound_headers
from tests.messages import body, http, request, start
from tests.unit.encoded import Sent, attributes_of, sent_traces

HEADERS = ((b"x-user-id", b"jane"), (b"x-request-id", b"r-1"), (b"content-type", b"application/json"))
KEY = "0123456789abcdef"
USER = "mlflow.trace.user"


def nothing() -> None:
    """Do nothing."""


def active() -> LiveSpan:
    """Return the request's own span."""
    span = mlflow.get_current_active_span()
    assert span is not None
    return span


def ask(handler: Callable[[], object], afterwards: Callable[[], object] = nothing, **options: Any) -> None:
    """Send a request.

    Args:
        handler: A function that the app calls before it answers.
        afterwards: A function that it calls when its answer is complete.
        options: The middleware's options.
    """

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await receive()
        handler()
        await send(start(200, (b"content-type", b"application/json")))
        await send(body(b'{"answer": "secret"}'))
        afterwards()

    async def receive() -> Any:
        return request(b'{"question": "secret"}')

    async def send(message: ASGISendEvent) -> None: ...

    before = guard.failures.copy()
    with suppress(ValueError):
        asyncio.run(TraceMiddleware(app, **options)(http("/", *HEADERS, method="POST"), receive, send))
    assert guard.failures == before


def sent_of(
    handler: Callable[[], object],
    afterwards: Callable[[], object] = nothing,
    *,
    at_once: bool = False,
    **options: Any,
) -> list[Sent]:
    """Return the encoded traces of a request: see `ask` and `sent_traces`."""
    with sent_traces(at_once=at_once) as sent:
        ask(handler, afterwards, **options)
    return sent


# --- span processors ---


@contextmanager
def processing(processor: Callable[[LiveSpan], object]) -> Iterator[None]:
    """Let a processor of the app's see each span that ends inside."""
    mlflow.tracing.configure(span_processors=[processor])
    try:
        yield
    finally:
        mlflow.tracing.configure(span_processors=[])


def hide(span: LiveSpan) -> None:
    """Replace inputs, outputs and identity."""
    if span.inputs is not None:
        span.set_inputs("[hidden]")
    if span.outputs is not None:
        span.set_outputs("[hidden]")
    span.set_attribute("client.address", "[hidden]")


def remove(span: LiveSpan) -> None:
    """Remove inputs and outputs."""
    span.set_inputs(None)
    span.set_outputs(None)


def child() -> None:
    with mlflow.start_span("child") as span:
        span.set_inputs("secret")


@pytest.mark.parametrize("processor", [hide, remove])
@pytest.mark.parametrize("handler", [nothing, mlflow.get_current_active_span, child])
@pytest.mark.parametrize("afterwards", [nothing, child, lambda: mlflow.update_current_trace(tags={"a": "b"})])
@pytest.mark.parametrize("at_once", [False, True])
def test_content_that_a_processor_hides_is_not_sent(
    processor: Callable[[LiveSpan], object],
    handler: Callable[[], object],
    afterwards: Callable[[], object],
    at_once: bool,
) -> None:
    """With or without a span from MLflow: neither in inputs and outputs, nor in previews or metadata."""
    with processing(processor):
        sent = sent_of(handler, afterwards, at_once=at_once)

    for each in sent:
        assert b"secret" not in each.otlp
        assert b"secret" not in each.info
    if processor is hide:
        assert attributes_of(sent[-1].root)["client.address"] == "[hidden]"
        assert sent[-1].trace_info["request_preview"] == '"[hidden]"'


@pytest.mark.parametrize("at_once", [False, True])
def test_a_processor_cannot_see_the_bodies_of_a_request_whose_span_the_app_ends(at_once: bool) -> None:
    """Therefore they are not sent."""
    with processing(hide):
        sent = sent_of(lambda: active().end(), at_once=at_once)

    assert not any(b"secret" in each.otlp + each.info for each in sent)
    assert sent[-1].trace_info["tags"]["http.status_code"] == "200"


def test_a_preview_that_the_app_has_set_stays() -> None:
    """Also if a processor replaces the content that it summarizes."""
    with processing(hide):
        (sent,) = sent_of(lambda: mlflow.update_current_trace(request_preview="mine"))

    assert sent.trace_info["request_preview"] == "mine"
    assert sent.trace_info["response_preview"] == '"[hidden]"'


# --- identity ---


def after(first: Callable[[], object], second: Callable[[], object]) -> Callable[[], object]:
    """Set the user in both ways."""

    def both() -> None:
        first()
        second()

    return both


UPDATE = functools.partial(mlflow.update_current_trace, client_request_id="r-3")


@pytest.mark.parametrize(
    ("handler", "expected"),
    [
        (lambda: annotate(request_id="r-2"), "r-2"),
        (after(active, lambda: annotate(request_id="r-2")), "r-2"),
        (after(UPDATE, lambda: annotate(request_id="r-2")), "r-2"),
        (after(lambda: annotate(request_id="r-2"), UPDATE), "r-3"),
        (after(active, lambda: annotate(request_id="r" * 51)), "r-1"),
    ],
)
def test_the_last_request_id_is_stored(handler: Callable[[], object], expected: str) -> None:
    """Set by either function; a server stores 50 characters."""
    (sent,) = sent_of(handler)

    assert sent.trace_info.get("client_request_id") == expected


KNOWS_USERS = "user" in inspect.signature(mlflow.update_current_trace).parameters  # since MLflow 3.12

USER_CALLS: Mapping[str, Callable[[], object]] = {
    **({"user": lambda: mlflow.update_current_trace(user="bob")} if KNOWS_USERS else {}),
    "metadata": lambda: mlflow.update_current_trace(metadata={USER: "bob"}),
    "tag": lambda: mlflow.update_current_trace(tags={USER: "bob"}),
    "attribute": lambda: active().set_attribute("user.id", "bob"),
    "annotated": lambda: annotate(user_id="bob", tags={USER: "bob"}, metadata={USER: "bob"}),
    "annotated, with objects": after(active, lambda: annotate(tags={USER: "bob"}, metadata={USER: "bob"})),
}


@pytest.mark.parametrize("annotate_user", USER_CALLS.values(), ids=USER_CALLS)
@pytest.mark.parametrize("processor", [None, hide])
def test_with_pseudonyms_no_user_id_is_stored(
    annotate_user: Callable[[], object], processor: Callable[[LiveSpan], object] | None
) -> None:
    """Whichever way it is set."""
    with processing(processor) if processor else ExitStack():
        (sent,) = sent_of(annotate_user, user_id_hmac_key=KEY)

    assert b"bob" not in sent.otlp + sent.info
    assert b"jane" not in sent.otlp + sent.info


@pytest.mark.parametrize("annotate_user", USER_CALLS.values(), ids=USER_CALLS)
def test_mlflows_own_exporter_finds_pseudonyms(annotate_user: Callable[[], object]) -> None:
    """They are in its trace info and in the span, which it reads when the request ends."""
    roots: list[Root] = []

    def handler() -> None:
        annotate_user()
        roots.append(root := registry.in_flight[active()._span.context.trace_id])
        root.source = root.source._replace(processor=None)  # as with ``delivery="mlflow"``

    sent = sent_of(handler, user_id_hmac_key=KEY)
    objects = roots[0].materialize()
    roots[0].forget()

    assert sent == []
    stored = [objects.trace.info.tags, objects.trace.info.trace_metadata, dict(objects.otel.attributes or {})]
    assert USER in stored[0]
    assert "bob" not in str(stored)


# --- errors ---


def test_a_request_that_fails_has_the_level_of_an_error() -> None:
    """Like a span on which MLflow records an exception, with or without a span from MLflow."""

    def fail() -> None:
        raise ValueError("no")

    def fail_and_ask() -> None:
        active()
        fail()

    for handler in (fail, fail_and_ask):
        (sent,) = sent_of(handler)
        level = attributes_of(sent.root).get("mlflow.spanLogLevel")
        assert level == (40 if hasattr(LiveSpan, "set_log_level") else None)


@pytest.mark.parametrize("asks", [False, True])
def test_a_request_is_a_server_span(asks: bool) -> None:
    """Its kind is SERVER, and its level INFO, which MLflow's own filter shows; also if the app gets its span."""

    def answer() -> None:
        assert not asks or getattr(active(), "log_level", None) in (None, 20)  # MLflow has levels since 3.13

    (sent,) = sent_of(answer)
    assert sent.root.kind == 2
    assert attributes_of(sent.root).get("mlflow.spanLogLevel") == (20 if hasattr(LiveSpan, "set_log_level") else None)


@pytest.mark.parametrize(("status", "expected"), [("OK", (1, "")), (SpanStatus("ERROR", "mine"), (2, "mine"))])
def test_a_status_that_the_app_sets_after_an_exception(status: SpanStatus | str, expected: tuple[int, str]) -> None:
    """It replaces that of the exception, which stays recorded."""

    def handler() -> None:
        request_trace = current()
        assert request_trace is not None
        request_trace.failed(ValueError("handled"))  # a framework's signal
        active().set_status(status)

    (sent,) = sent_of(handler)

    assert (sent.root.status.code, sent.root.status.message) == expected
    assert [event.name for event in sent.root.events] == ["exception"]


def test_a_tag_that_is_no_text_is_stored_as_text() -> None:
    """Like MLflow stores it."""
    (sent,) = sent_of(lambda: mlflow.update_current_trace(tags={"a": None}))

    assert sent.trace_info["tags"]["a"] == "None"


# --- spans that the app, or other code, reads or ends ---


def test_a_span_that_the_app_ends_before_it_answers() -> None:
    """The last encoding has the whole of the bodies, also if the trace was sent before."""
    *_, last = sent_of(lambda: active().end(), at_once=True)

    root = attributes_of(last.root)
    assert (root["mlflow.spanInputs"], root["mlflow.spanOutputs"]) == ({"question": "secret"}, {"answer": "secret"})
    assert last.trace_info["response_preview"] == '{"answer": "secret"}'


def test_other_span_processors_see_no_bodies() -> None:
    """OpenTelemetry's processors get the span without the bodies, which the sender reads."""
    roots: list[Root] = []

    def handler() -> None:
        roots.append(root := registry.in_flight[active()._span.context.trace_id])
        root.source = root.source._replace(is_lazy=False)  # as with another processor in the app's tracer provider

    (sent,) = sent_of(handler)

    seen = roots[0].materialize().otel.attributes or {}
    assert "http.response.status_code" in seen
    assert "secret" not in str(dict(seen))
    assert attributes_of(sent.root)["mlflow.spanOutputs"] == {"answer": "secret"}


def test_a_limit_of_attributes_applies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attributes that the SDK has dropped are not sent; inputs and outputs are, as always."""
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "4")
    mlflow.tracing.reset()
    try:
        (sent,) = sent_of(nothing)
    finally:
        monkeypatch.delenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT")
        mlflow.tracing.reset()

    attributes = attributes_of(sent.root)
    assert {"mlflow.spanInputs", "mlflow.spanOutputs"} < attributes.keys()
    assert len(attributes) <= 4 + 2 + 1  # and the trace's id


# --- a trace that other code in this process has begun ---


async def answer(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    """An app that waits for `IN_BETWEEN`."""
    await receive()
    await send(start(200, (b"content-type", b"application/json")))
    await IN_BETWEEN.get()()
    await send(body(b'{"answer": "inner"}'))


IN_BETWEEN: ContextVar[Callable[[], Awaitable[object]]] = ContextVar("in between")


async def at_once() -> None:
    """Do not wait."""


async def ask_inner(headers: Mapping[str, str], in_between: Callable[[], Awaitable[object]] = at_once) -> None:
    """Send a request that belongs to the current trace of its caller."""

    async def receive() -> Any:
        return request(b'{"question": "inner"}')

    async def send(message: ASGISendEvent) -> None: ...

    def of_its_own() -> asyncio.Task[None]:
        IN_BETWEEN.set(in_between)
        sent = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        traced = TraceMiddleware(answer, trust_incoming_trace=True)
        return asyncio.get_running_loop().create_task(traced(http("/inner", *sent, method="PUT"), receive, send))

    await Context().run(of_its_own)


@pytest.mark.parametrize("encoded_at_once", [False, True])
@pytest.mark.parametrize("outlives", [False, True])
def test_the_trace_of_two_requests_belongs_to_the_first(encoded_at_once: bool, outlives: bool) -> None:
    """Its name, its tags and its previews, whichever ends last."""

    async def main() -> None:
        begun, ended = asyncio.Event(), asyncio.Event()
        tasks: list[asyncio.Task[None]] = []

        async def wait() -> None:
            begun.set()
            await ended.wait()

        async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
            await receive()
            inner = ask_inner(outbound_headers(), wait if outlives else at_once)
            tasks.append(asyncio.get_running_loop().create_task(inner))
            await (begun.wait() if outlives else tasks[0])
            await send(start(200, (b"content-type", b"application/json")))
            await send(body(b'{"answer": "outer"}'))

        async def receive() -> Any:
            return request(b'{"question": "outer"}')

        async def send(message: ASGISendEvent) -> None: ...

        await TraceMiddleware(app)(http("/outer", *HEADERS, method="POST"), receive, send)
        ended.set()
        await tasks[0]

    with sent_traces(at_once=encoded_at_once) as sent:
        asyncio.run(main())

    last = sent[-1]
    assert {span.name: attributes_of(span)["mlflow.spanOutputs"]["answer"] for span in last.spans} == {
        "POST": "outer",
        "PUT": "inner",
    }
    assert last.root.name == last.trace_info["tags"]["mlflow.traceName"] == "POST"
    assert last.trace_info["response_preview"] == '{"answer": "outer"}'


def test_a_request_inside_a_trace_of_the_app() -> None:
    """The trace keeps its name and its times; the request is a span of it, and is found by its tags."""
    with sent_traces() as sent, mlflow.start_span("job") as span:
        caller = {"traceparent": f"00-{span.trace_id[3:]}-{span.span_id}-01", "x-session-id": "s-1"}
        Context().run(asyncio.run, ask_inner(caller))
        span.set_inputs("of the job")

    (only,) = sent
    assert {each.name for each in only.spans} == {"job", "PUT"}
    assert only.trace_info["tags"]["mlflow.traceName"] == "job"
    assert only.trace_info["trace_metadata"]["mlflow.trace.session"] == "s-1"
    assert only.trace_info["request_preview"] == '"of the job"'
    times = only.root.start_time_unix_nano, only.root.end_time_unix_nano
    milliseconds = round(float(only.trace_info["execution_duration"][:-1]) * 1000)
    assert milliseconds == (times[1] - times[0]) // 1_000_000


# --- the app's thread and the sender's ---


def test_a_span_that_ends_while_its_trace_is_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sender finds it ended before delivery knows: the supplement has the bodies, too."""
    pending: list[PendingTrace] = []
    late: list[LiveSpan] = []
    original = Exporter.export

    def encode_first(self: Exporter, spans: object) -> object:
        EncodedTrace.encode(pending[0])
        return original(self, spans)  # type: ignore[arg-type]

    with delivery.capturing(pending.append):
        ask(lambda: late.append(mlflow.start_span_no_context("late", parent_span=active())))
        monkeypatch.setattr(Exporter, "export", encode_first)
        late[0].end()

    assert_whole(pending)


def test_a_request_that_ends_while_its_trace_is_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """As above, for a request that goes on after its answer."""
    pending: list[PendingTrace] = []
    original = Exporter.released

    def encode_first(self: Exporter, root: object) -> None:
        EncodedTrace.encode(pending[0])
        original(self, root)  # type: ignore[arg-type]

    monkeypatch.setattr(Exporter, "released", encode_first)
    with delivery.capturing(pending.append):
        ask(active)

    assert_whole(pending)


class _Between:
    """A lock after whose next release another thread is first.

    Args:
        lock: The lock.
        other: The work of the other thread.
    """

    def __init__(self, lock: AbstractContextManager[object], other: Callable[[], object]) -> None:
        self._lock = lock
        self._other: Callable[[], object] | None = other

    def __enter__(self) -> None:
        self._lock.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._lock.__exit__(*error)
        other, self._other = self._other, None
        if other:
            other()


def test_a_span_that_ends_together_with_its_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """One supplement follows, with both, in whichever order two threads report their end."""
    pending: list[PendingTrace] = []
    stack = ExitStack()
    original = Exporter.released

    def released(self: Exporter, root: Root) -> None:
        EncodedTrace.encode(pending[0])
        monkeypatch.setattr(self._manager, "_lock", _Between(self._manager._lock, stack.close))
        original(self, root)

    monkeypatch.setattr(Exporter, "released", released)
    with delivery.capturing(pending.append):
        ask(lambda: (active(), stack.enter_context(mlflow.start_span("late"))))

    assert [each.supplement for each in pending] == [False, True]
    assert_whole(pending)


def assert_whole(pending: list[PendingTrace]) -> None:
    """The last encoding of a trace has its bodies once more."""
    assert len(pending) == 2
    last = EncodedTrace.encode(pending[-1])
    info = json.loads(last.info)["trace"]["trace_info"]
    assert "secret" in info["request_preview"]
    assert b"http.response.body.size" in last.otlp
    assert pending[-1].root is not None
    assert pending[-1].root.record.exchange.request_body is None  # they are released when nothing more will come

"""The types of what every app can import, as type checkers see them; never executed."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import datetime, timedelta, timezone
from typing import Any, Literal
from wsgiref.types import WSGIApplication, WSGIEnvironment

from mlflow.entities import Trace, TraceInfo
from opentelemetry.metrics import MeterProvider
from typing_extensions import assert_type

from mlflow_middleware import asgi as for_asgi
from mlflow_middleware import delivery, feedback, logs, metrics, traces
from mlflow_middleware import wsgi as for_wsgi
from mlflow_middleware.asgi import TraceMiddleware
from mlflow_middleware.delivery import Stats
from mlflow_middleware.exchange import Exchange, Job
from mlflow_middleware.identity import Identity
from mlflow_middleware.request_trace import (
    JobTrace,
    RequestTrace,
    annotate,
    carry,
    continue_trace,
    current,
    drop_trace,
    job_trace,
    keep_trace,
    outbound_headers,
)
from mlflow_middleware.settings import Settings, SettingsError
from mlflow_middleware.testing import captured_traces
from mlflow_middleware.traces import ConnectionProblem, Figures, Session, Summary, Turn


def search(query: str, *, limit: int = 10) -> list[str]:
    """A function of a user's app."""
    return [query] * limit


async def answer(question: str) -> str:
    """An async one."""
    return question


def the_current_request() -> None:
    trace = current()
    assert_type(trace, RequestTrace | None)
    if trace:
        assert_type(trace.trace_id, str | None)
        assert_type(trace.identity, Identity)
        assert_type(trace.user_id, str | None)
        assert_type(trace.exchange, Exchange)
    annotate(user_id="jane", session_id="s-1", request_id="r-1", tags={"plan": "pro"}, metadata={"a": "b"})
    annotate(session_id=["outer", "inner"], tags={"turn": 3}, route="/chats/{chat_id}", exception=ValueError())
    annotate(user="jane")  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    assert_type(annotate(), None)
    assert_type(drop_trace(), None)
    assert_type(keep_trace(), None)
    assert_type(outbound_headers(), dict[str, str])
    with continue_trace("token") as nothing:
        assert_type(nothing, None)
    with continue_trace(None):
        pass


def threads() -> None:
    carried = carry(search)
    assert_type(carried("x", limit=2), list[str])
    carried(1)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    with ThreadPoolExecutor() as pool:
        assert_type(list(pool.map(carry(len), ["a", "b"])), list[int])


async def jobs() -> None:
    @job_trace
    def plain(text: str, *, count: int = 1) -> list[str]:
        return [text] * count

    @job_trace(name="summary", session_id_header="X-Chat-ID")
    def named(text: str) -> int:
        return len(text)

    @job_trace("headers")
    async def awaited(text: str, headers: Mapping[str, str]) -> int:
        return len(text) + len(headers)

    assert_type(plain("a", count=2), list[str])
    assert_type(named("a"), int)
    assert_type(await awaited("a", {}), int)
    plain()  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    named(1)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    assert_type(job_trace(), JobTrace)
    assert_type(job_trace({"traceparent": "00-1-1-01"}, inputs={"text": "a"}, settings=Settings.load()), JobTrace)
    with job_trace(outbound_headers(), name="nightly") as inside:
        assert_type(inside, RequestTrace | None)
    coroutine: Callable[[str], Coroutine[Any, Any, str]] = job_trace(answer)
    assert_type(await coroutine("a"), str)


def hooks() -> None:
    def identify(exchange: Exchange) -> Identity:
        assert_type(exchange.method, str)
        assert_type(exchange.path, str)
        assert_type(exchange.headers, Mapping[str, str])
        assert_type(exchange.route, str | None)
        assert_type(exchange.status, int | None)
        assert_type(exchange.path_params, Mapping[str, Any])
        assert_type(exchange.body, Any)
        assert_type(exchange.query_string, str)
        assert_type(exchange.client, str)
        return Identity(user_id="jane", session_id=None)

    def mask(exchange: Exchange) -> None:
        if isinstance(exchange, Job):
            exchange.inputs = None

    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    TraceMiddleware(app, identify=identify, mask=mask, exclude=["/admin"])
    TraceMiddleware(app=app, settings=Settings.load())
    assert_type(Settings.load(session_id_header="X-Chat-ID"), Settings)
    try:
        TraceMiddleware(app, sampel_ratio=1)
    except SettingsError as wrong:
        assert_type(wrong.problems, list[str])
    identity = Identity(session_id=["outer", "inner"])
    assert_type(identity.user_id, str | None)
    assert_type(identity.session_id, str | None)
    assert_type(identity.request_id, str | None)


def wsgi(app: WSGIApplication) -> None:
    wrapped: WSGIApplication = for_wsgi.TraceMiddleware(app, sample_ratio=0.5)
    for_wsgi.TraceMiddleware(wrapped, settings=Settings.load())


async def a_feedback_route(scope: Any, environ: WSGIEnvironment) -> None:
    """A route of a user's app without a framework."""
    assert_type(for_asgi.exchange_of(scope), Exchange)
    answered = feedback.answer(for_wsgi.exchange_of(environ), b"{}")
    assert_type(answered, feedback.Answer)
    assert_type(answered.status, int)
    assert_type(answered.body, bytes)
    assert_type(answered.headers, dict[str, str])
    limit: int = feedback.MAX_BODY
    assert_type(feedback.answer(for_wsgi.exchange_of(environ), bytes(limit)).status, int)
    feedback.answer(Exchange("POST", "/feedback", {}), b"{}", Settings.load())


def find_and_read() -> None:
    found = traces.find(
        user_id="jane",
        tags={"plan": "pro"},
        status=500,
        since=timedelta(hours=1),
        until=datetime.now(timezone.utc),
        slower_than=1.5,
        limit=None,
    )
    assert_type(found, Iterator[TraceInfo])
    for session in traces.sessions(session_id="s-1"):
        assert_type(session, Session)
        assert_type(session.traces, list[TraceInfo])
        assert_type(session.turns, list[Turn])
        assert_type(session.turns[0].text, str)
        assert_type(session.turns[0].role, Literal["user", "assistant"])
    assert_type(traces.sessions(user_id="jane"), Iterator[Session])
    assert_type(traces.get("tr-1", wait=0), Trace | None)
    figures = traces.summary(by="user", since=timedelta(days=1))
    assert_type(figures, Summary)
    assert_type(figures.rows, list[Figures])
    assert_type(figures.rows[0].cost, float | None)
    try:
        traces.find(request_id="r-1")
    except ConnectionProblem as problem:
        assert_type(str(problem), str)


def deliver_and_measure(provider: MeterProvider) -> None:
    assert_type(delivery.flush(), bool)
    assert_type(delivery.flush(timeout=1.5), bool)
    stats = delivery.stats()
    assert_type(stats, Stats)
    assert_type(stats.delivered, int)
    assert_type(stats.dropped, dict[str, int])
    assert_type(stats.last_delivered_at, float | None)
    assert_type(stats.waiting, int)
    assert_type(metrics.register(), None)
    metrics.register(provider)
    assert_type(metrics.prometheus_text(openmetrics=True), str)
    assert_type(metrics.scrape("text/plain"), tuple[bytes, str])
    assert_type(metrics.Collector().collect(), Iterator[Any])
    assert_type([metric.name for metric in metrics.METRICS if isinstance(metric, metrics.Metric)], list[str])
    wsgi_app: WSGIApplication = metrics.wsgi_app
    TraceMiddleware(metrics.asgi_app)
    for_wsgi.TraceMiddleware(wsgi_app)


def tests_and_logs() -> None:
    with captured_traces() as captured:
        assert_type(captured, list[Trace])
    block: AbstractContextManager[list[Trace]] = captured_traces()
    with block as also_captured:
        assert_type(also_captured, list[Trace])
    added = logs.ContextFilter(default="none")
    assert_type(added.filter(logging.makeLogRecord({})), bool)
    logging.getLogger().addFilter(added)


async def streams() -> AsyncIterator[str]:
    """Generators keep their type: the request itself propagates to them."""
    yield await answer("a")

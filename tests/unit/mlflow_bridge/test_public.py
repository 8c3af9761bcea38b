"""Requests traced with MLflow's public functions only, as if the rest of MLflow had changed."""

from __future__ import annotations

import asyncio
import contextvars

import mlflow
import pytest
from mlflow.entities import Trace

from mlflow_middleware.exchange import Exchange
from mlflow_middleware.mlflow_bridge import public
from mlflow_middleware.mlflow_bridge.interface import RootSpan
from mlflow_middleware.settings import Settings
from mlflow_middleware.trace.record import TraceRecord

RECORDS: dict[RootSpan, TraceRecord] = {}
"""The records of the roots that are open."""


def record_of(name: str) -> TraceRecord:
    """Return the values of a request that are known at its start."""
    headers = {"x-session-id": name, "x-request-id": f"r-{name}"}
    return TraceRecord(Exchange("POST", f"/{name}", headers), Settings(tags={"plan": "pro"}))


def opened(name: str) -> RootSpan:
    """A recorded root."""
    record = record_of(name)
    root = public.open_root_span(record)
    assert root is not None
    RECORDS[root] = record
    return root


def end(root: RootSpan) -> None:
    """End one like a request does."""
    record = RECORDS.pop(root)
    exchange = record.exchange
    exchange.route, exchange.response_type = "/x", "text/plain"
    exchange.headers = {**exchange.headers, "content-type": "application/json"}
    assert exchange.request_body is not None
    assert exchange.response_body is not None
    exchange.request_body.add(b'{"a": 1}')
    exchange.response_body.add(b"b")
    record.is_complete = True
    root.end()


def test_a_request_has_all_its_values(traces: list[Trace]) -> None:
    """Identity, tags, inputs, outputs and previews."""
    end(opened("s-1"))

    (trace,) = traces
    (root,) = trace.data.spans
    assert (root.inputs, root.outputs, root.attributes["url.path"]) == ({"a": 1}, "b", "/s-1")
    assert (trace.info.request_preview, trace.info.response_preview) == ('{"a": 1}', "b")
    assert (trace.info.client_request_id, trace.info.trace_metadata["mlflow.trace.session"]) == ("r-s-1", "s-1")
    assert (trace.info.tags["plan"], trace.info.tags["mlflow.traceName"]) == ("pro", "POST /x")


def test_the_last_value_counts(traces: list[Trace]) -> None:
    """Set by `annotate` or through MLflow: nothing is overwritten when the request ends."""
    root = opened("s-1")
    record, told = RECORDS[root], {"tags": {"a": "told"}, "metadata": {"m": "told"}}
    record.annotate({"a": "annotated", "b": "annotated"}, {"m": "annotated"})
    root.annotate(record.tags, record.metadata)
    entered = root.attach()
    mlflow.update_current_trace(client_request_id="told", **told)
    public.leave(entered)
    end(root)

    (trace,) = traces
    assert (trace.info.tags["a"], trace.info.tags["b"]) == ("told", "annotated")
    assert (trace.info.trace_metadata["m"], trace.info.client_request_id) == ("told", "told")


def test_children_nest_and_nothing_stays_current(traces: list[Trace]) -> None:
    """Also if the request is entered in several steps, in contexts of their own."""
    root = opened("s-1")
    for step in ("first", "second"):

        def take(name: str) -> None:
            entered = root.attach()
            with mlflow.start_span(name):
                pass
            public.leave(entered)

        contextvars.copy_context().run(take, step)
        assert mlflow.get_current_active_span() is None
    end(root)

    (trace,) = traces
    parent, *children = trace.data.spans
    assert [child.name for child in children] == ["first", "second"]
    assert {child.parent_id for child in children} == {parent.span_id}


def test_simultaneous_requests_do_not_mix(traces: list[Trace]) -> None:
    """Each trace has its own session and its own child."""

    async def request(number: int) -> None:
        root = opened(f"s-{number}")
        entered = root.attach()
        await asyncio.sleep(0)
        with mlflow.start_span(f"child {number}"):
            await asyncio.sleep(0)
        public.leave(entered)
        end(root)

    async def all_of_them() -> None:
        await asyncio.gather(*(request(number) for number in range(50)))

    asyncio.run(all_of_them())

    assert len(traces) == 50
    for trace in traces:
        number = trace.info.trace_metadata["mlflow.trace.session"].removeprefix("s-")
        assert [span.name for span in trace.data.spans] == ["POST", f"child {number}"]


def test_a_request_inside_an_open_span_is_a_trace_of_its_own(traces: list[Trace]) -> None:
    """As always: an open span around it is not its parent."""
    with mlflow.start_span("around"):
        end(opened("s-1"))
        end(opened("s-2"))

    sessions = [trace.info.trace_metadata.get("mlflow.trace.session") for trace in traces]
    assert sorted(map(str, sessions)) == ["None", "s-1", "s-2"]


def test_the_apps_values_stay(traces: list[Trace]) -> None:
    """The headers' ids were set first."""
    root = opened("from the header")
    entered = root.attach()
    mlflow.update_current_trace(metadata={"mlflow.trace.session": "from the app"})
    public.leave(entered)
    end(root)

    assert traces[0].info.trace_metadata["mlflow.trace.session"] == "from the app"


def test_an_exception_is_recorded(traces: list[Trace]) -> None:
    """With its type and the state of the trace."""
    root = opened("s-1")
    RECORDS[root].fail(ValueError("no"))
    end(root)

    (trace,) = traces
    assert str(trace.info.state) == "ERROR"
    assert trace.data.spans[0].attributes["error.type"] == "ValueError"
    assert [event.name for event in trace.data.spans[0].events] == ["exception"]


def test_traces_inside_a_connection(traces: list[Trace]) -> None:
    """The values of a websocket are on each trace opened in it, and on none after it."""
    inside = public.TracesInside()
    inside.annotate({"plan": "pro"}, {"mlflow.trace.session": "s-1"})
    entered = inside.attach()
    with mlflow.start_span("one"):
        pass
    public.leave(entered)
    with mlflow.start_span("two"):
        pass

    assert [trace.info.tags.get("plan") for trace in traces] == ["pro", None]


def test_no_request_waits_for_the_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is looked up, requests are not traced: MLflow would call the server during them."""
    import threading

    known = threading.Event()
    monkeypatch.setattr(public, "_known", known)

    assert public.open_root_span(record_of("s-1")) is None


def test_the_caller_gets_the_current_span(traces: list[Trace]) -> None:
    """For ``traceparent``."""
    root = opened("s-1")
    entered = root.attach()
    current = public.current_span()
    public.leave(entered)
    end(root)

    assert current is not None
    assert f"tr-{current.trace_id:032x}" == traces[0].info.trace_id
    assert public.current_span() is None

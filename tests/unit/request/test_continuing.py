"""Later requests that add their spans to an earlier trace, by a signed token, in one process."""

from __future__ import annotations

import base64
import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import mlflow
import pytest
from mlflow.entities import Trace

from mlflow_middleware._internal import feedback_token, guard, trace_token
from mlflow_middleware._internal.trace_token import TraceToken
from mlflow_middleware.exchange import Exchange
from mlflow_middleware.request import continuing
from mlflow_middleware.request_trace import RequestTrace, annotate, continue_trace, job_trace, outbound_headers
from mlflow_middleware.settings import Settings
from mlflow_middleware.testing import captured_traces
from tests.unit.serving import is_linked, root_of

SECRET, OTHER = "0123456789abcdef", "fedcba9876543210"
HEADER = "X-MLflow-Trace-Token"


@pytest.fixture(autouse=True)
def nothing_fails(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make a failure of tracing fail the test."""
    monkeypatch.setattr(continuing, "_logged", set())
    before = guard.failures.copy()
    yield
    assert guard.failures == before


PLAIN = Settings.load(trace_token_secret=SECRET)


class Request:
    """A request that can stay open."""

    def __init__(self, method: str = "GET", **options: Any) -> None:
        settings = Settings.load(**{"trace_token_secret": SECRET, **options}) if options else PLAIN
        self.trace = RequestTrace.open(Exchange(method, "/", {}), settings)

    def run(self, work: Callable[[], Any]) -> Any:
        """Run a function inside, in the request's one task or thread."""
        self.trace.activate()
        try:
            return work()
        finally:
            self.trace.deactivate()

    def end(self) -> dict[str, str]:
        """End it; return our headers of the answer."""
        self.trace.response_started(200)
        headers = dict(self.trace.response_headers() or [])
        self.trace.finish()
        return headers


def token(**options: Any) -> tuple[str, Request]:
    """A finished request, and its token."""
    request = Request(**options)
    return request.end()[HEADER], request


def continued(given: str | None, name: str = "late", **options: Any) -> None:
    """Send a request that continues a trace."""

    def work() -> None:
        with continue_trace(given), mlflow.start_span(name), mlflow.start_span(f"{name} inner"):
            pass
        with mlflow.start_span("own"):
            pass

    request = Request("POST", **options)
    request.run(work)
    request.end()


def in_four_threads(work: Callable[[str], None]) -> None:
    """Call a function in four threads at once, with ``w0`` to ``w3``, and wait for them."""
    threads = [threading.Thread(target=work, args=(f"w{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)


def names_of(trace: Trace) -> set[str]:
    """Return the names of its spans."""
    return {span.name for span in trace.data.spans}


def test_the_spans_belong_to_the_earlier_trace() -> None:
    """Below its root; spans opened before and after belong to the request, which is linked to it."""
    with captured_traces() as traces:
        given, earlier = token()
        continued(given)

    first, own = traces
    assert first.info.trace_id == earlier.trace.trace_id
    assert not any(key.startswith("mlflow_middleware") for key in first.info.trace_metadata)
    assert first.info.tags["mlflow.traceName"] == "GET"
    spans = {span.name: span for span in first.data.spans}
    assert spans["late"].parent_id == f"{earlier.trace.record.ids.span_id:016x}"
    assert spans["late inner"].parent_id == spans["late"].span_id
    assert names_of(own) == {"POST", "own"}
    assert is_linked(own, (first.info.trace_id, f"{earlier.trace.record.ids.span_id:016x}"))


def test_a_token_is_sent_only_if_there_is_a_secret() -> None:
    """Nor is one sent if the trace may be dropped."""
    with captured_traces():
        assert HEADER not in Request(trace_token_secret=None).end()
        assert HEADER not in Request(sample_ratio=0.0).end()
        assert HEADER in Request().end()


@pytest.mark.parametrize("is_annotated_first", [True, False])
def test_a_trace_with_a_token_is_stored_for_any_later_session(is_annotated_first: bool) -> None:
    """The app may set another session through MLflow's functions, or after the answer has begun."""
    given: dict[str, bool] = {}
    with captured_traces() as traces:
        for number in range(40):
            asked = Request(sample_ratio=0.5)
            session = f"s-{number}"
            if is_annotated_first:
                asked.run(lambda: mlflow.update_current_trace(metadata={"mlflow.trace.session": session}))  # noqa: B023
            given[asked.trace.record.trace_id] = HEADER in dict(asked.trace.response_headers() or ())
            if not is_annotated_first:
                asked.run(lambda: annotate(session_id=session))  # noqa: B023
            asked.trace.finish()

    stored = {trace.info.trace_id for trace in traces}
    assert {trace_id for trace_id, has_token in given.items() if has_token} <= stored
    assert 0 < len(stored) < 40


def test_outgoing_calls_and_jobs_inside_belong_to_the_earlier_trace() -> None:
    """The next service and a job are linked to it, with an open span or without."""
    with captured_traces() as traces:
        given, earlier = token()

        def work() -> dict[str, str]:
            with continue_trace(given):
                with job_trace(name="job"):
                    pass
                return outbound_headers()

        request = Request("POST")
        headers = request.run(work)
        request.end()

    root = earlier.trace.record.ids
    assert headers["traceparent"] == f"00-{root.trace_id:032x}-{root.span_id:016x}-01"
    assert is_linked(traces[1], (earlier.trace.record.trace_id, f"{root.span_id:016x}"))


def payload(given: str) -> list[Any]:
    """Return the readable part of a token."""
    text = given.partition(".")[0]
    said: list[Any] = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    return said


def forged(given: str) -> str:
    """Return a token with another trace's payload."""
    said = payload(given)
    said[0] = "0" * 31 + "1"
    text = base64.urlsafe_b64encode(json.dumps(said).encode()).rstrip(b"=").decode()
    return f"{text}.{given.partition('.')[2]}"


def for_feedback(given: str) -> str:
    """Return a feedback token with the same secret, for the same trace."""
    return feedback_token.sign(f"tr-{payload(given)[0]}", None, int(time.time()) + 60, SECRET.encode())


def late(given: str) -> str:
    """Return an expired token."""
    trace_id, span_id, experiment_id, _ = payload(given)
    said = TraceToken(int(trace_id, 16), int(span_id, 16), experiment_id)
    return trace_token.sign(said, int(time.time()) - 1, SECRET.encode())


@pytest.mark.parametrize(
    "spoil",
    [forged, for_feedback, late, lambda _: "", lambda _: None, lambda _: "x.y", lambda given: given + "x",
     lambda given: given.partition(".")[0] + ".", lambda _: "é\udcff.\x00", lambda given: given.swapcase()],
    ids=["forged", "feedback", "expired", "empty", "none", "nonsense", "longer", "unsigned", "odd", "swapped"],
)  # fmt: skip
def test_an_invalid_token_leaves_the_spans_in_their_own_trace(
    spoil: Callable[[str], Any], caplog: pytest.LogCaptureFixture
) -> None:
    """The log has the reason once as a warning, and nothing is raised."""
    with captured_traces() as traces:
        given, _ = token()
        with caplog.at_level(logging.WARNING):
            continued(spoil(given))
            continued(spoil(given))

    assert [len(trace.data.spans) for trace in traces] == [1, 4, 4]
    assert all(names_of(trace) == {"POST", "late", "late inner", "own"} for trace in traces[1:])
    assert all(map(is_linked, traces))
    assert len([each for each in caplog.records if "earlier trace not continued" in each.message]) == 1


def test_a_trace_token_is_no_feedback_token() -> None:
    """With the same secret or another."""
    with captured_traces():
        given, _ = token(feedback_secret=SECRET)

    with pytest.raises(feedback_token.BadToken):
        feedback_token.verify(given, [SECRET.encode()], time.time())


def test_a_secret_can_be_rotated() -> None:
    """The first one signs, all are accepted; a removed one is no longer accepted."""
    with captured_traces() as traces:
        old, earlier = token(trace_token_secret=OTHER)
        continued(old, trace_token_secret=[SECRET, OTHER])
        found = [names_of(trace) for trace in traces if trace.info.trace_id == earlier.trace.trace_id][-1]
        assert "late" in found
        continued(old, "refused", trace_token_secret=[SECRET])

    assert not any("refused" in names_of(each) for each in traces if each.info.trace_id == earlier.trace.trace_id)


def test_without_a_secret_nothing_is_continued(caplog: pytest.LogCaptureFixture) -> None:
    """The log names the option."""
    with captured_traces() as traces:
        given, _ = token()
        continued(given, trace_token_secret=None)

    assert names_of(traces[-1]) == {"POST", "late", "late inner", "own"}
    assert "trace_token_secret" in caplog.text


def test_a_trace_in_progress_can_be_continued() -> None:
    """The answer still streams when the browser sends the approval: all of it is one trace, whichever ends first."""
    with captured_traces() as traces:
        first = Request()
        first.trace.response_started(200)
        given = dict(first.trace.response_headers() or [])[HEADER]
        continued(given, "while it streams")
        with_children = threading.Event()

        def meanwhile() -> None:
            def work() -> None:
                with continue_trace(given):
                    first.end()
                    with_children.set()
                    with mlflow.start_span("after its end"):
                        pass

            later = Request("POST")
            later.run(work)
            later.end()

        thread = threading.Thread(target=meanwhile)
        thread.start()
        thread.join(30)

    assert with_children.is_set()
    found = next(trace for trace in traces if trace.info.trace_id == first.trace.trace_id)
    root = root_of(found)
    assert {
        span.name: span.parent_id for span in found.data.spans if span.name in ("while it streams", "after its end")
    } == {
        "while it streams": root.span_id,
        "after its end": root.span_id,
    }


def test_simultaneous_requests_continue_one_trace() -> None:
    """None removes the other's spans."""
    with captured_traces() as traces:
        given, earlier = token()
        together = threading.Barrier(4)

        def one(name: str) -> None:
            def work() -> None:
                with continue_trace(given), mlflow.start_span(name):
                    together.wait(30)

            request = Request("POST")
            request.run(work)
            request.end()

        in_four_threads(one)

    found = {
        span.name: span for each in traces if each.info.trace_id == earlier.trace.trace_id for span in each.data.spans
    }
    assert {"w0", "w1", "w2", "w3"} <= set(found)
    assert {found[f"w{n}"].parent_id for n in range(4)} == {f"{earlier.trace.record.ids.span_id:016x}"}


def test_simultaneous_requests_of_one_trace_lose_no_span() -> None:
    """Each may start just when the last span of another ends, or registers the trace again."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with captured_traces() as traces:
            given, earlier = token()

            def work(name: str) -> None:
                with continue_trace(given), mlflow.start_span(name):
                    pass

            def one(name: str) -> None:
                for number in range(40):
                    request = Request("POST")
                    request.run(partial(work, f"{name}-{number}"))
                    request.end()

            in_four_threads(one)
    finally:
        sys.setswitchinterval(interval)

    found = {span.name for each in traces if each.info.trace_id == earlier.trace.trace_id for span in each.data.spans}
    assert {f"w{name}-{number}" for name in range(4) for number in range(40)} - found == set()


def test_a_job_continues_a_trace() -> None:
    """A worker's spans may belong to the trace of the request."""
    with captured_traces() as traces:
        given, earlier = token()
        with job_trace(name="job", trace_token_secret=SECRET), continue_trace(given), mlflow.start_span("in job"):
            pass

    ids = {span.name: trace.info.trace_id for trace in traces for span in trace.data.spans}
    assert ids["in job"] == earlier.trace.trace_id
    assert ids["job"] != earlier.trace.trace_id


def test_an_error_inside_is_raised() -> None:
    """Afterwards, the previous span and request are current again."""
    with captured_traces() as traces:
        given, _ = token()

        def work() -> None:
            with pytest.raises(KeyError), continue_trace(given):
                raise KeyError("x")
            with mlflow.start_span("own"):
                pass

        request = Request("POST")
        request.run(work)
        request.end()

    assert names_of(traces[-1]) == {"POST", "own"}

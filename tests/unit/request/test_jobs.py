"""Jobs: the content of their traces, their identity, and the behaviour that they keep."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import hmac
import inspect
import json
import logging
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import mlflow
import pytest
from mlflow.entities import Trace
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from pydantic import BaseModel

from mlflow_middleware._internal import guard
from mlflow_middleware.exchange import Exchange
from mlflow_middleware.request_trace import RequestTrace, annotate, carry, current, job_trace, outbound_headers
from mlflow_middleware.settings import Settings, SettingsError
from mlflow_middleware.testing import captured_traces
from tests.unit.encoded import sent_traces
from tests.unit.serving import is_linked, root_of

ASKED = {"X-Session-ID": "s-1", "X-User-ID": "jane", "X-Request-ID": "req-1"}
CALLER = "00-000000000000000000000000000000ab-00000000000000cd-01"


@pytest.fixture(autouse=True)
def nothing_fails() -> Any:
    """Make a failure of tracing fail the test."""
    before = guard.failures.copy()
    yield
    assert guard.failures == before


def request(headers: Mapping[str, str] = ASKED, **options: Any) -> RequestTrace:
    """An open request."""
    lower = {name.lower(): value for name, value in headers.items()}
    return RequestTrace.open(Exchange("POST", "/ask", lower), Settings.load(**options))


def in_request(work: Callable[[], Any], headers: Mapping[str, str] = ASKED, **options: Any) -> Any:
    """Run a function inside a request."""
    trace = request(headers, **options)
    trace.activate()
    try:
        return work()
    finally:
        trace.response_started(200)
        trace.finish()
        trace.deactivate()


def identity_of(trace: Trace) -> tuple[str | None, ...]:
    """Return the stored session, user and request id."""
    metadata = trace.info.trace_metadata
    return metadata.get("mlflow.trace.session"), metadata.get("mlflow.trace.user"), trace.info.client_request_id


def test_a_job_has_a_trace_of_its_own_with_the_identity_of_its_request() -> None:
    """Session, user and request id, a link to the request's span, and spans of its own below its own root."""
    with captured_traces() as traces:
        headers = in_request(outbound_headers)
        headers = json.loads(json.dumps(headers))  # as it travels

        with job_trace(headers, name="summarize"), mlflow.start_span("step"):
            pass

    asked, job = traces
    assert job.info.trace_id != asked.info.trace_id
    assert job.info.tags["mlflow.traceName"] == root_of(job).name == "summarize"
    assert identity_of(job) == identity_of(asked) == ("s-1", "jane", "req-1")
    assert is_linked(job, (asked.info.trace_id, root_of(asked).span_id))
    assert {span.name: span.parent_id for span in job.data.spans}["step"] == root_of(job).span_id


def test_a_job_has_nothing_of_http() -> None:
    """It has neither path nor method, route nor status, but the tags of the settings."""
    with captured_traces() as traces, job_trace(ASKED, name="tidy", tags={"team": "search", "environment": "staging"}):
        pass

    (trace,) = traces
    attributes = root_of(trace).attributes
    assert [
        key for key in (*attributes, *trace.info.tags) if key.startswith(("http.", "url.", "server.", "user_"))
    ] == []
    assert trace.info.tags["team"] == "search"
    assert attributes["session.id"] == "s-1"
    assert (attributes["mlflow.spanType"], attributes["deployment.environment.name"]) == ("CHAIN", "staging")
    assert str(trace.info.state) == "OK"


@pytest.mark.parametrize("is_asked_for", [False, True])
def test_a_job_is_a_consumer_in_opentelemetry(is_asked_for: bool) -> None:
    """Also if the app has got its span."""
    with sent_traces() as sent, job_trace(name="tidy"):
        if is_asked_for and (span := mlflow.get_current_active_span()):
            span.set_attribute("x", 1)

    assert sent[0].root.kind == Span.SPAN_KIND_CONSUMER


class Question(BaseModel):
    """An argument of a job."""

    text: str


@dataclass
class Range:
    """Another kind of argument."""

    start: int


def test_arguments_and_result_are_inputs_and_outputs() -> None:
    """By name, with values that JSON does not know as text, without ``self``, and without secrets."""

    class Jobs:
        @job_trace
        def work(self, question: Question, limit: int = 3, *, api_key: str, **more: object) -> dict[str, object]:
            return {"answer": question.text, "password": "hunter2", "range": Range(1), "to": {2}}

    with captured_traces() as traces:
        Jobs().work(Question(text="why?"), api_key="xyz", extra=(1, 2))

    root = root_of(traces[0])
    assert root.name == "work"
    assert root.inputs == {"question": {"text": "why?"}, "api_key": "[redacted]", "extra": [1, 2]}
    assert root.outputs == {"answer": "why?", "password": "[redacted]", "range": {"start": 1}, "to": [2]}


def test_arguments_and_result_are_bounded_and_can_be_disabled() -> None:
    """By the options for bodies; truncated values are marked."""

    def work(text: str) -> str:
        return text

    with captured_traces() as traces:
        job_trace(max_body_bytes=100)(work)("x" * 1000)
        job_trace(capture_request_body=False)(work)("silent")
        job_trace(privacy="strict")(work)("silent")

    cut, without_inputs, strict = map(root_of, traces)
    assert len(json.dumps(cut.inputs)) < 200
    assert cut.attributes["http.request.body.cut"] is True
    assert (without_inputs.inputs, without_inputs.outputs) == (None, "silent")
    assert (strict.inputs, strict.outputs) == (None, None)


def masked(exchange: Exchange) -> None:
    """A user's mask."""
    exchange.inputs = {"masked": exchange.path, "of": exchange.method}


def test_the_mask_gets_a_job_like_a_request() -> None:
    """By its name."""
    with captured_traces() as traces:
        job_trace(mask=masked, name="tidy")(print)("")

    assert root_of(traces[0]).inputs == {"masked": "tidy", "of": "JOB"}


def test_a_mask_gets_a_job_that_has_neither_arguments_nor_a_result() -> None:
    """Like every other."""
    with captured_traces() as traces, job_trace(mask=masked, name="tidy"):
        pass

    assert root_of(traces[0]).inputs == {"masked": "tidy", "of": "JOB"}


def test_arguments_without_names_are_a_list() -> None:
    """If a function in C has no signature."""
    with captured_traces() as traces:
        job_trace(name="tidy")(max)("ab", key=len)

    assert root_of(traces[0]).inputs["args"] == ["ab"]


@pytest.mark.parametrize("arguments", [({(1, 2): 3},), (float("nan"),), ("\ud800",), (object(),)])
def test_odd_arguments_do_no_harm(arguments: tuple[object, ...]) -> None:
    """Values that JSON cannot hold become text."""
    with captured_traces() as traces:
        assert job_trace(lambda value: "done")(*arguments) == "done"

    assert root_of(traces[0]).inputs is not None


def test_an_argument_that_contains_itself_does_no_harm() -> None:
    """It becomes text."""
    value: list[object] = []
    value.append(value)
    with captured_traces() as traces:
        assert job_trace(lambda value: "done")(value) == "done"

    assert root_of(traces[0]).outputs == "done"


@pytest.mark.parametrize("has_cycles", [True, False])
def test_objects_that_refer_to_each_other_are_not_walked_on_all_paths(has_cycles: bool) -> None:
    """Thirty of them have more paths than can be walked; the job runs, and its trace has the first of them."""

    @dataclass
    class Topic:
        name: str
        others: list[Topic]

    topics = [Topic(f"t-{number}", []) for number in range(30)]
    for place, topic in enumerate(topics):
        topic.others = [other for other in topics if other is not topic] if has_cycles else topics[place + 1 :]
    with captured_traces() as traces, job_trace(name="sort", inputs={"of": topics[0]}):
        pass

    assert "t-1" in str(root_of(traces[0]).inputs)


def test_an_error_is_recorded_and_raised() -> None:
    """It is the same object, with its stack trace on the root."""
    error = RuntimeError("no model")

    @job_trace
    def fails() -> None:
        raise error

    with captured_traces() as traces, pytest.raises(RuntimeError) as raised:
        fails()

    assert raised.value is error
    (trace,) = traces
    assert str(trace.info.state) == "ERROR"
    assert root_of(trace).attributes["error.type"] == "RuntimeError"
    (event,) = root_of(trace).events
    assert "no model" in event.attributes["exception.stacktrace"]


@pytest.mark.parametrize(("code", "state"), [(None, "OK"), (0, "OK"), (3, "ERROR"), ("out of tea", "ERROR")])
def test_a_script_may_end_inside(code: object, state: str) -> None:
    """``sys.exit()`` is no error, unless its code is one."""
    with captured_traces() as traces, pytest.raises(SystemExit), job_trace(name="script"):
        sys.exit(code)  # type: ignore[arg-type]

    assert str(traces[0].info.state) == state


class Tool:
    """A callable object that takes some time."""

    async def __call__(self, text: str) -> str | None:
        await asyncio.sleep(0)
        with mlflow.start_span("inside"):
            return outbound_headers().get("X-Session-ID")


async def test_any_callable_can_be_a_job() -> None:
    """Partial functions, and objects, async ones as well."""
    with captured_traces() as traces:
        job_trace(functools.partial(tidy, 3))()
        await job_trace(Tool())("why")

    assert [root_of(trace).name for trace in traces] == ["tidy", "Tool"]
    assert [len(trace.data.spans) for trace in traces] == [1, 2]


def tidy(days: int) -> None:
    """A function."""


async def test_an_async_function_is_a_job() -> None:
    """Several at once have their own traces; it stays a coroutine function."""

    @job_trace("carrier")
    async def work(name: str, carrier: dict[str, str]) -> str | None:
        await asyncio.sleep(0)
        annotate(tags={"name": name})
        with mlflow.start_span(name):
            await asyncio.sleep(0)
        return outbound_headers()["X-Session-ID"]

    with captured_traces() as traces:
        answers = await asyncio.gather(*(work(f"w{n}", {"X-Session-ID": f"s{n}"}) for n in range(3)))

    assert inspect.iscoroutinefunction(work)
    assert answers == ["s0", "s1", "s2"]
    found = {trace.info.tags["name"]: (identity_of(trace)[0], trace.data.spans[1].name) for trace in traces}
    assert found == {"w0": ("s0", "w0"), "w1": ("s1", "w1"), "w2": ("s2", "w2")}
    assert [root_of(trace).inputs for trace in traces] == [{"name": f"w{n}"} for n in range(3)]  # not the carrier


async def test_a_cancelled_job_is_an_error() -> None:
    """Time limits of arq and Dramatiq cancel a job."""

    @job_trace
    async def work() -> None:
        await asyncio.Event().wait()

    with captured_traces() as traces:
        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert root_of(traces[0]).attributes["error.type"] == "CancelledError"


def test_a_job_may_be_annotated() -> None:
    """Its identity is the one that it sends on; outside, everything is as before."""
    with captured_traces() as traces:
        with job_trace(name="work") as trace:
            annotate(session_id="s-9", user_id="joe", tags={"plan": "pro"})
            assert current() is trace
            sent = outbound_headers()
        assert current() is None
        assert outbound_headers() == {}

    assert identity_of(traces[0])[:2] == ("s-9", "joe")
    assert (sent["X-Session-ID"], sent["X-User-ID"]) == ("s-9", "joe")
    assert traces[0].info.tags["plan"] == "pro"


@pytest.mark.parametrize(
    "headers", [None, {}, {"X-Session-ID": ""}, {"traceparent": "nonsense"}, {1: 2, "X-User-ID": 3}]
)
def test_a_job_without_headers_has_no_session(headers: Any) -> None:
    """It is traced all the same."""
    with captured_traces() as traces, job_trace(headers, name="nightly"):
        pass

    assert identity_of(traces[0])[:2] == (None, None)
    assert is_linked(traces[0])


FROM: dict[str, dict[str, Any]] = {
    "headers": {},
    "lists": {"session_id_from": ["path.chat_id"], "user_id_from": ["jwt.sub"], "request_id_from": ["query.id"]},
    "preset": {"identity_preset": "iap"},
    "trusted baggage": {"trust_incoming_trace": True},
    "route": {"session_id_from": ["path.chat_id"], "routes": {"JOB *": {"tags": {"kind": "job"}}}},
}


@pytest.mark.parametrize("options", FROM.values(), ids=FROM)
@pytest.mark.parametrize("ids", [("s-1", "jane"), ("Gespräch/1", "jürgen, 2")], ids=["plain", "not ASCII"])
def test_a_job_has_the_ids_of_its_request_from_any_source(options: dict[str, Any], ids: tuple[str, str]) -> None:
    """They travel under the names of the header settings, and as baggage; within a process and between processes."""

    def work() -> dict[str, str]:
        annotate(session_id=ids[0], user_id=ids[1], request_id="req-1")
        job_trace(lambda: None)()
        return outbound_headers()

    with captured_traces() as traces:
        headers = in_request(work, {}, **options)
        with job_trace(json.loads(json.dumps(headers)), name="work", **options):
            pass

    assert [identity_of(trace) for trace in traces] == [(*ids, "req-1")] * 3


def test_a_job_may_have_its_ids_from_elsewhere() -> None:
    """If its queue has headers of its own, or its arguments have them; our own headers win."""

    @job_trace("headers", user_id_from=["header.tenant"], session_id_from=["body.chat"])
    def work(headers: Mapping[str, str], chat: str) -> None:
        """Do nothing."""

    with captured_traces() as traces:
        work({"tenant": "acme"}, "c-1")
        work({"tenant": "acme", **ASKED}, "c-1")

    assert [identity_of(trace)[:2] for trace in traces] == [("c-1", "acme"), ("s-1", "jane")]


def test_one_context_manager_serves_several_threads_at_once() -> None:
    """Each ends its own job, whichever started first, and keeps nothing of it."""
    shared = job_trace(name="shared")
    has_begun, has_ended = threading.Event(), threading.Event()

    def first() -> object:
        with contextlib.suppress(ZeroDivisionError), shared:
            annotate(tags={"by": "first"})
            has_begun.set()
            has_ended.wait(30)
            1 / 0  # noqa: B018
        return current()

    def second() -> object:
        has_begun.wait(30)
        with shared:
            annotate(tags={"by": "second"})
            with shared:
                annotate(tags={"by": "inner"})
        has_ended.set()
        return current()

    with captured_traces() as traces, ThreadPoolExecutor(2) as pool:
        left = [task.result() for task in [pool.submit(first), pool.submit(second)]]

    states = {trace.info.tags["by"]: str(trace.info.state) for trace in traces}
    assert states == {"first": "ERROR", "second": "OK", "inner": "OK"}
    assert left == [None, None]


class Odd:
    """An object that fails when it is inspected."""

    def __str__(self) -> str:
        raise RuntimeError("odd")


class OddModel:
    """An object like a Pydantic model that fails."""

    def model_dump(self, mode: str) -> object:
        raise KeyError(mode)


def test_an_argument_that_cannot_be_encoded_hides_no_other() -> None:
    """Nor does a large one of bytes cost anything."""
    with captured_traces() as traces:
        job_trace(lambda **arguments: Odd())(a=1, b=Odd(), c=OddModel(), d=b"x" * 1000, e=memoryview(b"xy"), f=Odd)

    root = root_of(traces[0])
    assert root.inputs == {
        "a": 1,
        "b": "<Odd>",
        "c": "<OddModel>",
        "d": "<1000 bytes>",
        "e": "<2 bytes>",
        "f": str(Odd),
    }
    assert root.outputs == "<Odd>"


def nested(depth: int) -> list[Any]:
    """Nest a list in lists."""
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


def test_values_that_json_refuses_hide_nothing_and_leak_no_secret() -> None:
    """Odd keys, cycles, and deep values: the rest is there, under its keys."""
    ring: list[Any] = [1]
    ring.append(ring)
    odd = {(1, 2): 3, b"b": Question(text="q"), None: {4}}
    with captured_traces() as traces:
        for value in (odd, ring, nested(100_000)):
            job_trace(lambda **arguments: None)(value=value, password="hunter2", n=1)

    found = [root_of(trace).inputs for trace in traces]
    assert [(each["password"], each["n"]) for each in found] == [("[redacted]", 1)] * 3
    assert found[0]["value"] == {"(1, 2)": 3, "b": {"text": "q"}, "None": [4]}
    assert found[1]["value"] == [1, "..."]
    assert "..." in str(found[2]["value"])


def test_a_call_that_fails_fails_as_without_a_job() -> None:
    """Binding its arguments reports nothing."""
    with captured_traces() as traces, pytest.raises(TypeError, match="positional argument"):
        job_trace(lambda: None)(1)  # type: ignore[call-arg]

    assert str(traces[0].info.state) == "ERROR"


class Array:
    """An object that cannot be compared, like NumPy's arrays and pandas' frames."""

    def __ne__(self, other: object) -> bool:
        raise ValueError("The truth value of an array is ambiguous")

    def __str__(self) -> str:
        return "[1 2]"

    __hash__ = None  # type: ignore[assignment]


def test_a_job_may_be_given_an_array() -> None:
    """As its inputs, its argument and its result."""
    with captured_traces() as traces:
        with job_trace(name="work", inputs=Array()):
            pass
        job_trace(lambda array: array)(Array())

    assert [root_of(trace).inputs for trace in traces] == ["[1 2]", {"array": "[1 2]"}]
    assert root_of(traces[1]).outputs == "[1 2]"


def test_headers_are_sanitized_like_those_of_requests() -> None:
    """They may come from a queue that anybody can write to."""
    wicked = {"x-session-id": "a\x00b\r\nc", "X-USER-ID": "u" * 10_000, "X-Request-ID": "<script>", "big": "x" * 10**6}
    with captured_traces() as traces, job_trace(wicked, name="work"):
        pass

    session, user, request_id = identity_of(traces[0])
    assert session == "a\ufffdb\ufffd\ufffdc"
    assert user is not None
    assert len(user) <= 250
    assert request_id != "<script>"


def test_the_user_becomes_a_pseudonym_once() -> None:
    """It travels unchanged; the key is applied where it is stored."""
    key = "0123456789abcdef"
    with captured_traces() as traces:
        headers = in_request(outbound_headers, user_id_hmac_key=key)
        with job_trace(headers, name="work", user_id_hmac_key=key):
            pass

    pseudonym = hmac.new(key.encode(), b"jane", hashlib.sha256).hexdigest()
    assert headers["X-User-ID"] == "jane"
    assert [identity_of(trace)[1] for trace in traces] == [pseudonym, pseudonym]


def test_a_job_inside_a_request_belongs_to_it_without_headers() -> None:
    """A background task has a trace of its own, linked; the request's trace goes on as before."""

    def work() -> None:
        with mlflow.start_span("before"):
            pass
        with job_trace(name="background"), mlflow.start_span("inside"):
            pass
        with mlflow.start_span("after"):
            pass

    with captured_traces() as traces:
        in_request(work, tags={"of": "request"})

    job, asked = traces
    assert [span.name for span in job.data.spans] == ["background", "inside"]
    assert {span.name for span in asked.data.spans} == {"POST", "before", "after"}
    assert identity_of(job) == identity_of(asked)
    assert is_linked(job, (asked.info.trace_id, root_of(asked).span_id))
    assert job.info.tags["of"] == "request"  # the options are those of the request


def test_a_job_without_its_headers_belongs_to_its_request() -> None:
    """If it is called in one, instead of by a worker, without the argument for the headers."""

    @job_trace("headers")
    def work(headers: Mapping[str, str] | None = None) -> None:
        """Do nothing."""

    with captured_traces() as traces:
        in_request(work)
        in_request(lambda: work(headers=None))
        in_request(lambda: work(headers={}))

    sessions = [identity_of(trace)[0] for trace in traces if root_of(trace).name == "work"]
    assert sessions == ["s-1", "s-1", None]


def test_a_job_inside_a_job_belongs_to_it() -> None:
    """Whatever headers travelled with the outer one, which may have newer ids by now."""
    with captured_traces() as traces, job_trace(ASKED, name="outer"):
        annotate(session_id="better")
        with job_trace(name="inner"):
            pass

    inner, outer = traces
    assert identity_of(inner)[0] == "better"
    assert is_linked(inner, (outer.info.trace_id, root_of(outer).span_id))


def test_a_caller_is_never_the_parent_of_a_job() -> None:
    """Even if callers of requests are trusted to be."""
    headers = {**ASKED, "traceparent": CALLER}
    with captured_traces() as traces, job_trace(headers, name="work", trust_incoming_trace=True):
        pass

    assert is_linked(traces[0], ("tr-000000000000000000000000000000ab", "00000000000000cd"))
    assert root_of(traces[0]).parent_id is None


def test_a_job_is_sampled_with_its_conversation() -> None:
    """Kept or dropped like the requests of the session; errors are kept."""
    with captured_traces() as traces:
        for number in range(50):
            headers = {"X-Session-ID": f"s-{number}"}
            in_request(lambda: None, headers, sample_ratio=0.5)
            with job_trace(headers, name="work", sample_ratio=0.5):
                pass
        kept = [
            [identity_of(each)[0] for each in traces if bool(each.info.tags.get("http.status_code")) is is_request]
            for is_request in (True, False)
        ]
        with pytest.raises(ValueError, match="kept"), job_trace(name="fails", sample_ratio=0.0):
            raise ValueError("kept")

    assert kept[0] == kept[1]
    assert 5 < len(kept[0]) < 45
    assert root_of(traces[-1]).name == "fails"


def test_jobs_can_be_excluded_by_name_and_switched_off() -> None:
    """Their spans are silenced with them, like those of an excluded request."""

    def work() -> str:
        with mlflow.start_span("inside"):
            return "done"

    with captured_traces() as traces:
        assert job_trace(exclude="JOB work,/health")(work)() == "done"
    assert traces == []
    with captured_traces() as traces:
        assert job_trace(enabled=False)(work)() == "done"
    assert [root_of(trace).name for trace in traces] == ["inside"]


def identified(exchange: Exchange) -> None:
    """An ``identify`` that expects a request."""
    raise AssertionError("asked for a job")


def test_identify_is_not_called_for_a_job() -> None:
    """It is for requests."""
    with captured_traces() as traces, job_trace(name="work", identify=identified):
        pass

    assert len(traces) == 1


def test_wrong_options_are_reported_where_they_are_set() -> None:
    """At the start, by name; nothing else raises."""
    with pytest.raises(SettingsError, match="sample_rate"):
        job_trace(sample_rate=2)
    with pytest.raises(TypeError, match="int"):
        job_trace(3)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="generator"):

        @job_trace
        def numbers() -> Any:
            yield 1


def test_a_wrong_environment_costs_a_trace_and_no_job(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is reported once."""
    from mlflow_middleware.request import defaults

    monkeypatch.setattr(defaults, "_known", [])
    monkeypatch.setenv("MLFLOW_MIDDLEWARE_SAMPLE_RATIO", "many")
    with caplog.at_level(logging.ERROR):
        assert job_trace(lambda: "done")() == "done"
        assert job_trace(lambda: "done")() == "done"

    assert caplog.text.count("sample_ratio") >= 1
    assert len([each for each in caplog.records if each.levelno >= logging.ERROR]) == 1
    for kind in [kind for kind in guard.failures if kind[1] == "SettingsError"]:
        del guard.failures[kind]


def test_a_decorated_function_is_itself() -> None:
    """Its name, its signature, and what it returns."""

    @job_trace(name="other")
    def work(text: str, *, times: int = 2) -> str:
        """Repeat."""
        return text * times

    with captured_traces() as traces:
        assert work("a") == "aa"
        assert work("a", times=3) == "aaa"

    assert (work.__name__, work.__doc__) == ("work", "Repeat.")
    assert list(inspect.signature(work).parameters) == ["text", "times"]
    assert [root_of(trace).name for trace in traces] == ["other", "other"]


# --- carry ---


def test_a_carried_function_runs_in_the_context_of_its_request() -> None:
    """In a pool's threads, several at once, each in its own copy; its changes of the context stay there."""
    together = threading.Barrier(4)

    def search(query: str) -> str | None:
        together.wait(30)
        with mlflow.start_span(query):
            together.wait(30)
        annotate(tags={query: "found"})
        return outbound_headers().get("X-Session-ID")

    with captured_traces() as traces, ThreadPoolExecutor(4) as pool:
        answers = in_request(lambda: list(pool.map(carry(search), ["a", "b", "c", "d"])))

    assert answers == ["s-1"] * 4
    (trace,) = traces
    root = root_of(trace)
    assert {span.name: span.parent_id for span in trace.data.spans} == {
        "POST": None,
        **dict.fromkeys("abcd", root.span_id),
    }
    assert {trace.info.tags[query] for query in "abcd"} == {"found"}


def test_a_thread_of_a_pool_keeps_nothing_of_a_carried_function() -> None:
    """The next job of that thread belongs to no request."""
    with captured_traces(), ThreadPoolExecutor(1) as pool:
        in_request(lambda: pool.submit(carry(current)).result())
        assert pool.submit(current).result() is None


async def test_a_coroutine_function_is_carried() -> None:
    """To another task that was started outside the request."""

    async def session() -> str | None:
        await asyncio.sleep(0)
        return outbound_headers().get("X-Session-ID")

    with captured_traces():
        carried = in_request(lambda: carry(session))
        assert inspect.iscoroutinefunction(carried)
        assert await carried() == "s-1"
        assert await session() is None


async def test_a_carried_coroutine_is_cancelled_as_usual() -> None:
    """It runs in the task that awaits it."""
    seen: list[object] = []

    async def work() -> None:
        seen.append(asyncio.current_task())
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    task = asyncio.create_task(carry(work)())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == [task, "cancelled"]

    with captured_traces():
        assert await in_request(lambda: carry(Tool()))("why") == "s-1"
        with pytest.raises(TypeError):
            await carry(Tool())()  # type: ignore[call-arg]


def sessions() -> Any:
    """A generator that yields the values it is sent, and its request."""
    sent = None
    try:
        while sent != "end":
            sent = yield sent, outbound_headers().get("X-Session-ID")
    finally:
        annotate(tags={"closed": "yes"})
    return "returned"


async def awaited_sessions() -> Any:
    """Do the same as `sessions`, with awaits in between."""
    sent = None
    try:
        while sent != "end":
            await asyncio.sleep(0)
            sent = yield sent, outbound_headers().get("X-Session-ID")
    finally:
        await asyncio.sleep(0)
        annotate(tags={"closed": "yes"})


def test_a_generator_is_carried_step_by_step() -> None:
    """Whichever context asks for the next item; values, exceptions and its close pass through."""
    with captured_traces() as traces:
        trace = request()
        trace.activate()
        carried = carry(sessions)
        trace.deactivate()
        steps = carried()
        assert inspect.isgenerator(carried())
        assert [next(steps), steps.send("x")] == [(None, "s-1"), ("x", "s-1")]
        with pytest.raises(StopIteration, match="returned"):
            steps.send("end")
        with pytest.raises(ZeroDivisionError):
            (other := carried()).send(None), other.throw(ZeroDivisionError)
        next(closed := carried())
        closed.close()
        assert list(closed) == []
        assert outbound_headers() == {}
        trace.finish()
    assert traces[0].info.tags["closed"] == "yes"


async def test_an_async_generator_is_carried_step_by_step() -> None:
    """Like a generator."""
    with captured_traces() as traces:
        trace = request()
        trace.activate()
        carried = carry(awaited_sessions)
        trace.deactivate()
        steps = carried()
        assert inspect.isasyncgen(carried())
        assert [await anext(steps), await steps.asend("x")] == [(None, "s-1"), ("x", "s-1")]
        with pytest.raises(StopAsyncIteration):
            await steps.asend("end")
        await anext(other := carried())
        with pytest.raises(ZeroDivisionError):
            await other.athrow(ZeroDivisionError())
        await anext(closed := carried())
        await closed.aclose()
        assert [each async for each in closed] == []
        assert outbound_headers() == {}
        trace.finish()
    assert traces[0].info.tags["closed"] == "yes"


def test_a_carried_class_creates_its_objects() -> None:
    """Their own calls are not changed."""
    assert isinstance(carry(Tool)(), Tool)
    assert isinstance(job_trace(Tool)(), Tool)


def test_outside_a_request_a_carried_function_is_unchanged() -> None:
    """Its exceptions, too."""
    assert carry(lambda a, b=2: a + b)(1, b=3) == 4
    with pytest.raises(ZeroDivisionError):
        carry(lambda: 1 / 0)()


def test_a_job_has_the_options_of_the_app_and_of_its_own_route(traces: list[Trace]) -> None:
    """Not those of the route that enqueued it, and no login is read; whatever the request's own options were."""
    asked: list[Exchange] = []
    app = Settings.load(
        identify=asked.append,
        trust_incoming_trace=True,
        capture_request_body=False,
        routes={"/ask": {"tags": {"of": "ask"}, "sample_ratio": 0.0}, "JOB mail": {"capture_request_body": True}},
    )

    def work() -> None:
        with job_trace(name="plain", inputs={"a": 1}), job_trace(name="mail", inputs={"b": 2}):
            pass

    trace = RequestTrace.open(Exchange("POST", "/ask", {"x-user-id": "jane", "traceparent": CALLER}), app)
    trace.activate()
    work()
    trace.response_started(200)
    trace.finish()
    trace.deactivate()

    found = {root_of(each).name: each for each in traces}
    assert found.keys() == {"plain", "mail"}
    assert [each.info.tags.get("of") for each in traces] == [None, None]
    assert [root_of(found[name]).inputs for name in ("plain", "mail")] == [None, {"b": 2}]
    assert [each.path for each in asked] == ["/ask"]

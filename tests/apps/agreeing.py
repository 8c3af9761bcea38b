"""Requests that report their outcome, user, run and assessments through MLflow's functions.

python -m tests.apps.agreeing EXPERIMENT
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial

import mlflow
from mlflow.entities import AssessmentSource, Feedback

from mlflow_middleware import delivery
from tests.apps.known import identity, taken
from tests.apps.ways import active_span, asked, traced

update = mlflow.update_current_trace
JUDGE = AssessmentSource(source_type="CODE", source_id="tests")
late: list[threading.Thread] = []


def assess() -> None:
    """Assess the trace in all three ways."""
    trace_id = active_span().trace_id
    mlflow.log_feedback(trace_id=trace_id, name="right", value=True, source=JUDGE, rationale="it is")
    mlflow.log_expectation(trace_id=trace_id, name="expected", value={"answer": [1]}, source=JUDGE)
    mlflow.log_assessment(trace_id=trace_id, assessment=Feedback(name="score", value=0.5, source=JUDGE))


def ends_late(released: threading.Event) -> None:
    """Open a child that ends in a thread, on demand."""
    child = mlflow.start_span_no_context("late", parent_span=active_span())

    def work() -> None:
        released.wait()
        child.end()

    late.append(threading.Thread(target=work))
    late[-1].start()


RELEASED = {name: threading.Event() for name in ("soon late", "late", "assessed afterwards", "late and again")}


def assessed_late(name: str) -> None:
    assess()
    ends_late(RELEASED[name])


def span_ok() -> None:
    active_span().set_status("OK")


def span_and_state() -> None:
    active_span().set_status("ERROR")
    update(state="OK")


def other_tag() -> None:
    update(client_request_id="of the app", tags={"client_request_id": "its own"})


def metadata() -> None:
    model = taken(update, model_id="m-7")
    update(
        **identity(session_id="s-7", user="u-7", kind="odd", **({} if model else {"mlflow.modelId": "m-7"})), **model
    )


def span_tags() -> None:
    active_span().set_attribute("first", "yes")
    mlflow.set_trace_tag(active_span().trace_id, "second", "yes")


def reset() -> None:
    """Reset tracing, or switch it off and on again, during the request."""
    with mlflow.start_span("before"):
        pass
    mlflow.tracing.disable()
    mlflow.tracing.enable()
    mlflow.tracing.reset()
    with mlflow.start_span("after"):
        pass


def generators() -> None:
    @mlflow.trace
    def numbers() -> Iterator[int]:
        yield 1
        with mlflow.start_span("in a generator"):
            yield 2

    assert list(numbers()) == [1, 2]


def contexts() -> None:
    with mlflow.tracing.context(tags={"around": "yes"}), mlflow.start_span("in context"):
        pass
    with mlflow.tracing.context(enabled=False), mlflow.start_span("silenced"):
        pass


WAYS: dict[str, Callable[[], object]] = {
    "state OK": lambda: update(state="OK"),
    "state ERROR": lambda: update(state="ERROR"),
    "span OK": span_ok,
    "span and state": span_and_state,
    "request id": lambda: update(client_request_id="of-the-app"),
    "long request id": lambda: update(client_request_id="i" * 60),
    "other tag": other_tag,
    "metadata": metadata,
    "span tags": span_tags,
    "reset": reset,
    "generators": generators,
    "contexts": contexts,
    "assessed": assess,
    **{name: partial(assessed_late, name) for name in RELEASED},
}

STATUS = {"state OK": 500, "span OK": 500}
"""Status of the answers that are not 200."""


def afterwards(way: str) -> None:
    """Work done after the client has its answer: soon, or once the trace has been delivered."""
    if way == "soon late":
        RELEASED[way].set()
    elif way in RELEASED:
        assert delivery.flush(60)
        if way != "late":
            trace_id = active_span().trace_id
            mlflow.log_feedback(trace_id=trace_id, name="afterwards", value=1, source=JUDGE)
        RELEASED[way].set()
        late[-1].join()
        if way == "late and again":
            assert delivery.flush(60)
            ends_late(RELEASED[way])


async def main(experiment: str) -> None:
    apps = {status: traced(experiment, lambda way: WAYS[way](), afterwards, status=status) for status in (200, 500)}
    for way in WAYS:
        await asked(apps[STATUS.get(way, 200)], way)
    sampled = traced(experiment, lambda way: update(state=way), sample_ratio=0.0)
    for state in ("ERROR", "OK"):
        await asked(sampled, state, f"sampled-{state}")
    for thread in late:
        thread.join()
    assert delivery.flush(60), delivery.stats()
    assert not delivery.stats().dropped, delivery.stats()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))

"""``examples/chat``, in a real browser on each framework, read back from the server."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from mlflow.entities import SpanType, Trace

from tests.browser import CHAT_APPS, ChatPage, chat_app, chromium, why_no_browser
from tests.conftest import Traces
from tests.servers import MLflowServer, clean_environment, eventually, free_port, serving

pytestmark = pytest.mark.once

NO_BROWSER = why_no_browser()
OSLO = "I am going to Oslo in May. What should I pack?"
DISK = "My disk is full: <b>where</b> do I begin, søster?"
PACE = {"CHAT_PACE": "0.1"}


def of_session(traces: Traces, session: str, count: int) -> list[Trace]:
    """Return the traces of a session, in order."""
    found = traces.wait(f"metadata.`mlflow.trace.session` = '{session}'", count)
    assert len(found) == count
    return sorted(found, key=lambda trace: int(trace.info.request_time))


def spans_of(trace: Trace) -> tuple[Any, dict[str, Any]]:
    """Return the root span, and its children by type."""
    (root,) = (span for span in trace.data.spans if span.parent_id is None)
    children = {span.span_type: span for span in trace.data.spans if span.parent_id == root.span_id}
    assert len(children) == len(trace.data.spans) - 1
    return root, children


def text_of(outputs: dict[str, Any]) -> str:
    """Return the text of an answer in OpenAI's format."""
    return str(outputs["choices"][0]["message"]["content"])


@pytest.mark.skipif(NO_BROWSER is not None, reason=str(NO_BROWSER))
@pytest.mark.parametrize("name", CHAT_APPS)
def test_a_users_actions_in_the_chat_are_in_mlflow(
    server: MLflowServer, request_id: str, tmp_path: Path, name: str
) -> None:
    """Questions, the start of a stopped answer, two sessions, the vote that counts, a failure."""
    pytest.importorskip(name, reason=f"{name} is not installed in this environment")
    traces = Traces(server.uri, f"chat-{request_id}")
    with chat_app(name, server, traces.experiment, tmp_path, **PACE) as url, chromium() as browser:
        page = ChatPage(browser, url)
        first = page.session
        shown_answer = page.ask(OSLO)
        page.vote("up")
        page.comment("just right")
        page.vote("down")
        shown = page.ask_and_stop(DISK, words=4)
        noted = page.texts(".note")[-1]
        page.vote("up")
        questions = page.texts(".question p")
        link = requests.get(page.attribute(".trace", "href"), allow_redirects=False, timeout=60).headers["Location"]
        page.click("#new")
        second = page.session
        page.click("[data-path=fail]")
        failure = page.answer()

    assert (questions, noted, failure) == ([OSLO, DISK], "stopped", "The app answered 500.")
    answered, stopped = of_session(traces, first, 2)
    check_answered(answered, shown_answer)
    check_stopped(stopped, shown)
    assert (
        link == f"{server.uri}/#/experiments/{traces.experiment_id}/traces?selectedEvaluationId={stopped.info.trace_id}"
    )
    (failed,) = of_session(traces, second, 1)
    assert failed.info.state == "ERROR"
    assert len(traces.search()) == 3  # the page, the votes and the link make no traces


def check_answered(trace: Trace, shown_answer: str) -> None:
    root, children = spans_of(trace)
    assert root.inputs["messages"] == [{"role": "user", "content": OSLO}]
    (document,) = children[SpanType.RETRIEVER].outputs
    assert (
        text_of(root.outputs)
        == text_of(children[SpanType.CHAT_MODEL].outputs)
        == document["page_content"]
        == shown_answer
    )
    assert trace.info.tags["mlflow.trace.user"] == "jane"
    (vote,) = trace.search_assessments()
    assert (vote.feedback.value, vote.rationale, vote.source.source_id) == (False, "just right", "jane")
    assert [each.feedback.value for each in trace.search_assessments(all=True)].count(True) >= 1  # the first vote


def check_stopped(trace: Trace, shown: str) -> None:
    root, children = spans_of(trace)
    assert [message["content"] for message in root.inputs["messages"]][::2] == [OSLO, DISK]
    assert (trace.info.state, root.attributes["http.client_disconnected"]) == ("OK", True)
    (document,) = children[SpanType.RETRIEVER].outputs
    kept = text_of(root.outputs)
    assert len(shown.split()) >= 4
    assert kept.startswith(shown)
    assert document["page_content"].startswith(kept)
    assert kept != document["page_content"]
    assert text_of(children[SpanType.CHAT_MODEL].outputs).startswith(kept)
    assert [vote.feedback.value for vote in trace.search_assessments()] == [True]


@contextmanager
def openai_endpoint(folder: Path) -> Iterator[str]:
    """An endpoint with OpenAI's API; yields its address."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--port", str(port), "tests.apps.openai_endpoint:app"]
    with serving(command, clean_environment(), folder / "endpoint.log", port) as (_, url):
        yield f"{url}/v1"


@pytest.mark.skipif(importlib.util.find_spec("openai") is None, reason="openai is not installed in this environment")
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_an_openai_endpoint_answers(server: MLflowServer, request_id: str, tmp_path: Path, stream: bool) -> None:
    """With ``OPENAI_BASE_URL``, through the ``openai`` client and with the span of MLflow's autologging."""
    pytest.importorskip("fastapi", reason="FastAPI is not installed in this environment")
    traces = Traces(server.uri, f"chat-{request_id}")
    with openai_endpoint(tmp_path) as endpoint:
        variables = {"OPENAI_BASE_URL": endpoint, "OPENAI_API_KEY": "none", "OPENAI_MODEL": "echo-1"}
        with chat_app("fastapi", server, traces.experiment, tmp_path, **variables) as url:
            asked = {"messages": [{"role": "user", "content": OSLO}], "stream": stream}
            headers = {"X-Request-ID": request_id}
            answer = requests.post(f"{url}/chats/a/messages", json=asked, headers=headers, timeout=60)

    root, children = spans_of(traces.one(request_id))
    said = children[SpanType.CHAT_MODEL]
    assert text_of(root.outputs) == text_of(said.outputs) == f"echo-1 heard: {OSLO}"
    assert said.inputs["messages"][0]["content"].startswith("Answer briefly. What is known: In Oslo")
    assert (
        answer.text.endswith("data: [DONE]\n\n")
        if stream
        else text_of(json.loads(answer.text)) == text_of(root.outputs)
    )


@pytest.mark.skipif(importlib.util.find_spec("openai") is None, reason="openai is not installed in this environment")
@pytest.mark.parametrize("name", CHAT_APPS)
def test_a_stopped_answer_of_an_openai_endpoint(
    server: MLflowServer, request_id: str, tmp_path: Path, name: str
) -> None:
    """The trace holds the words up to the stop."""
    pytest.importorskip(name, reason=f"{name} is not installed in this environment")
    traces = Traces(server.uri, f"chat-{request_id}")
    with openai_endpoint(tmp_path) as endpoint:
        variables = {"OPENAI_BASE_URL": endpoint, "OPENAI_API_KEY": "none", "OPENAI_MODEL": "endless"}
        with chat_app(name, server, traces.experiment, tmp_path, **variables) as url:
            asked = {"messages": [{"role": "user", "content": OSLO}], "stream": True}
            headers = {"X-Request-ID": request_id, "Connection": "close"}
            with requests.post(
                f"{url}/chats/a/messages", json=asked, headers=headers, timeout=60, stream=True
            ) as answer:
                next(answer.iter_lines(chunk_size=1))
            eventually(lambda: traces.search(f"tags.client_request_id = '{request_id}'", spans=False), "the trace")

    root, children = spans_of(traces.one(request_id))
    assert root.attributes["http.client_disconnected"] is True
    assert text_of(root.outputs).startswith("endless heard")
    assert SpanType.RETRIEVER in children

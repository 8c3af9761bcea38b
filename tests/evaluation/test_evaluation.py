"""``examples/evaluation``, run as by a user, beside full MLflow; scores and ratings are read back from the server."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import requests
from examples.evaluation import judge_endpoint
from mlflow.entities import Trace

from tests.browser import chat_app
from tests.conftest import Traces
from tests.servers import DEADLINE, ROOT, MLflowServer, clean_environment, eventually

SESSION = {"X-User-ID": "jane", "X-Session-ID": "s-1"}
JUDGING = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "true",
    "MLFLOW_ONLINE_SCORING_DEFAULT_TRACE_COMPLETION_BUFFER_SECONDS": "0",
    "MLFLOW_GATEWAY_API_BASE_ALLOWED_SCHEMES": "http",
    "MLFLOW_GATEWAY_API_BASE_ALLOW_PRIVATE_IPS": "true",
}
"""The variables of a server that judges by itself, here at once and with a model on this machine."""

CODE = ("answered", "words", "seconds", "has_source")


class Chat:
    """A user of the chat.

    Args:
        url: The app's address.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    def ask(self, question: str, stream: bool = False) -> str:
        """Ask; return the trace id."""
        asked = {"messages": [{"role": "user", "content": question}], "stream": stream}
        answer = requests.post(f"{self._url}/chats/s-1/messages", json=asked, headers=SESSION, timeout=DEADLINE)
        answer.raise_for_status()
        return answer.headers["X-MLflow-Trace-ID"]

    def rate(self, trace_id: str, value: bool, comment: str | None = None) -> None:
        """Rate an answer."""
        vote = {"trace_id": trace_id, "value": value, "comment": comment}
        requests.post(f"{self._url}/feedback", json=vote, headers=SESSION, timeout=DEADLINE).raise_for_status()

    def fail(self) -> None:
        """Send a request that the app fails on."""
        assert requests.post(f"{self._url}/chats/s-1/fail", headers=SESSION, timeout=DEADLINE).status_code == 500


def run(traces: Traces, module: str, *arguments: str, **variables: str) -> str:
    """Run a module in the examples' folder; return its output."""
    environment = clean_environment(
        MLFLOW_TRACKING_URI=traces.uri,
        MLFLOW_EXPERIMENT_NAME=traces.experiment,
        MLFLOW_MODEL_CATALOG_URI="",
        MLFLOW_DISABLE_TELEMETRY="true",
        **variables,
    )
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(
        command, env=environment, cwd=ROOT / "examples", capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def summary_of(traces: Traces) -> Any:
    """Return the counts of ``mlflow-middleware traces --summary``."""
    return json.loads(run(traces, "mlflow_middleware.cli", "traces", "--summary", "--json"))


def given(trace: Trace, *kinds: str) -> dict[str, Any]:
    """Return the assessments of a trace by sources of these kinds, by name."""
    found = [each for each in trace.search_assessments(type="feedback") if each.source.source_type in kinds]
    assert len({each.name for each in found}) == len(found)
    return {each.name: each.feedback.value for each in found}


def ratings(trace: Trace) -> list[dict[str, Any]]:
    """Return all users' ratings in full, replaced ones included."""
    return [each.to_dictionary() for each in trace.info.assessments if each.source.source_type == "HUMAN"]


def rows(output: str) -> list[list[str]]:
    """Return a table's rows, as cells separated by two or more blanks."""
    return [re.split(r" {2,}", line) for line in output.splitlines() if line]


def test_scores_stand_beside_the_ratings(server: MLflowServer, request_id: str, tmp_path: Path) -> None:
    """Each trace has its scores, the ratings are unchanged, and the one contested answer is named."""
    traces = Traces(server.uri, f"evaluation-{request_id}")
    with chat_app("fastapi", server, traces.experiment, tmp_path, CHAT_PACE="0") as url:
        chat = Chat(url)
        agreed = chat.ask("I am going to Oslo in May. What should I pack?")
        unknown = chat.ask("Who won the cup?")
        contested = chat.ask("My disk is full: where do I begin?")
        unrated = chat.ask("How do I cook leeks?", stream=True)
        chat.fail()
        chat.rate(agreed, False)
        chat.rate(agreed, True, "just right")  # a vote that replaces the first
        chat.rate(unknown, False)
        chat.rate(contested, False, "I do not\nbuild")
    stored = {trace.info.trace_id: trace for trace in traces.wait("tags.`mlflow.trace.session` = 's-1'", 5)}
    (failed,) = stored.keys() - {agreed, unknown, contested, unrated}
    summary = summary_of(traces)

    output = run(traces, "evaluation.score", MLFLOW_GENAI_EVAL_ENABLE_SCORER_TRACING="true")

    scored = {trace.info.trace_id: trace for trace in traces.search()}
    assert scored.keys() == stored.keys()  # evaluating leaves no traces of its own, although scorers are traced
    assert {each: given(trace, "LLM_JUDGE") for each, trace in scored.items()} == {
        agreed: {"helpful": True},
        contested: {"helpful": True},
        unrated: {"helpful": True},
        unknown: {"helpful": False},
        failed: {},
    }
    for trace_id, trace in scored.items():
        scores = given(trace, "CODE")
        assert set(scores) == set(CODE)
        assert scores["answered"] == (trace_id != failed)
        assert scores["has_source"] == (trace_id in (agreed, contested, unrated))
        assert scores["seconds"] == trace.info.execution_duration / 1000
        assert ratings(trace) == ratings(stored[trace_id])
    assert given(scored[unrated], "CODE")["words"] == 18
    assert summary_of(traces) == summary

    table, disagreements = output.split("Where users and judge disagree:\n")
    shown = {row[0]: row[1:4] for row in rows(table) if row[0] in stored}
    assert shown == {
        agreed: ["I am going to Oslo in May. What should I pack?", "True", "True"],
        unknown: ["Who won the cup?", "False", "False"],
        contested: ["My disk is full: where do I begin?", "False", "True"],
        unrated: ["How do I cook leeks?", "-", "True"],
        failed: ["-", "-", "-"],
    }
    assert rows(disagreements)[1:] == [
        [contested, shown[contested][0], "False", "I do not build", "True", "It tells what was asked."]
    ]

    assert run(traces, "evaluation.score").endswith(output[output.index("trace  ") :])  # and nothing is scored twice
    again = {trace.info.trace_id: len(trace.info.assessments) for trace in traces.search()}
    assert again == {trace_id: len(trace.info.assessments) for trace_id, trace in scored.items()}


def test_requirements_of_continuous_scoring(server: MLflowServer, request_id: str) -> None:
    """The server accepts only a judge whose model is an endpoint of its own gateway, and no code."""
    traces = Traces(server.uri, f"evaluation-{request_id}")
    experiments = f"{server.uri}/api/2.0/mlflow/experiments/create"
    requests.post(experiments, json={"name": traces.experiment}, timeout=DEADLINE).raise_for_status()

    refused = run(traces, "evaluation.register", "openai:/gpt-4o-mini")

    assert "helpful: refused: INVALID_PARAMETER_VALUE: Scorer 'helpful' does not use a gateway model" in refused
    assert "seconds: refused: INVALID_PARAMETER_VALUE: Custom scorer registration" in refused


def test_the_server_judges_new_traces_by_itself(tmp_path: Path) -> None:
    """A judge that is registered and started scores an answer beside the rating, and the script calls no other."""
    server = MLflowServer(tmp_path, variables=JUDGING)
    server.start()
    try:
        traces = Traces(server.uri, "chats")
        make_endpoint(server.uri, judge_endpoint.start())
        with chat_app("fastapi", server, traces.experiment, tmp_path, CHAT_PACE="0") as url:
            chat = Chat(url)
            unknown = chat.ask("Who won the cup?")
            chat.rate(unknown, True)
        (trace,) = traces.wait("tags.`mlflow.trace.session` = 's-1'")

        assert "helpful: started" in run(traces, "evaluation.register", "gateway:/judge")
        eventually(lambda: given(traces.search()[0], "LLM_JUDGE"), "the server's verdict")
        output = run(traces, "evaluation.score")

        (judged,) = traces.search()
        (verdict,) = judged.search_assessments(name="helpful")
        assert (verdict.feedback.value, verdict.source.source_id) == (False, "gateway:/judge")
        assert ratings(judged) == ratings(trace)
        assert rows(output)[-1] == [unknown, "Who won the cup?", "True", "-", "False", "It says that it does not know."]
    finally:
        server.stop()


def make_endpoint(uri: str, judge: str) -> None:
    """Create an endpoint ``judge`` of the server's AI Gateway, for the model at an address."""

    def create(what: str, **body: object) -> dict[str, Any]:
        url = f"{uri}/api/3.0/mlflow/gateway/{what}/create"
        answer = requests.post(url, json=body, timeout=DEADLINE)
        assert answer.ok, answer.text
        created: dict[str, Any] = next(iter(answer.json().values()))
        return created

    secret = create(
        "secrets",
        secret_name="judge",
        secret_value={"api_key": "none"},
        provider="openai",
        auth_config={"api_base": judge},
    )
    model = create(
        "model-definitions",
        name="judge",
        secret_id=secret["secret_id"],
        provider="openai",
        model_name="gpt-4o-mini",
    )
    first = {"model_definition_id": model["model_definition_id"], "linkage_type": "PRIMARY"}
    create("endpoints", name="judge", model_configs=[first])

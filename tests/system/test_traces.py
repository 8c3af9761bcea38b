"""Traces are found by their values, exactly and with any characters; the command line shows them."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import mlflow
import pytest
import requests
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from mlflow.entities import AssessmentSource
from mlflow.entities.trace_info import TraceInfo

from mlflow_middleware import traces
from mlflow_middleware.cli import main
from mlflow_middleware.identity import pseudonym
from tests.conftest import AppRunner, RunningApp
from tests.servers import IN_BACKGROUND, ROOT, MLflowServer, clean_environment, eventually, free_port
from tests.talking import Talking

pytestmark = pytest.mark.once

SESSION, USER, NAME = "mlflow.trace.session", "mlflow.trace.user", "mlflow.traceName"


class Store:
    """An experiment of one test or module, which stores traces like a client does."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.experiment = f"traces-{uuid.uuid4().hex}"
        answer = self._post("2.0/mlflow/experiments/create", {"name": self.experiment})
        self.experiment_id = str(answer["experiment_id"])

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = requests.post(f"{self.uri}/api/{path}", json=body, timeout=60)
        assert answer.ok, answer.text
        reply: dict[str, Any] = answer.json()
        return reply

    def put(
        self,
        *,
        tags: dict[str, str] | None = None,
        session: str | None = None,
        user: str | None = None,
        milliseconds: int = 10,
        state: str = "OK",
        ago: timedelta = timedelta(),
        said: tuple[str, str] | None = None,
        metadata: dict[str, str] | None = None,
    ) -> str:
        """Store a trace; return its id."""
        trace_id = f"tr-{uuid.uuid4().hex}"
        known = {key: value for key, value in ((SESSION, session), (USER, user)) if value is not None}
        info: dict[str, Any] = {
            "trace_id": trace_id,
            "trace_location": {
                "type": "MLFLOW_EXPERIMENT",
                "mlflow_experiment": {"experiment_id": self.experiment_id},
            },
            "request_time": (datetime.now(timezone.utc) - ago).isoformat().replace("+00:00", "Z"),
            "execution_duration": f"{milliseconds / 1000}s",
            "state": state,
            "tags": tags or {},
            "trace_metadata": {**known, **(metadata or {})},
        }
        if said:
            info["request_preview"], info["response_preview"] = said
        self._post("3.0/mlflow/traces", {"trace": {"trace_info": info}})
        return trace_id

    def find(self, **conditions: Any) -> list[str]:
        """Return the ids of the traces that `traces.find` finds here."""
        return ids(traces.find(experiment=self.experiment, **conditions))


def ids(found: Iterator[TraceInfo]) -> list[str]:
    return [trace.trace_id for trace in found]


@pytest.fixture
def store(server: MLflowServer) -> Store:
    """An experiment with nothing in it yet."""
    mlflow.set_tracking_uri(server.uri)
    return Store(server.uri)


@pytest.fixture(scope="module")
def full(server: MLflowServer) -> tuple[Store, defaultdict[str, list[str]]]:
    """An experiment that fills up, and its traces for each value."""
    mlflow.set_tracking_uri(server.uri)
    return Store(server.uri), defaultdict(list)


# --- no value widens the query ---------------------------------------------------------------------------------

PIECES = [
    "'",
    '"',
    "`",
    "%",
    "_",
    "\\",
    "''",
    "\\'",
    "'\"",
    " ",
    ";",
    "--",
    "/*",
    "\n",
    "\t",
    "OR",
    "AND",
    "1=1",
    "a",
    "A",
]
VALUES = st.one_of(
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=12).map("".join),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=40),
)


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(VALUES)
@example("jane")
@example("Jane")
@example("%")
@example("_ane")
@example("' OR 1=1 --")
@example("x' OR tags.a != '")
@example("' AND tags.`mlflow.traceName` LIKE '%")
@example("'; DROP TABLE trace_info; --")
@example("o'brien")
@example("o`brien")
@example('o"brien')
@example("o'\"brien")
@example("\\")
@example("ends with \\")
@example("\\' OR '1'='1")
@example("`tags`.`a`")
@example("/chats/{chat_id}/100%")
@example("POST /chats/{chat_id}")
@example("\u202e\u00a0\U0001f600")
def test_exactly_the_traces_with_that_value_are_found(
    full: tuple[Store, defaultdict[str, list[str]]], value: str
) -> None:
    """By request id, session, user, tag or route, alone and together, beside traces with all the other values."""
    store, stored = full
    tags = {"client_request_id": value, "plan: pro/a.b-c": value, "http.route": value, NAME: value}
    stored[value].append(store.put(tags=tags, session=value, user=value))
    expected = stored[value][::-1]
    each: list[dict[str, Any]] = [
        {"request_id": value},
        {"session_id": value},
        {"user_id": value},
        {"tags": {"plan: pro/a.b-c": value}},
        {"route": value},
    ]
    together = {name: condition for conditions in each for name, condition in conditions.items()}

    for conditions in (*each, together):
        assert sorted(store.find(**conditions)) == sorted(expected), conditions


@pytest.mark.parametrize("name", ["name", "text", "prompt", "run_id", "timestamp", "mlflow.linkedPrompts", "Name"])
def test_a_tag_whose_name_has_another_meaning_in_mlflow_is_a_tag(store: Store, name: str) -> None:
    """MLflow's search takes ``tags.name`` as the trace's name, and so on."""
    wanted = store.put(tags={name: "x/1", NAME: "other"})
    store.put(tags={name: "y/1", NAME: "x/1"})

    assert store.find(tags={name: "x/1"}) == [wanted]


@pytest.mark.parametrize(
    ("conditions", "error_text"),
    [
        ({"user_id": ""}, "user_id must not be empty"),
        ({"request_id": ""}, "request_id must not be empty"),
        ({"session_id": 7}, "session_id must be text, not 7"),
        ({"session_id": "a\x00b"}, "NUL"),
        ({"tags": {"a`b": "x"}}, "is not a tag name"),
        ({"tags": {"a' OR '1'='1": "x"}}, "is not a tag name"),
        ({"tags": {"": "x"}}, "is not a tag name"),
        ({"tags": {"a": 1}}, "must be text, not 1"),
        ({"status": "200 OR 1=1"}, "invalid literal"),
        ({"slower_than": -1.0}, "slower_than"),
        ({"slower_than": float("nan")}, "slower_than"),
        ({"since": timedelta(hours=-1)}, "since"),
        ({"limit": 0}, "limit"),
    ],
)
def test_values_that_cannot_be_looked_up_are_refused(store: Store, conditions: dict[str, Any], error_text: str) -> None:
    """With a message, before any trace is returned."""
    with pytest.raises(ValueError, match=re.escape(error_text)):
        store.find(**conditions)


# --- results ---


def test_the_newest_come_first_across_pages(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if a trace arrives between two pages, which shifts the others."""
    monkeypatch.setattr(traces, "PAGE", 3)
    stored = [store.put(ago=timedelta(minutes=minutes)) for minutes in range(8)]

    found = traces.find(experiment=store.experiment, limit=None)
    first = [next(found).trace_id for _ in range(3)]
    store.put()
    rest = ids(found)

    assert first + rest == stored
    assert len(store.find(limit=4)) == 4


def test_time_duration_and_state_are_conditions(store: Store) -> None:
    """Since and until as times or as ages; longer than; errors only."""
    now = store.put(milliseconds=2001)
    hour = store.put(ago=timedelta(hours=1), state="ERROR")
    day = store.put(ago=timedelta(days=1), milliseconds=2000)
    noon = datetime.now(timezone.utc) - timedelta(hours=12)

    assert store.find(since=timedelta(minutes=30)) == [now]
    assert store.find(since=noon) == [now, hour]
    assert store.find(since=noon.astimezone().replace(tzinfo=None)) == [now, hour]
    assert store.find(until=noon) == [day]
    assert store.find(since=timedelta(hours=2), until=timedelta(minutes=30)) == [hour]
    assert store.find(slower_than=2) == [now]
    assert store.find(errors_only=True) == [hour]


def test_a_user_is_looked_up_by_the_pseudonym(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the given key, or that of the environment."""
    plain = store.put(user="jane")
    hidden = store.put(user=pseudonym("jane", b"a key of ours"))

    assert store.find(user_id="jane") == [plain]
    assert store.find(user_id="jane", user_id_hmac_key="a key of ours") == [hidden]
    monkeypatch.setenv("MLFLOW_MIDDLEWARE_USER_ID_HMAC_KEY", "a key of ours")
    assert store.find(user_id="jane") == [hidden]


def test_a_session_is_a_conversation(store: Store) -> None:
    """All of its traces are in order, also those that did not match; the most recently active session is first."""
    store.put(session="s-1", user="jane", said=("Tea?", "Yes."), ago=timedelta(minutes=9))
    store.put(session="s-2", user="sam", said=("Hello", "Hello."), ago=timedelta(minutes=8))
    store.put(session="s-1", said=("And cake?", ""), ago=timedelta(minutes=7), state="ERROR")
    store.put(user="jane", said=("no session", "none"), ago=timedelta(minutes=6))

    both = list(traces.sessions(experiment=store.experiment))
    (of_jane,) = traces.sessions(experiment=store.experiment, user_id="jane")
    (named,) = traces.sessions(experiment=store.experiment, session_id="s-2")

    assert [session.session_id for session in both] == ["s-1", "s-2"]
    assert str(of_jane) == "jane: Tea?\nassistant: Yes.\nuser: And cake?"
    assert [turn.role for turn in of_jane.turns] == ["user", "assistant", "user"]
    assert str(named) == "sam: Hello\nassistant: Hello."
    assert len(list(traces.sessions(experiment=store.experiment, limit=1))) == 1


@pytest.fixture(scope="module")
def served(run_app: AppRunner) -> RunningApp:
    """An app that has answered some requests, and whose traces are stored."""
    app = run_app("asgi", None, TRACES="a process of our own")
    app.get("/sync/chats/c-1", x_request_id="r" * 100, x_session_id="s-1", x_user_id="jane")
    app.get("/sync/chats/c-2", x_request_id="short", x_session_id="s-2", x_user_id="o'brien")
    app.get("/status/404", x_request_id="missing", x_user_id="jane")
    app.get("/fail", x_request_id="failing", x_user_id="jane")
    eventually(lambda: len(app.traces.search("span.name LIKE '%'", spans=False)) == 4, "4 stored traces")
    return app


@pytest.mark.parametrize(
    ("conditions", "request_ids"),
    [
        ({}, {"r" * 100, "short", "missing", "failing"}),
        ({"request_id": "r" * 100}, {"r" * 100}),
        ({"request_id": "short"}, {"short"}),
        ({"session_id": "s-1"}, {"r" * 100}),
        ({"user_id": "jane"}, {"r" * 100, "missing", "failing"}),
        ({"user_id": "o'brien"}, {"short"}),
        ({"tags": {"environment": "production"}, "status": 404}, {"missing"}),
        ({"route": "/sync/chats/{chat_id}"}, {"r" * 100, "short"}),
        ({"route": "GET /sync/chats/{chat_id}", "user_id": "jane"}, {"r" * 100}),
        ({"errors_only": True}, {"failing"}),
        ({"since": timedelta(0)}, set()),
        ({"user_id": "nobody"}, set()),
    ],
)
def test_an_apps_traces_are_found(
    served: RunningApp, server: MLflowServer, conditions: dict[str, Any], request_ids: set[str]
) -> None:
    """By each of the middleware's values; a request id may be longer than MLflow's own column."""
    mlflow.set_tracking_uri(server.uri)

    found = traces.find(experiment=served.traces.experiment, **conditions)

    assert {trace.tags["client_request_id"] for trace in found} == request_ids


@pytest.mark.parametrize(
    ("name", "route"),
    [
        pytest.param(name, route, marks=pytest.mark.xdist_group(name))
        for name, route in (
            ("fastapi", "/sync/chats/{chat_id}"),
            ("flask", "/sync/chats/<chat_id>"),
            ("django-wsgi", "/sync/chats/<str:chat_id>"),
        )
    ],
)
def test_each_frameworks_traces_are_found(run_app: AppRunner, name: str, route: str) -> None:
    """A chat, by values that each framework writes differently, and by those that all write alike."""
    app = run_app(name, None, TRACES="a process of our own")
    long = uuid.uuid4().hex.ljust(100, "x")
    app.get("/sync/chats/c-1", x_request_id=long, x_session_id="s-1", x_user_id="o'brien")
    app.get("/status/404", x_request_id="missing", x_user_id="jane")
    eventually(lambda: len(app.traces.search("span.name LIKE '%'", spans=False)) == 2, "2 stored traces")
    mlflow.set_tracking_uri(app.traces.uri)

    queries: list[dict[str, Any]] = [
        {"request_id": long},
        {"session_id": "s-1"},
        {"user_id": "o'brien"},
        {"route": route},
        {"route": f"GET {route}", "status": 200, "tags": {"environment": "production"}},
    ]
    for conditions in queries:
        (found,) = traces.find(experiment=app.traces.experiment, **conditions)
        assert found.tags["client_request_id"] == long
    (session,) = traces.sessions(user_id="o'brien", experiment=app.traces.experiment)
    assert session.session_id == "s-1"
    (missing,) = traces.find(status=404, experiment=app.traces.experiment)
    assert missing.tags["client_request_id"] == "missing"


def test_a_missing_experiment_is_reported_and_not_created(
    server: MLflowServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it is named in the call or in the environment; one is found by its id, too."""
    trace_id = store.put()
    assert ids(traces.find(experiment=store.experiment_id)) == [trace_id]

    missing = f"missing-{uuid.uuid4().hex}"
    with pytest.raises(traces.ConnectionProblem, match=missing):
        traces.find(experiment=missing)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", missing)
    monkeypatch.setattr(mlflow.tracking.fluent, "_active_experiment_id", None)
    with pytest.raises(traces.ConnectionProblem, match=missing):
        traces.find()

    asked = f"{server.uri}/api/2.0/mlflow/experiments/get-by-name"
    assert requests.get(asked, params={"experiment_name": missing}, timeout=60).status_code == 404


def test_the_example_prints_errors_and_conversations(store: Store) -> None:
    """In a process of its own, connected by MLflow's own variables."""
    tags = {"http.route": "/chats"}
    failed = store.put(tags=tags, session="s-1", user="jane", state="ERROR", said=("Tea?", ""), ago=timedelta(hours=1))
    store.put(tags=tags, session="s-1", user="jane", said=("Tea, please?", "Here you are."))
    store.put(tags=tags, session="s-2", user="sam", state="ERROR", said=("Hello", ""))

    done = subprocess.run(
        [sys.executable, "examples/find_traces.py", "jane"],
        env=clean_environment(MLFLOW_TRACKING_URI=store.uri, MLFLOW_EXPERIMENT_NAME=store.experiment),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.stderr == ""
    assert done.stdout == f"{failed} /chats Tea?\n--- s-1\njane: Tea?\njane: Tea, please?\nassistant: Here you are.\n"


# --- the command line ------------------------------------------------------------------------------------------

Run = Callable[..., str]


@pytest.fixture
def shown(store: Store, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs ``mlflow-middleware traces`` and returns its output."""

    def run(*arguments: str) -> str:
        assert main(["traces", "--experiment", store.experiment, *arguments]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        return out

    return run


def rate(trace_id: str, value: Any, by: str = "jane", kind: str = "HUMAN") -> None:
    source = AssessmentSource(source_type=kind, source_id=by)
    mlflow.log_feedback(trace_id=trace_id, name="response_is_correct", value=value, source=source)


def test_the_table_has_a_line_for_each_trace(store: Store, shown: Run) -> None:
    """Control characters are not printed."""
    tags = {NAME: "POST /chats", "http.status_code": "200", "client_request_id": "r-1"}
    rated = store.put(tags=tags, session="s-1", user="jane\x1b[2J\nroot", milliseconds=1234)
    store.put(ago=timedelta(hours=2), state="ERROR")
    rate(rated, True)

    heads, _, first, second = shown("--feedback").splitlines()

    assert re.split(r"  +", heads) == [
        *("time", "route", "status", "request id", "session", "user", "ms", "state", "feedback")
    ]
    assert re.split(r"  +", first)[1:] == [
        *("POST /chats", "200", "r-1", "s-1", "jane\ufffd[2J\ufffdroot", "1234", "OK"),
        "response_is_correct=true by jane",
    ]
    assert re.split(r"  +", second)[1:] == ["-", "-", "-", "-", "-", "10", "ERROR", "-"]
    assert datetime.fromisoformat(first[:19]) - datetime.now() < timedelta(minutes=1)


def test_arguments_are_conditions(store: Store, shown: Run) -> None:
    """Alone and together."""
    tags = {
        "http.route": "/chats",
        NAME: "POST /chats",
        "http.status_code": "503",
        "client_request_id": "r-1",
        "a": "b=c",
    }
    wanted = store.put(
        tags=tags, session="s-1", user="jane", milliseconds=2500, state="ERROR", ago=timedelta(minutes=5)
    )
    store.put(tags={"a": "b=c"}, session="s-1", user="jane")
    line = (
        "--request r-1 --session s-1 --user jane --tag a=b=c --route /chats --status 503 --since 1h --until 1m "
        "--errors --slower-than 2s --limit 5 --json"
    )

    (row,) = json.loads(shown(*line.split()))

    assert row["trace_id"] == wanted
    assert (row["name"], row["status"], row["milliseconds"], row["state"]) == ("POST /chats", "503", 2500, "ERROR")
    assert len(json.loads(shown("--since", "2020-01-01T00:00Z", "--json", "--tag", "a=b=c"))) == 2
    assert shown("--route", "/nothing").splitlines()[2:] == []


def test_the_summary_counts_by_route(store: Store, shown: Run) -> None:
    """A judge's ratings do not count; a number is good from the threshold on."""
    chats = [store.put(tags={NAME: "POST /chats"}, milliseconds=milliseconds) for milliseconds in range(1, 21)]
    store.put(tags={NAME: "GET /fail"}, state="ERROR")
    for trace_id, value in zip(chats, (True, True, False, "yes", 4, 3), strict=False):
        rate(trace_id, value)
    rate(chats[10], True, by="a judge", kind="LLM_JUDGE")

    lines = [re.split(r"  +", line) for line in shown("--summary", "--good-from", "4").splitlines()]
    as_json = json.loads(shown("--summary", "--json"))

    assert lines[0] == ["route", "requests", "errors", "p50 ms", "p95 ms", "rated", "rated well"]
    assert lines[2:] == [
        ["POST /chats", "20", "0", "10", "19", "30%", "67%"],
        ["GET /fail", "1", "1", "10", "10", "0%", "-"],
    ]
    assert [(row["name"], row["rated"]) for row in as_json] == [("POST /chats", 0.3), ("GET /fail", 0)]


def test_a_replaced_vote_does_not_count(store: Store, shown: Run) -> None:
    """MLflow keeps it as history."""
    trace_id = store.put()
    source = AssessmentSource(source_type="HUMAN", source_id="jane")
    first = mlflow.log_feedback(trace_id=trace_id, name="response_is_correct", value=False, source=source)
    mlflow.override_feedback(trace_id=trace_id, assessment_id=first.assessment_id, value=True, source=source)

    (row,) = json.loads(shown("--json", "--feedback"))

    assert [rating["value"] for rating in row["feedback"]] == [True]


@pytest.mark.parametrize(
    ("arguments", "error_text"),
    [
        (["--since", "yesterday"], "argument --since: 'yesterday' is not a time"),
        (["--slower-than", "2 fortnights"], "argument --slower-than: '2 fortnights' is not a duration"),
        (["--status", "ok"], "argument --status: 'ok' is not an HTTP status"),
        (["--limit", "0"], "argument --limit: '0' is not a whole number of 1 or more"),
        (["--tag", "plan"], "argument --tag: 'plan' is not a tag"),
        (["--follow", "--summary"], "not allowed with argument --follow"),
        (["--user", ""], "user_id must not be empty"),
        (["--tag", "a`b=c"], "is not a tag name"),
    ],
)
def test_bad_input_is_reported(capsys: pytest.CaptureFixture[str], arguments: list[str], error_text: str) -> None:
    """With a message and exit code 2, before any server is called."""
    try:
        code: object = main(["traces", *arguments])
    except SystemExit as ended:
        code = ended.code

    assert code == 2
    assert error_text in capsys.readouterr().err


def test_an_unreachable_server_is_reported(capsys: pytest.CaptureFixture[str], store: Store) -> None:
    """With a message and exit code 1."""
    mlflow.set_tracking_uri(f"http://127.0.0.1:{free_port()}")

    assert main(["traces", "--experiment", store.experiment]) == 1
    assert "cannot be reached" in capsys.readouterr().err


@pytest.mark.parametrize("start", [[], IN_BACKGROUND], ids=["foreground", "background"])
def test_new_traces_are_printed_as_they_arrive(store: Store, start: list[str], tmp_path: Path) -> None:
    """Also one whose request began before; each once, no older ones beyond the limit, until Ctrl-C."""
    store.put(ago=timedelta(minutes=3))
    there = store.put(ago=timedelta(minutes=2))
    command = [*start, sys.executable, "-m", "mlflow_middleware.cli", "traces", "--follow", "--json", "--limit", "1"]
    environment = clean_environment(MLFLOW_TRACKING_URI=store.uri, MLFLOW_EXPERIMENT_NAME=store.experiment)
    with Talking(command, environment, tmp_path / "log") as following:
        given = [json.loads(following.line())["trace_id"]]
        arrived = [store.put(ago=timedelta(minutes=4))]
        given.append(json.loads(following.line())["trace_id"])
        arrived.append(store.put())
        given.append(json.loads(following.line())["trace_id"])
        code, out = following.stop(signal.SIGINT), following.rest()

    assert given == [there, *arrived]
    assert (code, out, following.output()) == (0, "", "")

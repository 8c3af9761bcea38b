"""Feedback over HTTP, on every framework, read back from the server."""

from __future__ import annotations

import hashlib
import hmac
import json
import shutil
import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from subprocess import run
from typing import Any

import pytest
import requests
from mlflow.entities import Assessment

from mlflow_middleware._internal import feedback_token
from tests.conftest import AppRunner, RunningApp, Traces
from tests.servers import ROOT, MLflowServer, clean_environment, command_for, eventually, free_port, serving

pytestmark = pytest.mark.once

FRAMEWORKS = [
    pytest.param(name, marks=pytest.mark.xdist_group(name))
    for name in ("fastapi", "flask", "django-wsgi", "django-asgi")
]
OLD, NEW = "an old secret, still accepted", "a new secret, which signs now"
PSEUDONYMS = "a key for user ids"
UNKNOWN = f"tr-{'0' * 32}"

PATIENT = 8.0
"""Seconds that feedback waits where it has to."""


@pytest.fixture(params=FRAMEWORKS)
def app(request: pytest.FixtureRequest, run_app: AppRunner) -> RunningApp:
    """An app on each framework, with feedback that needs no token."""
    return run_app(request.param, {"feedback_wait": PATIENT}, APP_CSRF="1")


@pytest.fixture(params=FRAMEWORKS[:3])
def signing(request: pytest.FixtureRequest, run_app: AppRunner) -> RunningApp:
    """An app on each framework, with signed feedback and pseudonyms."""
    secrets = [NEW, OLD]
    return run_app(request.param, {"feedback_secret": secrets, "feedback_wait": 0, "user_id_hmac_key": PSEUDONYMS})


@pytest.fixture(params=FRAMEWORKS[:3])
def lonely(request: pytest.FixtureRequest, run_app: AppRunner) -> RunningApp:
    """An app on each framework, with an unreachable tracking server."""
    return run_app(request.param, MLFLOW_TRACKING_URI=f"http://127.0.0.1:{free_port()}", MLFLOW_EXPERIMENT_ID="0")


@pytest.fixture
def user(request_id: str) -> str:
    """A user that no other test uses."""
    return f"jane-{request_id}"


def say(app: RunningApp, said: object, **headers: str) -> requests.Response:
    """Give feedback."""
    return app.post("/feedback", json.dumps(said).encode(), content_type="application/json", **headers)


def chat(app: RunningApp, request_id: str, **headers: str) -> str:
    """A stored chat request; returns its trace id."""
    trace_id = app.get("/sync/chats/c-1", x_request_id=request_id, **headers).headers["X-MLflow-Trace-ID"]
    query = f"tags.client_request_id = '{request_id}' AND span.name LIKE '%'"
    eventually(lambda: app.traces.search(query, spans=False), "the trace")
    return trace_id


def stored(app: RunningApp, request_id: str, everything: bool = False) -> list[Assessment]:
    """Return the assessments of a request's trace."""
    (trace,) = app.traces.search(f"tags.client_request_id = '{request_id}'", spans=False)
    found: list[Assessment] = trace.search_assessments(all=everything)
    return found


def only(app: RunningApp, request_id: str) -> Any:
    """Return the one valid assessment of a request's trace."""
    (found,) = stored(app, request_id)
    return found


def refused(answer: requests.Response) -> tuple[int, str]:
    """Return the reason why feedback was refused, which has the same form in each framework."""
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json().keys() == {"detail"}
    return answer.status_code, answer.json()["detail"]


# --- what is stored ---


def test_feedback_by_trace_id(app: RunningApp, request_id: str, user: str) -> None:
    """It is a human's assessment of that trace, with all its fields."""
    trace_id = chat(app, request_id)

    said = {"trace_id": trace_id, "value": True, "comment": "right\nand short", "metadata": {"page": "/help"}}
    answer = say(app, said, x_user_id=user)

    assert (answer.status_code, answer.json()) == (200, {"trace_id": trace_id})
    found = only(app, request_id)
    assert (found.name, found.value, found.rationale) == ("response_is_correct", True, "right\nand short")
    assert (found.source.source_type, found.source.source_id) == ("HUMAN", user)
    assert found.metadata == {"page": "/help"}


@pytest.mark.parametrize("name", FRAMEWORKS[:3])
def test_feedback_finds_requests_in_other_experiments(run_app: AppRunner, request_id: str, name: str) -> None:
    """Those of the app's option, and of a route's; by request and by session."""
    of_app, of_route = f"app-{uuid.uuid4().hex}", f"route-{uuid.uuid4().hex}"
    routes = {"/sync/*": {"experiment": of_route}}
    app = run_app(name, {"feedback_wait": PATIENT, "experiment": of_app, "routes": routes}, APP_CSRF="1")
    who = {"x_session_id": f"s-{request_id}"}
    trace_id = app.get("/sync/chats/c-1", x_request_id=request_id, **who).headers["X-MLflow-Trace-ID"]
    Traces(app.traces.uri, of_route).one(request_id)

    said = {"value": True, "client_request_id": request_id}, {"value": 3, "session_id": f"s-{request_id}"}
    answers = [say(app, each, **who) for each in said]

    assert [(answer.status_code, answer.json()) for answer in answers] == [(200, {"trace_id": trace_id})] * 2


@pytest.mark.parametrize("header", ["x_session_id", "x_user_id"])
def test_feedback_by_request_id(app: RunningApp, request_id: str, header: str) -> None:
    """It needs the request's session, or its user; the id may be longer than MLflow's own column."""
    request_id = request_id.ljust(100, "x")
    who = {header: f"who-{request_id}"}
    trace_id = chat(app, request_id, **who)

    answer = say(app, {"client_request_id": request_id, "value": 4, "name": "stars"}, **who)

    assert (answer.status_code, answer.json()) == (200, {"trace_id": trace_id})
    assert (only(app, request_id).name, only(app, request_id).value) == ("stars", 4)


def test_a_changed_vote_replaces_the_first(app: RunningApp, request_id: str, user: str) -> None:
    """Of the same user under the same name; other users' votes, other names and the history stay."""
    trace_id = chat(app, request_id)
    for value, name, who in (
        (True, "right", user),
        (1, "stars", user),
        ("good", "right", "joe"),
        (False, "right", user),
    ):
        assert say(app, {"trace_id": trace_id, "value": value, "name": name}, x_user_id=who).status_code == 200

    now = {(each.name, each.source.source_id): each.feedback.value for each in stored(app, request_id)}
    assert now == {("right", user): False, ("stars", user): 1, ("right", "joe"): "good"}
    (first,) = [each for each in stored(app, request_id, everything=True) if not each.valid]
    (last,) = [each for each in stored(app, request_id) if each.overrides]
    assert (first.feedback.value, last.overrides) == (True, first.assessment_id)


def test_simultaneous_votes_leave_one(app: RunningApp, request_id: str, user: str) -> None:
    """A user who clicks several times at once has one vote, and each click is answered."""
    trace_id = chat(app, request_id)

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda n: say(app, {"trace_id": trace_id, "value": n}, x_user_id=user), range(4)))

    assert [answer.status_code for answer in answers] == [200] * 4
    assert len(stored(app, request_id)) == 1


def test_feedback_may_come_before_its_trace(app: RunningApp, request_id: str, user: str) -> None:
    """It waits for the trace, and the app answers other requests meanwhile."""
    said = json.dumps({"client_request_id": request_id, "value": True})
    early = HTTPConnection(app.url.removeprefix("http://"), timeout=60)
    early.request("POST", "/feedback", said, {"Content-Type": "application/json", "X-User-ID": user})
    assert app.get("/health").status_code == 200
    trace_id = app.get("/async/chats/c-1", x_request_id=request_id, x_user_id=user).headers["X-MLflow-Trace-ID"]

    with closing(early):
        assert json.load(early.getresponse()) == {"trace_id": trace_id}
    assert only(app, request_id).value is True


def test_feedback_right_after_the_answer(app: RunningApp, user: str) -> None:
    """A page may send it as soon as it has its answer."""
    ids = [uuid.uuid4().hex for _ in range(5)]
    traces = [app.get("/async/chats/c-1", x_request_id=each).headers["X-MLflow-Trace-ID"] for each in ids]

    assert [say(app, {"trace_id": each, "value": 5}).status_code for each in traces] == [200] * 5
    found = only(app, ids[-1])
    assert (found.value, found.source.source_id) == (5, "anonymous")


def test_feedback_on_a_session(app: RunningApp, request_id: str, user: str) -> None:
    """It is on the session's first trace, marked as in MLflow, beside feedback on that trace itself."""
    session, second = f"it's {request_id}", uuid.uuid4().hex
    first_trace = chat(app, request_id, x_session_id=session)
    chat(app, second, x_session_id=session)
    assert say(app, {"trace_id": first_trace, "value": False}, x_user_id=user).status_code == 200

    for value in (2, 5):
        answer = say(app, {"session_id": session, "value": value}, x_session_id=session, x_user_id=user)
        assert (answer.status_code, answer.json()) == (200, {"trace_id": first_trace})

    found: dict[Any, Any] = {each.feedback.value: each.metadata or {} for each in stored(app, request_id)}
    assert found == {False: {}, 5: {"mlflow.trace.session": session}}
    assert stored(app, second) == []
    assert refused(say(app, {"session_id": session, "value": 1}, x_session_id="another"))[0] == 404


@pytest.mark.xdist_group("wsgi")
def test_feedback_without_a_framework(run_app: AppRunner, request_id: str, user: str) -> None:
    """The function that every route calls needs none."""
    app = run_app("wsgi")
    trace_id = chat(app, request_id)

    assert say(app, {"trace_id": trace_id, "value": "good"}, x_user_id=user).json() == {"trace_id": trace_id}
    assert (only(app, request_id).value, only(app, request_id).source.source_id) == ("good", user)
    assert refused(say(app, {"trace_id": trace_id}))[0] == 422


@contextmanager
def example(name: str, server: MLflowServer, experiment: str, folder: Path) -> Iterator[str]:
    """Serve an app of ``examples/``; yields its address."""
    module = {"django-wsgi": "django_app:wsgi"}.get(name, f"{name}_app:app")
    port = free_port()
    command = [*command_for(name, port)[:-1], f"examples.{module}"]
    environment = clean_environment(MLFLOW_TRACKING_URI=server.uri, MLFLOW_EXPERIMENT_NAME=experiment)
    with serving(command, environment, folder / "log", port) as (_, url):
        yield url


@pytest.mark.parametrize("name", [*FRAMEWORKS[:3], "wsgi"])
def test_the_examples_take_feedback(server: MLflowServer, request_id: str, tmp_path: Path, name: str) -> None:
    """As in the documentation."""
    if name != "wsgi":
        pytest.importorskip(name.partition("-")[0], reason=f"{name} is not installed in this environment")
    experiment = f"examples-{request_id}"
    with example(name, server, experiment, tmp_path) as url:
        question = {"messages": [{"role": "user", "content": "Tea?"}]}
        headers = {"X-Request-ID": request_id}
        answer = requests.post(f"{url}/chats/c-1/messages", json=question, headers=headers, timeout=60)
        said = {"trace_id": answer.headers["X-MLflow-Trace-ID"], "value": True, "comment": "just right"}
        assert requests.post(f"{url}/feedback", json=said, timeout=60).json() == {"trace_id": said["trace_id"]}
        bare = HTTPConnection(url.removeprefix("http://"), timeout=60)  # a body of unknown length is no body
        with closing(bare):
            bare.putrequest("POST", "/feedback")
            bare.putheader("Content-Type", "application/json")
            bare.endheaders()
            assert bare.getresponse().status == 422

    (trace,) = Traces(server.uri, experiment).search(spans=False)
    (found,) = trace.search_assessments()
    assert (found.feedback.value, found.rationale) == (True, "just right")


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js, which has the browsers' fetch, is not installed")
def test_the_example_page_rates_an_answer(server: MLflowServer, request_id: str, tmp_path: Path) -> None:
    """In ``examples/feedback.mjs``, an address without a host is the app's; a refused vote throws."""
    experiment = f"examples-{request_id}"
    with example("wsgi", server, experiment, tmp_path) as url:
        program = f"""
            const there = fetch;
            globalThis.fetch = (path, what) => there({url!r} + path, what);
            const {{ask, rate}} = await import({(ROOT / "examples" / "feedback.mjs").as_uri()!r});
            const {{text, traceId}} = await ask("c-1", [{{role: "user", content: "Tea?"}}]);
            await rate(traceId, true, text);
            await rate(traceId, null).catch(error => console.log(error.message));
        """
        command = ["node", "--input-type=module", "--eval", program]
        done = run(command, capture_output=True, text=True, timeout=60, check=False)

    assert done.stderr == ""
    assert "value: Input should be" in done.stdout
    (trace,) = Traces(server.uri, experiment).search(spans=False)
    (found,) = trace.search_assessments()
    assert (found.feedback.value, found.rationale) == (True, "The question was: Tea?")


# --- what is refused ---


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_other_users_requests_are_refused(run_app: AppRunner, request_id: str, user: str, name: str) -> None:
    """A request id alone, or with another session or user, allows no vote and does not reveal that it exists."""
    app = run_app(name, {"feedback_wait": 0})
    chat(app, request_id, x_session_id="s-1", x_user_id=user)

    others: list[dict[str, str]] = [{}, {"x_session_id": "s-2"}, {"x_user_id": "joe"}, {"x_session_id": user}]
    for headers in others:
        refusals = [
            refused(say(app, {"client_request_id": each, "value": True}, **headers)) for each in (request_id, "r-0")
        ]
        assert refusals == [(404, "no request with this id is stored")] * 2
    assert stored(app, request_id) == []


@pytest.mark.slow
def test_unknown_ids_are_refused(app: RunningApp, request_id: str) -> None:
    """After the wait."""
    targets = {"trace_id": UNKNOWN, "client_request_id": request_id, "session_id": request_id}
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda item: say(app, {item[0]: item[1], "value": 1}), targets.items()))

    assert [refused(answer) for answer in answers] == [
        (404, f"no {what} with this id is stored") for what in ("trace", "request", "session")
    ]


@pytest.mark.slow
def test_unknown_ids_block_few_threads(app: RunningApp) -> None:
    """Two votes wait; the others are refused at once, with a time to retry, and the app goes on."""
    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(lambda n: say(app, {"trace_id": UNKNOWN, "value": n}), range(5)))

    assert sorted(answer.status_code for answer in answers) == [404, 404, 503, 503, 503]
    for answer in answers:
        if answer.status_code == 503:
            assert refused(answer) == (503, "too many votes at once, try again")
            assert answer.headers["Retry-After"] == "1"


INPUT: list[tuple[Any, str]] = [
    ({"trace_id": UNKNOWN}, "value: Field required"),
    ({"value": True}, "exactly one of trace_id, client_request_id and session_id"),
    ({"value": True, "trace_id": UNKNOWN, "client_request_id": "r"}, "exactly one of"),
    ({"trace_id": UNKNOWN, "value": None}, "value: Input should be"),
    ({"trace_id": UNKNOWN, "value": [1]}, "value: Input should be"),
    ({"trace_id": UNKNOWN, "value": float("inf")}, "value: "),
    ({"trace_id": UNKNOWN, "value": 10**400}, "value: "),
    ({"trace_id": UNKNOWN, "value": "x" * 1001}, "at most 1000 characters"),
    ({"trace_id": UNKNOWN, "value": 1, "name": "n" * 101}, "name: String should have at most 100"),
    ({"trace_id": UNKNOWN, "value": 1, "name": "`"}, "name: String should match"),
    ({"trace_id": UNKNOWN, "value": 1, "comment": "c" * 4001}, "comment: String should have at most 4000"),
    ({"trace_id": UNKNOWN, "value": 1, "comment": 1}, "comment: Input should be a valid string"),
    ({"trace_id": UNKNOWN, "value": 1, "metadata": {"k": 1}}, "metadata.k: Input should be a valid string"),
    ({"trace_id": UNKNOWN, "value": 1, "metadata": {f"k{n}": "" for n in range(21)}}, "at most 20 items"),
    ({"trace_id": UNKNOWN, "value": 1, "metadata": {"mlflow.trace.session": "s"}}, "reserved for MLflow"),
    ({"trace_id": UNKNOWN, "value": 1, "rating": 5}, "rating: Extra inputs are not permitted"),
    ({"trace_id": "tr-1' OR ''='", "value": 1}, "trace_id: String should match"),
    ({"trace_id": f"{UNKNOWN}/../x", "value": 1}, "trace_id: String should match"),
    ({"client_request_id": "r' OR 'a'='a", "value": 1}, "client_request_id: must be 1 to 128 letters"),
    ({"session_id": "a'b\"c", "value": 1}, "session_id: must not contain both kinds of quotes"),
    ([], "Input should be"),
]


def test_bad_input(app: RunningApp) -> None:
    """The answer has the error, and the allowed values."""
    for said, sentence in INPUT:
        status, detail = refused(say(app, said))
        assert status == 422
        assert sentence in detail
    for body in (b"", b"{", b'{"value": 1', b"\xff\xfe", b"[" * 50_000):
        assert refused(app.post("/feedback", body, content_type="application/json"))[0] == 422


def test_an_oversized_body(app: RunningApp) -> None:
    """It is refused, whether its length is declared or it comes in chunks; Django on WSGI does not read the latter."""
    sentence = "the body is too large: at most 65536 bytes are allowed"
    body = b" " * (64 * 1024 + 1)

    assert refused(app.post("/feedback", body, content_type="application/json")) == (413, sentence)
    if app.name != "django-wsgi":
        headers = {"Content-Type": "application/json"}
        assert refused(app.session.post(f"{app.url}/feedback", iter([body]), headers=headers)) == (413, sentence)


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_a_body_that_a_form_of_another_site_could_send(app: RunningApp, kind: str) -> None:
    """It is refused: only content types that browsers ask permission for are accepted."""
    answer = app.post("/feedback", json.dumps({"trace_id": UNKNOWN, "value": 1}).encode(), content_type=kind)

    assert refused(answer) == (415, "the body must be JSON, with Content-Type: application/json")
    assert app.get("/feedback").status_code == 405


def test_the_server_is_unreachable(lonely: RunningApp) -> None:
    """This is reported at once, for each kind of id, with a time to retry."""
    for target in ({"trace_id": UNKNOWN}, {"client_request_id": "r-1"}, {"session_id": "s-1"}):
        answer = say(lonely, {**target, "value": True})
        assert refused(answer) == (503, "the tracking server is unavailable, try again later")
        assert answer.headers["Retry-After"] == "1"


# --- signed ---


def test_with_a_secret_the_token_is_needed(signing: RunningApp, request_id: str, user: str) -> None:
    """Neither the trace id nor session and user are enough; with the token, each id is."""
    who = {"x_user_id": user, "x_session_id": request_id}
    answer = signing.get("/sync/chats/c-1", x_request_id=request_id, origin="https://shop.example", **who)
    token, trace_id = answer.headers["X-Feedback-Token"], answer.headers["X-MLflow-Trace-ID"]
    signing.traces.one(request_id)

    assert "X-Feedback-Token" in answer.headers["Access-Control-Expose-Headers"]
    for target in ({"trace_id": trace_id}, {"client_request_id": request_id}, {"session_id": request_id}):
        assert refused(say(signing, {**target, "value": 1}, **who))[0] == 403
        answer = say(signing, {**target, "value": 1}, x_feedback_token=token)
        assert (answer.status_code, answer.json()) == (200, {"trace_id": trace_id})
    pseudonym = hmac.new(PSEUDONYMS.encode(), user.encode(), hashlib.sha256).hexdigest()
    assert [each.source.source_id for each in stored(signing, request_id)] == [pseudonym] * 2


def test_an_invalid_token_is_refused(signing: RunningApp, request_id: str, user: str) -> None:
    """A wrong one, an expired one, one for another trace, one of another user."""
    trace_id = chat(signing, request_id, x_user_id=user)
    pseudonym = hmac.new(PSEUDONYMS.encode(), user.encode(), hashlib.sha256).hexdigest()
    later = int(time.time()) + 600
    good = feedback_token.sign(trace_id, pseudonym, later, NEW.encode())
    said = {"trace_id": trace_id, "value": True}

    def vote(token: str, said: dict[str, Any] = said, **headers: str) -> tuple[int, str]:
        return refused(say(signing, said, x_feedback_token=token, **headers))

    foreign = (403, "the token was not signed by this app")
    payload, _, signature = good.partition(".")
    forged = feedback_token.sign(trace_id, None, later, b"another secret").partition(".")[0]
    for wrong in (
        "x",
        ".",
        payload,
        f".{signature}",
        f"{forged}.{signature}",
        f"{good}x",
        good[:-1],
        "\xe9." + signature,
    ):
        assert vote(wrong) == foreign
    assert vote(feedback_token.sign(trace_id, pseudonym, later, b"another secret")) == foreign
    expired = feedback_token.sign(trace_id, pseudonym, int(time.time()), NEW.encode())
    assert vote(expired) == (403, "the token has expired")
    other = feedback_token.sign(UNKNOWN, pseudonym, later, NEW.encode())
    assert vote(other) == (403, "the token is for another trace")
    assert vote(good, {"client_request_id": "another", "value": 1}) == (403, "the token is for another request")
    assert vote(good, {"session_id": "another", "value": 1}) == (403, "the token is for another session")
    assert vote(good, x_user_id="joe") == (403, "the token belongs to another user")
    assert vote(other, {"trace_id": UNKNOWN, "value": 1}) == (404, "no trace with this id is stored")
    assert stored(signing, request_id) == []
    old = feedback_token.sign(trace_id, pseudonym, later, OLD.encode())
    assert say(signing, said, x_feedback_token=old, x_user_id=user).status_code == 200
    assert only(signing, request_id).source.source_id == pseudonym


def test_a_session_of_another_user_is_not_voted_on(signing: RunningApp, request_id: str, user: str) -> None:
    """A client that sends another's session id has a token for a trace of it, and the token is good for no more."""
    first = signing.get("/sync/chats/c-1", x_request_id=request_id, x_user_id=user, x_session_id=request_id)
    signing.traces.one(request_id)
    said = {"session_id": request_id, "value": True}
    own = first.headers["X-Feedback-Token"]
    assert say(signing, said, x_feedback_token=own, x_user_id=user).status_code == 200

    for number, who in enumerate(({"x_user_id": "joe"}, {})):
        other = f"{request_id}-{number}"
        answer = signing.get("/sync/chats/c-1", x_request_id=other, x_session_id=request_id, **who)
        signing.traces.one(other)
        vote = {"session_id": request_id, "value": False}
        refusal = refused(say(signing, vote, x_feedback_token=answer.headers["X-Feedback-Token"], **who))
        assert refusal == (403, "the token is for another session")
    assert only(signing, request_id).value is True


def test_an_anonymous_token_is_one_voter(signing: RunningApp, request_id: str) -> None:
    """Whichever user presents it; and another token is another voter."""
    ids = [f"{request_id}-{number}" for number in range(2)]
    tokens = []
    for each in ids:
        answer = signing.get("/sync/chats/c-1", x_request_id=each, x_session_id=request_id)
        tokens.append(answer.headers["X-Feedback-Token"])
        signing.traces.one(each)

    for who in ({}, {"x_user_id": "joe"}, {"x_user_id": "ann"}):
        vote = {"client_request_id": ids[0], "value": len(who)}
        assert say(signing, vote, x_feedback_token=tokens[0], **who).status_code == 200
    for token in tokens:
        vote = {"session_id": request_id, "value": True, "name": "session"}
        assert say(signing, vote, x_feedback_token=token).status_code == 200

    votes = [(each.name, each.source.source_id) for each in stored(signing, ids[0])]
    assert len(votes) == len(set(votes)) == 3
    assert [name for name, _ in votes].count("session") == 2


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_unknown_ids_block_no_thread_of_a_small_app(run_app: AppRunner, name: str) -> None:
    """By default, ten votes on unknown ids are answered at once, unless waiting blocks no thread of the app."""
    app = run_app(name)

    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda n: say(app, {"trace_id": UNKNOWN, "value": n}), range(10)))

    statuses = [answer.status_code for answer in answers]
    assert statuses.count(404) == (2 if name == "fastapi" else 10)


def test_votes_on_one_trace_are_rate_limited(signing: RunningApp, request_id: str, user: str) -> None:
    """A script that keeps voting is refused, and votes on other traces go on."""
    answer = signing.get("/sync/chats/c-1", x_request_id=request_id, x_user_id=user)
    token, trace_id = answer.headers["X-Feedback-Token"], answer.headers["X-MLflow-Trace-ID"]
    signing.traces.one(request_id)

    votes = [say(signing, {"trace_id": trace_id, "value": n}, x_feedback_token=token) for n in range(21)]

    assert [vote.status_code for vote in votes] == [200] * 20 + [503]
    assert votes[-1].headers["Retry-After"] == "1"


# --- the requests themselves ---


def test_feedback_makes_no_trace(app: RunningApp, request_id: str) -> None:
    """Its request is stored nowhere, and its answer has no trace id; that of an ordinary request has."""
    answer = say(app, {"value": 1}, x_request_id=request_id)
    after = uuid.uuid4().hex
    chat(app, after)

    assert answer.headers["X-Request-ID"] == request_id
    assert "X-MLflow-Trace-ID" not in answer.headers
    assert "X-Feedback-Token" not in answer.headers
    assert app.traces.search(f"tags.client_request_id = '{request_id}'") == []


@pytest.mark.parametrize("name", [FRAMEWORKS[0], pytest.param("wsgi", marks=pytest.mark.xdist_group("wsgi"))])
def test_an_excluded_feedback_route_keeps_its_options(run_app: AppRunner, request_id: str, name: str) -> None:
    """A route that the middleware does not trace still needs the token of its secret, also without a framework."""
    app = run_app(name, {"feedback_secret": [NEW], "exclude": ["/feedback"]})
    answer = app.get("/sync/chats/c-1", x_request_id=request_id)
    token, trace_id = answer.headers["X-Feedback-Token"], answer.headers["X-MLflow-Trace-ID"]

    assert refused(say(app, {"trace_id": trace_id, "value": 1}))[0] == 403
    assert say(app, {"trace_id": trace_id, "value": 1}, x_feedback_token=token).status_code == 200


@pytest.mark.parametrize("name", FRAMEWORKS[:2])
def test_a_routes_own_options_keep_the_others(run_app: AppRunner, request_id: str, user: str, name: str) -> None:
    """The middleware's other options stay: the token is required, and the user stays a pseudonym."""
    options = {"feedback_secret": [NEW], "user_id_hmac_key": PSEUDONYMS, "feedback_wait": PATIENT}
    app = run_app(name, options, APP_FEEDBACK_OPTIONS='{"feedback_wait": 0}')
    answer = app.get("/sync/chats/c-1", x_request_id=request_id, x_user_id=user)
    token, trace_id = answer.headers["X-Feedback-Token"], answer.headers["X-MLflow-Trace-ID"]
    app.traces.one(request_id)

    assert refused(say(app, {"trace_id": trace_id, "value": 1}, x_user_id=user))[0] == 403
    answer = say(app, {"trace_id": trace_id, "value": 1}, x_user_id=user, x_feedback_token=token)
    assert answer.status_code == 200
    assert (
        only(app, request_id).source.source_id
        == hmac.new(PSEUDONYMS.encode(), user.encode(), hashlib.sha256).hexdigest()
    )
    unknown = feedback_token.sign(UNKNOWN, None, int(time.time()) + 600, NEW.encode())
    began = time.monotonic()
    assert refused(say(app, {"trace_id": UNKNOWN, "value": 1}, x_feedback_token=unknown))[0] == 404
    assert time.monotonic() - began < PATIENT


@pytest.mark.xdist_group("fastapi")
def test_the_route_is_in_fastapis_schema(run_app: AppRunner) -> None:
    """With its body, its token and its errors."""
    app = run_app("fastapi", {"feedback_wait": PATIENT}, APP_CSRF="1")
    route = app.get("/openapi.json").json()["paths"]["/feedback"]["post"]

    body = route["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["properties"]) >= {"trace_id", "client_request_id", "value", "name", "comment", "metadata"}
    assert [parameter["name"] for parameter in route["parameters"]] == ["X-Feedback-Token"]
    assert set(route["responses"]) == {"200", "403", "404", "413", "415", "422", "503"}


@pytest.mark.xdist_group("fastapi")
def test_schemathesis_finds_no_server_error(run_app: AppRunner, request_id: str) -> None:
    """Whatever it generates from the schema, for an existing trace and for others."""
    pytest.importorskip("schemathesis", reason="schemathesis is not installed in this environment")
    app = run_app("fastapi", {"feedback_wait": 0})
    trace_id = chat(app, request_id)
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{app.url}/openapi.json"),
        *("--include-path", "/feedback", "--checks", "not_a_server_error", "--max-examples", "100"),
        *("--generation-deterministic", "--no-color"),
    ]
    done = run(command, capture_output=True, text=True, timeout=300, check=False)

    assert done.returncode == 0, done.stdout[-3000:]
    assert say(app, {"trace_id": trace_id, "value": 1}).status_code == 200


@pytest.mark.xdist_group("fastapi")
def test_feedback_from_a_terminal(run_app: AppRunner, server: MLflowServer, request_id: str) -> None:
    """By trace id or request id, without a session; an unknown or invalid one is an exit code of 1."""
    app = run_app("fastapi", {"feedback_wait": PATIENT}, APP_CSRF="1")
    trace_id = chat(app, request_id)
    environment = clean_environment(MLFLOW_TRACKING_URI=server.uri, MLFLOW_EXPERIMENT_NAME=app.traces.experiment)

    def give_feedback(target: str, value: str) -> tuple[int, str, str]:
        command = [sys.executable, "-m", "mlflow_middleware.cli", "feedback", target, "--value", value, "--user", "ann"]
        done = run([*command, "--comment", "right"], env=environment, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    assert give_feedback(trace_id, "true") == (0, f"{trace_id}: response_is_correct = true, by ann\n", "")
    assert only(app, request_id).value is True
    assert give_feedback(request_id, "0.5")[0] == 0
    found = only(app, request_id)
    assert (found.value, found.rationale, found.source.source_id) == (0.5, "right", "ann")
    assert give_feedback(UNKNOWN, "no")[::2] == (1, "mlflow-middleware feedback: no trace with this id is stored\n")
    assert give_feedback("'", "no")[0] == 1

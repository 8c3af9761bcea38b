"""Nothing private is stored by accident: the corpus, sent to each framework, and read back from the server."""

from __future__ import annotations

import json
import uuid
from typing import NamedTuple

import pytest
from mlflow.entities import Trace

from tests.conftest import AppRunner, RunningApp
from tests.secrets import CASES, Case
from tests.servers import eventually

pytestmark = pytest.mark.once

GROUPS = {name: pytest.mark.xdist_group(name) for name in ("fastapi", "flask", "django-wsgi")}
SHARES = [
    pytest.param((name, CASES[turn :: len(GROUPS)]), id=name, marks=group)
    for turn, (name, group) in enumerate(GROUPS.items())
]
"""Each case for one framework, dealt in turn: each framework sees each shape of a secret."""

WHOLE = [
    pytest.param((name, CASES), id=f"{name}-whole", marks=[group, pytest.mark.slow]) for name, group in GROUPS.items()
]


def text_of(trace: Trace) -> str:
    """Return all that the server has of a trace: spans, tags, metadata, previews."""
    return json.dumps(trace.to_dict(), ensure_ascii=False)


class Asked(NamedTuple):
    """An app that received and echoed cases of the corpus and their twins, and its stored traces.

    Attributes:
        app: The app.
        cases: The cases.
        traces: The traces of each case and of its twin, in the order of the cases.
    """

    app: RunningApp
    cases: list[Case]
    traces: list[tuple[Trace, Trace]]


@pytest.fixture(scope="module", params=[*SHARES, *WHOLE])
def asked(request: pytest.FixtureRequest, run_app: AppRunner) -> Asked:
    """Run each framework in turn, with its share of the corpus, and with all of it."""
    name, cases = request.param
    app = run_app(name)
    session = uuid.uuid4().hex
    for number, case in enumerate(cases):
        for kind, body in (("leak", case.leak), ("twin", case.twin)):
            answer = app.post(
                "/echo",
                body.encode(),
                content_type=case.type,
                x_request_id=f"{kind}-{number}",
                x_session_id=session,
            )
            assert answer.content == body.encode()
    found = app.traces.wait(f"metadata.`mlflow.trace.session` = '{session}'", 2 * len(cases))
    traces = {trace.info.tags["client_request_id"]: trace for trace in found}
    return Asked(app, cases, [(traces[f"leak-{number}"], traces[f"twin-{number}"]) for number in range(len(cases))])


def test_no_secret_is_stored_or_logged(asked: Asked) -> None:
    """Nowhere in spans, tags, metadata and previews, or in the app's log."""
    pairs = zip(asked.cases, asked.traces, strict=True)

    assert [str(case) for case, (leak, _) in pairs if not case.is_clean(text_of(leak))] == []
    assert [str(case) for case in asked.cases if case.secret in asked.app.process.output()] == []


def test_harmless_lookalikes_are_stored_unchanged(asked: Asked) -> None:
    """To the letter."""
    pairs = list(zip(asked.cases, asked.traces, strict=True))

    assert [str(case) for case, (_, twin) in pairs if "[redacted]" in text_of(twin)] == []
    for case, (_, twin) in pairs:
        root = next(span for span in twin.data.spans if span.parent_id is None)
        if case.type == "application/json":
            assert root.inputs == json.loads(case.twin)


def identity_of(trace: Trace) -> set[str]:
    """Return user and session, as far as they are known."""
    keys = ("mlflow.trace.user", "mlflow.trace.session")
    return {trace.info.trace_metadata[key] for key in keys if key in trace.info.trace_metadata}


def test_a_known_trace_id_does_not_allow_rewriting_the_trace(run_app: AppRunner, request_id: str) -> None:
    """If callers are trusted, a second request of the same trace adds its spans: user, session and previews stay."""
    app = run_app("fastapi", {"trust_incoming_trace": True})
    traceparent = f"00-{request_id}-b7ad6b7169203331-01"

    def said(text: str, user: str) -> Trace:
        body = json.dumps({"messages": [{"role": "user", "content": text}]}).encode()
        who = {"x_user_id": user, "x_session_id": f"s-{user}", "x_request_id": f"{request_id}-{user}"}
        app.post("/echo", body, content_type="application/json", traceparent=traceparent, **who)
        return app.traces.one(f"{request_id}-{user}")

    said("mine", "jane")
    identity = eventually(
        lambda: identity_of(app.traces.one(f"{request_id}-jane")), "the trace, of which its caller tells nothing"
    )
    assert identity == {"jane", "s-jane"}
    trace = said("theirs", "joe")

    assert {trace.info.trace_metadata[f"mlflow.trace.{key}"] for key in ("user", "session")} == {"jane", "s-jane"}
    assert {trace.info.tags[f"mlflow.trace.{key}"] for key in ("user", "session")} == {"jane", "s-jane"}
    assert trace.info.request_preview == "mine"
    assert "mlflow_middleware.joined" not in trace.info.trace_metadata
    assert {span.attributes["user.id"] for span in trace.data.spans} == {"jane", "joe"}

"""Nothing private is stored by accident: the whole corpus, sent to each framework, and read back from the server."""

from __future__ import annotations

import json
import uuid

import pytest
from mlflow.entities import Trace

from tests.conftest import AppRunner, RunningApp
from tests.secrets import CASES
from tests.servers import eventually

pytestmark = pytest.mark.once

FRAMEWORKS = [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in ("fastapi", "flask", "django-wsgi")]


def text_of(trace: Trace) -> str:
    """Return all that the server has of a trace: spans, tags, metadata, previews."""
    return json.dumps(trace.to_dict(), ensure_ascii=False)


@pytest.fixture(scope="module", params=FRAMEWORKS)
def asked(request: pytest.FixtureRequest, run_app: AppRunner) -> tuple[RunningApp, dict[str, Trace]]:
    """An app that received and echoed each case of the corpus and its twin, and its stored traces."""
    app = run_app(request.param)
    session = uuid.uuid4().hex
    for number, case in enumerate(CASES):
        for name, body in (("leak", case.leak), ("twin", case.twin)):
            answer = app.post(
                "/echo",
                body.encode(),
                content_type=case.type,
                x_request_id=f"{name}-{number}",
                x_session_id=session,
            )
            assert answer.content == body.encode()
    found = app.traces.wait(f"metadata.`mlflow.trace.session` = '{session}'", 2 * len(CASES))
    return app, {trace.info.tags["client_request_id"]: trace for trace in found}


def test_no_secret_is_stored_or_logged(asked: tuple[RunningApp, dict[str, Trace]]) -> None:
    """Nowhere in spans, tags, metadata and previews, or in the app's log."""
    app, traces = asked
    leaks = [str(case) for number, case in enumerate(CASES) if not case.is_clean(text_of(traces[f"leak-{number}"]))]

    assert leaks == []
    assert [str(case) for case in CASES if case.secret in app.process.output()] == []


def test_harmless_lookalikes_are_stored_unchanged(asked: tuple[RunningApp, dict[str, Trace]]) -> None:
    """Of the whole corpus."""
    changed = [str(case) for number, case in enumerate(CASES) if "[redacted]" in text_of(asked[1][f"twin-{number}"])]

    assert changed == []
    for number, case in enumerate(CASES):
        root = next(span for span in asked[1][f"twin-{number}"].data.spans if span.parent_id is None)
        if case.type == "application/json":
            assert root.inputs == json.loads(case.twin)


@pytest.mark.xdist_group("fastapi")
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

"""The time, tokens and cost of requests, read back from a real server, and summed up."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mlflow
import pytest

from mlflow_middleware import traces
from mlflow_middleware.cli import main
from tests.conftest import AppRunner, RunningApp
from tests.model_answers import ALL, SAID, Exchanged, used
from tests.servers import ROOT, MLflowServer, clean_environment
from tests.system.test_traces import Store, rate

pytestmark = pytest.mark.once

FRAMEWORKS = [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in ("fastapi", "flask", "django-wsgi")]
USAGE, COST, MODEL = "mlflow.trace.tokenUsage", "mlflow.trace.cost", "gen_ai.response.model"


def post_all(app: RunningApp) -> dict[str, Any]:
    """Let the app answer like each provider, all at once; return the traces by the names of the cases."""
    session = uuid.uuid4().hex
    for case in ALL:
        answer = app.post(
            f"/echo?q={SAID}",
            case.body,
            content_type=case.kind,
            x_request_id=f"{session[:8]}-{case.name}",
            x_session_id=session,
        )
        assert answer.content == case.body
    found = app.traces.wait(f"metadata.`mlflow.trace.session` = '{session}'", len(ALL))
    return {trace.info.tags["client_request_id"][9:]: trace for trace in found}


def check(case: Exchanged, trace: Any) -> None:
    """Check the stored values of one of them; the model is missing if only the address or the request names it."""
    root = next(span for span in trace.data.spans if span.parent_id is None)
    assert root.attributes["mlflow.chat.tokenUsage"] == case.usage
    assert json.loads(trace.info.trace_metadata[USAGE]) == case.usage
    assert root.attributes["gen_ai.usage.input_tokens"] == case.usage["input_tokens"]
    if case.path == "/chat" and (case.model is None or case.model in case.body.decode()):
        assert (root.attributes.get("mlflow.llm.model"), trace.info.tags.get(MODEL)) == (case.model, case.model)
        assert root.attributes.get("mlflow.llm.provider") == case.provider


@pytest.mark.parametrize("name", FRAMEWORKS)
@pytest.mark.parametrize("options", [{}, {"content": "none"}], ids=["all", "none"])
def test_each_providers_answer_is_stored_with_its_usage(run_app: AppRunner, name: str, options: dict[str, Any]) -> None:
    """Streamed or not, priced where MLflow can; without contents, the same facts and nothing else."""
    found = post_all(run_app(name, options))

    for case in ALL:
        check(case, found[case.name])
    stored = json.dumps([trace.to_dict() for trace in found.values()])
    assert (SAID in stored) == (not options)
    costs = {name: json.loads(trace.info.trace_metadata.get(COST, "{}")) for name, trace in found.items()}
    assert costs["openai-chat"]["total_cost"] == pytest.approx(93 * 0.15e-6 + 1024 * 0.075e-6 + 46 * 0.6e-6)
    assert costs["openai-embeddings"]["total_cost"] == pytest.approx(8 * 0.02e-6)
    assert costs["mlflow-chat-agent"] == {}


def test_models_on_databricks_have_a_price(run_app: AppRunner, request_id: str) -> None:
    """MLflow's price list contains the models of Databricks' serving endpoints."""
    app = run_app("fastapi", {})
    answer = {
        "model": "databricks-claude-sonnet-4-5",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": SAID}}],
        "usage": {"prompt_tokens": 1_000_000, "completion_tokens": 100_000, "total_tokens": 1_100_000},
    }
    app.post("/echo", json.dumps(answer).encode(), content_type="application/json", x_request_id=request_id)

    cost = json.loads(app.traces.one(request_id).info.trace_metadata[COST])
    assert cost["total_cost"] == pytest.approx(3 + 1.5, rel=0.001)


# --- summed up ---


@pytest.fixture
def store(server: MLflowServer) -> Store:
    """An experiment with nothing in it yet."""
    mlflow.set_tracking_uri(server.uri)
    return Store(server.uri)


def put(store: Store, user: str, model: str | None = None, *, cost: float | None = None, **more: Any) -> str:
    """Store a trace with ten tokens, like that of a request."""
    tags = {**({MODEL: model} if model else {}), **more.pop("tags", {})}
    metadata = {USAGE: json.dumps(used(8, 2, cache_read_input_tokens=3))} if model else {}
    if cost is not None:
        metadata[COST] = json.dumps({"input_cost": 0.0, "output_cost": cost, "total_cost": cost})
    return store.put(tags=tags, user=user, metadata=metadata, **more)


def fill(store: Store) -> None:
    """Four requests of two users, on two plans."""
    put(store, "jane", "gpt-4o", cost=0.25, session="s-1", milliseconds=10, tags={"plan": "pro"})
    trace_id = put(store, "jane", "gpt-4o", cost=0.5, session="s-1", milliseconds=30, tags={"plan": "pro"})
    put(store, "jane", "llama", session="s-2", milliseconds=20, state="ERROR", tags={"plan": "free"})
    put(store, "joe", session="s-3")
    rate(trace_id, True)


@pytest.mark.parametrize(
    ("by", "names"),
    [
        ("user", {"jane": 3, "joe": 1}),
        ("session", {"s-1": 2, "s-2": 1, "s-3": 1}),
        ("model", {"gpt-4o": 2, "": 1, "llama": 1}),
        ("tag:plan", {"pro": 2, "": 1, "free": 1}),
        ("route", {"": 4}),
    ],
)
def test_traces_are_summed_up(store: Store, by: str, names: dict[str, int]) -> None:
    """By user, session, model, and a tag of the app."""
    fill(store)

    found = traces.summary(by=by, experiment=store.experiment)

    assert {row.name: row.requests for row in found.rows} == names
    assert (sum(row.total_tokens for row in found.rows), sum(row.cost or 0 for row in found.rows)) == (30, 0.75)
    assert (found.traces, found.is_cut) == (4, False)


def test_a_row_has_all_figures(store: Store) -> None:
    """Traces with tokens and without a price are counted separately."""
    fill(store)

    jane, joe = traces.summary(by="user", experiment=store.experiment).rows

    assert (jane.name, jane.requests, jane.errors, jane.p50_milliseconds, jane.p95_milliseconds) == (
        "jane",
        3,
        1,
        20,
        30,
    )
    assert (jane.input_tokens, jane.output_tokens, jane.cached_tokens, jane.total_tokens) == (24, 6, 9, 30)
    assert (jane.cost, jane.unpriced, jane.rated_well) == (0.75, 1, 1.0)
    assert jane.rated == pytest.approx(1 / 3)
    assert (joe.name, joe.total_tokens, joe.cost, joe.unpriced, joe.rated_well) == ("joe", 0, None, 0, None)


def test_the_command_prints_the_sums(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    """As a table and as JSON; gaps in the figures are reported on stderr."""
    fill(store)
    command = ["traces", "--experiment", store.experiment, "--summary", "--by", "user"]

    assert main(command) == 0
    table, note = capsys.readouterr()
    assert main([*command, "--json", "--user", "jane"]) == 0
    (row,) = json.loads(capsys.readouterr().out)

    lines = [re.split(r"  +", line) for line in table.splitlines()]
    heads = ["user", "requests", "errors", "p50 ms", "p95 ms", "tokens in", "cached", "tokens out", "cost $"]
    assert lines[0] == [*heads, "rated", "rated well"]
    assert lines[2] == ["jane", "3", "1", "20", "30", "24", "9", "6", "0.750000", "33%", "100%"]
    assert note.splitlines() == [
        "mlflow-middleware traces: 1 traces with tokens have no cost: MLflow knows no price for their models"
    ]
    assert (row["name"], row["cost"], row["total_tokens"], row["unpriced"]) == ("jane", 0.75, 30, 1)


@contextmanager
def pages_of(size: int) -> Iterator[None]:
    """Make the server return this many traces per page."""
    before, traces.PAGE = traces.PAGE, size
    try:
        yield
    finally:
        traces.PAGE = before


def test_a_limit_is_reported(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    """The newest traces are counted, page by page; a limit equal to their number is not reported."""
    for number in range(5):
        put(store, f"user-{number}", "gpt-4o", cost=1.0)

    with pages_of(2):
        cut = traces.summary(by="user", experiment=store.experiment, limit=4)
        whole = traces.summary(by="user", experiment=store.experiment, limit=5)
        assert main(["traces", "--experiment", store.experiment, "--summary", "--by", "user", "--limit", "4"]) == 0

    assert (cut.traces, cut.is_cut, sorted(row.name for row in cut.rows)) == (
        4,
        True,
        [f"user-{n}" for n in range(1, 5)],
    )
    assert (whole.traces, whole.is_cut) == (5, False)
    assert "only the newest 4 traces were read" in capsys.readouterr().err


@pytest.mark.parametrize("by", ["users", "tag:", "", "route:x"])
def test_an_unknown_grouping(by: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It is reported before any server is called."""
    with pytest.raises(ValueError, match="by must be route, user, session, model or tag:NAME"):
        traces.summary(by=by)
    with pytest.raises(SystemExit, match="2"):
        main(["traces", "--summary", "--by", by])
    assert "write user, session, model, route or tag:NAME" in capsys.readouterr().err


def test_a_grouping_needs_a_summary(capsys: pytest.CaptureFixture[str]) -> None:
    """Otherwise it would be ignored."""
    with pytest.raises(SystemExit, match="2"):
        main(["traces", "--by", "user"])
    assert "--by needs --summary" in capsys.readouterr().err


def test_the_example_prints_costs(store: Store) -> None:
    """``examples/costs.py``, run as by a user."""
    fill(store)

    done = subprocess.run(
        [sys.executable, "examples/costs.py"],
        env=clean_environment(MLFLOW_TRACKING_URI=store.uri, MLFLOW_EXPERIMENT_NAME=store.experiment),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.stderr == ""
    assert done.stdout.splitlines()[:2] == ["user jane 3 30 0.75", "user joe 1 0 None"]
    assert "tag:plan pro 2 20 0.75" in done.stdout

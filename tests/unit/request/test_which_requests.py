"""Which requests have a trace, as far as this can be tested without a server."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import pytest
from mlflow.entities import Trace

from mlflow_middleware._internal.route_options import PER_ROUTE
from mlflow_middleware.asgi import TraceMiddleware
from mlflow_middleware.capture.genai import is_model_traffic
from mlflow_middleware.delivery.encoded import EncodedTrace
from mlflow_middleware.delivery.experiments import Experiments
from mlflow_middleware.delivery.spool import Spool
from mlflow_middleware.delivery.stats import Stats
from mlflow_middleware.exchange import Exchange
from mlflow_middleware.request import routes
from mlflow_middleware.request_trace import RequestTrace, drop_trace, keep_trace
from mlflow_middleware.settings import Settings, SettingsError
from tests.messages import body, http, start
from tests.servers import ROOT
from tests.unit.serving import Serving, root_of


@pytest.mark.parametrize(
    ("options", "method", "path", "reason"),
    [
        ({}, "GET", "/x", ""),
        ({}, "HEAD", "/x", "head"),
        ({}, "GET", "/health", "excluded"),
        ({}, "HEAD", "/health", "excluded"),
        ({}, "GET", "/openapi.json", "docs"),
        ({}, "GET", "/api/v1/openapi.json", "docs"),
        ({}, "POST", "/openapi.json", ""),
        ({}, "GET", "/docs", ""),  # known at the end of the request
        ({"include": "head"}, "HEAD", "/x", ""),
        ({"include": ["docs"]}, "GET", "/openapi.json", ""),
        ({"include": ["GET /openapi.json"]}, "GET", "/openapi.json", ""),
        ({"include": ["/health"]}, "GET", "/health", ""),
        ({"include": ["POST /health"]}, "GET", "/health", "excluded"),
        ({"include": "default"}, "HEAD", "/health", ""),
        ({"exclude": "*", "include": "/api/*"}, "GET", "/api/x", ""),
        ({"exclude": "*", "include": "/api/*"}, "GET", "/x", "excluded"),
        ({"exclude": []}, "HEAD", "/openapi.json", ""),
        ({"exclude": ["default", "POST /x"]}, "POST", "/x", "excluded"),
    ],
)
def test_the_reason_why_a_request_is_not_traced(options: dict[str, Any], method: str, path: str, reason: str) -> None:
    """It is counted under that reason; `include` beats `exclude`."""
    assert Settings.load(**options).reason_to_exclude(path, method, {}) == reason


@pytest.mark.parametrize(
    ("options", "method", "path", "is_one"),
    [
        ({}, "GET", "/docs", True),
        ({}, "GET", "/api/docs/", True),
        ({}, "GET", "/redoc", True),
        ({}, "POST", "/docs", False),
        ({}, "GET", "/docs/1", False),
        ({"include": "docs"}, "GET", "/docs", False),
        ({"include": "GET /docs"}, "GET", "/docs", False),
        ({"exclude": "head"}, "GET", "/docs", False),
    ],
)
def test_pages_of_documentation(options: dict[str, Any], method: str, path: str, is_one: bool) -> None:
    """By their usual paths."""
    assert Settings.load(**options).exclusions.is_page(path, method) is is_one


@pytest.mark.parametrize(
    ("kind", "is_kept"), [(b"text/html; charset=utf-8", False), (b"text/html", False), (b"application/json", True)]
)
async def test_an_apps_own_documents_are_traced(traces: list[Trace], kind: bytes, is_kept: bool) -> None:
    """A file that is no page does not belong to the API's documentation."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start(200, (b"content-type", kind)))
        await send(body(b"{}"))

    await Serving(TraceMiddleware(app), http("/docs")).end()

    assert len(traces) == is_kept


ROUTER = SimpleNamespace(routes=[])


@pytest.mark.parametrize(
    ("request_", "is_so"),
    [
        ({"type": "http", "path": "/x"}, False),  # an app that reports no routes
        ({"type": "http", "path": "/x", "router": ROUTER}, True),
        ({"type": "http", "path": "/x", "router": ROUTER, "endpoint": test_pages_of_documentation}, False),
        ({"type": "http", "path": "/x", "router": ROUTER, "endpoint": ROUTER, "app_root_path": ""}, True),
        ({"type": "http", "path": "/x", "router": ROUTER, "route": ROUTER}, False),  # Lilya's include of any app
        ({"type": "http", "path": "/x", "router": ROUTER, "path_template": "/x"}, False),
        ({"REQUEST_METHOD": "GET"}, False),
        ({"werkzeug.request": SimpleNamespace(routing_exception=None)}, False),
        ({"werkzeug.request": SimpleNamespace(routing_exception=SimpleNamespace(code=404))}, True),
        ({"werkzeug.request": SimpleNamespace(routing_exception=SimpleNamespace(code=405))}, False),
        (SimpleNamespace(resolver_match=None), True),
        (SimpleNamespace(resolver_match=ROUTER), False),
        (object(), False),
    ],
)
def test_an_unrouted_request(request_: Any, is_so: bool) -> None:
    """Only if the framework reports its routes."""
    assert routes.none_took(request_) is is_so


@pytest.mark.parametrize(
    ("path", "is_kept"),
    [("/files/none", True), ("/app/x", True), ("/app/in/x", True), ("/sub/x", True), ("/sub/y", False)],
)
async def test_a_404_of_a_mounted_app_is_traced(traces: list[Trace], tmp_path: Path, path: str, is_kept: bool) -> None:
    """Whatever the app is; the framework's own 404 below a mount is not."""
    pytest.importorskip("starlette", reason="starlette is not installed in this environment")
    from starlette.applications import Starlette
    from starlette.responses import Response
    from starlette.routing import Mount, Route
    from starlette.staticfiles import StaticFiles

    async def own(scope: Any, receive: Any, send: Any) -> None:
        await send(start(404))
        await send(body())

    inner = [Route("/x", lambda _: Response(status_code=404))]
    mounts = [Mount("/files", StaticFiles(directory=tmp_path)), Mount("/app", own), Mount("/sub", routes=inner)]

    await Serving(TraceMiddleware(Starlette(routes=mounts)), http(path)).end()

    assert len(traces) == is_kept


@pytest.mark.parametrize("kept_by", ["nothing", "span", "exception", "status", "word", "app"])
async def test_a_404_without_a_route_may_be_kept(traces: list[Trace], kept_by: str) -> None:
    """By a span inside, an error, `include`, or the app."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["router"] = ROUTER
        if kept_by == "span":
            with mlflow.start_span("inside"):
                pass
        if kept_by == "app":
            keep_trace()
        await send(start(404))
        await send(body())
        if kept_by == "exception":
            raise RuntimeError("afterwards")

    options: dict[str, Any] = {"status": {"error_statuses": "404"}, "word": {"include": "unrouted"}}.get(kept_by, {})
    serving = Serving(TraceMiddleware(app, **options), http())
    if kept_by == "exception":
        with pytest.raises(RuntimeError):
            await serving.end()
    else:
        await serving.end()

    assert len(traces) == (kept_by != "nothing")


@pytest.mark.parametrize("path", ["/x", "/docs"])
async def test_an_error_by_error_when_is_kept(traces: list[Trace], path: str) -> None:
    """Although similar requests are left out."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["router"] = ROUTER
        await send(start(200 if path == "/docs" else 404, (b"content-type", b"text/html")))
        await send(body(b"<p>broken</p>"))

    middleware = TraceMiddleware(app, error_when=[lambda exchange: "broken" in str(exchange.outputs)])
    await Serving(middleware, http(path)).end()

    assert [trace.info.state.value for trace in traces] == ["ERROR"]


@pytest.mark.parametrize("ratio", [0.0, 1.0])
@pytest.mark.parametrize(("decisions", "is_kept"), [((drop_trace,), False), ((keep_trace,), True)])
async def test_the_app_decides(traces: list[Trace], ratio: float, decisions: tuple[Any, ...], is_kept: bool) -> None:
    """With any ratio; the last call counts, and the answer of a dropped request has no trace id."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with mlflow.start_span("inside"):
            for decide in decisions:
                decide()
        await send(start())
        await send(body())

    sent: list[Any] = await Serving(TraceMiddleware(app, sample_ratio=ratio), http()).end()

    assert len(traces) == is_kept
    assert (b"x-mlflow-trace-id" in dict(sent[0]["headers"])) is is_kept


# --- a model's traffic ---

MESSAGES = [{"role": "user", "content": "Why?"}]


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ({"messages": MESSAGES}, None),
        ({"input": MESSAGES}, None),
        ({"input": {"messages": [{"type": "human", "content": "Why?"}]}}, None),
        ({"inputs": {"messages": MESSAGES}}, {"predictions": ["Because."]}),
        ({"id": "c-1", "message": {"role": "user", "parts": [{"type": "text", "text": "Why?"}]}}, "Because."),
        ({"model": "m", "input": "Why?"}, None),
        ({"contents": [{"parts": [{"text": "Why?"}]}]}, None),
        ({"content": {"parts": [{"text": "Why?"}]}}, {"embedding": {"values": [0.1]}}),
        ({"requests": [{"model": "m", "content": {"parts": [{"text": "Why?"}]}}]}, None),
        ({"prompt": "Why?"}, None),
        ({"inputText": "Why?"}, None),
        ('{"model": "m", "messages": [{"role": "user", "content": "Wh', None),
        (None, {"choices": [{"message": {"content": "So."}}]}),
        (None, {"candidates": [{"content": {"parts": []}}]}),
        (None, {"type": "message", "role": "assistant", "content": [{"type": "text", "text": "So."}]}),
        (None, {"output": [{"type": "message", "role": "assistant", "content": []}]}),
        (None, {"output": {"message": {"role": "assistant", "content": [{"text": "So."}]}}}),
        (None, {"model": "m", "message": {"role": "assistant", "content": "So."}, "done": True}),
        (None, {"model": "m", "response": "So.", "done": True}),
        (None, {"object": "list", "data": [{"embedding": [0.1]}]}),
        (None, [{"choices": [{"delta": {"content": "So."}}]}]),
    ],
)
def test_traffic_of_a_model(inputs: Any, outputs: Any) -> None:
    """The request or the answer shows it."""
    assert is_model_traffic(inputs, outputs)


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        [],
        {"messages": ["hello"]},
        {"messages": [{"from": "jane", "text": "hello"}]},
        {"users": [{"role": "admin", "name": "jane"}]},
        {"role": "admin", "content": "page"},
        {"model": "T", "make": "Ford"},
        {"input": "x"},
        {"choices": ["red", "green"]},
        {"candidates": [{"name": "jane"}]},
        {"data": [{"id": 1}]},
        {"output": "done"},
        {"contents": ["a"]},
        [1, 2, 3],
        "role: user",
        3,
    ],
)
def test_other_traffic(value: Any) -> None:
    """It has similar words."""
    assert not is_model_traffic(value, value)


# --- options of routes ---


def test_options_of_routes_override_those_of_the_app() -> None:
    """In order; requests without a matching route use the app's own settings, and equal ones share theirs."""
    settings = Settings.load(
        tags={"team": "core"},
        routes={
            "/api/*": {"sample_ratio": 0.5, "tags": {"area": "api"}},
            "POST /api/chats/{chat_id}": {"sample_ratio": 1, "tags": {"area": "chats"}, "privacy": "strict"},
        },
    )
    of = settings.of_routes.of

    assert of("GET", "/x") is settings
    assert (of("GET", "/api/x").sample_ratio, of("GET", "/api/x").trace_tags) == (0.5, {"team": "core", "area": "api"})
    chat = of("POST", "/api/chats/1")
    assert (chat.sample_ratio, chat.tags, chat.capture_request_body) == (1, {"team": "core", "area": "chats"}, False)
    assert of("POST", "/api/chats/2") is chat
    assert of("POST", "/api/chats/latest", "/api/chats/latest").sample_ratio == 0.5  # another route matched it
    assert of("POST", "/api/chats/3", "/api/chats/{chat_id}") is chat
    assert of("POST", "/v1/api/chats/3", "/api/chats/{chat_id}").privacy == "strict"


def test_a_template_may_end_as_a_glob() -> None:
    """It matches everything below; a similar route is another's own."""
    of = Settings.load(routes={"/users/{user}/*": {"keep": "genai"}}).of_routes.of

    assert [of("GET", path).keep for path in ("/users/1/chats/2", "/users/1", "/users")] == ["genai", "all", "all"]
    assert of("GET", "/users/1/chats/2", "/users/{user}/chats/{chat}").keep == "genai"
    assert of("GET", "/", r"^users/(?P<user>\d*)/$").keep == "all"


def test_a_route_cannot_weaken_its_apps_privacy() -> None:
    """The app's options apply to it; users stay pseudonyms, and only its own explicit options change anything."""
    settings = Settings.load(
        privacy="strict",
        capture_response_body=False,
        capture_headers="X-Plan",
        routes={"/open": {"privacy": "default"}, "/strict": {"capture_request_body": True}},
    )
    lenient, strict = (settings.of_routes.of("GET", path) for path in ("/open", "/strict"))

    assert (lenient.keeping("/open").inputs, lenient.keeping("/open").outputs) == (True, False)
    assert (lenient.client_address, lenient.capture_headers, lenient.capture_user_agent) == ("full", ("X-Plan",), True)
    assert lenient.hmac_key == settings.hmac_key is not None
    assert (strict.keeping("/strict").inputs, strict.client_address) == (False, "none")


def test_the_docs_name_all_options_of_routes() -> None:
    """And no others."""
    text = (ROOT / "docs" / "which-requests.md").read_text()
    named = text.partition("An entry can have\n")[2].partition("<!-- end -->")[0].partition("-->")[2]
    assert tuple(re.findall(r"`(\w+)`", named)) == PER_ROUTE


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"/x": {"sampel_ratio": 1}}, "'/x': unknown option 'sampel_ratio' (did you mean 'sample_ratio'?)"),
        (
            {"/x": {"spool_dir": "/tmp"}},
            "'/x': option 'spool_dir' applies to the whole app and cannot be set for a route",
        ),
        ({"/x": {"keep": "some"}}, "'/x': option 'keep': input should be 'all' or 'genai', not 'some'"),
        ({"x": {}}, "'x' must be a path or a template"),
        ({"/a/*/{id}": {}}, "'/a/*/{id}' has parameters, so that '*' is allowed at its end only"),
        ({"/x": 1}, "'/x' must have a mapping of options, not 1"),
        ("/x", "must be JSON"),
    ],
)
def test_a_wrong_route_is_an_error(given: Any, said: str) -> None:
    """It names the option, the route, the value and the allowed values."""
    with pytest.raises(SettingsError) as error:
        Settings.load(routes=given)

    assert "option 'routes'" in str(error.value)
    assert said in str(error.value)


async def test_the_matched_route_decides_in_the_end(traces: list[Trace]) -> None:
    """If two templates match the path, that of the route counts: requests that it excludes are not stored."""

    class Routed(TraceMiddleware):
        def route(self, scope: Any) -> str:
            return "/chats/latest"

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(start())
        await send(body(b"answer"))

    rules = {"/chats/{id}": {"tags": {"by": "id"}}, "/chats/latest": {"capture_request_body": False}}
    message: Any = {"type": "http.request", "body": b"question"}
    await Serving(Routed(app, routes=rules), http("/chats/latest", method="POST"), message).end()

    (trace,) = traces
    assert "by" not in trace.info.tags
    assert root_of(trace).inputs is None
    assert root_of(trace).attributes["http.request.body.size"] == 8


# --- destinations and counts ---


def test_experiments_by_name() -> None:
    """Each is looked up once; the traces of an unusable one go to that of the environment."""
    experiments = Experiments(has_any=True)
    question = experiments.question("search", is_needed=True)
    assert question is not None
    assert question.name == "search"
    question.experiment_id = "7"
    experiments.answered(question)
    assert experiments.question("search", is_needed=True) is None
    assert (experiments.id_of("search"), experiments.id_of("8")) == ("7", "8")
    assert experiments.question("8", is_needed=True) is None

    experiments.give_up("deleted", "it is deleted")
    question = experiments.question("deleted", is_needed=True)
    assert question is not None
    assert question.name == ""
    question.experiment_id = "0"
    experiments.answered(question)
    assert experiments.question("deleted", is_needed=True) is None
    assert experiments.id_of("deleted") == experiments.id_of(None) == "0"


def test_the_spool_keeps_the_name_of_an_experiment(tmp_path: Path) -> None:
    """With any characters; its id is looked up when the file is sent."""
    name = "/Users/jane@shop.example/chats"
    spool = Spool(tmp_path, 1_000_000)
    spool.write([EncodedTrace("tr-1", name, b"", b"{}")])
    file = spool.claim()

    assert file is not None
    assert [trace.experiment_id for trace in file.traces] == [name]
    file.release()


@pytest.mark.parametrize(
    ("sent", "is_kept"), [(b'{"messages": [{"role": "user", "content": "hi"}]}', True), (b"{}", False)]
)
def test_a_models_traffic_is_recognized_before_redaction(traces: list[Trace], sent: bytes, is_kept: bool) -> None:
    """Original bodies are searched: that also takes a small part of the time of a search for secrets."""
    trace = RequestTrace.open(
        Exchange("POST", "/ask", {"content-type": "application/json"}),
        Settings.load(keep="genai", redact=["default", "messages"]),
    )
    trace.received(sent)
    trace.response_started(200, "application/json")
    trace.sent(b"{}")
    trace.finish()

    assert bool(traces) is is_kept
    assert not is_kept or root_of(traces[0]).inputs == {"messages": "[redacted]"}


@pytest.mark.parametrize(("file", "is_kept"), [("call.mp3", True), ("golf.jpg", False)])
def test_a_form_with_audio_is_a_models_traffic(traces: list[Trace], file: str, is_kept: bool) -> None:
    """With any other file, the form is not: the field ``model`` may be a product's."""
    trace = RequestTrace.open(
        Exchange("POST", "/files", {"content-type": "multipart/form-data; boundary=b"}), Settings.load(keep="genai")
    )
    field = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n'
    trace.received(field + b'--b\r\nContent-Disposition: form-data; name="file"; filename="%b"' % file.encode())
    trace.received(b"\r\nContent-Type: application/octet-stream\r\n\r\nID3\r\n--b--\r\n")
    trace.response_started(200, "text/plain")
    trace.sent(b"Hello")
    trace.finish()

    assert bool(traces) is is_kept


def test_a_collector_is_not_asked_for_experiments() -> None:
    """It has none."""
    assert Experiments(has_any=False).question("search", is_needed=True) is None


def test_excluded_requests_are_counted_by_reason() -> None:
    """Requests that were sampled out have their own count, too."""
    stats = Stats()
    for reason in ("head", "head", "dropped_by_app", "sampled_out"):
        stats.leave_out(reason)

    assert stats.left_out == {"head": 2, "dropped_by_app": 1, "sampled_out": 1}
    assert stats.sampled_out == 1
    assert "1 sampled out, 3 left out (2 head, 1 dropped by app)" in str(stats)

"""Which requests have a trace: default exclusions, `include`, `keep`, `routes`, and the app's decisions."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests
from mlflow.entities import Trace

from tests.apps.launch import connected, refusal, running
from tests.conftest import RunningApp, Traces
from tests.servers import MLflowServer

pytestmark = pytest.mark.once

TARGETS = {
    "fastapi": "tests.apps.deserving_fastapi:app",
    "flask": "tests.apps.deserving_flask:app",
    "django-wsgi": "tests.apps.deserving_django:wsgi",
    "django-asgi": "tests.apps.deserving_django:asgi",
}
TEMPLATES = {"fastapi": "{item}", "flask": "<item>", "django-wsgi": "<str:item>", "django-asgi": "<str:item>"}
CHAT = b'{"messages": [{"role": "user", "content": "Why?"}]}'
PREFLIGHT = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}


@pytest.fixture(params=TARGETS)
def name(request: pytest.FixtureRequest) -> str:
    """Each framework in turn."""
    package = str(request.param).partition("-")[0]
    pytest.importorskip(package, reason=f"{package} is not installed in this environment")
    return str(request.param)


def experiment(uri: str) -> str:
    """The id of a new experiment."""
    created = requests.post(f"{uri}/api/2.0/mlflow/experiments/create", json={"name": uuid.uuid4().hex}, timeout=60)
    return str(created.json()["experiment_id"])


class Deserving:
    """A running app, and the stored traces of its requests.

    Args:
        app: The app.
        other: The id of the other experiment that it knows.
    """

    def __init__(self, app: RunningApp, other: str) -> None:
        self.app = app
        self.other = other
        self._batch = uuid.uuid4().hex[:16]  # longer ids are tags only
        self._before = self._counts()

    def ask(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> requests.Response:
        """Send a request, which is identified by its path."""
        known = {"X-Request-ID": f"{self._batch}-{method} {path}".replace(" ", "-"), "Content-Type": "application/json"}
        return requests.request(method, self.app.url + path, data=body, headers=known | (headers or {}), timeout=60)

    def stored(self, *expected: str, experiment: str = "") -> dict[str, Trace]:
        """Return the stored traces once that of a last request is there: exactly the expected ones."""
        self.ask("POST", "/do/span")
        traces = self.app.traces if not experiment else Traces(self.app.traces.uri, experiment)
        if not experiment:
            traces.one(f"{self._batch}-POST-/do/span")
        found = traces.wait(f"tags.client_request_id LIKE '{self._batch}-%'", len(expected) + (not experiment))
        by_name = {str(trace.info.client_request_id).removeprefix(f"{self._batch}-"): trace for trace in found}
        by_name.pop("POST-/do/span", None)
        assert sorted(by_name) == sorted(each.replace(" ", "-") for each in expected)
        return {each: by_name[each.replace(" ", "-")] for each in expected}

    def left_out(self) -> dict[str, int]:
        """Return the counts of `delivery.stats()` since the app has started: until then, its health was requested."""
        counts = {reason: count - self._before.get(reason, 0) for reason, count in self._counts().items()}
        return {reason: count for reason, count in counts.items() if count}

    def _counts(self) -> dict[str, int]:
        counts: dict[str, int] = requests.get(f"{self.app.url}/left-out", timeout=60).json()
        return counts


@pytest.fixture
def start(name: str, server: MLflowServer, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Starts the app with options."""
    with ExitStack() as stack:

        def begin(**options: object) -> Deserving:
            traces, other = Traces(server.uri, f"deserving-{uuid.uuid4().hex}"), experiment(server.uri)
            variables = {
                **connected(traces, server.uri),
                "APP_OPTIONS": json.dumps(options),
                "APP_OTHER_EXPERIMENT": other,
                "MLFLOW_MIDDLEWARE_INCLUDE": "",
            }
            app = stack.enter_context(running(name, TARGETS[name], tmp_path, traces, **variables))
            return Deserving(app, other)

        yield begin


def test_the_default_exclusions(name: str, start: Callable[..., Deserving]) -> None:
    """Preflights, HEAD, documentation, probes, and unrouted paths; each is counted, and nothing else is missing."""
    deserving = start()
    ids = deserving.ask("GET", "/items/i-1").headers
    assert "X-MLflow-Trace-ID" in ids
    deserving.ask("OPTIONS", "/do/plain", headers=PREFLIGHT)
    assert "X-MLflow-Trace-ID" not in deserving.ask("HEAD", "/items/i-1").headers
    deserving.ask("GET", "/health")
    for path in ("/wp-login.php", "/do", "/health/x"):
        assert deserving.ask("GET", path).status_code == 404
    deserving.ask("POST", "/do/plain", b"{}")
    deserving.ask("POST", "/sync/drop", b"{}")
    deserving.ask("POST", "/do/keep", b"{}")
    pages = ["/docs", "/redoc", "/openapi.json", "/docs/oauth2-redirect"] if name == "fastapi" else ["/openapi.json"]
    for path in pages:
        deserving.ask("GET", path)
    mounted = ["/mounted/items/i-2", "/mounted/nothing", "/mounted/docs"] if name == "fastapi" else []
    for path in mounted:
        deserving.ask("GET", path)

    expected = {
        "preflight": 1,
        "head": 1,
        "excluded": 1,
        "unrouted": 3 + (name == "fastapi"),
        "docs": len(pages) + (name == "fastapi"),
        "dropped_by_app": 1,
    }
    assert deserving.left_out() == expected
    stored = ["GET /items/i-1", "POST /do/plain", "POST /do/keep"]
    traces = deserving.stored(*stored, *mounted_ones(name))
    assert [span.name for span in traces["POST /do/keep"].data.spans] == [f"POST {template(name, '/do/', 'what')}"]


def mounted_ones(name: str) -> list[str]:
    """Return the stored traces of requests to a mounted app."""
    return ["GET /mounted/items/i-2"] if name == "fastapi" else []


def template(name: str, prefix: str, parameter: str) -> str:
    """Return a route's template in the framework's syntax."""
    return prefix + TEMPLATES[name].replace("item", parameter)


def test_include_switches_each_back_on(start: Callable[..., Deserving]) -> None:
    """By name, and by path."""
    deserving = start(include=["head", "docs", "unrouted", "preflight", "/health"])
    asked = [("HEAD", "/items/i-1"), ("GET", "/openapi.json"), ("GET", "/nothing"), ("GET", "/health")]
    for method, path in asked:
        deserving.ask(method, path)
    deserving.ask("OPTIONS", "/do/plain", headers=PREFLIGHT)

    deserving.stored(*(f"{method} {path}" for method, path in asked), "OPTIONS /do/plain")


def test_only_a_models_traffic_is_kept(start: Callable[..., Deserving]) -> None:
    """With ``keep="genai"``: spans, bodies of a chat, errors, and requests that the app keeps."""
    deserving = start(keep="genai")
    deserving.ask("POST", "/do/plain", b'{"amount": 3}')
    deserving.ask("GET", "/items/i-1")
    deserving.ask("POST", "/do/chat", CHAT)
    deserving.ask("POST", "/do/fail", b"{}")
    deserving.ask("POST", "/sync/keep", b"{}")

    assert deserving.left_out() == {"not_genai": 3}  # one to read the counts of requests that were left out
    stored = deserving.stored("POST /do/chat", "POST /do/fail", "POST /sync/keep")
    (root,) = stored["POST /do/chat"].data.spans
    assert root.inputs == json.loads(CHAT)


def test_options_of_routes(name: str, start: Callable[..., Deserving]) -> None:
    """By glob and by template, with and without a method."""
    searches = f"searches-{uuid.uuid4().hex}"
    deserving = start(
        tags={"team": "core"},
        routes={
            "POST /do/pl*": {"sample_ratio": 0},
            "GET /do/span": {"sample_ratio": 0},
            "/do/search": {"experiment": searches, "tags": {"area": "search"}, "capture_response_body": False},
            template(name, "/items/", "item"): {
                "span_type": "AGENT",
                "tags": {"area": "items"},
                "capture_headers": "X-A",
            },
            template(name, "/sync/", "what"): {"capture_request_body": False},
        },
    )
    deserving.ask("POST", "/do/plain", b"{}")
    deserving.ask("POST", "/do/search", CHAT)
    deserving.ask("GET", "/items/i-1", headers={"X-A": "1"})
    deserving.ask("POST", "/sync/chat", CHAT)

    assert deserving.left_out() == {"sampled_out": 1}
    stored = deserving.stored("GET /items/i-1", "POST /sync/chat")
    item, chat = stored["GET /items/i-1"], stored["POST /sync/chat"]
    assert item.data.spans[0].span_type == "AGENT"
    assert item.data.spans[0].attributes["http.request.header.x-a"] == ["1"]
    assert item.info.tags.items() >= {"team": "core", "area": "items"}.items()
    assert chat.data.spans[0].span_type == "CHAIN"
    assert (chat.data.spans[0].inputs, chat.data.spans[0].outputs) == (None, {"done": "chat"})
    (search,) = deserving.stored("POST /do/search", experiment=searches).values()
    assert (search.data.spans[0].inputs, search.data.spans[0].outputs) == (json.loads(CHAT), None)
    assert search.info.tags.items() >= {"team": "core", "area": "search"}.items()


def test_the_experiment_that_a_handler_chooses(start: Callable[..., Deserving]) -> None:
    """By MLflow's own functions, in the event loop and in a thread; the next request uses its own again."""
    deserving = start()
    chosen = [f"POST /{kind}/{what}" for kind in ("do", "sync") for what in ("destination", "decorated")]
    for each in chosen:
        deserving.ask("POST", each.removeprefix("POST "), b"{}")
    deserving.ask("POST", "/do/plain", b"{}")

    deserving.stored("POST /do/plain")
    answer = requests.get(
        f"{deserving.app.traces.uri}/api/2.0/mlflow/experiments/get",
        params={"experiment_id": deserving.other},
        timeout=60,
    )
    deserving.stored(*chosen, experiment=answer.json()["experiment"]["name"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("routes", "said"),
    [
        ({"POST /search": {"sampel_ratio": 0.1}}, "'POST /search': unknown option 'sampel_ratio' (did you mean"),
        ({"/search": {"max_queue_bytes": 1}}, "'/search': option 'max_queue_bytes' applies to the whole app"),
        ({"/search": {"sample_ratio": 2}}, "'/search': option 'sample_ratio': input should be less than or equal to 1"),
    ],
)
def test_a_wrong_option_of_a_route_stops_the_app(name: str, routes: dict[str, object], said: str) -> None:
    """With the framework's own error, which names the route, the option and the allowed values."""
    like = name.replace("asgi", "wsgi")
    assert said in refusal(like, MLFLOW_MIDDLEWARE_ROUTES=json.dumps(routes))


def test_the_example(server: MLflowServer, tmp_path: Path) -> None:
    """``examples/which_requests_app.py`` works as documented."""
    pytest.importorskip("fastapi", reason="fastapi is not installed in this environment")
    traces = Traces(server.uri, f"example-{uuid.uuid4().hex}")
    with running(
        "fastapi", "examples.which_requests_app:app", tmp_path, traces, **connected(traces, server.uri)
    ) as app:
        assert "X-MLflow-Trace-ID" not in app.post("/tools/ping", b"{}", x_request_id="1").headers
        app.post("/tools/hammer", b"{}", x_request_id="2")
        app.post("/agents/writer", b"{}", x_request_id="3")
        stored = {trace.info.client_request_id: trace for trace in app.traces.wait("trace.status = 'OK'", 2)}

    assert sorted(stored) == ["2", "3"]
    assert stored["3"].data.spans[0].span_type == "AGENT"
    assert stored["3"].info.tags["kind"] == "agent"

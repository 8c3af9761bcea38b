"""The metrics of delivery: the same through OpenTelemetry, in Prometheus' text format and through prometheus_client."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.registry import CollectorRegistry

from mlflow_middleware import metrics
from mlflow_middleware.metrics import METRICS, Collector, prometheus_text
from tests.conftest import Traces
from tests.faults import FaultyServer, faulty
from tests.servers import DEADLINE, ROOT, MLflowServer, clean_environment, eventually, free_port, serving

PREFIX = "mlflow_middleware_"
parse_openmetrics: Callable[[str], Iterable[Metric]] = openmetrics_parser.text_string_to_metric_families
NAMES = {metric.prometheus_name for metric in METRICS}
GRAFANA = ROOT / "examples" / "grafana"
OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
"""The ``Accept`` header of Prometheus."""

EXAMPLES = {
    "fastapi": ("uvicorn", "metrics_fastapi:app"),
    "flask": ("gunicorn", "metrics_flask:app"),
    "django": ("gunicorn", "metrics_django:application"),
    "beside": ("gunicorn", "metrics_beside:app"),
    "opentelemetry": ("uvicorn", "metrics_opentelemetry:app"),
}


Values = dict[tuple[str, str], float]


def when(url: str, what: str, **expected: float) -> Values:
    """Scrape until these have these values: a client has its answer before its trace is queued, and the counts are read
    one by one.
    """

    def scraped() -> Values | None:
        values = shown(url)
        return values if all(values.get((name, "")) == value for name, value in expected.items()) else None

    return eventually(scraped, what)


@contextmanager
def example(name: str, folder: Path, **variables: str) -> Iterator[str]:
    """Serve an example; yields its address."""
    if name in ("fastapi", "flask", "django") and importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed in this environment")
    server, app = EXAMPLES[name]
    port = free_port()
    where = {"uvicorn": ["--port", str(port)], "gunicorn": ["--bind", f"127.0.0.1:{port}"]}[server]
    command = [sys.executable, "-m", server, *where, f"examples.{app}"]
    with serving(command, clean_environment(**variables), folder / "log", port) as (_, url):
        yield url


def shown(url: str, accept: str = OPENMETRICS) -> dict[tuple[str, str], float]:
    """Return our metrics in a scrape: name and reason -> value. There is one process, and one destination."""
    answer = requests.get(f"{url}/metrics", headers={"Accept": accept}, timeout=DEADLINE)
    assert answer.status_code == 200
    is_open = answer.headers["Content-Type"].startswith("application/openmetrics-text")
    assert is_open or answer.headers["Content-Type"].startswith("text/plain")
    return samples((parse_openmetrics if is_open else parse_text)(answer.text))


def samples(families: Iterable[Metric]) -> dict[tuple[str, str], float]:
    """Return name and reason -> value."""
    found = [each for family in families for each in family.samples if each.name.startswith(PREFIX)]
    assert {each.labels["destination"] for each in found} == {"mlflow"}
    assert len({each.labels["pid"] for each in found}) == 1
    values = {(each.name.removeprefix(PREFIX), each.labels.get("reason", "")): each.value for each in found}
    assert len(values) == len(found)
    return values


@pytest.fixture
def proxy(server: MLflowServer) -> Iterator[FaultyServer]:
    """The stand-in in front of the server, which fails on demand."""
    with faulty(server.uri) as running:
        yield running


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_show_the_outcome_of_a_trace(
    name: str, server: MLflowServer, tmp_path: Path, request_id: str
) -> None:
    """In both formats; a scrape itself makes no trace."""
    with example(name, tmp_path, MLFLOW_TRACKING_URI=server.uri, MLFLOW_EXPERIMENT_NAME=request_id) as url:
        began = time.time()
        requests.get(f"{url}/chats/c-1", headers={"X-Request-ID": request_id}, timeout=DEADLINE)
        values = when(url, "the delivery", traces_delivered_total=1, traces_waiting=0, oldest_trace_age_seconds=0)

        assert began <= values["last_delivery_timestamp_seconds", ""] <= time.time()
        assert values["traces_dropped_total", "queue full"] == 0
        assert values.keys() == shown(url, "text/plain").keys()
        assert len(Traces(server.uri, request_id).search(spans=False)) == 1


def test_a_route_elsewhere_makes_no_trace_either(server: MLflowServer, tmp_path: Path, request_id: str) -> None:
    """Also at a path that ``exclude`` does not contain."""
    pytest.importorskip("fastapi")
    variables = {"MLFLOW_TRACKING_URI": server.uri, "MLFLOW_EXPERIMENT_NAME": request_id}
    with example("fastapi", tmp_path, **variables, MLFLOW_MIDDLEWARE_EXCLUDE="/health") as url:
        requests.get(f"{url}/metrics", timeout=DEADLINE)
        requests.get(f"{url}/chats/c-1", headers={"X-Request-ID": request_id}, timeout=DEADLINE)

        Traces(server.uri, request_id).one(request_id)
        when(url, "one delivery", traces_delivered_total=1)


def test_an_outage_and_its_end_are_visible(proxy: FaultyServer, tmp_path: Path, request_id: str) -> None:
    """Pending traces, their age, and the server's failures by reason; then none."""
    proxy.mode = "500"
    variables = {"MLFLOW_TRACKING_URI": proxy.uri, "MLFLOW_EXPERIMENT_NAME": request_id}
    with example("opentelemetry", tmp_path, **variables) as url:
        for _ in range(3):
            requests.get(f"{url}/chats/c-1", timeout=DEADLINE)
        first = when(url, "a failure", server_failing=1, traces_waiting=3)
        assert first["queue_size_bytes", ""] > 0
        assert first["queue_limit_bytes", ""] == 64 * 1024 * 1024
        age = "oldest_trace_age_seconds", ""
        eventually(lambda: shown(url)[age] > max(first[age], 0.5), "the oldest growing older")
        assert sum(value for (name, _), value in shown(url).items() if name == "server_failures_total") > 0
        assert ("server_failures_total", "status 500") in shown(url)
        assert ("last_delivery_timestamp_seconds", "") not in shown(url)

        proxy.mode = "pass"
        well = {"traces_waiting": 0, "oldest_trace_age_seconds": 0, "queue_size_bytes": 0, "server_failing": 0}
        when(url, "the rest", traces_delivered_total=3, **well)


def test_a_full_queue_is_visible(tmp_path: Path, request_id: str) -> None:
    """With an unreachable server: dropped and pending traces."""
    variables = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{free_port()}", "MLFLOW_EXPERIMENT_NAME": request_id}
    with example("opentelemetry", tmp_path, **variables, MLFLOW_MIDDLEWARE_MAX_QUEUE_BYTES="65536") as url:
        for _ in range(50):
            requests.get(f"{url}/chats/c-1?of={os.urandom(2000).hex()}", timeout=DEADLINE)

        def accounted() -> bool:
            values = shown(url)
            return values["traces_dropped_total", "queue full"] + values["traces_waiting", ""] == 50

        eventually(accounted, "each of them being counted")
        values = shown(url)
        assert values["traces_dropped_total", "queue full"] > 0
        assert values["queue_size_bytes", ""] <= values["queue_limit_bytes", ""] == 65536


def test_a_spool_is_visible(tmp_path: Path, request_id: str) -> None:
    """With an unreachable server: its size and its age."""
    spool = tmp_path / "spool"
    variables = {
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{free_port()}",
        "MLFLOW_EXPERIMENT_NAME": request_id,
        "MLFLOW_MIDDLEWARE_SPOOL_DIR": str(spool),
    }
    with example("opentelemetry", tmp_path, **variables) as url:
        requests.get(f"{url}/chats/c-1", timeout=DEADLINE)
        values = eventually(lambda: now if (now := shown(url))["traces_spooled", ""] else None, "a file in the spool")
        assert values["spool_size_bytes", ""] == sum(file.stat().st_size for file in spool.glob("*.otlp"))
        assert values["spool_limit_bytes", ""] == 1024**3
        assert values["server_failures_total", "no connection"] > 0
        age = values["oldest_trace_age_seconds", ""]
        eventually(lambda: shown(url)["oldest_trace_age_seconds", ""] > age > 0, "the oldest growing older")


def test_opentelemetry_gets_the_same(server: MLflowServer, tmp_path: Path, request_id: str) -> None:
    """Exported by the app's own provider, in the SDK's JSON."""
    variables = {"MLFLOW_TRACKING_URI": server.uri, "MLFLOW_EXPERIMENT_NAME": request_id, "METRICS_EVERY_MS": "200"}
    with example("opentelemetry", tmp_path, **variables) as url:
        requests.get(f"{url}/chats/c-1", timeout=DEADLINE)

        def delivered() -> bool:
            log = (tmp_path / "log").read_text()
            points = re.findall(r'"name": "mlflow_middleware.traces.delivered".*?"value": (\d+)', log, re.DOTALL)
            return bool(points) and points[-1] == "1"

        eventually(delivered, "an exported delivery")


def test_all_formats_have_the_same_names() -> None:
    """Each name once, by the rules of Prometheus; OpenTelemetry's exporters convert its names to them."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    metrics.register(provider)
    metrics.register(provider)  # logs no warning, and registers nothing twice
    data: Any = json.loads(reader.get_metrics_data().to_json())  # type: ignore[union-attr]
    otel_metrics = {each["name"]: each for each in data["resource_metrics"][0]["scope_metrics"][0]["metrics"]}
    text = {family.name for family in parse_text(prometheus_text())}
    opened = {family.name for family in parse_openmetrics(prometheus_text(openmetrics=True))}
    registry = CollectorRegistry(auto_describe=True)
    registry.register(Collector())
    collected = {family.name for family in registry.collect()}
    absent = {"last_delivery.timestamp", "spool.size", "spool.limit"}  # nothing was delivered, and there is no spool

    assert otel_metrics.keys() == {each.name for each in METRICS} - {f"mlflow_middleware.{name}" for name in absent}
    assert text == opened == collected == {each.family for each in METRICS if each.name in otel_metrics}
    for metric in METRICS:
        assert re.fullmatch(r"mlflow_middleware(_[a-z]+)+", metric.prometheus_name)
        assert metric.prometheus_name.endswith("_total") == (metric.kind == "counter")
        assert metric.unit_word in metric.prometheus_name


def test_a_label_is_escaped() -> None:
    """A reason may be any text."""
    assert metrics._escaped('a\\b"c\nd') == 'a\\\\b\\"c\\nd'


@pytest.mark.once
def test_the_dashboard_queries_existing_metrics() -> None:
    """Names and labels in its queries exist, and each metric is in it. The same holds for the alerts on the page."""
    panels = json.loads((GRAFANA / "dashboard.json").read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    alerts = (GRAFANA / "alerts.yml").read_text()
    queries += re.findall(r"expr: (.+)", alerts)
    labels = {label for query in queries for group in re.findall(r"by \((.*?)\)", query) for label in group.split(", ")}

    assert set(re.findall(rf"{PREFIX}\w+", " ".join(queries))) == NAMES
    assert labels <= {"job", "instance", "pid", "destination", "reason"}
    assert alerts.split("\n", 1)[1] in (ROOT / "docs" / "metrics.md").read_text()
    assert all(f"`{name}`" in (ROOT / "docs" / "metrics.md").read_text() for name in NAMES)


def test_importing_needs_no_prometheus_client() -> None:
    """It does not have to be installed."""
    program = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "from mlflow_middleware import metrics; print(len(metrics.prometheus_text()) > 100)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)

    assert done.stdout == "True\n"

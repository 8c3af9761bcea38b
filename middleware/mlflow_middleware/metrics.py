"""Metrics of this process's traces and their delivery, for OpenTelemetry and Prometheus.

::

    from mlflow_middleware import metrics

    metrics.register()  # observable instruments on OpenTelemetry's global MeterProvider, or on a given one

    app.include_router(metrics_router())  # mlflow_middleware.fastapi: GET /metrics; Starlette: metrics_route()
    app.register_blueprint(metrics_blueprint())  # mlflow_middleware.flask
    path("metrics", metrics)  # mlflow_middleware.django.metrics
    prometheus_client.REGISTRY.register(metrics.Collector())  # next to your own metrics, on their route
    metrics.asgi_app, metrics.wsgi_app, metrics.prometheus_text()  # anything else

`METRICS` lists the names. Each series belongs to one process, which its label ``pid`` names. The values are read from
`mlflow_middleware.delivery.stats()` at collection time, so that a request costs nothing more.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter_provider

from mlflow_middleware import delivery
from mlflow_middleware._internal import clock
from mlflow_middleware._internal.guard import failures
from mlflow_middleware.delivery import Stats
from mlflow_middleware.request.waiting import in_thread
from mlflow_middleware.request_trace import current

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["METRICS", "Collector", "Metric", "asgi_app", "prometheus_text", "register", "scrape", "wsgi_app"]

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

FRESH = 0.1
"""Seconds for which the instruments of one collection share one snapshot of `delivery.stats()`."""

REASONS = ("queue full", "refused by the server", "not encodable", "not delivered before the exit")
"""Reasons for drops. Each has a series from the start, so that the first drop shows as an increase."""

Values = Iterable[tuple[Mapping[str, str], float]]
"""The samples of a metric: labels besides ``pid`` and ``destination``, and a number."""


@dataclass(frozen=True)
class Metric:
    """Definition of one metric.

    Attributes:
        name: Its name in OpenTelemetry.
        kind: ``"counter"`` if it only rises while the process lives, else ``"gauge"``.
        unit: Its unit in UCUM, as OpenTelemetry uses it.
        help: Its description.
        read: Computes its samples from the statistics.
    """

    name: str
    kind: Literal["counter", "gauge"]
    unit: str
    help: str
    read: Callable[[Stats], Values]

    @property
    def family(self) -> str:
        """The name in Prometheus without ``_total``, as OpenTelemetry's exporters derive it."""
        suffix = f"_{self.unit_word}" if self.unit_word else ""
        return self.name.replace(".", "_") + suffix

    @property
    def unit_word(self) -> str:
        """The unit in Prometheus; empty for none."""
        return {"s": "seconds", "By": "bytes"}.get(self.unit, "")

    @property
    def prometheus_name(self) -> str:
        """The name in Prometheus."""
        return self.family + ("_total" if self.kind == "counter" else "")


def _one(read: Callable[[Stats], float | None]) -> Callable[[Stats], Values]:
    def values(stats: Stats) -> Values:
        value = read(stats)
        return [] if value is None else [({}, value)]

    return values


def _dropped(stats: Stats) -> Values:
    counts = dict.fromkeys(REASONS, 0) | stats.dropped
    return [({"reason": reason}, count) for reason, count in counts.items()]


def _failures(stats: Stats) -> Values:
    counts = {"no connection": 0} | stats.failures
    return [({"reason": reason}, count) for reason, count in counts.items()]


METRICS = (
    Metric(
        "mlflow_middleware.traces.delivered",
        "counter",
        "{trace}",
        "Traces stored, including those from the spool of an earlier process.",
        _one(lambda stats: stats.delivered),
    ),
    Metric("mlflow_middleware.traces.dropped", "counter", "{trace}", "Traces lost, by reason.", _dropped),
    Metric(
        "mlflow_middleware.traces.sampled_out",
        "counter",
        "{trace}",
        "Traces not kept because of sample_ratio.",
        _one(lambda stats: stats.sampled_out),
    ),
    Metric(
        "mlflow_middleware.traces.waiting",
        "gauge",
        "{trace}",
        "Finished traces in memory that are not yet delivered.",
        _one(lambda stats: stats.waiting),
    ),
    Metric(
        "mlflow_middleware.traces.spooled",
        "gauge",
        "{trace}",
        "Traces that this process has written to the spool and not delivered since.",
        _one(lambda stats: stats.spooled),
    ),
    Metric(
        "mlflow_middleware.oldest_trace.age",
        "gauge",
        "s",
        "Age of the oldest trace not yet delivered, in memory or in the spool; 0 if there is none.",
        _one(lambda stats: stats.oldest_waiting),
    ),
    Metric(
        "mlflow_middleware.queue.size",
        "gauge",
        "By",
        "Memory taken by waiting traces, approximately.",
        _one(lambda stats: stats.queue_bytes),
    ),
    Metric(
        "mlflow_middleware.queue.limit",
        "gauge",
        "By",
        "Limit of that memory (max_queue_bytes); above it, the newest traces are dropped.",
        _one(lambda stats: stats.max_queue_bytes),
    ),
    Metric(
        "mlflow_middleware.spool.size",
        "gauge",
        "By",
        "Size of the spool's files, including those of other processes that share the directory.",
        _one(lambda stats: stats.spool_bytes if stats.max_spool_bytes else None),
    ),
    Metric(
        "mlflow_middleware.spool.limit",
        "gauge",
        "By",
        "Limit of that size (max_spool_bytes).",
        _one(lambda stats: stats.max_spool_bytes or None),
    ),
    Metric(
        "mlflow_middleware.server.failures",
        "counter",
        "{attempt}",
        "Failed attempts to reach the server, by reason; no trace is lost by one.",
        _failures,
    ),
    Metric(
        "mlflow_middleware.server.failing",
        "gauge",
        "",
        "1 if the last attempt to reach the server has failed, else 0.",
        _one(lambda stats: int(stats.is_failing)),
    ),
    Metric(
        "mlflow_middleware.last_delivery.timestamp",
        "gauge",
        "s",
        "Time when the last trace was stored, since the epoch; missing before the first.",
        _one(lambda stats: stats.last_delivered_at),
    ),
    Metric(
        "mlflow_middleware.internal_errors",
        "counter",
        "{error}",
        "Failures of the middleware itself: the app is not affected, but a trace is missing or incomplete.",
        _one(lambda stats: None if stats.where else sum(failures.values())),
    ),
)
"""All metrics. Labels: ``pid``; ``destination`` (``mlflow`` or ``collector``); for some, ``reason``."""


def _values(metric: Metric, stats: Stats) -> Iterator[tuple[dict[str, str], float]]:
    """Yield a metric's samples for each destination, with all labels but ``pid``."""
    for each in (stats, stats.collector):
        if each:
            destination = each.where or "mlflow"
            for labels, value in metric.read(each):
                yield {"destination": destination, **labels}, value


# --- OpenTelemetry ---

_registered: list[MeterProvider] = []
_looked: list[tuple[float, int, Stats]] = []


def register(meter_provider: MeterProvider | None = None) -> None:
    """Register an observable instrument for each metric; a second call for the same provider does nothing.

    Args:
        meter_provider: The provider to register with; by default the global one, which may also be set later.
    """
    provider = meter_provider or get_meter_provider()
    if any(each is provider for each in _registered):
        return
    _registered.append(provider)
    meter = provider.get_meter("mlflow_middleware")
    for metric in METRICS:
        create = meter.create_observable_counter if metric.kind == "counter" else meter.create_observable_gauge
        create(metric.name, [_observer(metric)], metric.unit, metric.help)


def _observer(metric: Metric) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observe(options: CallbackOptions) -> Iterable[Observation]:
        pid = os.getpid()
        return [Observation(value, {"pid": pid, **labels}) for labels, value in _values(metric, _look())]

    return observe


def _look() -> Stats:
    now, pid = clock.monotonic(), os.getpid()
    if not _looked or now - _looked[0][0] > FRESH or _looked[0][1] != pid:
        _looked[:] = [(now, pid, delivery.stats())]
    return _looked[0][2]


# --- Prometheus ---


def prometheus_text(*, openmetrics: bool = False) -> str:
    """Return all metrics of this process in Prometheus' text format.

    Args:
        openmetrics: True: use the OpenMetrics text format instead.
    """
    stats, pid = delivery.stats(), str(os.getpid())
    lines: list[str] = []
    for metric in METRICS:
        samples = [_sample(metric, {"pid": pid, **labels}, value) for labels, value in _values(metric, stats)]
        if samples:
            name = metric.family if openmetrics else metric.prometheus_name
            lines += [f"# HELP {name} {metric.help}", f"# TYPE {name} {metric.kind}"]
            lines += [f"# UNIT {name} {metric.unit_word}"] if openmetrics and metric.unit_word else []
            lines += samples
    return "\n".join([*lines, *(["# EOF"] if openmetrics else []), ""])


def _sample(metric: Metric, labels: Mapping[str, str], value: float) -> str:
    shown = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items())
    return f"{metric.prometheus_name}{{{shown}}} {float(value)!r}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def scrape(accept: str = "") -> tuple[bytes, str]:
    """Answer a scrape, for a route of any framework. It reads the spool's directory, so async code needs a thread.

    Args:
        accept: The request's ``Accept`` header; OpenMetrics is chosen if it names that format.

    Returns:
        The body and its content type.
    """
    _leave_out()
    openmetrics = "application/openmetrics-text" in accept
    return prometheus_text(openmetrics=openmetrics).encode(), OPENMETRICS if openmetrics else TEXT


def _leave_out() -> None:
    """Leave the scrape's own request out of the traces."""
    if trace := current():
        trace.leave_out()


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    """Answer scrapes, as an ASGI app: ``app.mount("/metrics", metrics.asgi_app)``."""
    if scope["type"] != "http":
        return
    accept = b",".join(value for name, value in scope["headers"] if name.lower() == b"accept").decode("latin-1")
    answers: list[tuple[bytes, str]] = []
    _leave_out()  # here, because the thread has no current request
    await in_thread(lambda: answers.append(scrape(accept)))
    body, kind = answers[0]
    headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def wsgi_app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer scrapes, as a WSGI app."""
    body, kind = scrape(environ.get("HTTP_ACCEPT", ""))
    start_response("200 OK", [("Content-Type", kind), ("Content-Length", str(len(body)))])
    return [b"" if environ["REQUEST_METHOD"] == "HEAD" else body]


class Collector:
    """Collector for a ``prometheus_client`` registry (a package that you install), next to the app's own metrics."""

    def collect(self) -> Iterator[Any]:
        """Yield the metric families."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        stats, pid = delivery.stats(), str(os.getpid())
        for metric in METRICS:
            kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            family = kind(metric.family, metric.help)
            for labels, value in _values(metric, stats):
                family.add_sample(metric.prometheus_name, {"pid": pid, **labels}, float(value))
            if family.samples:
                yield family

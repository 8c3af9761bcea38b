"""How much of 20 requests arrives when the server or the app fails for a moment."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests

from tests.comparison.arrived import otlp
from tests.comparison.contents import ANSWER, BODY, HEADERS, QUESTION
from tests.comparison.lab import Lab
from tests.comparison.sink import Sink
from tests.servers import MLflowServer

MANY = 20
MODE = {"ours": "plain", "logfire": "plain", "datadog": "plain"}
"""The simplest request with a trace; others need code in the route."""


def delivered(tool: str, server: MLflowServer | None, names: Iterable[str]) -> dict[str, Any]:
    """The numbers of one tool."""
    found: dict[str, Any] = {}
    for name in names:
        lab = Lab(tool, MODE.get(tool, "route"), server)
        try:
            found[name] = MEASURES[name](lab)
        except Exception as error:  # a failed one is a cell of the table, and the others go on
            found[name] = f"failed: {type(error).__name__}"
        finally:
            lab.close()
        print(tool, name, found[name], flush=True)
    return found


def _chats(url: str, count: int = MANY) -> None:
    def chat(number: int) -> None:
        requests.post(f"{url}/chats/c-{number}", json=BODY, headers=HEADERS, timeout=30)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(chat, range(count)))


def _traces(lab: Lab, since: float, quiet: float = 7.0, deadline: float = 60.0) -> int:
    """Return the requests' traces that have arrived, with more than the child span."""
    spans = [span for span in lab.settled(quiet, deadline) if span.start >= since]
    return len({span.trace for span in spans if span.name != "look-up"})


def _all_traces(lab: Lab, since: float, deadline: float = 90.0) -> int:
    """Return the same once all have arrived, or the time is up."""
    end = time.monotonic() + deadline
    while (found := _traces(lab, since, 2.0, 5.0)) < MANY and time.monotonic() < end:
        pass
    return found


def _terminated(lab: Lab, **variables: str) -> int:
    with lab.app(**variables) as (process, url):
        since = time.time()
        _chats(url)
        process.stop(signal.SIGTERM, 60)
    return _traces(lab, since)


def _flushed(lab: Lab) -> int:
    return _terminated(lab, COMPARE_FLUSH="1")


def _workers(lab: Lab) -> int:
    options = ("gunicorn", "--workers", "2", "--worker-class", "uvicorn_worker.UvicornWorker", "--preload")
    with lab.app(*options) as (process, url):
        since = time.time()
        _chats(url)
        found = _traces(lab, since)
        process.stop(signal.SIGTERM, 60)
    return found


def _interrupted(lab: Lab) -> int:
    """Refuse connections for 5 s."""
    with lab.app() as (_, url):
        _chats(url, 1)
        lab.settled(6.0, 20.0)
        lab.sink.stop()
        since = time.time()
        _chats(url)
        time.sleep(5)
        lab.sink.start()
        return _all_traces(lab, since)


def _exit_while_unreachable(lab: Lab) -> float:
    """Return the seconds from SIGTERM to the exit, while the server refuses connections."""
    with lab.app() as (process, url):
        lab.sink.stop()
        try:
            _chats(url)
            began = time.monotonic()
            try:
                process.stop(signal.SIGTERM, 90)
            except AssertionError:
                return 90.0
            return round(time.monotonic() - began, 1)
        finally:
            lab.sink.start()


def _sampled(lab: Lab) -> dict[str, int]:
    """Sample with a ratio of 0: count how many of 5 chats and 5 failures arrive."""
    with lab.app(**SAMPLED[lab.tool]) as (_, url):
        since = time.time()
        _chats(url, 5)
        chats = _traces(lab, since)
        since = time.time()
        for _ in range(5):
            requests.post(f"{url}/failures", json=BODY, headers=HEADERS, timeout=30)
        return {"chats": chats, "failures": _traces(lab, since)}


def _wordless(lab: Lab) -> dict[str, bool]:
    """Switch contents off: find whether words arrive, and whether the tokens do."""
    if lab.tool != "ours":
        lab.mode = "route"
    with lab.app(**WORDLESS[lab.tool]) as (_, url):
        since = time.time()
        _chats(url, 1)
        spans = [span for span in lab.settled() if span.start >= since]
    words = any(word in span.text for span in spans for word in (QUESTION, ANSWER))
    tokens = any(str(value) == "1201" for span in spans for value in span.known.values())
    return {"words": words, "tokens": tokens}


def _beside(lab: Lab, **variables: str) -> dict[str, int]:
    """Count how many of 5 chats arrive at the tool's own server and, as an OTLP endpoint is set, at that collector."""
    collector = Sink()
    collector.start()
    try:
        named = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.uri, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
        with lab.app(**named, **variables) as (_, url):
            since = time.time()
            _chats(url, 5)
            own = _traces(lab, since)
        # FastAPI's own telemetry sends there by itself: only the tool's spans count.
        there = {span.trace for span in otlp(collector.asked) if span.start >= since and span.name == "look-up"}
        return {"own": own, "collector": len(there)}
    finally:
        collector.stop()


def _beside_by_option(lab: Lab) -> dict[str, int] | None:
    """Do the same with the tool's option for it, if it has one."""
    return _beside(lab, **BOTH[lab.tool]) if lab.tool in BOTH else None


BOTH = {"mlflow": {"MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT": "true"}}
SAMPLED = {
    "ours": {"MLFLOW_MIDDLEWARE_SAMPLE_RATIO": "0"},
    "mlflow": {"MLFLOW_TRACE_SAMPLING_RATIO": "0"},
    "langfuse": {"LANGFUSE_SAMPLE_RATE": "0"},
    "logfire": {"COMPARE_SAMPLED": "1"},
    "langsmith": {"LANGSMITH_TRACING_SAMPLING_RATE": "0"},
    "datadog": {"DD_TRACE_SAMPLING_RULES": '[{"sample_rate": 0}]'},
}
WORDLESS = {
    "ours": {"MLFLOW_MIDDLEWARE_CONTENT": "none"},
    "mlflow": {},
    "langfuse": {"LANGFUSE_OBSERVE_DECORATOR_IO_CAPTURE_ENABLED": "false"},
    "logfire": {"COMPARE_WORDLESS": "1"},
    "langsmith": {"LANGSMITH_HIDE_INPUTS": "true", "LANGSMITH_HIDE_OUTPUTS": "true"},
    "datadog": {},
}
"""If it is empty, no such option was found."""

MEASURES = {
    "terminated": _terminated,
    "terminated with a flush in the lifespan": _flushed,
    "forked workers": _workers,
    "server unreachable for 5 s": _interrupted,
    "exit while the server is unreachable": _exit_while_unreachable,
    "sampled": _sampled,
    "without words": _wordless,
    "beside a collector": _beside,
    "beside a collector, by option": _beside_by_option,
}

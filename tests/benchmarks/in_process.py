"""The cost of a request in one process, without a server: times to look at; ``instructions`` counts for decisions.

    python -m tests.benchmarks.in_process [--source FOLDER] [--rounds N]

An ASGI app that does next to nothing is called without a server: bare, traced by hand with MLflow's own spans that are
not exported, and behind our middleware, once until a trace is finished (the path), and once until it is encoded.
Nothing is sent. All ways take turns, each in a fork of the same process. Takes half a minute.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import gc
import importlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from tests.benchmarks.spans import CONTENT, KINDS, QUESTION, Children, export_to_nowhere, mlflow_children
from tests.servers import ROOT, clean_environment

WARM_UP = 10
"""Requests of each scenario before the fork, so that one-time imports and caches do not count."""

REQUESTS = 300
"""Requests whose time is measured."""

ENCODERS = ("mlflow_middleware.delivery.encoded:EncodedTrace.encode",)
"""Functions that encode a finished trace, newest first: a tree under test has one of them."""

BODY = json.dumps({"model": "gpt-5", "messages": [{"role": "user", "content": QUESTION}]}).encode()
ANSWER = json.dumps({"choices": [{"message": {"role": "assistant", "content": CONTENT}}]}).encode()

ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]


class Scenario(NamedTuple):
    """One way to trace, and one kind of request."""

    way: str
    kind: str


GROUPS = {
    "floor": [Scenario("app", "none"), *(Scenario("nowhere", kind) for kind in KINDS)],
    "ours": [Scenario(way, kind) for way in ("path", "encoded") for kind in KINDS],
}
"""Scenarios that are measured in one process: each process sets up MLflow in one way."""


def bare(children: Children) -> ASGIApp:
    """Return the app."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        children(json.loads((await receive())["body"]))
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(ANSWER))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": ANSWER})

    return app


def by_hand(children: Children) -> ASGIApp:
    """Return the app, with its work in a hand-written root span."""
    import mlflow

    @mlflow.trace(name="POST /chats/{chat_id}")
    def traced(body: dict[str, Any], headers: Mapping[bytes, bytes]) -> Any:
        mlflow.update_current_trace(
            client_request_id=headers[b"x-request-id"].decode(),
            tags={"environment": "production", "app_version": "1.2.3", "deployment_id": "d-7", "region": "eu-west-1"},
            metadata={
                "mlflow.trace.session": headers[b"x-session-id"].decode(),
                "mlflow.trace.user": headers[b"x-user-id"].decode(),
            },
        )
        children(body)
        return json.loads(ANSWER)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        traced(json.loads((await receive())["body"]), dict(scope["headers"]))
        await bare(mlflow_children(0))(scope, receive, send)

    return app


def scope(number: int) -> dict[str, Any]:
    """Return a request's scope as uvicorn builds it."""
    headers = {
        "host": "127.0.0.1:8000",
        "user-agent": "python-httpx/0.28.1",
        "content-type": "application/json",
        "content-length": str(len(BODY)),
        "x-request-id": f"r-{number:06}",
        "x-session-id": f"s-{number // 10:05}",
        "x-user-id": f"u-{number // 50:05}",
    }
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": f"/chats/c-{number:06}",
        "raw_path": f"/chats/c-{number:06}".encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
        "state": {},
    }


def ask(app: ASGIApp, requests: int) -> None:
    """Send this many requests one after the other, each in a task of its own."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": BODY, "more_body": False}

    async def send(message: Any) -> None:
        pass

    async def run() -> None:
        for number in range(requests):
            await asyncio.create_task(app(scope(number), receive, send))  # type: ignore[arg-type]

    asyncio.run(run())


def encoder() -> Callable[[Any], Any]:
    """Return the function that encodes a finished trace in the tree under test."""
    for name in ENCODERS:
        module, _, path = name.partition(":")
        try:
            return functools.reduce(getattr, path.split("."), importlib.import_module(module))  # type: ignore[return-value]
        except (ImportError, AttributeError):
            continue
    raise SystemExit("Nothing in this tree encodes a trace that is known here: add it to ENCODERS, in in_process.py.")


@contextmanager
def handed_over() -> Iterator[list[Any]]:
    """Make the middleware collect its finished traces in a list."""
    from mlflow_middleware import delivery

    traces: list[Any] = []
    with delivery.capturing(traces.append):
        yield traces


def checked(app: ASGIApp, spans: int) -> None:
    """Make sure that a request is traced as it should be, with this many spans."""
    from mlflow_middleware.testing import captured_traces

    with captured_traces() as traces:
        ask(app, 1)
    found = [len(trace.data.spans) for trace in traces]
    assert found == [spans], f"spans of each trace: {found}"


def prepare(scenario: Scenario, stack: ExitStack) -> ASGIApp:
    """Return the app of a scenario, with all one-time set-up done."""
    children = mlflow_children(KINDS[scenario.kind])
    if scenario.way == "app":
        return bare(children)
    if scenario.way == "nowhere":
        export_to_nowhere()
        return by_hand(children)
    from mlflow_middleware.asgi import TraceMiddleware

    with suppress(ImportError):  # older trees
        from mlflow_middleware.request import leaving

        leaving.ASK_AFTER = 10**12  # valgrind makes each request slow enough for a check of its client
    traces = stack.enter_context(handed_over())
    traced = TraceMiddleware(bare(children))
    checked(traced, 1 + KINDS[scenario.kind])
    work = encoder() if scenario.way == "encoded" else id

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await traced(scope, receive, send)
        work(traces.pop())
        assert not traces

    return app


def forked(work: Callable[[], object]) -> tuple[int, int]:
    """Call a function in a child process; return its id, and where its result can be read as JSON."""
    readable, writable = os.pipe()
    if pid := os.fork():
        os.close(writable)
        return pid, readable
    try:
        gc.enable()
        os.write(writable, json.dumps(work()).encode())
        os._exit(0)
    finally:
        os._exit(1)


def result(child: tuple[int, int]) -> Any:
    """Wait for a child, and return its result."""
    pid, readable = child
    with os.fdopen(readable) as pipe:
        text = pipe.read()
    _, status = os.waitpid(pid, 0)
    assert not status, f"the child ended with {status}"
    return json.loads(text)


def each_scenario(group: str) -> Iterator[tuple[Scenario, ASGIApp]]:
    """Return the warmed-up scenarios; from here on, the garbage collector ignores the heap of that time."""
    for scenario in GROUPS[group]:
        with ExitStack() as stack:
            app = prepare(scenario, stack)
            ask(app, WARM_UP)
            gc.collect()
            gc.freeze()
            gc.disable()  # until the fork, so that this process changes nothing for its children
            yield scenario, app


def seconds(app: ASGIApp) -> float:
    """Return the CPU time of a request in microseconds."""
    ask(app, WARM_UP)
    began = time.process_time()
    ask(app, REQUESTS)
    return 1e6 * (time.process_time() - began) / REQUESTS


def environment(source: Path) -> dict[str, str]:
    """Return the environment of a process that measures the tree in this folder."""
    roots = [str(folder) for folder in (source / "middleware", source / "adapters", ROOT)]
    given = clean_environment()
    del given["MLFLOW_MIDDLEWARE_INCLUDE"]  # older trees do not know it
    return {
        **given,
        "PYTHONPATH": os.pathsep.join(roots),
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",  # no collector, and no request to one
        "MLFLOW_ENABLE_ASYNC_TRACE_LOGGING": "false",
        "ENVIRONMENT": "production",
        "APP_VERSION": "1.2.3",
        "DEPLOYMENT_ID": "d-7",
        "REGION": "eu-west-1",
    }


def only(source: Path) -> None:
    """Block imports from another installed tree: the namespace would take from one what the other lacks."""
    roots = {name: str(source / name) for name in ("middleware", "adapters")}
    sys.path[:] = [path for path in sys.path if roots.get(Path(path).name, path) == path]


def measure_group(group: str, counts: list[int]) -> None:
    """Fork a child for each scenario and number of requests; print each process and its result.

    Without numbers, take the time.
    """
    for scenario, app in each_scenario(group):
        for number in counts or [0]:
            child = forked(functools.partial(ask, app, number) if number else functools.partial(seconds, app))
            print(json.dumps([*scenario, number, child[0], result(child)]), flush=True)


def command(group: str, source: Path, *counts: int) -> list[str]:
    """Return the command that measures a group of scenarios of the tree in this folder, in an `environment`."""
    options = ["--group", group, "--source", str(source), *(f"--count={count}" for count in counts)]
    return [sys.executable, "-m", "tests.benchmarks.in_process", *options]


def take_turns(source: Path, rounds: int) -> dict[Scenario, list[float]]:
    """Return the seconds of each scenario in each round."""
    found: dict[Scenario, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for group in GROUPS:
            done = subprocess.run(
                command(group, source),
                cwd=ROOT,
                env=environment(source),
                stdout=subprocess.PIPE,
                text=True,
                check=False,
            )
            if done.returncode:
                raise SystemExit(f"The measured process ended with {done.returncode}.")
            for way, kind, *_, took in map(json.loads, done.stdout.splitlines()):
                found[Scenario(way, kind)].append(took)
    return found


def table(found: Mapping[Scenario, list[float]]) -> list[str]:
    """Return the CPU of a request less that of the app alone, for each kind; the medians of all rounds."""
    floor = [of(found, "nowhere", "app", kind) for kind in KINDS]
    rows = [
        ("MLflow's own root and children, exported to nowhere", floor),
        ("ours, path", [of(found, "path", "app", kind) for kind in KINDS]),
        ("ours, encoding", [of(found, "encoded", "path", kind) for kind in KINDS]),
        ("ours, path and encoding", [of(found, "encoded", "app", kind) for kind in KINDS]),
    ]
    lines = ["| CPU of a request, µs | no child span | one | two |", "| --- | --- | --- | --- |"]
    for name, values in rows:
        lines.append(f"| {name} | {' | '.join(f'{statistics.median(each):.0f}' for each in values)} |")
    shares = [
        statistics.median(map(float.__truediv__, values, least))
        for values, least in zip(rows[-1][1], floor, strict=True)
    ]
    return [*lines, f"| ... as a share of MLflow's own | {' | '.join(f'{share:.2f}' for share in shares)} |"]


def of(found: Mapping[Scenario, list[float]], way: str, less: str, kind: str) -> list[float]:
    """Return the extra cost of one way over another, round by round."""
    plain = found[Scenario(less, "none" if less == "app" else kind)]
    return [mine - other for mine, other in zip(found[Scenario(way, kind)], plain, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=ROOT, metavar="FOLDER", help="a checkout; this one by default")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--group", choices=GROUPS, help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, action="append", default=[], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    source = arguments.source.resolve()
    if arguments.group:
        only(source)
        measure_group(arguments.group, arguments.count)
    else:
        print("\n".join(table(take_turns(source, arguments.rounds))))


if __name__ == "__main__":
    main()

"""Parts of all scenarios: the two ways, a server that can become unreachable, processes that trace, and the count."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import requests

from tests.chaos.load import Answer, ask
from tests.faults import faulty
from tests.servers import ROOT, MLflowServer, Process, clean_environment, command_for, eventually, free_port, serving
from tests.talking import Talking

START = 60.0
"""Seconds until a process must have stored its first trace."""

FLUSHES = 8.0
"""Seconds without a new trace after which a running exporter that reaches its server counts as done."""


@dataclass(frozen=True)
class Way:
    """A way of delivery, as a column of the table."""

    name: str
    variables: Mapping[str, str]


MLFLOWS = Way("MLflow's own exporter", {"MLFLOW_MIDDLEWARE_DELIVERY": "mlflow"})
OURS = Way("ours", {})


@dataclass(frozen=True)
class Seen:
    """The result of a search.

    Attributes:
        found: Traces with the tag.
        stored: Request ids that are the client request id of a trace.
        twice: Number of traces with an id that another trace has, too.
        late: Whether the time was over while more traces still came.
    """

    found: int
    stored: frozenset[str]
    twice: int
    late: bool = False


class Experiment:
    """An experiment of its own, and the traces that the server has stored in it.

    Args:
        uri: The MLflow server.
        way: The way of delivery.
    """

    def __init__(self, uri: str, way: Way) -> None:
        self.prefix = uuid.uuid4().hex[:12]
        """The prefix of the ids of the counted requests."""
        self._uri = uri
        self._name = f"{way.name}-{self.prefix}"
        self._way = way

    def variables(self, uri: str | None = None, **more: str) -> dict[str, str]:
        """Return the environment of a process that traces into it."""
        uris = {"MLFLOW_TRACKING_URI": uri or self._uri, "MLFLOW_EXPERIMENT_NAME": self._name}
        return clean_environment(**uris, PREFIX=self.prefix, **self._way.variables, **more)

    def id(self) -> str | None:
        """Its id, once it exists."""
        path = f"{self._uri}/api/2.0/mlflow/experiments/get-by-name"
        answer = requests.get(path, params={"experiment_name": self._name}, timeout=60)
        return str(answer.json()["experiment"]["experiment_id"]) if answer.ok else None

    def seen(self, prefix: str, spans: bool) -> Seen:
        """Search now for traces with spans only, or also for those without (6,000 take 2 s instead of 54)."""
        traces: dict[str, str | None] = {}
        query: dict[str, object] = {
            "locations": [{"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": self.id() or "0"}}],
            "filter": f"tags.client_request_id LIKE '{prefix}-%'" + (" AND span.name LIKE '%'" if spans else ""),
            "order_by": ["timestamp_ms ASC"],
            "max_results": 500,
        }
        while True:
            answer = requests.post(f"{self._uri}/api/3.0/mlflow/traces/search", json=query, timeout=60)
            answer.raise_for_status()
            page = answer.json()
            traces.update((trace["trace_id"], trace.get("client_request_id")) for trace in page.get("traces", []))
            if not page.get("next_page_token"):
                break
            query["page_token"] = page["next_page_token"]
        complete = [request_id for request_id in traces.values() if request_id]
        return Seen(len(traces), frozenset(complete), len(complete) - len(set(complete)))

    def settle(self, prefix: str, count: int, quiet: float, limit: float) -> Seen:
        """Count until all are stored, nothing has changed for a while, or the time is over."""
        end = time.monotonic() + limit
        self._settled(prefix, count, quiet, end, spans=False)
        return self._settled(prefix, count, quiet, end, spans=True)

    def _settled(self, prefix: str, count: int, quiet: float, end: float, spans: bool) -> Seen:
        seen, changed = self.seen(prefix, spans), time.monotonic()
        while len(seen.stored) < count and time.monotonic() < min(end, changed + quiet):
            asked = time.monotonic()
            before, seen = seen, self.seen(prefix, spans)
            if (seen.found, seen.stored) != (before.found, before.stored):
                changed = time.monotonic()
            pause = 3 * (time.monotonic() - asked)  # most of the server's time is for the measured work
            time.sleep(max(0.5, min(pause, quiet / 4)))  # but it is asked again before it counts as quiet
        late = len(seen.stored) < count and time.monotonic() < changed + quiet
        return replace(seen, late=late)


class Network:
    """The connection to the MLflow server, on one address; it can be cut."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._port = free_port()
        self._stack = ExitStack()
        self.uri = f"http://127.0.0.1:{self._port}"

    def up(self) -> None:
        """Accept connections."""
        self._server = self._stack.enter_context(faulty(self._target, self._port))

    def down(self) -> None:
        """Refuse new connections, and reset open ones."""
        self._server.mode = "reset"
        self._stack.close()


class Maker(Talking):
    """`tests.chaos.maker`, which makes traces on command."""

    def warm_up(self, experiment: Experiment) -> None:
        """Make traces until one is stored."""

        def is_stored() -> bool:
            self.send_command(f"make 1 0 warm-{experiment.prefix}")
            return bool(experiment.settle(f"warm-{experiment.prefix}", 1, FLUSHES, FLUSHES).stored)

        eventually(experiment.id, "the experiment", START)
        eventually(is_stored, "a first trace", START)

    def took_to_end(self, limit: float) -> float | None:
        """Let it end by itself; return the seconds, or None if the limit was exceeded."""
        asked = time.monotonic()
        try:
            self.end(limit)
        except subprocess.TimeoutExpired:
            return None
        return time.monotonic() - asked


@dataclass
class App:
    """An app in its server process."""

    url: str
    process: Process
    experiment: Experiment

    def ask(self, prefix: str, count: int) -> None:
        """Send requests, eight at a time; all must be answered."""
        assert {answer.status for answer in ask(self.url, prefix, count=count)} == {200}

    def warm_up(self) -> None:
        """Send requests until all of a round are stored, whichever workers served them."""

        def is_stored() -> bool:
            prefix = uuid.uuid4().hex[:12]
            self.ask(prefix, 8)
            return len(self.experiment.settle(prefix, 8, FLUSHES, 2 * FLUSHES).stored) == 8

        eventually(self.experiment.id, "the experiment", START)
        eventually(is_stored, "a first round of requests", START)

    def terminate(self, limit: float) -> float | None:
        """Send SIGTERM; return the seconds to its exit, or None if the limit was exceeded (then it is killed)."""
        asked = time.monotonic()
        with contextlib.suppress(AssertionError):
            self.process.stop(signal.SIGTERM, timeout=limit)
            return time.monotonic() - asked
        return None


@dataclass
class Lab:
    """A folder for logs, and the MLflow server."""

    folder: Path
    server: MLflowServer

    def experiment(self, way: Way) -> Experiment:
        """Return a new experiment."""
        return Experiment(self.server.uri, way)

    @contextlib.contextmanager
    def network(self) -> Iterator[Network]:
        """Open a connection to the server."""
        network = Network(self.server.uri)
        network.up()
        try:
            yield network
        finally:
            network.down()

    @contextlib.contextmanager
    def maker(self, experiment: Experiment, uri: str | None = None, **variables: str) -> Iterator[Maker]:
        """Start a process that makes traces on command."""
        command, log = [sys.executable, "-m", "tests.chaos.maker"], self.folder / f"maker-{uuid.uuid4().hex}.log"
        with Maker(command, experiment.variables(uri, **variables), log) as maker:
            yield maker

    @contextlib.contextmanager
    def app(
        self, kind: str, experiment: Experiment, target: str = "", path: str = "/status/200", uri: str | None = None
    ) -> Iterator[App]:
        """Start an app, served as in `tests.servers.command_for`.

        Args:
            kind: The server.
            experiment: Where its traces go.
            target: ``module:attribute`` of an app other than the usual one.
            path: The requested path.
            uri: Another address of the MLflow server.
        """
        port = free_port()
        *command, usual = command_for(kind, port)
        log = self.folder / f"{kind}-{experiment.prefix}.log"
        with serving([*command, target or usual], experiment.variables(uri), log, port) as (process, url):
            try:
                yield App(f"{url}{path}", process, experiment)
            finally:
                process.kill()


class Load:
    """`tests.chaos.load` in a process of its own.

    Args:
        app: The app that gets the requests.
        arguments: The options of the program.
    """

    def __init__(self, app: App, *arguments: str) -> None:
        command = [sys.executable, "-m", "tests.chaos.load", app.url, app.experiment.prefix, *arguments]
        self._popen = subprocess.Popen(
            command, env=clean_environment(), cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    def answers(self, limit: float) -> list[Answer]:
        """Wait until it is done."""
        with self._popen:
            try:
                output, _ = self._popen.communicate(timeout=limit)
            finally:
                self._popen.kill()
        return [Answer(*each) for each in json.loads(output)]


@dataclass
class Memory:
    """Watches the resident memory of a process.

    Attributes:
        highest: The peak in MiB.
    """

    pid: int
    highest: float = 0.0
    _stop: threading.Event = field(default_factory=threading.Event)

    def now(self) -> float:
        """Return the current value in MiB."""
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) / 1024
        return 0.0

    @contextlib.contextmanager
    def watched(self) -> Iterator[Memory]:
        """Watch the process."""

        def watch() -> None:
            while not self._stop.wait(0.2):
                self.highest = max(self.highest, self.now())

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            thread.join()

"""``mlflow-middleware check``: can this process reach its tracking server, write a trace and read it back?

It walks the chain that every trace takes, link by link; each passed, failed or was skipped, and says in a sentence what
was found, or what is wrong and what to do. The probe trace is deleted again. It never takes longer than `TIME_LIMIT`,
so that it fits a container's start-up or readiness command.
"""

from __future__ import annotations

import email.utils
import json
import os
import queue
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from mlflow_middleware import supported

if TYPE_CHECKING:  # all of it is imported in the first step: that takes a second, and may be what fails
    from pathlib import Path

    from requests import Response

    from mlflow_middleware.delivery.rest import ConnectionProblem
    from mlflow_middleware.settings import Settings

TIME_LIMIT = 8.0
"""Seconds that a whole check may take, but for `LAST_TIME`; with the interpreter's start it stays under 10."""

ANSWER_TIME = 3.0
"""Seconds that the server may take to accept a connection, and then to answer."""

LAST_TIME = 1.0
"""Seconds in which the probe is still deleted, when the time is over."""

MAX_SKEW = 60.0
"""Seconds that this machine's clock and the server's may differ."""

OLDEST_SERVER = (3, 4)
"""The first MLflow server that takes spans by OTLP."""

MAX_TRIES = 500
"""Traces that are opened where MLflow takes a share of them only, until one is taken."""

PROBE = "mlflow-middleware check"
"""The name of the probe trace."""

_TRACES = "/api/3.0/mlflow/traces"
_DELETE = "/api/2.0/mlflow/traces/delete-traces"
_CREDENTIALS = ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_AUTH", "DATABRICKS_TOKEN")

Outcome = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True)
class Result:
    """What became of one step.

    Attributes:
        step: Its name, one of `STEPS`.
        outcome: ``passed``, ``failed`` or ``skipped``.
        says: What was found; of a failed step what is wrong and what to do.
        seconds: How long it took.
    """

    step: str
    outcome: Outcome
    says: str
    seconds: float = 0.0


class Wrong(Exception):
    """A step has failed; the sentence says how, and what to do."""


class NotNeeded(Exception):
    """A step has nothing to do here; the sentence says why."""


def run(load: Callable[[], Settings] | None = None, *, as_json: bool = False) -> int:
    """Check, and print a line for each step.

    Args:
        load: As for `walk`.
        as_json: Print one JSON object in their place: ``{"ok", "steps": [{"step", "outcome", "says", "seconds"}]}``.

    Returns:
        The exit code: 0 when no step has failed, else 1.
    """
    results = []
    for result in walk(load):
        results.append(result)
        if not as_json:
            print(line(result), flush=True)
    ok = all(result.outcome != "failed" for result in results)
    if as_json:
        print(json.dumps({"ok": ok, "steps": [asdict(result) for result in results]}, indent=2))
    return 0 if ok else 1


def line(result: Result) -> str:
    """A step as a line of text."""
    return f"{result.outcome:8}{result.step:16}{' '.join(result.says.split())}"


def walk(load: Callable[[], Settings] | None = None, time_limit: float = TIME_LIMIT) -> Iterator[Result]:
    """Check step by step.

    Args:
        load: Builds the middleware's settings, and raises ``SettingsError``; from the environment by default.
        time_limit: Seconds for all of it. A step that is not done by then has failed, and those after it are skipped.

    Yields:
        The result of each of `STEPS`.
    """
    results: queue.SimpleQueue[Result] = queue.SimpleQueue()
    deadline = time.monotonic() + time_limit
    # a thread can be left behind, whatever it waits for: a name server, an import, a disk
    chain = _Chain(load)
    threading.Thread(target=_work, args=(chain, results), name="mlflow-middleware-check", daemon=True).start()
    for place, (name, _, _) in enumerate(STEPS):
        began = time.monotonic()
        try:
            result = results.get(timeout=max(0.0, deadline - began))
        except queue.Empty:
            seconds = time.monotonic() - began
            says = (
                f"not done when {time_limit:g} s were over: the server, a name server or a disk does not answer; "
                "look at the load, the database and the log of the server"
            ) + chain.clean_up()
            yield Result(name, "failed", says, round(seconds, 4))
            yield from (Result(late, "skipped", "no time was left") for late, _, _ in STEPS[place + 1 :])
            return
        yield result


def _work(chain: _Chain, results: queue.SimpleQueue[Result]) -> None:
    broken: dict[str, str] = {}  # a step that cannot be built on -> the step that has failed
    for name, needs, step in STEPS:
        if cause := next((broken[need] for need in needs if need in broken), None):
            broken[name] = cause
            results.put(Result(name, "skipped", f"not tried: {cause} has failed"))
            continue
        if chain.is_off:
            results.put(Result(name, "skipped", "enabled is false"))
            continue
        result = _attempt(name, step, chain)
        if result.outcome == "failed":
            broken[name] = name
        results.put(result)


def _attempt(name: str, step: Callable[[_Chain], str], chain: _Chain) -> Result:
    began = time.monotonic()
    outcome: Outcome = "passed"
    try:
        says = step(chain)
    except NotNeeded as reason:
        outcome, says = "skipped", str(reason)
    except Wrong as problem:
        outcome, says = "failed", str(problem)
    except Exception as error:
        outcome, says = "failed", f"this step itself has failed ({type(error).__name__}: {error}); please report it"
    return Result(name, outcome, says, round(time.monotonic() - began, 4))


class _Chain:
    """The steps, and what each leaves for the next."""

    uri: str
    settings: Settings
    answer: Response
    experiment_id: str
    trace_id: str = ""

    def __init__(self, load: Callable[[], Settings] | None) -> None:
        self._load = load
        self.is_off = self._may_be_left = False
        self._tls_problem: BaseException | None = None
        self._experiment_problem: Exception | None = None
        self._answered_in = self._stored_in = 0.0

    # --- this process ---

    def client(self) -> str:
        """MLflow can be imported, and is of a known shape."""
        from mlflow_middleware import mlflow_bridge

        found = mlflow_bridge.found
        if found.summary:
            raise Wrong(found.summary)
        kind = "slim" if mlflow_bridge.client.is_slim() else "full"
        untried = ": newer than any that this was tested with" if supported.is_untried(found.version) else ""
        return f"{found.package} ({kind}) {found.version}{untried} (supported: {supported.in_words()})"

    def check_settings(self) -> str:
        """Every option is known and well-typed."""
        from mlflow_middleware.settings import Settings, SettingsError

        try:
            self.settings = (self._load or Settings.load)()
        except SettingsError as error:
            raise Wrong(f"{error}; the app does not start with that: correct it") from error
        self.is_off = not self.settings.enabled
        if self.is_off:
            return "valid, but enabled is false: no request is traced"
        if self.settings.delivery == "mlflow":
            return "valid; delivery is 'mlflow': the app sends by MLflow's own exporter, this check by ours"
        return "valid"

    def check_uri(self) -> str:
        """The tracking URI is one that traces can be sent to."""
        from mlflow_middleware import mlflow_bridge
        from mlflow_middleware.delivery.rest import ConnectionProblem, check_address, printable, serves

        is_set = mlflow_bridge.client.is_tracking_uri_set()
        self.uri = mlflow_bridge.client.tracking_uri() if is_set else ""
        if is_set and not serves(self.uri):
            raise NotNeeded(f"{printable(self.uri)} is no server: full mlflow writes there itself")
        try:
            check_address(self.uri)
        except ConnectionProblem as problem:
            raise Wrong(str(problem)) from problem
        return printable(self.uri)

    # --- the way to the server ---

    def reach(self) -> str:
        """Something answers there; by any certificate, and with any status below 500."""
        from mlflow_middleware import mlflow_bridge

        self._need_server()
        began = time.monotonic()
        try:
            self.answer = mlflow_bridge.client.request(self.uri, "GET", "/version", timeout=ANSWER_TIME)
        except Exception as error:
            if tls := _tls_error(error):
                self._tls_problem = tls
                return "a server listens there"
            raise Wrong(self._unreachable(error)) from error
        self._answered_in = time.monotonic() - began
        status = self.answer.status_code
        if status >= 500 or (status == 407 and _proxy(self.uri)):
            raise Wrong(
                f"{self._shown} answered {status}"
                + (_way_round_the_proxy(self.uri) or ": it, or a gateway before it, is up but ill; look at its log")
            )
        return f"answered in {_ms(self._answered_in)}{_by_proxy(self.uri)}"

    def tls(self) -> str:
        """The certificate is one that this process trusts."""
        self._need_server()
        if self._tls_problem is not None:
            raise Wrong(f"{self._shown}: {_tls_remedy(self._tls_problem)}") from self._tls_problem
        if not (self.answer.url or "").startswith("https:"):
            raise NotNeeded("plain HTTP")
        return "the certificate is trusted"

    def clock(self) -> str:
        """Both clocks show the same time."""
        self._need_server()
        try:
            theirs = email.utils.parsedate_to_datetime(self.answer.headers.get("Date", "")).timestamp()
        except (TypeError, ValueError):
            raise NotNeeded("the server does not tell its time") from None
        skew = theirs - time.time()
        if abs(skew) > MAX_SKEW:
            raise Wrong(
                f"this machine's clock is {abs(skew):.0f} s {'behind' if skew > 0 else 'ahead of'} that of "
                f"{self._shown}: traces are stored under a wrong time, and not found by it; set both clocks by NTP"
            )
        return f"within {MAX_SKEW:g} s of the server's"

    def version(self) -> str:
        """The server is new enough."""
        self._need_server()
        content, text = self.answer.headers.get("Content-Type", ""), self.answer.text.strip()
        match = re.match(r"(\d+)\.(\d+)", text)
        if self.answer.status_code == 200 and match:
            if (int(match[1]), int(match[2])) < OLDEST_SERVER:
                raise Wrong(
                    f"{self._shown} is MLflow {text[:20]}, which does not take spans by OTLP; "
                    "upgrade the server to 3.13 or newer (3.4 is the oldest that can work)"
                )
            return f"MLflow {text[:20]}"
        if self.answer.status_code == 200 and content.startswith("text/html"):
            raise Wrong(
                f"{self._shown} does not answer like an MLflow server, but with a web page; "
                "is the address complete, or does a login page stand before it?"
            )
        raise NotNeeded(f"the server does not tell its version (status {self.answer.status_code})")

    def credentials(self) -> str:
        """The server lets us in."""
        from mlflow_middleware.delivery.experiment import resolve_experiment
        from mlflow_middleware.delivery.rest import ConnectionProblem, NoAccess

        self._need_server()
        try:
            self.experiment_id = resolve_experiment(self.uri)
        except NoAccess as problem:
            raise Wrong(self._told(problem)) from problem
        except ConnectionProblem as problem:
            self._experiment_problem = problem
        given = [name for name in _CREDENTIALS if os.environ.get(name)]
        return f"accepted ({', '.join(given) or 'none are set'})"

    def experiment(self) -> str:
        """The experiment that the environment names is there, or could be created."""
        self._need_server()
        if self._experiment_problem is not None:
            raise Wrong(str(self._experiment_problem))
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME")
        return f"{name!r}, id {self.experiment_id}" if name else f"id {self.experiment_id}"

    # --- a trace ---

    def write(self) -> str:
        """A trace goes the way that all go."""
        from mlflow_middleware.delivery.encoded import EncodedTrace
        from mlflow_middleware.delivery.replies import PermanentError, RetryableError
        from mlflow_middleware.delivery.sinks import sink_for

        self._need_server()
        probe = EncodedTrace.encode(_probe())
        self.trace_id = probe.trace_id
        sink = sink_for(self.uri)
        began = time.monotonic()
        try:
            for _ in range(2):  # the second time is for a server that has just turned out to take no spans by OTLP
                apart = sink.sends_spans_apart
                self._may_be_left = True
                for outcome in sink.send_infos(self.experiment_id, [probe]):
                    if outcome is not None:
                        raise outcome
                if apart:
                    sink.send_spans(self.experiment_id, [probe])
                if apart == sink.sends_spans_apart:
                    break
        except (RetryableError, PermanentError) as problem:
            says = f"a trace could not be stored: {problem}; look at the server's log"
            raise Wrong(f"{says}{self._delete('; the probe was to be deleted')}") from problem
        finally:
            sink.close()
        self._stored_in = time.monotonic() - began
        return f"trace {self.trace_id} stored"

    def read_back(self) -> str:
        """The server gives the trace back, and deletes it when it is told to."""
        from mlflow_middleware import mlflow_bridge

        self._need_trace()
        try:
            status, answer = self._ask("GET", f"{_TRACES}/{self.trace_id}")
            info = answer["trace"]["trace_info"] if status == 200 else {}
            if info.get("tags", {}).get(mlflow_bridge.keys.NAME) != PROBE:
                raise Wrong(
                    f"{self._shown} took the trace, and does not give it back (status {status}); does this "
                    "user have the permission to read the experiment, and do all replicas share one database?"
                )
        except Wrong as problem:
            raise Wrong(f"{problem}{self._delete('; the probe was to be deleted')}") from problem
        return "found as written, and deleted again" + self._delete()

    def latency(self) -> str:
        """How long a trace takes; requests never wait for it."""
        self._need_trace()
        return (
            f"{_ms(self._answered_in)} for an answer, {_ms(self._stored_in)} to store a trace; no request waits for it"
        )

    # --- what waits ---

    def spool(self) -> str:
        """The spool can be written; what waits in it is told."""
        from mlflow_middleware.delivery.spool import Spool, SpoolFull, SpoolProblem

        directory = self.settings.spool_dir
        if directory is None:
            raise NotNeeded("spool_dir is not set: what cannot be sent waits in memory")
        spool = Spool(directory, self.settings.max_spool_bytes)
        try:
            spool.check()
        except SpoolFull as full:  # no failure: the app has to be let start to send it
            return (
                f"{full}, and takes nothing more until some of it is sent; raise MLFLOW_MIDDLEWARE_MAX_SPOOL_BYTES if "
                f"that happens again{_leftovers(directory, len(list(spool.files())))}"
            )
        except SpoolProblem as problem:
            raise Wrong(
                f"{problem}: make it a directory that this user may write to, or set MLFLOW_MIDDLEWARE_SPOOL_DIR to one"
            ) from problem
        return f"{directory} can be written{_leftovers(directory, len(list(spool.files())))}"

    # --- what they share ---

    @property
    def _shown(self) -> str:
        from mlflow_middleware.delivery.rest import printable

        return f"MLFLOW_TRACKING_URI={printable(self.uri)}"

    def _need_server(self) -> None:
        from mlflow_middleware.delivery.rest import serves

        if not serves(self.uri):
            raise NotNeeded("there is no server")

    def _need_trace(self) -> None:
        self._need_server()
        if not self.trace_id:
            raise NotNeeded("no trace was written")

    def _unreachable(self, error: Exception) -> str:
        from mlflow_middleware.delivery.rest import root_cause

        says = f"{self._shown} cannot be reached ({root_cause(error)})"
        if way_round := _way_round_the_proxy(self.uri):
            return says + way_round
        if self.uri.startswith("databricks"):
            return f"{says}; check DATABRICKS_HOST, and DATABRICKS_TOKEN or the profile in ~/.databrickscfg"
        host = urlsplit(self.uri).hostname or ""
        if host == "localhost" or host.startswith("127."):
            return (
                f"{says}; start the server, or correct the address: inside a container {host} is the container itself"
            )
        return f"{says}; start the server, or correct the address, or open the way there: DNS, firewall, proxy"

    def _ask(
        self, method: str, path: str, *, timeout: float = ANSWER_TIME, **kwargs: Any
    ) -> tuple[int, dict[str, Any]]:
        from mlflow_middleware.delivery.rest import ConnectionProblem, ask

        try:
            return ask(self.uri, method, path, timeout=timeout, **kwargs)
        except ConnectionProblem as problem:
            raise Wrong(self._told(problem)) from problem

    def _told(self, problem: ConnectionProblem) -> str:
        """A problem, and the proxy that may be its cause."""
        from mlflow_middleware.delivery.rest import Denied

        way_round = _way_round_the_proxy(self.uri) if isinstance(problem, Denied) else ""
        return f"{problem}; or a proxy denies it{way_round}" if way_round else str(problem)

    def clean_up(self) -> str:
        """Delete the probe when the time is over, in a moment; returns what is to be said, if it may be there."""
        if not self._may_be_left:
            return ""
        told: list[str] = []
        last = threading.Thread(target=lambda: told.append(self._delete(timeout=LAST_TIME)), daemon=True)
        last.start()
        last.join(LAST_TIME)
        if told == [""]:
            return f"; the probe {self.trace_id} has been deleted"
        return f"; the probe may be there: delete {self.trace_id} by hand"

    def _delete(self, done: str = "", timeout: float = ANSWER_TIME) -> str:
        """Delete the probe; returns what is to be said when that did not work, after what was ``done``."""
        body = {"experiment_id": self.experiment_id, "request_ids": [self.trace_id]}
        try:
            status, _ = self._ask("POST", _DELETE, json=body, timeout=timeout)
            problem = "" if status == 200 else f"status {status}"
        except Wrong as no_answer:
            problem = str(no_answer)
        self._may_be_left = bool(problem)
        return f"{done} - but that has failed ({problem}): delete {self.trace_id} by hand" if problem else ""


STEPS: tuple[tuple[str, tuple[str, ...], Callable[[_Chain], str]], ...] = (
    ("MLflow client", (), _Chain.client),
    ("settings", ("MLflow client",), _Chain.check_settings),
    ("tracking URI", ("MLflow client",), _Chain.check_uri),
    ("reachability", ("tracking URI",), _Chain.reach),
    ("TLS", ("reachability",), _Chain.tls),
    ("clock", ("TLS",), _Chain.clock),
    ("server version", ("TLS",), _Chain.version),
    ("credentials", ("TLS",), _Chain.credentials),
    ("experiment", ("credentials",), _Chain.experiment),
    ("write", ("experiment",), _Chain.write),
    ("read back", ("write",), _Chain.read_back),
    ("latency", ("write",), _Chain.latency),
    ("spool", ("settings",), _Chain.spool),
)
"""Each step: its name, the steps that it needs, and what does it."""


def _probe() -> Any:
    """A finished trace, opened and ended as a request's is."""
    from mlflow_middleware import delivery, mlflow_bridge

    finished: list[mlflow_bridge.FinishedTrace] = []
    ratio = _sampling_ratio()
    with delivery.capturing(finished.append):
        for _ in range(MAX_TRIES if 0 < ratio < 1 else 1):
            root = mlflow_bridge.open_root_span(PROBE, lambda known: None)
            if root is not None:
                root.end()
                break
    if finished:
        return finished[0]
    if 0 < ratio < 1:
        raise NotNeeded(f"MLFLOW_TRACE_SAMPLING_RATIO={ratio:g}: none of {MAX_TRIES} traces was taken")
    raise Wrong(
        "MLflow opens no trace in this process: look at MLFLOW_TRACE_SAMPLING_RATIO and OTEL_SDK_DISABLED, and for "
        "a call of mlflow.tracing.disable()"
    )


def _sampling_ratio() -> float:
    """The share of traces that MLflow takes, where it is told one."""
    try:
        return float(os.environ.get("MLFLOW_TRACE_SAMPLING_RATIO") or 1.0)
    except ValueError:
        return 1.0


def _leftovers(directory: Path, files: int) -> str:
    aside = directory / "set-aside"
    unread = len(list(aside.iterdir())) if aside.is_dir() else 0
    says = ""
    if files:
        says += (
            f"; {files} file{'s' * (files != 1)} of traces still wait{'s' * (files == 1)} there: an app with this "
            f"spool_dir sends them, or mlflow-middleware replay {directory}"
        )
    if unread:
        says += f"; {unread} that could not be read: look at them in {aside}, and remove them"
    return says


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


# --- TLS and proxies -------------------------------------------------------------------------------------------


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An exception and all that led to it; requests and urllib3 hand theirs on as arguments."""
    todo, seen = [error], set()
    while todo:
        each = todo.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        inner = [each.__cause__, each.__context__, getattr(each, "reason", None), *each.args]
        todo += [other for other in inner if isinstance(other, BaseException)]


def _tls_error(error: BaseException) -> BaseException | None:
    return next((each for each in _causes(error) if isinstance(each, ssl.SSLError)), None)


def _tls_remedy(error: BaseException) -> str:
    text = str(error)
    if "not yet valid" in text or "expired" in text:
        return f"the certificate is not valid today ({text}); renew it, or set this machine's clock"
    if "mismatch" in text or "doesn't match" in text:
        return f"the certificate is for another name ({text}); use the name that it is for in MLFLOW_TRACKING_URI"
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return (
            f"nobody here trusts the certificate ({text}); set MLFLOW_TRACKING_SERVER_CERT_PATH (or "
            "REQUESTS_CA_BUNDLE) to the file of the authority that signed it"
        )
    if "WRONG_VERSION_NUMBER" in text or "record layer" in text:
        return f"the server does not speak TLS there ({text}); write http:// in place of https://, or use its TLS port"
    return f"the TLS connection failed ({text}); check the server's certificate and the TLS versions of both sides"


def _proxy(uri: str) -> tuple[str, str] | None:
    """The proxy on the way to a server: the variable that names it, and its address without its password."""
    from requests.utils import get_environ_proxies, select_proxy

    from mlflow_middleware.delivery.rest import printable

    if not uri.startswith(("http://", "https://")):
        return None
    proxy = select_proxy(uri, get_environ_proxies(uri, no_proxy=None))
    if not proxy:
        return None
    names = (name for kind in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY") for name in (kind, kind.lower()))
    name = next((name for name in names if os.environ.get(name) == proxy), "the system's settings")
    return name, printable(proxy)


def _by_proxy(uri: str) -> str:
    proxy = _proxy(uri)
    return f" through the proxy {proxy[1]} ({proxy[0]})" if proxy else ""


def _way_round_the_proxy(uri: str) -> str:
    """What to do about a proxy that is in the way; empty when there is none."""
    proxy = _proxy(uri)
    if proxy is None:
        return ""
    host, port = urlsplit(uri).hostname, urlsplit(uri).port or (443 if uri.startswith("https") else 80)
    what = f"; {proxy[0]}={proxy[1]} sends these requests to a proxy"
    try:
        socket.create_connection((host, port), 1.0).close()
    except OSError:
        return f"{what}: correct or start the proxy, or unset the variable, or add {host} to NO_PROXY"
    return f"{what}, and the server can be reached without it: add {host} to NO_PROXY"

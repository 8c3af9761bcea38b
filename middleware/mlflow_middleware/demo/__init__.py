"""``mlflow-middleware demo``: real servers, real requests and their traces.

A ``mlflow server`` on SQLite and the example chat on FastAPI, Flask and Django run in separate processes. Each app is
sent a conversation, and the stored traces are compared with it. Each also serves a chat page; the first one is up
before everything else. No process and no file is left behind.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import requests

from mlflow_middleware.commands.table import Table
from mlflow_middleware.demo.processes import DemoError, Interrupted, Progress, Server
from mlflow_middleware.demo.traffic import ENVIRONMENT, Client, Row, Sent, compare, stored_traces

EXPERIMENT = "mlflow-middleware-demo"
SERVER_START, TRACES_STORED = 90.0, 60.0
"""Maximum number of seconds for a server's start, and until the traces are stored."""

FOREIGN_VARIABLES = (
    *("MLFLOW_", "_MLFLOW_", "DATABRICKS_", "OTEL_", "UVICORN_", "GUNICORN_", "WEB_CONCURRENCY"),
    *("OPENAI_", "CHAT_"),  # the demo does not use a paid model
)
"""Prefixes of variables that would configure the demo's processes from outside."""


@dataclass(frozen=True)
class Example:
    """An example app: its command, and its template of ``/chats/...``."""

    command: tuple[str, ...]
    route: str


UVICORN = ("-m", "uvicorn", "--host", "127.0.0.1", "--port", "{port}")
GUNICORN = ("-m", "gunicorn", "--bind", "127.0.0.1:{port}", "--threads", "4", "--graceful-timeout", "5")
EXAMPLES = {
    "fastapi": Example((*UVICORN, "chat.fastapi_app:app"), "/chats/{chat_id}"),
    "flask": Example((*GUNICORN, "chat.flask_app:app"), "/chats/<chat_id>"),
    "django": Example((*GUNICORN, "chat.django_app:wsgi"), "/chats/<str:chat_id>"),
}


def run(*, once: bool = False, as_json: bool = False) -> int:
    """Run the demo.

    Args:
        once: Whether to end when the traces have been read back, instead of serving until Ctrl-C.
        as_json: Whether to print the table as JSON.

    Returns:
        The exit code: 0 if every request's trace was found as sent, 1 if not, 2 if the demo cannot run here, or 128
        plus the number of a signal that ended it early.
    """
    if problem := why_not():
        print(problem, file=sys.stderr)
        return 2
    with Progress() as progress:
        try:
            return _run(progress, once, as_json)
        except Interrupted as interrupted:
            progress.show(f"{interrupted}: all servers have been stopped.")
            return interrupted.exit_code
        except (DemoError, requests.RequestException) as error:
            progress.show(f"The demo failed: {error}")
            return 1


def why_not() -> str | None:
    """Return the reason why the demo cannot run here, in a sentence; None if it can."""
    if not hasattr(os, "killpg"):
        return "mlflow-middleware demo needs process groups: it runs on Linux, macOS and WSL."
    missing = [name for name in (*EXAMPLES, "uvicorn", "gunicorn") if importlib.util.find_spec(name) is None]
    try:
        importlib.metadata.version("mlflow")  # the slim package also has a module of that name
    except importlib.metadata.PackageNotFoundError:
        missing.append("mlflow")
    if not missing:
        return None
    names = ", ".join(missing)
    return f"mlflow-middleware demo needs {names}: run python -m pip install 'mlflow-middleware[demo]'"


def examples_folder() -> Path:
    """Return the folder of the example apps: inside the installed package, or at the root of a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "examples"
    return installed if installed.is_dir() else package.parents[1] / "examples"


def _run(progress: Progress, once: bool, as_json: bool) -> int:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="mlflow-middleware-demo-")))
        http = stack.enter_context(requests.Session())
        http.trust_env = False  # no proxy for 127.0.0.1
        http.headers["Connection"] = "close"  # uvicorn closes a connection after a failure without notice
        mlflow = _start_mlflow(stack, folder)
        apps = _start_apps(stack, progress, http, folder, mlflow)
        progress.show(f"The demo's files are in {folder} until it stops.")
        experiment_id = _experiment_id(http, mlflow)
        sent = [each for name, app in apps.items() for each in _converse(http, name, app)]
        progress.show(f"{len(sent)} requests sent and answered.")
        rows = _read_back(progress, http, mlflow, experiment_id, sent)
        print(json.dumps([asdict(row) for row in rows], indent=2) if as_json else _table(rows), flush=True)
        _report_problems(progress, rows, apps)
        if not once:
            _report_addresses(progress, mlflow, experiment_id, apps)
            _serve(progress, [mlflow, *apps.values()])
        progress.show("Stopping the servers.")
    return 0 if all(row.found_as_sent for row in rows) else 1


# --- the servers -----------------------------------------------------------------------------------------------


def _environment(folder: Path, **variables: str) -> dict[str, str]:
    """Return this process's environment without variables that would configure the servers, and with ``variables``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN_VARIABLES)}
    return {
        **kept,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
        "PYTHONUNBUFFERED": "1",
        "XDG_RUNTIME_DIR": str(folder),  # for gunicorn's control socket, which would replace one of the user's own
        **variables,
    }


def _start_mlflow(stack: ExitStack, folder: Path) -> Server:
    command = [
        *("-m", "mlflow", "server", "--host", "127.0.0.1", "--port", "{port}", "--workers", "1"),
        *("--backend-store-uri", "sqlite:///mlflow.db"),  # an absolute path would need quoting
        *("--default-artifact-root", (folder / "artifacts").as_uri()),
    ]
    environment = _environment(folder, MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false")
    return stack.enter_context(Server("The MLflow server", command, environment, folder, folder / "mlflow.log"))


def _start_apps(
    stack: ExitStack, progress: Progress, http: requests.Session, folder: Path, mlflow: Server
) -> dict[str, Server]:
    """Start the apps, and wait for all servers: for the first app before the others use the processor."""
    environment = _environment(
        folder,
        MLFLOW_TRACKING_URI=mlflow.url,
        MLFLOW_EXPERIMENT_NAME=EXPERIMENT,
        ENVIRONMENT=ENVIRONMENT,
        APP_VERSION=importlib.metadata.version("mlflow-middleware"),
        DEPLOYMENT_ID="demo-1",
        REGION="local",
    )

    def start(name: str) -> Server:
        command, log = EXAMPLES[name].command, folder / f"{name}.log"
        return stack.enter_context(Server(f"The {name} app", command, environment, examples_folder(), log))

    first, *others = EXAMPLES
    apps = {first: start(first)}
    _wait_until_up(progress, http, f"Starting a page to chat with, at {apps[first].url}", [apps[first]])
    apps |= {name: start(name) for name in others}
    addresses = ", ".join(f"on {name} at {apps[name].url}" for name in others)
    _wait_until_up(progress, http, f"Starting an MLflow server on SQLite at {mlflow.url}", [mlflow])
    _wait_until_up(progress, http, f"Starting the same page {addresses}", list(apps.values()))
    return apps


def _wait_until_up(progress: Progress, http: requests.Session, what: str, servers: Sequence[Server]) -> None:
    waiting = list(servers)

    def all_up() -> bool:
        waiting[:] = [server for server in waiting if not server.is_up(http)]
        return not waiting

    if not progress.wait(what, all_up, SERVER_START):
        raise waiting[0].error(f"does not answer at {waiting[0].url}")


def _serve(progress: Progress, servers: Sequence[Server]) -> None:
    """Wait for Ctrl-C, or until a server ends."""
    with suppress(Interrupted):
        while True:
            for server in servers:
                server.check()
            progress.pause(0.2)


# --- the requests and their traces -----------------------------------------------------------------------------


def _experiment_id(http: requests.Session, mlflow: Server) -> str:
    """Return the experiment's id, whether an app or this process creates the experiment first."""
    experiments = f"{mlflow.url}/api/2.0/mlflow/experiments"
    http.post(f"{experiments}/create", json={"name": EXPERIMENT}, timeout=30)
    answer = http.get(f"{experiments}/get-by-name", params={"experiment_name": EXPERIMENT}, timeout=30)
    answer.raise_for_status()
    return str(answer.json()["experiment"]["experiment_id"])


def _converse(http: requests.Session, name: str, app: Server) -> list[Sent]:
    try:
        return Client(http, name, app.url, EXAMPLES[name].route).converse()
    except requests.RequestException as error:
        raise app.error(f"did not answer ({error})") from error


def _read_back(
    progress: Progress, http: requests.Session, mlflow: Server, experiment_id: str, sent: Sequence[Sent]
) -> list[Row]:
    rows: list[Row] = []

    def all_stored() -> bool:
        mlflow.check()
        rows[:] = compare(sent, stored_traces(http, mlflow.url, experiment_id))
        return all(row.found_as_sent for row in rows)

    progress.wait("Waiting for their traces to be stored", all_stored, TRACES_STORED, every=0.5)
    return rows


def _table(rows: Sequence[Row]) -> str:
    """Format the rows as text, with ``-`` for unknown values."""
    heads = ("app", "route", "status", "request id", "session", "user", "environment", "ms", "trace")
    lines = [
        (
            *(row.app, f"{row.method} {row.route}", str(row.status)),
            *(row.request_id or "-", row.session_id or "-", row.user_id or "-", row.environment or "-"),
            "-" if row.milliseconds is None else str(row.milliseconds),
            row.state if row.found_as_sent or row.state == "missing" else f"{row.state}, not as sent",
        )
        for row in rows
    ]
    return "\n".join(Table(heads).add(lines))


def _report_problems(progress: Progress, rows: Sequence[Row], apps: Mapping[str, Server]) -> None:
    wrong = [row for row in rows if not row.found_as_sent]
    for name in {row.app: None for row in wrong}:
        progress.show(f"The end of the {name} app's log:\n{apps[name].log_tail()}")
    for row in wrong:
        progress.show(f"{row.app}, {row.method} {row.route}, {row.request_id}: {'; '.join(row.problems)}.")
    progress.show(f"{len(rows) - len(wrong)} of {len(rows)} traces were found as sent.")


def _report_addresses(progress: Progress, mlflow: Server, experiment_id: str, apps: Mapping[str, Server]) -> None:
    traces = f"{mlflow.url}/#/experiments/{experiment_id}/traces"
    addresses = {f"The chat on {name}": app.url for name, app in apps.items()}
    addresses |= {"MLflow, traces": traces, "MLflow, sessions": f"{traces}?groupBy=session"}
    progress.show("".join(f"\n{what:21}{url}" for what, url in addresses.items()))
    progress.show(
        "\nSend a request of your own, or open the chat:\n"
        f"    curl -i {apps['fastapi'].url}/chats/mine/messages -H 'Content-Type: application/json' \\\n"
        "      -H 'X-Session-ID: mine' -H 'X-User-ID: me' \\\n"
        """      -d '{"messages": [{"role": "user", "content": "What is in Oslo?"}]}'\n"""
        "\nServing until Ctrl-C."
    )

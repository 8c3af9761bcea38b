"""Starts an app repeatedly, each time without one name of MLflow or OpenTelemetry, and sends it one request.

python -m tests.apps.missing_names EXPERIMENT FOLDER: prints the outcome of each as JSON. Each app is a fork of this
process, which has imported MLflow but nothing of the middleware. An app's log is a file in the folder.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import importlib
import importlib.util
import json
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

BRIDGE = Path(__file__).parents[2] / "middleware" / "mlflow_middleware" / "mlflow_bridge"
AT_ONCE = 3


def imported() -> Iterator[tuple[str, str]]:
    """Return every name that the bridge imports from MLflow or OpenTelemetry."""
    for path in sorted(BRIDGE.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("mlflow", "opentelemetry"):
                yield from ((str(node.module), alias.name) for alias in node.names)


def load_names(module: str) -> Any:
    """Load the bridge's list of names without the bridge itself, which would look them up."""
    spec = importlib.util.spec_from_file_location(module, BRIDGE / "names.py")
    assert spec
    assert spec.loader
    sys.modules[module] = names = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(names)
    return names


def listed() -> list[tuple[str, str]]:
    """Return every name of the bridge's list except CPython's, without which no import works."""
    names = load_names("names_of_the_bridge")
    known = [*((each.owner, each.name) for each in names.ALL), *names.UNDOCUMENTED]
    return [(owner, name) for owner, name in known if owner != "_frozen_importlib"]


def all_names() -> list[tuple[str, str]]:
    """Return both without duplicates and submodules, which still exist without their name."""
    names = sorted({*imported(), *listed()})
    return [
        (owner, name)
        for owner, name in names
        if importlib.util.find_spec(owner.partition(":")[0]) and not is_module(owner, name)
    ]


def is_module(owner: str, name: str) -> bool:
    """Return whether a name is that of a submodule."""
    return ":" not in owner and f"{owner}.{name}" in sys.modules


def hide(owner: str, name: str) -> None:
    """Remove a name."""
    if owner.endswith("()"):
        _hide_in_instances(owner, name)
        return
    module, _, rest = owner.partition(":")
    found: Any = importlib.import_module(module)
    for part in filter(None, rest.split(".")):
        found = getattr(found, part)
    if isinstance(found, ModuleType):
        found.__class__ = _module_without(name)
    elif name in vars(found):
        delattr(found, name)
    elif hasattr(type(found), name):
        delattr(type(found), name)


def _module_without(name: str) -> type[ModuleType]:
    """A module that hides a name, as after a renaming: its own functions still find it."""

    class Module(ModuleType):
        def __getattribute__(self, wanted: str) -> Any:
            if wanted == name:
                raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
            return super().__getattribute__(wanted)

    return Module


def _hide_in_instances(owner: str, name: str) -> None:
    """Keep the name, as nothing of MLflow or OpenTelemetry would work otherwise, but hide it from the bridge."""
    names = load_names("mlflow_middleware.mlflow_bridge.names")
    names.SAMPLES[owner] = object


async def ask(name: str) -> str:
    """Send one request to an app with the middleware, and one to an excluded path; return the answers."""
    from mlflow_middleware import delivery
    from mlflow_middleware.asgi import TraceMiddleware

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"answered"})

    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b'{"question": 1}'}

    async def send(message: Any) -> None:
        sent.append(message)

    ids = {b"x-request-id": name, b"x-session-id": "s-1", b"x-user-id": "jane"}
    headers = [(key, value.encode()) for key, value in ids.items()]
    scope = {"type": "http", "method": "POST", "path": "/ask", "headers": headers, "query_string": b""}
    traced = TraceMiddleware(app, tags={"plan": "pro"})
    await traced(scope, receive, send)
    await traced({**scope, "path": "/health", "headers": []}, receive, send)
    delivery.flush(5)
    return " ".join(each["body"].decode() for each in sent if "body" in each)


def ask_wsgi() -> str:
    """Send a request to the excluded path of a WSGI app."""
    from mlflow_middleware.wsgi import TraceMiddleware

    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b"answered"]

    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/health", "SERVER_NAME": "here", "SERVER_PORT": "80"}
    return b"".join(TraceMiddleware(app)(environ, lambda *args: print)).decode()


def run(owner: str, name: str, number: int, folder: Path) -> None:
    """Run a fork."""
    outcome: dict[str, Any] = {"name": f"{owner}.{name}", "id": f"n-{number}"}
    log = folder / f"{number}.log"
    logging.basicConfig(filename=log, format="%(name)s: %(message)s", force=True)
    try:
        hide(owner, name)
        outcome["answer"] = f"{asyncio.run(ask(f'n-{number}'))} {ask_wsgi()}"
        from mlflow_middleware import mlflow_bridge

        outcome["level"] = mlflow_bridge.found.level.name
    except BaseException:
        outcome["error"] = traceback.format_exc()
    lines = log.read_text().splitlines()
    outcome["lines"] = [line for line in lines if "does not fit this mlflow-middleware" in line]
    (folder / f"{number}.json").write_text(json.dumps(outcome))
    os._exit(0)


def main(folder: Path) -> None:
    for owner, name in {*imported(), *listed()}:
        importlib.import_module(owner.partition(":")[0])
        with contextlib.suppress(ImportError):
            importlib.import_module(f"{owner}.{name}")
    names, started = all_names(), 0
    pids: list[int] = []
    while started < len(names) or pids:
        if started < len(names) and len(pids) < AT_ONCE:
            pid = os.fork()
            if pid == 0:
                run(*names[started], started, folder)
            pids.append(pid)
            started += 1
        else:
            os.waitpid(pids.pop(0), 0)
    found = [json.loads((folder / f"{number}.json").read_text()) for number in range(len(names))]
    print(json.dumps(found))


if __name__ == "__main__":
    os.environ["MLFLOW_EXPERIMENT_NAME"] = sys.argv[1]
    main(Path(sys.argv[2]))
